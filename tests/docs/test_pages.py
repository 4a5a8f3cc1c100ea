# SPDX-License-Identifier: LGPL-2.1-or-later
"""What README, guides and manuals refer to is there: files, headings, sections, tests, targets."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs import manpage

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
GUIDES = [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "findings" / "README.md"]
COMPARISON = (ROOT / "docs" / "comparison.md").read_text()
DEFAULT_FILE = "tests/interop/test_faults.py"

guides = pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """The names by which GitHub's links lead to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}


@guides
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        if not path.startswith("http"):
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@guides
def test_every_file_and_make_target_exists(page: Path) -> None:
    text = page.read_text()
    files = set(re.findall(r"(?<![\w-])(?:docs|src|tests|tools|bench|findings)/[\w/.-]*\w", text))
    missing = {
        name for name in files if not any((at / name).exists() for at in (ROOT, page.parent))
    }
    assert missing <= {"findings/NAME.sh"}
    # In commands, indented or in backquotes: prose may make other things.
    named = set(re.findall(r"(?:^    |`|\w=\w+ )make ([a-z]+)", text, re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named - targets == set()


@pytest.mark.parametrize("text", [*manpage.PAGES, *GUIDES], ids=lambda one: Path(one).name)
def test_every_section_of_a_manual_that_is_referred_to_exists(text: str | Path) -> None:
    own = manpage.whole(text) if isinstance(text, str) else " ".join(text.read_text().split())
    references = re.findall(r"\b([A-Z][A-Z-]+(?: [A-Z][A-Z-]+)*) (?:in|of) (\w+)\(8\)", own)
    if isinstance(text, str):
        source = " ".join((manpage.DOCS / f"{text}.8").read_text().split())
        bold = re.findall(r"[Ss]ee \\fB([A-Z][A-Z -]+)\\fR(?! (?:in|of))", source)
        references += [(section, text) for section in bold]
    for section, page in references:
        assert section in manpage.read(page), f"{section} in {page}(8)"
    for page, quoted in re.findall(r'(\w+)\(8\)(?:\]\([^)]*\))?, "([^"]+)"', own):
        sections = manpage.read(page).values()
        headings = {entry.heading for section in sections for entry in section.entries}
        headings |= {name for section in sections for name in section.subsections}
        assert quoted in headings, f"{quoted} in {page}(8)"


def names_of_tests(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_row_of_the_comparison_names_its_test() -> None:
    rows = [line for line in COMPARISON.splitlines() if line.startswith("| ")][1:]
    rows = [line for line in rows if not line.startswith("| **the same")]
    assert len(rows) > 20
    for row in rows:
        last = row.strip("| ").rpartition("|")[2]
        files = re.findall(r"`(tests/[\w/]+\.py)`", last) or [DEFAULT_FILE]
        names = set(re.findall(r"`(test_\w+)`", last))
        assert names, f"no test: {row}"
        assert names - names_of_tests(ROOT / files[0]) == set(), (
            f"no such test in {files[0]}: {row}"
        )

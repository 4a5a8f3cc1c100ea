# SPDX-License-Identifier: GPL-2.0-or-later
"""What the README refers to is there, and its sample is what the demo prints."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import cannot_run

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
DEFAULT_FILE = "tests/interop/test_faults.py"


def test_every_make_target_exists() -> None:
    # In commands, indented or in backquotes: prose may make other things.
    named = set(re.findall(r"(?:^    |`|\w=\w+ )make ([a-z]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= named
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named - targets == set()


def test_every_file_exists() -> None:
    pattern = r"\b((?:docs|src|tests|tools|bench)/[\w/.-]*\w|tests/)"
    named = set(re.findall(pattern, README))
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert missing == []


def test_every_module_in_the_layout_exists_and_none_is_forgotten() -> None:
    layout = README[README.index("## Where things are") :]
    named = set(re.findall(r"^ +(\w+\.py) ", layout, re.MULTILINE)) | {"wire.py"}
    modules = {path.name for path in (ROOT / "src" / "kdumpfence").glob("*.py")}
    helpers = {"__init__.py", "_version.py", "filters.py", "signals.py"}
    assert named == modules - helpers


def names_of_tests(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_row_of_the_comparison_names_its_test() -> None:
    table = README[README.index("## Beside the stock programs") :].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
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


def without_figures(text: str) -> set[str]:
    """Return the lines with every number replaced, since times and ports differ."""
    return {" ".join(re.sub(r"\d+(\.\d\d)?", "0", line).split()) for line in text.splitlines()}


def can_open_raw_sockets() -> bool:
    rights = int(Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0], 16)
    return bool(rights >> 13 & 1)  # CAP_NET_RAW


def test_the_sample_is_what_the_demo_prints() -> None:
    if not can_open_raw_sockets():
        cannot_run("the sample was made with CAP_NET_RAW: run this as root")
    sample = README.split("```")[1]
    demo = [sys.executable, str(ROOT / "tools" / "demo.py")]
    done = subprocess.run(demo, capture_output=True, text=True, timeout=60, check=True)
    assert without_figures(sample) - without_figures(done.stdout) == set()


def test_the_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) - anchors == set()

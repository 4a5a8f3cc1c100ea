# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every file says under which licence it is, and all that name one name the same.

It works without git, as in an sdist, so it has a list of what may lie about.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.sources import ROOT

LICENCE = "LGPL-2.1-or-later"

#: Formats without comments, test data, what is all prose, and what is about the files beside it.
WITHOUT = (
    *("*.md", "*.json", "*.png", "*.typed", "LICENSE*", ".gitignore", "MANIFEST.in", "PKG-INFO"),
    *("fuzz/corpus/*", "packaging/common/ufw", "src/kdumpfence/install/distributions/common/nodes"),
    *(f"packaging/debian/{name}" for name in ("changelog", "control", "copyright")),
    *(f"packaging/debian/*{name}" for name in ("docs", "examples", "lintian-overrides", "format")),
    "setup.cfg",
)
BUILT = ("__pycache__", "*.egg-info", "_native", "*.so", "*.pyc", "build", "dist", ".git", ".venv*")
TOOLS = (".*_cache", ".hypothesis", ".benchmarks")


def sources() -> Iterator[Path]:
    """Every file that is not empty, as a path within the project."""

    def kept(names: list[str]) -> list[str]:
        return [n for n in names if not any(fnmatch.fnmatch(n, p) for p in (*BUILT, *TOOLS))]

    for folder, folders, files in os.walk(ROOT):
        folders[:] = kept(folders)
        for name in kept(files):
            path = Path(folder, name)
            if path.stat().st_size and not path.is_symlink():
                yield path.relative_to(ROOT)


def test_every_file_says_its_licence_in_its_first_lines() -> None:
    line = re.compile(rf"^\W*SPDX-License-Identifier: {re.escape(LICENCE)}(?: \*/| -->)?$", re.M)
    silent = [
        str(path)
        for path in sources()
        if not any(fnmatch.fnmatch(str(path), one) for one in WITHOUT)
        and not line.search("\n".join((ROOT / path).read_text().splitlines()[:3]))
    ]
    assert silent == []


def test_none_names_another() -> None:
    """But the word that the kernel looks for, Debian's copy of the text, and what it was before."""
    told = ("LICENSE", "CHANGELOG.md", Path(__file__).name)
    ours = re.compile(r"(?<![\w-])L?GPL(?:-\d[\w.]*(?:-or-later|-only)?)?\b")
    named = {
        (str(path), name)
        for path in sources()
        if path.name not in told
        for name in ours.findall((ROOT / path).read_text(errors="replace"))
    }
    assert {pair for pair in named if pair[1] != LICENCE} == {
        ("src/kdumpfence/listener/kernel/bpf.py", "GPL"),
        ("packaging/debian/copyright", "LGPL-2.1"),
    }


def test_what_is_handed_on_says_it_too() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert re.match(r"\s*GNU LESSER GENERAL PUBLIC LICENSE\n\s*Version 2\.1, February 1999\n", text)
    for file, line in (
        ("pyproject.toml", rf'^license = "{LICENCE}"$'),
        ("packaging/rpm/kdumpfence.spec", rf"^License:\s+{LICENCE}$"),
        ("packaging/debian/copyright", rf"^License: {LICENCE}$"),
        ("README.md", rf"\b{LICENCE}\b"),
    ):
        assert re.search(line, (ROOT / file).read_text(), re.MULTILINE), file

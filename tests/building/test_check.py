# SPDX-License-Identifier: LGPL-2.1-or-later
"""`make check FOR=...`: which tests guard which folder."""

from __future__ import annotations

import re
import sys

from tests.support.sources import ROOT, run
from tools.check import GUARDS

TESTS = ROOT / "tests"


def test_every_program_has_its_tests() -> None:
    folders = {path.parent.name for path in (ROOT / "src/kdumpfence").glob("*/__init__.py")}
    assert folders - set(GUARDS) == set()


def test_every_folder_of_tests_guards_something() -> None:
    folders = {str(path.parent.relative_to(TESTS)) for path in TESTS.rglob("test_*.py")}
    assert folders == {folder for guards in GUARDS.values() for folder in guards}


def test_a_folder_that_is_not_in_the_table_is_an_error() -> None:
    said = run(sys.executable, ROOT / "tools/check.py", "agent", "watcher", status=2).stdout
    assert said.startswith("watcher: not one of core, native, ")


def test_what_contributors_are_pointed_to_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:src|tests|tools|docs|packaging)/[\w/.-]+)`", text))
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []

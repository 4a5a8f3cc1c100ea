# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guards of CI itself, which nobody would miss if they were gone."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support.programs import NOBODY, as_user
from tests.support.sources import ROOT, run

SKIPPING = """
import pytest

@pytest.mark.skip(reason="a mark")
def test_marked(): pass

def test_calls(): pytest.skip("a call")

@pytest.fixture
def missing(): pytest.skip("a fixture")

def test_fixture(missing): pass

@pytest.mark.xfail(strict=True)
def test_known_to_fail(): assert False

@pytest.mark.skip(reason="this one may")
def test_may_skip(): pass
"""


def pytest_said(tmp_path: Path, ci: str) -> str:
    (tmp_path / "test_skips.py").write_text(SKIPPING)
    (tmp_path / "test_imports.py").write_text("import pytest; pytest.importorskip('no_such')")
    (tmp_path / "pytest.ini").write_text("[pytest]\nci_may_skip = test_skips.py::test_may_*\n")
    options = ("-p", "tests.ciguard", "-p", "no:cacheprovider", "--continue-on-collection-errors")
    command = (sys.executable, "-m", "pytest", *options, "-c", tmp_path / "pytest.ini", tmp_path)
    return run(*command, cwd=ROOT, status=None, env={"CI": ci}).stdout.splitlines()[-1]


def test_in_ci_a_skip_is_a_failure(tmp_path: Path) -> None:
    said = pytest_said(tmp_path, ci="true")
    assert re.search(r"1 failed, 1 skipped, 1 xfailed, 3 errors", said), said


def test_elsewhere_a_skip_is_a_skip(tmp_path: Path) -> None:
    said = pytest_said(tmp_path, ci="")
    assert re.search(r"5 skipped, 1 xfailed", said), said


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "1"])
def test_in_the_background_the_tests_are_the_same(workers: str) -> None:
    tests = "tests/agent/test_program.py", "-k", "a_signal_ends_it"
    command = (sys.executable, "-m", "pytest", "-q", "-n", workers, *tests)
    said = run("sh", "-c", "trap '' INT HUP; exec \"$@\"", "sh", *command, cwd=ROOT).stdout
    assert re.match(r"\d passed", said.splitlines()[-1]), said


def test_a_clone_that_only_root_may_enter_is_open_to_a_program_that_tests_run_as_nobody(
    root: None, tmp_path: Path
) -> None:
    folder = tmp_path / "closed" / "open" / "closed"
    folder.mkdir(parents=True)
    (folder / "file").write_text("seen")
    for closed in (folder, tmp_path / "closed"):
        closed.chmod(0o700)
    user = as_user(NOBODY, folder)
    assert run(*user, "cat", folder / "file").stdout == "seen"
    assert run(*user[user.index("setpriv") :], "cat", folder / "file", status=1)
    assert run(*user, "touch", folder / "file", status=1)


@pytest.mark.slow
def test_this_python_is_among_those_that_the_unit_tests_run_on() -> None:
    said = run(sys.executable, "-m", "tools.every_python", "--list").stdout
    assert sys.version.split()[0] in said

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Makefile, in a folder where all programs are made up and write down how they were called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.sources import ROOT

LOG = '#!/bin/sh\necho "$(basename "$0") $*" >> log\ncase "$0 $*" in $FAILS) exit 1 ;; esac\n'
PROGRAMS = ("python", "ruff", "mypy", "lint-imports", "cython-lint", "codespell", "shellcheck")
FIRST = ("ruff check", "tools.every_python")  # at the same time
PHASES = ("-m not alone", "tools.suite", "-m alone")
BESIDE = ("-m guest", "-m cluster")  # at the same time as a phase


class Folder:
    """Such a folder; where there is nothing to be installed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log"
        (path / ".venv" / "bin").mkdir(parents=True)
        for name in (*PROGRAMS, "hadolint", "kubernetes-validate", "zizmor"):
            script(path / ".venv" / "bin" / name, LOG)
        for name in ("tools", "src", ".ci", "findings", "packaging", "tests"):
            (path / name).mkdir()
        script(path / "tools" / "prerequisites.sh", "#!/bin/sh\n")
        script(path / "cc", "#!/bin/sh\n")
        for name in ("pyproject.toml", "setup.py"):
            (path / name).touch()
        for stamp in ("made", "test", "lint", "fuzz"):
            (path / ".venv" / f".{stamp}").touch()
        shutil.copy(ROOT / "Makefile", path)

    def make(self, target: str, fails: str = "") -> tuple[int, str]:
        """The exit status, and the log of this call."""
        self.log.write_text("")
        environment = {name: os.environ[name] for name in os.environ if not name.startswith("MAKE")}
        done = subprocess.run(
            ["make", target],
            cwd=self.path,
            env={**environment, "CC": "./cc", "MUSL_CC": "./musl-gcc", "FAILS": fails},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=60,
        )
        return done.returncode, self.log.read_text()


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.mark.parametrize("fails", ["", *FIRST, *PHASES, *BESIDE])
def test_no_phase_of_the_tests_keeps_another_from_being_run(folder: Folder, fails: str) -> None:
    pattern = fails.replace(" ", "?")  # of a shell
    status, log = folder.make("test", f"*{pattern}*" if fails else "")
    places = [max(map(log.find, FIRST)), *map(log.find, PHASES)]
    assert all(one in log for one in FIRST)
    assert -1 not in places, log
    assert places == sorted(places), log
    assert all(one in log for one in BESIDE)
    assert (status != 0) == bool(fails)


def test_a_compiler_that_comes_later_builds_the_senders_anew(folder: Folder) -> None:
    assert "setup.py" in folder.make("build")[1]
    assert folder.make("build") == (0, "")
    script(folder.path / "musl-gcc", "#!/bin/sh\n")
    assert "setup.py" in folder.make("build")[1]
    assert folder.make("build") == (0, "")

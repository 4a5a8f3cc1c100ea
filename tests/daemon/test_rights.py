# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the daemon may do, and what it lets others do."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.daemon import directories
from kdumpfence.daemon.settings import Settings
from tests.conftest import cannot_run
from tests.daemon.running import COMMAND, NODE, Kdumpfenced, patched
from tests.support.programs import as_user

# ------------------------------------------------------------------ its own


def rights(pid: int) -> set[tuple[str, str]]:
    """What each thread of the process may do, as /proc has it."""
    found = set()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        try:
            lines = status.read_text().splitlines()
        except OSError:  # that of a look-up may have ended meanwhile
            continue
        for line in lines:
            if line.startswith(("Cap", "NoNewPrivs")):
                name, value = line.split()
                found.add((name, value))
    return found


NOTHING = {(f"Cap{which}:", "0" * 16) for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")}


@pytest.mark.usefixtures("root")
def test_started_by_root_it_keeps_no_capability_in_any_thread(daemon: Kdumpfenced) -> None:
    daemon.configure(nodes='"name.invalid" = []')  # so there is a thread that looks it up
    daemon.start()
    daemon.get("/health")
    assert len(list(Path(f"/proc/{daemon.pid}/task").iterdir())) >= 4
    assert rights(daemon.pid) == NOTHING | {("NoNewPrivs:", "1")}


# Through seccomp nobody would get here; so let drop() do nothing.
KEEP = """
real = privileges.ctypes.CDLL(None, use_errno=True)
class Nothing:
    syscall = real.syscall
    prctl = type('F', (), {'__call__': lambda *a: 0})()
    capset = prctl
privileges.ctypes.CDLL = lambda *a, **k: Nothing
"""


@pytest.mark.usefixtures("root")
def test_capabilities_that_cannot_be_given_up_are_an_error(daemon: Kdumpfenced) -> None:
    done = daemon.run(program=patched(KEEP))
    assert done.returncode == 1
    assert done.stderr.startswith("kdumpfenced: cannot drop capabilities: CapPrm ")


def test_an_ordinary_user_can_run_it(public: Path, as_nobody: tuple[str, ...]) -> None:
    os.chown(public, 65534, 65534)
    daemon = Kdumpfenced(public)
    try:
        daemon.start(as_nobody)
        assert {("CapEff:", "0" * 16), ("NoNewPrivs:", "1")} <= rights(daemon.pid)
        daemon.hears(NODE)
        assert daemon.control.stat().st_uid == 65534
        assert daemon.end() == 0
    finally:
        daemon.close()


@pytest.mark.usefixtures("as_nobody")
def test_threads_that_cannot_be_had_are_said_in_one_line(public: Path) -> None:
    if shutil.which("prlimit") is None:
        cannot_run("prlimit is missing")
    nobody_else = 61947  # the limit counts what a user has in all
    os.chown(public, nobody_else, nobody_else)
    daemon = Kdumpfenced(public)
    done = daemon.run(wrapper=("prlimit", "--nproc=2:2", *as_user(nobody_else)))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(
        "kdumpfenced: can't start new thread: not allowed to start another thread"
    )
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------ others'


@pytest.fixture
def seen(public: Path) -> Iterator[Kdumpfenced]:
    """A daemon in a directory into which everybody can look, with directories still to be made."""
    made = Kdumpfenced(public)
    made.history = made.folder / "state/history.sqlite"
    made.control = made.folder / "run/control"
    made.configure()
    yield made
    made.close()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.slow
def test_what_others_cannot_read_they_cannot_lock(
    seen: Kdumpfenced, as_nobody: tuple[str, ...]
) -> None:
    seen.start(("sh", "-c", 'umask 000; exec "$@"', "sh"))
    seen.hears(NODE)
    assert (mode(seen.history.parent), mode(seen.control.parent)) == (0o700, 0o755)
    files = [Path(f"{seen.history}{tail}") for tail in ("", "-wal", "-shm")]
    assert {mode(path) for path in files} == {0o600}
    seen.history.parent.chmod(0o755)  # an old one
    for file in files:
        done = subprocess.run(
            [*as_nobody, "cat", file], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode != 0
        assert "Permission denied" in done.stderr
    # And they may ask all the same.
    done = subprocess.run(
        [*as_nobody, *COMMAND, "status", "--socket", str(seen.control)],
        env=seen.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert NODE in done.stdout


def test_a_group_may_be_let_in(seen: Kdumpfenced) -> None:
    seen.configure(history='mode = "0640"')
    seen.start()
    assert (mode(seen.history), mode(seen.history.parent)) == (0o640, 0o750)


@pytest.mark.parametrize(("name", "after"), [("own", 0o700), ("else", 0o755)])
def test_its_own_directory_is_closed_and_nobody_elses(
    tmp_path: Path, name: str, after: int
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name).chmod(0o755)
    settings = Settings(
        history_path=str(tmp_path / name / "history.sqlite"),
        control_path=str(tmp_path / "run" / "control"),
    )
    directories.make(settings, own=str(tmp_path / "own"))
    assert mode(tmp_path / name) == after


def test_a_place_that_everybody_can_take_is_told_of(seen: Kdumpfenced) -> None:
    seen.control.parent.mkdir()
    seen.control.parent.chmod(0o1777)
    seen.start()
    seen.says(f"control socket {seen.control}: everybody can write to its directory and take")

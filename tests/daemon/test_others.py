# SPDX-License-Identifier: GPL-2.0-or-later
"""What other users, wrong clocks, forged senders and odd files do to a daemon: nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.daemon import main as module
from kdumpfence.daemon.history import History
from kdumpfence.daemon.settings import Settings
from tests.conftest import cannot_run
from tests.daemon.running import Kdumpfenced, until
from tests.daemon.test_history import a_whole_dump

NODE = "127.3.0.7"
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.fixture
def as_nobody() -> tuple[str, ...]:
    """What a program is started with to run as another user."""
    if os.geteuid() != 0:
        cannot_run("this has to be started by root")
    if shutil.which("setpriv") is None:
        cannot_run("setpriv is missing")
    return NOBODY


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


# ------------------------------------------------------------------ rights


@pytest.fixture
def public() -> Iterator[Kdumpfenced]:
    """A daemon in a directory into which everybody can look, with directories still to be made."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        made = Kdumpfenced(Path(name))
        made.history = made.folder / "state/history.sqlite"
        made.control = made.folder / "run/control"
        made.configure()
        yield made
        made.close()


OPENING = """
import sqlite3, sys
for path in sys.argv[1:]:
    try:
        open(path, "rb")
    except OSError as error:
        print(error.strerror)
"""


@pytest.mark.parametrize("umask", ["000", "022", "077"])
@pytest.mark.slow
def test_what_others_cannot_read_they_cannot_lock(
    public: Kdumpfenced, as_nobody: tuple[str, ...], umask: str
) -> None:
    public.start(("sh", "-c", f'umask {umask}; exec "$@"', "sh"))
    public.hear(NODE)
    until(lambda: public.dumping() == {NODE})
    assert (mode(public.history.parent), mode(public.control.parent)) == (0o700, 0o755)
    files = [Path(f"{public.history}{tail}") for tail in ("", "-wal", "-shm")]
    assert {mode(path) for path in files} == {0o600}
    public.history.parent.chmod(0o755)  # an old one
    done = subprocess.run(
        [*as_nobody, sys.executable, "-c", OPENING, *files],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "Permission denied\n" * 3
    # And they may ask all the same.
    status = ("-m", "kdumpfence.cli", "status", "--socket", str(public.control))
    done = subprocess.run(
        [*as_nobody, sys.executable, *status],
        env=public.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert NODE in done.stdout


def test_a_history_that_let_others_in_does_not_any_more(public: Kdumpfenced) -> None:
    public.history.parent.mkdir(0o755)
    with History(str(public.history), mode=0o644) as old:
        old.record(a_whole_dump("node1", 1e9, 5))
    public.start()
    public.says(f"history: {public.history}: mode 0644 let others in: set to 0600")
    assert mode(public.history) == 0o600
    assert [dump.node for dump in public.past()] == ["node1"]


def test_a_group_may_be_let_in(public: Kdumpfenced) -> None:
    public.configure(history='mode = "0640"')
    public.start()
    assert (mode(public.history), mode(public.history.parent)) == (0o640, 0o750)


def test_its_own_directory_is_closed_and_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, after in (("own", 0o700), ("else", 0o755)):
        (tmp_path / name).mkdir(0o755)
        (tmp_path / name).chmod(0o755)
        monkeypatch.setattr(module, "HISTORY", str(tmp_path / "own" / "history.sqlite"))
        settings = Settings(
            history_path=str(tmp_path / name / "history.sqlite"),
            control_path=str(tmp_path / "run" / "control"),
        )
        module._make_directories(settings)
        assert mode(tmp_path / name) == after


@pytest.mark.slow
def test_who_holds_read_locks_delays_what_is_told_and_loses_nothing(daemon: Kdumpfenced) -> None:
    daemon.start()
    daemon.hear("127.0.0.2")
    daemon.says("began to dump")
    # SQLite's lock for writing, and that which keeps the index from being made anew. Only who can
    # read the files can do so.
    with open(f"{daemon.history}-shm", "rb") as index, open(daemon.history, "rb") as file:
        fcntl.lockf(index, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 120)
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 510, 0x40000002)
        daemon.hear("127.0.0.3")
        assert daemon.says("'127.0.0.3' began").endswith("(not in the history yet)")
        assert daemon.get("/health")[0] == 503
        daemon.hear("127.0.0.4")
        daemon.says("'127.0.0.4' began")
    daemon.says("history: works again after")
    assert {dump.node for dump in daemon.past()} == {f"127.0.0.{at}" for at in (2, 3, 4)}
    assert daemon.end() == 0


def test_a_place_that_everybody_can_take_is_told_of(public: Kdumpfenced) -> None:
    public.control.parent.mkdir()
    public.control.parent.chmod(0o1777)
    public.start()
    public.says(f"control socket {public.control}: everybody can write to its directory, and take")


# ------------------------------------------------------------------ clocks

AHEAD = """
import os, sys, time
real = time.time
time.time = lambda: real() + {seconds}
from kdumpfence.daemon import main as daemon
daemon.TRIM_EVERY = 0.2
daemon.script()
"""


@pytest.mark.parametrize("years", [-60, -1, 2, 30])
@pytest.mark.slow
def test_a_clock_that_is_wrong_at_the_start_removes_nothing(
    daemon: Kdumpfenced, years: int
) -> None:
    now = time.time()
    with History(str(daemon.history)) as before:
        for days in (0.01, 1, 300):
            before.record(a_whole_dump(f"node{days}", now - days * 86400, 60))
    daemon.configure(history="days = 400")
    seconds = years * 365.25 * 86400
    daemon.start(program=[sys.executable, "-c", AHEAD.format(seconds=seconds)])
    daemon.hear(NODE)
    daemon.says("began to dump")
    time.sleep(1)  # it trims five times
    assert daemon.end() == 0
    assert "old dumps were removed" not in daemon.said()
    assert len(daemon.past()) == 4
    # And with the right clock again, what the wrong one wrote is a dump like any other.
    daemon.start(program=[sys.executable, "-c", AHEAD.format(seconds=0)])
    time.sleep(1)
    assert daemon.end() == 0
    assert len(daemon.past()) == 4


# A day of the clock that nobody sets passes each second.
HURRYING = """
import time
began = time.monotonic()
time.clock_gettime = lambda clock: (time.monotonic() - began) * 86400
from kdumpfence.daemon import main as daemon
daemon.TRIM_EVERY = 0.2
daemon.script()
"""


@pytest.mark.slow
def test_what_has_been_over_for_long_enough_is_removed(daemon: Kdumpfenced) -> None:
    daemon.configure('networks = ["127.0.0.0/8"]\nsilence = 1', history="days = 3")
    daemon.start(program=[sys.executable, "-c", HURRYING])
    daemon.hear(NODE)
    daemon.says("fell silent")
    daemon.says("history: 1 old dumps were removed")
    assert daemon.past() == []


STEPS = """
import os, sys, time
real = time.time
time.time = lambda: real() + ({seconds} if os.path.exists({flag!r}) else 0)
from kdumpfence.daemon import main as daemon
daemon.script()
"""


def more_than(daemon: Kdumpfenced, messages: int) -> bool:
    """Send one more; whether the daemon has heard so many of the node's dump."""
    daemon.hear(NODE)
    return any(dump.messages > messages for dump in daemon.status().dumps)


@pytest.mark.parametrize("seconds", [86400, -86400])
@pytest.mark.slow
def test_the_clock_that_is_set_while_a_node_dumps_does_not_change_its_length(
    daemon: Kdumpfenced, seconds: int
) -> None:
    daemon.configure('networks = ["127.0.0.0/8"]\nsilence = 2\nrepeat = 1')
    flag = daemon.folder / "set"
    script = STEPS.format(seconds=seconds, flag=str(flag))
    daemon.start(program=[sys.executable, "-c", script])
    began = time.monotonic()
    daemon.hear(NODE)
    daemon.says("began to dump")
    flag.touch()
    until(lambda: more_than(daemon, 20))
    (shown,) = daemon.status().dumps
    daemon.says("fell silent")
    most = time.monotonic() - began
    (past,) = daemon.past()
    assert abs(past.last - past.since - seconds) < most  # its times are what the clocks said
    assert shown.took <= past.took + 0.001 < most
    assert shown.took > 0
    line = daemon.says("fell silent: it dumped for")
    assert float(line.partition("dumped for ")[2].split()[0]) <= most + 1
    page = daemon.get("/metrics")[1]
    assert "\nkdumpfence_dump_seconds_count 1.0\n" in page
    took = float(page.partition("\nkdumpfence_dump_seconds_sum ")[2].split()[0])
    assert abs(took - past.took) < 0.01
    # And a restart knows it as well.
    assert daemon.end() == 0
    done = subprocess.run(
        [sys.executable, "-m", "kdumpfence.cli", "history", "--file", daemon.history, "--json"],
        env=daemon.environment(), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert f'"took": {round(past.took, 3)}' in done.stdout


@pytest.mark.slow
def test_a_dump_keeps_its_length_over_a_restart(daemon: Kdumpfenced) -> None:
    flag = daemon.folder / "set"
    script = STEPS.format(seconds=86400, flag=str(flag))
    daemon.configure('networks = ["127.0.0.0/8"]\nrepeat = 1')
    daemon.start(program=[sys.executable, "-c", script])
    daemon.hear(NODE)
    daemon.says("began to dump")
    flag.touch()
    until(lambda: more_than(daemon, 20))
    assert daemon.end() == 0
    (before,) = daemon.past()
    assert before.last - before.since > 80000
    assert before.took < 60
    daemon.start(program=[sys.executable, "-c", script])
    (after,) = daemon.status().dumps
    assert after.took == pytest.approx(before.took, abs=0.01)


# ------------------------------------------------------------------ forged senders


@pytest.mark.slow
def test_a_flood_of_forged_senders_pushes_out_nothing_of_a_named_node(daemon: Kdumpfenced) -> None:
    most = 300
    daemon.configure(
        'networks = ["127.16.0.0/12"]\nsilence = 1\nrepeat = 1',
        'genuine = ["127.3.0.7"]\nother = ["127.3.0.8"]',
        log="lines = 10",
        history=f"most = {most}",
    )
    daemon.start()
    daemon.hear(NODE)
    daemon.says("node 'genuine' fell silent")
    storm = ("storm", f"--port={daemon.port}", "--from=127.16.0.0/12", "--nodes=3000")
    counts = []
    reader = sqlite3.connect(f"file:{daemon.history}?mode=ro", uri=True)
    with (
        subprocess.Popen(
            [sys.executable, "-m", "kdumpfence.cli", *storm, "--rate=3000", "--rounds=3"],
            env=daemon.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as forging,
        contextlib.closing(reader),
    ):
        while forging.poll() is None:
            daemon.hear("127.3.0.8")
            counts += reader.execute("SELECT count(*) FROM dump").fetchone()
            time.sleep(0.01)
        assert forging.stderr is not None
        assert (forging.returncode, forging.stderr.read()) == (0, b"")
    until(lambda: daemon.status().counts["accepted"] > 3000)
    assert max(counts) == most
    named = {dump.node for dump in daemon.past_of_all() if not dump.node.startswith("127.")}
    assert named == {"genuine", "other"}


# ------------------------------------------------------------------ odd files


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "huge"])
@pytest.mark.slow
def test_settings_that_are_no_file_hang_nothing(daemon: Kdumpfenced, kind: str) -> None:
    daemon.start()
    kept = daemon.settings.rename(daemon.folder / "kept")
    if kind == "fifo":
        os.mkfifo(daemon.settings)
    elif kind == "directory":
        daemon.settings.mkdir()
    elif kind == "device":
        daemon.settings.symlink_to("/dev/zero")
    else:
        with daemon.settings.open("wb") as file:
            file.truncate(1 << 40)
    daemon.send(signal.SIGHUP)
    daemon.says("settings refused: those from before stay in force")
    why = "more than" if kind == "huge" else "a regular file is needed"
    daemon.says(why)
    for arguments in ([], ["--check"]):
        done = daemon.run(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"kdumpfenced: {daemon.settings}: ")
        assert why in done.stderr
        assert len(done.stderr.splitlines()) == 1
    if kind == "directory":
        daemon.settings.rmdir()
    kept.rename(daemon.settings)
    daemon.send(signal.SIGHUP)
    daemon.says("settings read again: no change")
    daemon.hear(NODE)
    until(lambda: daemon.dumping() == {NODE})


@pytest.mark.parametrize("tails", [["-wal"], [""], ["", "-wal", "-shm"]])
@pytest.mark.slow
def test_what_was_told_survives_that_its_file_is_removed(
    daemon: Kdumpfenced, tails: list[str]
) -> None:
    daemon.configure('networks = ["127.0.0.0/8"]\nsilence = 1')
    daemon.start()
    daemon.hear("127.0.0.2")
    daemon.says("'127.0.0.2' fell silent")
    for tail in tails:
        os.unlink(f"{daemon.history}{tail}")
    # Nothing more happens, and it sees to it all the same.
    until(lambda: all(os.path.exists(f"{daemon.history}{tail}") for tail in ("", "-wal", "-shm")))
    until(lambda: [dump.node for dump in daemon.past_of_all()] == ["127.0.0.2"])
    daemon.hear("127.0.0.3")
    daemon.says("'127.0.0.3' began to dump")
    daemon.end(signal.SIGKILL)
    assert {dump.node for dump in daemon.past_of_all()} == {"127.0.0.2", "127.0.0.3"}
    assert daemon.said().count("not in the history") == 0

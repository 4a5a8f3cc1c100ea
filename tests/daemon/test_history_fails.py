# SPDX-License-Identifier: LGPL-2.1-or-later
"""A history that cannot be written does not stop the daemon, and gets what it missed."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from kdumpfence.daemon.history import History
from tests.conftest import cannot_run
from tests.daemon.running import NODE, Kdumpfenced, until

#: A daemon that runs for seconds.
pytestmark = pytest.mark.slow


@contextlib.contextmanager
def locked(history: Path) -> Iterator[None]:
    """Somebody else writes to it."""
    with contextlib.closing(sqlite3.connect(history, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def held(history: Path) -> Iterator[None]:
    """SQLite's lock for writing, and that which keeps the index from being made anew.

    Only who can read the files can have them.
    """
    with open(f"{history}-shm", "rb") as index, open(history, "rb") as file:
        fcntl.lockf(index, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 120)
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 510, 0x40000002)
        yield


@pytest.mark.parametrize("how", [locked, held])
def test_a_lock_delays_what_is_told_and_loses_nothing(
    daemon: Kdumpfenced, how: Callable[[Path], AbstractContextManager[None]]
) -> None:
    daemon.start()
    daemon.hears("127.0.0.2")
    with how(daemon.history):
        daemon.hear("127.0.0.3")
        daemon.says("locked by another program; still listening")
        until(lambda: daemon.get("/health")[0] == 503)
        assert "locked by another program" in daemon.get("/health")[1]
        # After a while it is told all the same, and said to be unwritten.
        assert daemon.says("'127.0.0.3' began to dump").endswith("(not in the history yet)")
        until(lambda: daemon.dumping() == {"127.0.0.2", "127.0.0.3"})
        assert any(line.startswith("history: ") for line in daemon.status().troubles)
        page = daemon.get("/metrics")[1]
        errors = re.findall(r"(?m)^kdumpfence_history_errors_total ([\d.]+)$", page)
        assert float(errors[0]) >= 1
        assert "\nkdumpfence_history_held 1.0\n" in page
    daemon.says("history: works again after")
    until(daemon.is_well)
    assert {past.node for past in daemon.past()} == {"127.0.0.2", "127.0.0.3"}
    assert daemon.end() == 0


def test_a_damaged_history_is_said_and_a_new_one_taken_when_it_is_gone(
    daemon: Kdumpfenced,
) -> None:
    damaged = b"this is no database, and long enough to be taken for one" * 100
    daemon.history.write_bytes(damaged)
    daemon.start()
    daemon.says("still listening, will try again")
    daemon.hear(NODE)
    daemon.page_with("\nkdumpfence_history_held 1.0\n")
    assert daemon.get("/health")[0] == 503
    # What it could not take is told at the end.
    assert daemon.end() == 1
    *_, told, missing, _ = daemon.said().splitlines()
    assert "began to dump" in told
    assert told.endswith("(not in the history yet)")
    assert missing == "history: what was last heard of 1 dump could not be written"
    daemon.start()
    daemon.hear(NODE)
    until(lambda: daemon.status().dumping == 1)
    assert daemon.history.read_bytes() == damaged
    daemon.history.rename(daemon.folder / "damaged")
    daemon.says("history: works again after")
    assert [past.node for past in daemon.past()] == [NODE]
    assert daemon.end() == 0


def test_a_history_with_a_row_that_is_no_dump_does_not_stop_it(daemon: Kdumpfenced) -> None:
    daemon.start()
    daemon.hears(NODE)
    assert daemon.end() == 0
    with contextlib.closing(sqlite3.connect(daemon.history)) as damaging, damaging:
        damaging.execute("UPDATE dump SET since = 'noon'")
    daemon.start()
    daemon.says("left untouched")
    daemon.hears("127.3.0.8")


def mounted(mounting: str, folder: Path) -> tuple[str, ...]:
    """What a program is started with for something to be mounted at "$0", the folder.

    Where nobody else sees it: in a mount namespace of the program's own.
    """
    wrapper = ("unshare", "--mount", "sh", "-c", f'{mounting} && exec "$@"', str(folder))
    probe = subprocess.run([*wrapper, "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        cannot_run(f"no mount namespace: {probe.stderr.decode()}")
    return wrapper


@pytest.fixture
def folder(daemon: Kdumpfenced, root: None) -> Path:
    """One of its own for the history."""
    made = daemon.folder / "state"
    made.mkdir()
    daemon.history = made / "history.sqlite"
    daemon.configure()
    return made


def test_a_history_that_may_not_be_written_says_why_and_works_once_it_may(
    daemon: Kdumpfenced, folder: Path
) -> None:
    folder.chmod(0o555)  # root without capabilities is refused as well
    daemon.start()
    daemon.says(f"history: {daemon.history}: permission denied: {folder}; still listening")
    folder.chmod(0o755)
    daemon.says("history: works again after")
    assert daemon.end() == 0
    daemon.start(mounted('mount --bind "$0" "$0" && mount -o remount,ro,bind "$0"', folder))
    why = f"{daemon.history}: the file system is mounted read-only"
    daemon.says(f"history: {why}; still listening")
    assert daemon.status().troubles == (f"history: {why}",)


def test_a_full_disk_does_not_stop_it(daemon: Kdumpfenced, folder: Path) -> None:
    daemon.start(mounted('mount -t tmpfs -o size=300k,mode=700 tmpfs "$0"', folder))
    seen = Path(f"/proc/{daemon.pid}/root") / str(folder)[1:]
    daemon.hears("127.0.0.2")
    ballast = seen / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096) == 4096:
            pass
    nodes = [f"127.11.{host // 200}.{host % 200 + 1}" for host in range(2000)]
    daemon.hear(*nodes)
    daemon.says("no space left on device; still listening")
    until(lambda: daemon.status().dumping == 2001)
    assert daemon.get("/health")[0] == 503
    daemon.hear("127.12.0.1")
    until(lambda: "127.12.0.1" in daemon.dumping())
    ballast.unlink()
    # Now there is room, if not for all that a log and a file of it take.
    subprocess.run(
        ["nsenter", f"--mount=/proc/{daemon.pid}/ns/mnt", "mount", "-o", "remount,size=30m",
         folder],
        check=True,
    )  # fmt: skip
    daemon.says("history: works again after")
    until(daemon.is_well)
    shutil.copytree(seen, daemon.folder / "copy")
    with History(str(daemon.folder / "copy/history.sqlite")) as history:
        found = {past.node for past in history.past(most=9999)}
    assert found == {*nodes, "127.0.0.2", "127.12.0.1"}
    assert daemon.end() == 0


def test_a_history_that_can_be_opened_only_later(daemon: Kdumpfenced) -> None:
    daemon.start()
    daemon.hears("127.0.0.2", "127.0.0.3")
    daemon.end(signal.SIGKILL)
    shutil.copy(daemon.history, daemon.folder / "kept")
    (daemon.folder / "history.sqlite-wal").rename(daemon.folder / "kept-wal")
    daemon.history.unlink()
    daemon.history.mkdir()
    daemon.start()
    daemon.says("still listening")
    daemon.hears("127.0.0.3")
    # It would make a new one between two of these.
    daemon.send(signal.SIGSTOP)
    daemon.history.rmdir()
    (daemon.folder / "kept-wal").rename(daemon.folder / "history.sqlite-wal")
    (daemon.folder / "kept").rename(daemon.history)
    daemon.send(signal.SIGCONT)
    daemon.says("history: works again")
    # What was under way before has an end, and what is now is another dump.
    (gone,) = daemon.past("127.0.0.2")
    assert gone.ended is not None
    newest, before = daemon.past("127.0.0.3")
    assert (newest.ended is None, before.ended is None) == (True, False)


def test_what_was_told_survives_that_its_file_is_removed(daemon: Kdumpfenced) -> None:
    daemon.configure('networks = ["127.0.0.0/8"]\nsilence = 1')
    daemon.start()
    daemon.hear("127.0.0.2")
    daemon.says("'127.0.0.2' fell silent")
    files = [Path(f"{daemon.history}{tail}") for tail in ("", "-wal", "-shm")]
    for file in files:
        file.unlink()
    # Nothing more happens, and it sees to it all the same.
    until(lambda: all(file.exists() for file in files))
    until(lambda: [dump.node for dump in daemon.past()] == ["127.0.0.2"])
    daemon.hear("127.0.0.3")
    daemon.says("'127.0.0.3' began to dump")
    daemon.end(signal.SIGKILL)
    assert {dump.node for dump in daemon.past()} == {"127.0.0.2", "127.0.0.3"}
    assert daemon.said().count("not in the history") == 0

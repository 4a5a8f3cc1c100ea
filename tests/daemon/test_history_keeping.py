# SPDX-License-Identifier: GPL-2.0-or-later
"""What is kept in the history: whatever the clock, strangers and those do who tidy up files."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from kdumpfence.daemon.history import History, HistoryError
from kdumpfence.daemon.history_file import SCHEMA
from kdumpfence.listener.dumps import Event
from tests.cli.commands import run_program
from tests.daemon.test_history import START, Clock, a_whole_dump, event, tamper

ROOT = Path(__file__).resolve().parents[2]
DAY = 86400.0


def nodes_in(path: str) -> list[str]:
    """The nodes of all dumps, as another process finds them."""
    program = (
        "import sys; from kdumpfence.daemon.history import History\n"
        "with History(sys.argv[1], writable=False) as h:\n"
        "    print(*(dump.node for dump in h.past(most=10**6)))\n"
    )
    done = run_program(program, path)
    assert done.stderr == ""
    return sorted(done.stdout.split())


# --- files that are taken away --------------------------------------------------------------


def remove(*tails: str) -> Callable[[str], None]:
    def taken(path: str) -> None:
        for tail in tails:
            os.unlink(path + tail)

    return taken


def rename(old: str, new: str) -> Callable[[str], None]:
    return lambda path: os.rename(path + old, path + new)


TAKEN = {
    "log": remove("-wal"),
    "index": remove("-shm"),
    "log and index": remove("-wal", "-shm"),
    "file": remove(""),
    "file and log": remove("", "-wal"),
    "all": remove("", "-wal", "-shm"),
    "renamed log": rename("-wal", "-old"),  # which is then no log of anything
    "file for a copy": rename(".backup", ""),  # of before the last dump
    "file for an empty one": rename(".empty", ""),
}


@pytest.mark.parametrize("what", list(TAKEN))
@pytest.mark.parametrize("then", ["record", "look", "close"])
def test_what_was_recorded_is_there_whatever_is_taken_away(path: str, what: str, then: str) -> None:
    opened = History(path)
    opened.record(a_whole_dump("before", START, 5))
    with (
        contextlib.closing(sqlite3.connect(path)) as other,
        contextlib.closing(sqlite3.connect(path + ".backup")) as copy,
    ):
        other.backup(copy)
    Path(path + ".empty").touch()
    opened.record([*a_whole_dump("over", START + 1, 5), event("began", "node1", START + 2)])
    TAKEN[what](path)
    expected = ["before", "node1", "over"]
    if then == "record":
        opened.record([event("dumping", "node1", START + 2, 7.0, 2), event("began", "new")])
        expected.append("new")
    elif then == "look":
        opened.look()
    else:
        opened.close()
    assert nodes_in(path) == sorted(expected)
    opened.close()
    assert nodes_in(path) == sorted(expected)
    assert not [one.name for one in Path(path).parent.iterdir() if "rescued" in one.name]
    assert os.stat(path).st_mode & 0o777 == 0o600


KILLED = """
import os, signal, sys
from kdumpfence.daemon.history import History
from kdumpfence.listener.dumps import Event
path, tails = sys.argv[1], sys.argv[2].split(",")
opened = History(path)
write = opened._write
def taken_away(*events):
    write(*events)
    for tail in tails:
        os.unlink(path + tail)
opened._write = taken_away
opened.record([Event("silent", "node1", 1e9, 1e9, 1e9, 1, ("192.0.2.1",))])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("tails", ["-wal", ",-wal", ",-wal,-shm"])
def test_what_was_taken_away_while_it_was_written_survives_a_kill(path: str, tails: str) -> None:
    done = run_program(KILLED, path, tails)
    assert (done.returncode, done.stderr) == (-9, "")
    assert nodes_in(path) == ["node1"]


def test_what_cannot_be_put_back_yet_is_kept_until_it_can(path: str) -> None:
    opened = History(path)
    opened.record(a_whole_dump("node1", START, 5))
    for tail in ("", "-wal", "-shm"):
        os.unlink(path + tail)
    os.mkdir(path)
    for _ in range(3):
        with pytest.raises(HistoryError, match=r"not a regular file|closed"):
            opened.record([event("began", "node2")])
    opened.close()
    with pytest.raises(HistoryError, match="not a regular file"):
        History(path)
    os.rmdir(path)
    with History(path) as opened:
        assert [dump.node for dump in opened.past()] == ["node1"]


def test_a_copy_that_was_put_in_its_place_gets_what_it_lacks(path: str) -> None:
    opened = History(path)
    opened.record([event("began", "node1"), *a_whole_dump("node2", START + 1, 5)])
    shutil.copy(path, path + ".kept")
    shutil.copy(path + "-wal", path + ".kept-wal")
    opened.record([event("silent", "node1", took=60, messages=7)])
    for tail in ("", "-wal"):
        os.rename(f"{path}.kept{tail}", path + tail)
    os.unlink(path + "-shm")
    opened.record(a_whole_dump("node3", START + 2, 5))
    found = {dump.node: dump for dump in opened.past()}
    opened.close()
    assert sorted(found) == ["node1", "node2", "node3"]
    assert (found["node1"].messages, found["node1"].took) == (7, 60)


def test_a_reader_that_keeps_the_log_open_delays_that_it_is_put_back(path: str) -> None:
    opened = History(path)
    opened.record(a_whole_dump("node1", START, 5))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM dump").fetchone() == (1,)
        opened.record(a_whole_dump("node2", START + 1, 5))
        os.unlink(path + "-wal")
        with pytest.raises(HistoryError, match="its log was taken away"):
            opened.record([event("began", "node3")])
        assert not opened.in_place
        reader.execute("ROLLBACK")
    opened.record([event("began", "node3")])
    assert nodes_in(path) == ["node1", "node2", "node3"]
    opened.close()


# --- two daemons ----------------------------------------------------------------------------

SECOND = """
import sys
from kdumpfence.daemon.history import History, HistoryInUse
try:
    History(sys.argv[1])
except HistoryInUse as error:
    print(error)
"""


@pytest.mark.parametrize("how", ["same", "symlink", "hard link", "directory"])
def test_a_second_daemon_is_refused_by_whatever_name_it_comes(tmp_path: Path, how: str) -> None:
    (tmp_path / "state").mkdir()
    path, other = tmp_path / "state" / "history", tmp_path / "other"
    with History(str(path)) as opened:
        opened.record(a_whole_dump("node1", START, 5))
        if how == "same":
            other = path
        elif how == "symlink":
            other.symlink_to(path)
        elif how == "hard link":
            os.link(path, other)
        else:
            other.symlink_to(tmp_path / "state")
            other /= "history"
        for _ in range(2):  # what the first try leaves behind changes nothing
            done = run_program(SECOND, str(other))
            assert done.stdout.startswith(f"{other}: in use by another kdumpfenced: ")
        opened.record(a_whole_dump("node2", START + 1, 5))
        assert nodes_in(str(path)) == ["node1", "node2"]


# --- who may --------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_nobody_else_may_open_the_file_or_its_log(path: str, mask: int) -> None:
    before = os.umask(mask)
    try:
        with History(path) as opened:
            opened.record(a_whole_dump("node1", START, 5))
            for tail in ("", "-wal", "-shm"):
                assert os.stat(path + tail).st_mode & 0o777 == 0o600
            assert opened.amended == []
    finally:
        os.umask(before)


def test_what_let_others_in_does_not_any_more_and_is_told_of(path: str) -> None:
    with History(path, mode=0o644) as first:
        first.record(a_whole_dump("node1", START, 5))
        for tail in ("", "-wal", "-shm"):
            shutil.copy(path + tail, path + ".copy" + tail)
    copy = path + ".copy"
    for tail in ("", "-wal", "-shm"):
        os.chmod(copy + tail, 0o644)
    with History(copy) as opened:
        assert opened.amended == [
            f"{copy}{tail}: mode 0644 was too open; set to 0600" for tail in ("", "-wal", "-shm")
        ]
        for tail in ("", "-wal", "-shm"):
            assert os.stat(copy + tail).st_mode & 0o777 == 0o600
    with History(copy, mode=0o640) as opened:
        assert opened.amended == []
        assert os.stat(copy).st_mode & 0o777 == 0o640


@pytest.mark.parametrize("tail", ["", "-wal", "-shm", "-rescued"])
def test_a_file_that_somebody_else_put_there_is_not_believed(
    path: str, tail: str, root: None
) -> None:
    History(path).close()
    Path(path + tail).touch()
    os.chown(path + tail, 65534, 65534)
    with pytest.raises(HistoryError, match=f"{path}{tail}: owned by user 65534"):
        History(path)
    if tail:
        os.unlink(path + tail)
        History(path).close()


@pytest.mark.parametrize("whose", ["everybody's", "somebody's"])
def test_a_directory_to_which_others_can_write_is_told_of(
    tmp_path: Path, root: None, whose: str
) -> None:
    if whose == "everybody's":
        tmp_path.chmod(0o1777)
    else:
        os.chown(tmp_path, 65534, 65534)
    with History(str(tmp_path / "history")) as opened:
        assert len(opened.amended) == 1
        assert "others can write to its directory" in opened.amended[0]


# --- by age ---------------------------------------------------------------------------------


def test_age_is_the_time_for_which_daemons_ran_whatever_the_system_clock_said(path: str) -> None:
    clock = Clock()
    with History(path, clock=clock) as opened:
        opened.record(a_whole_dump("ahead", START + 50 * 365 * DAY, 5))
        opened.record(a_whole_dump("behind", 0.0, 5))
        opened.record(a_whole_dump("right", START, 5))
        clock.now += 399 * DAY
        assert opened.trim(400 * DAY, 1000) == 0
        clock.now += 2 * DAY
        assert opened.trim(400 * DAY, 1000) == 3


def test_a_machine_that_was_off_for_a_year_goes_on_counting_where_it_was(path: str) -> None:
    clock = Clock()
    with History(path, clock=clock) as opened:
        opened.record(a_whole_dump("node1", START, 5))
        clock.now += 300 * DAY
        opened.trim(400 * DAY, 1000)
    clock = Clock()  # as after a boot
    with History(path, clock=clock) as opened:
        opened.record(a_whole_dump("node2", START + 700 * DAY, 5))
        assert opened.trim(400 * DAY, 1000) == 0
        clock.now += 101 * DAY
        assert opened.trim(400 * DAY, 1000) == 1
        assert [dump.node for dump in opened.past()] == ["node2"]
        clock.now += 300 * DAY
        assert opened.trim(400 * DAY, 1000) == 1


def test_a_daemon_that_is_always_killed_gets_older_as_well(path: str) -> None:
    for _ in range(5):
        clock = Clock()
        opened = History(path, clock=clock)
        if not opened.past():
            opened.record(a_whole_dump("node1", START, 5))
        clock.now += 100 * DAY
        removed = opened.trim(400 * DAY, 1000)
        opened._file.close()  # as the kernel does it
    assert removed == 1


def test_what_a_dump_took_is_not_what_the_clock_made_of_it(path: str) -> None:
    told = event("silent", "node1", START, 5.0)._replace(last=START + 3600 * 24, took=42.5)
    back = event("silent", "node2", START, 5.0)._replace(last=START - 3600, took=17.0)
    with History(path) as opened:
        opened.record([told, back])
        assert {dump.node: dump.took for dump in opened.past()} == {"node1": 42.5, "node2": 17.0}


# --- by number ------------------------------------------------------------------------------


def begun(nodes: Iterable[str], since: float = START) -> list[Event]:
    return [event("began", node, since) for node in nodes]


def over(nodes: Iterable[str], since: float = START) -> list[Event]:
    return [event("silent", node, since, 5.0, 2) for node in nodes]


def names_of(opened: History) -> set[str]:
    return {dump.node for dump in opened.past(most=10**6)}


def test_there_are_never_more_dumps_than_that(path: str) -> None:
    named = {"node1", "node2"}
    seen: list[int] = []

    def count(opened: History) -> None:
        with contextlib.closing(sqlite3.connect(path)) as reader:
            seen.extend(reader.execute("SELECT count(*) FROM dump").fetchone())

    with History(path) as opened:
        opened.mark(named)
        opened.record([*begun(["node1"]), *over(["node1"]), *begun(["node2"])], 100, named)
        for at in range(30):
            flood = [f"10.0.{at}.{n}" for n in range(70)]
            opened.record(begun(flood, START + at), 100, named)
            count(opened)
            opened.record(over(flood, START + at), 100, named)
            count(opened)
        assert max(seen) == 100
        assert named <= names_of(opened)
        assert {dump.node for dump in opened.under_way()} == {"node2"}
        # Those that came last are the ones that are kept.
        assert {node.split(".")[2] for node in names_of(opened) - named} == {"28", "29"}
        assert opened.trim(1e9, 100) == 30 * 70 + 2 - 100  # were removed since the last time
        assert opened.trim(1e9, 100) == 0


def test_strangers_under_way_go_before_anything_of_a_named_node(path: str) -> None:
    named = {f"node{n}" for n in range(10)}
    with History(path) as opened:
        opened.record(over(sorted(named)[:5]), 20, named)
        opened.record(begun(sorted(named)[5:]), 20, named)
        strangers = [f"10.0.0.{n}" for n in range(50)]
        opened.record(begun(strangers), 20, named)
        assert len(names_of(opened)) == 20
        assert named <= names_of(opened)
        assert names_of(opened) - named == set(strangers[40:])
        # One that was pushed out and goes on is a dump like any other.
        opened.record([event("dumping", strangers[0], START, 9.0, 5)], 20, named)
        assert strangers[0] in names_of(opened)
        opened.record(over([strangers[0]]), 20, named)
        assert len(opened.past(strangers[0])) == 1


def test_named_nodes_make_room_for_named_nodes(opened: History) -> None:
    for at in range(10):
        opened.record(over([f"node{at}"], START + at), 4)
    assert names_of(opened) == {"node6", "node7", "node8", "node9"}
    # Those under way stay, how many there may be.
    opened.record(begun([f"node{at}" for at in range(6)], START + 100), 4)
    assert names_of(opened) == {f"node{at}" for at in range(6)}


def test_who_is_named_is_what_the_settings_say_now(opened: History) -> None:
    opened.record(over(["a", "b", "c"]), 100, {"a"})
    opened.record(begun(["d"]), 100, {"a"})
    opened.mark({"b", "d"})
    opened.record(over(["x", "y"], START + 1), 3, {"b", "d"})
    assert names_of(opened) == {"b", "d", "y"}


def test_rows_that_others_removed_are_counted_again_by_the_trim(path: str, opened: History) -> None:
    opened.record(over([f"n{at}" for at in range(10)]), 10)
    tamper(path, "DELETE FROM dump WHERE id > 5")
    opened.trim(1e9, 10)
    opened.record(over([f"m{at}" for at in range(5)]), 10)
    assert len(names_of(opened)) == 10


def test_the_file_does_not_grow_in_a_flood(path: str, opened: History) -> None:
    sizes = []
    for at in range(40):
        flood = [f"10.{at}.{n // 250}.{n % 250}" for n in range(1000)]
        opened.record(begun(flood, START + at), 2000, ())
        opened.record(over(flood, START + at), 2000, ())
        tamper(path, "PRAGMA wal_checkpoint(TRUNCATE)")
        sizes.append(os.path.getsize(path))
    assert sizes[-1] <= 1.5 * sizes[3]


# --- files of before ------------------------------------------------------------------------

FORM_1 = """
CREATE TABLE dump (id INTEGER PRIMARY KEY, node TEXT NOT NULL, since REAL NOT NULL,
    last REAL NOT NULL, ended REAL, messages INTEGER NOT NULL, addresses TEXT NOT NULL);
INSERT INTO dump VALUES (1, 'node1', 1000.0, 1060.5, 1090.5, 7, '192.0.2.1 2001:db8::1');
INSERT INTO dump VALUES (2, '192.0.2.9', 2000.0, 2010.0, NULL, 2, '192.0.2.9');
PRAGMA user_version = 1;
PRAGMA application_id = 1801744486;
PRAGMA journal_mode = WAL;
"""


def of_form_1(path: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(FORM_1)


def test_a_file_of_the_form_before_is_read_as_it_is(path: str) -> None:
    of_form_1(path)
    before = Path(path).read_bytes()
    with History(path, writable=False) as opened:
        over, under_way = sorted(opened.past(), key=lambda dump: dump.since)
        assert (over.node, over.messages, over.took) == ("node1", 7, 0.0)
        assert [dump.node for dump in opened.under_way()] == [under_way.node]
    assert Path(path).read_bytes() == before


def test_a_file_of_the_form_before_is_taken_over_and_nothing_of_it_is_old(path: str) -> None:
    of_form_1(path)
    clock = Clock()
    with History(path, clock=clock) as opened:
        opened.mark({"node1"})
        clock.now += 399 * DAY
        assert opened.trim(400 * DAY, 1000) == 0
        opened.record([event("silent", "192.0.2.9", 2000.0, 30.0, 5)], 2, {"node1"})
        assert [dump.took for dump in opened.past()] == [30.0, 0.0]
        opened.record(over(["node1"], 9000.0), 2, {"node1"})
        assert names_of(opened) == {"node1"}
        clock.now += 2 * DAY
        assert opened.trim(400 * DAY, 1000) == 1 + 1  # and the one that was pushed out
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (SCHEMA,)

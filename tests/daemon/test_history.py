# SPDX-License-Identifier: GPL-2.0-or-later
"""What was recorded is in the file, whatever happens to the process, the disk and the file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from kdumpfence.daemon import history as module
from kdumpfence.daemon import history_file
from kdumpfence.daemon.history import History, HistoryError, Past
from kdumpfence.daemon.history_file import APPLICATION, SCHEMA
from kdumpfence.listener.dumps import Dump, Event
from tests.cli.commands import run_program

ROOT = Path(__file__).resolve().parents[2]
START = 1_795_000_000.25


def event(
    kind: str,
    node: str = "node1",
    since: float = START,
    took: float = 0.0,
    messages: int = 1,
    addresses: tuple[str, ...] = ("192.0.2.1",),
) -> Event:
    """One event; a dump that fell silent was taken for over after 30 s."""
    last = since + took
    when = last + 30 if kind == "silent" else last
    return Event(kind, node, when, since, last, messages, addresses)


def a_whole_dump(node: str, since: float, took: float) -> list[Event]:
    return [event("began", node, since), event("silent", node, since, took, 2)]


# --- what is written and read ---------------------------------------------------------------


def test_a_dump_from_its_beginning_to_its_end_is_one_entry(path: str) -> None:
    both = ("192.0.2.1", "2001:db8::1")
    with History(path) as opened:
        opened.record([event("began")])
        assert opened.under_way() == [Dump("node1", START, START, 1, ("192.0.2.1",))]
        opened.record([event("dumping", took=10.5, messages=3, addresses=both)])
        assert opened.under_way() == [Dump("node1", START, START + 10.5, 3, both, 10.5)]
        opened.record([event("silent", took=20.75, messages=5, addresses=both)])
        assert opened.under_way() == []
    with History(path) as opened:
        assert opened.past() == [Past("node1", START, START + 20.75, START + 50.75, 5, both, 20.75)]


def test_the_events_of_one_call_count_in_their_order(path: str) -> None:
    second = START + 500
    with History(path) as opened:
        opened.record(
            [
                event("began"),
                event("dumping", took=5, messages=2),
                event("silent", took=5, messages=2),
                event("began", since=second),
            ]
        )
        assert [(dump.since, dump.ended) for dump in opened.past()] == [
            (second, None),
            (START, START + 35),
        ]


def test_a_daemon_that_starts_again_goes_on_with_the_same_entry(path: str) -> None:
    with History(path) as opened:
        for _ in range(2):  # the same events twice are the same dumps
            opened.record([event("began"), event("began", "node2", START + 1)])
    with History(path) as opened:
        assert [dump.node for dump in opened.under_way()] == ["node1", "node2"]
        opened.record([event("dumping", took=60, messages=7), event("silent", "node2", START + 1)])
        assert [dump.node for dump in opened.under_way()] == ["node1"]
        assert len(opened.past()) == 2


def test_a_new_dump_of_a_node_ends_one_whose_end_was_never_told(opened: History) -> None:
    opened.record([event("began")])
    opened.record([event("began", since=START + 1000)])
    assert [dump.ended for dump in opened.past()] == [None, START + 1000]
    opened.record([event("began", since=START + 2000), event("began", since=START + 3000)])
    assert [dump.since for dump in opened.past() if dump.ended is None] == [START + 3000]


def test_a_dump_whose_beginning_was_not_recorded_is_there_all_the_same(opened: History) -> None:
    opened.record([event("dumping", took=100, messages=11)])
    opened.record([event("silent", "node2", took=100, messages=11)])
    assert {dump.node for dump in opened.past()} == {"node1", "node2"}
    assert [dump.node for dump in opened.under_way()] == ["node1"]


def test_past_dumps_are_found_by_node_by_time_and_by_number(opened: History) -> None:
    for number in range(6):
        opened.record(a_whole_dump(f"node{number % 2}", START + number * 100, 40))
    times = [START + number * 100 for number in range(6)]
    assert [dump.since for dump in opened.past()] == times[::-1]
    assert [dump.since for dump in opened.past("node1")] == [times[5], times[3], times[1]]
    assert [dump.since for dump in opened.past(since=times[4])] == [times[5], times[4]]
    assert [dump.since for dump in opened.past("node0", times[1], 1)] == [times[4]]
    assert opened.past("node9") == opened.past(most=0) == []


@pytest.mark.parametrize(
    "name", ["'; DROP TABLE dump; --", "n\u00f6de", "a\x00b", "\x1b[2J", "%", "", "x" * 100_000]
)
def test_any_name_comes_back_as_it_was(opened: History, name: str) -> None:
    opened.record([event("began", name)])
    assert opened.past(name)[0].node == opened.under_way()[0].node == name


class Clock:
    """One that nobody sets, for a History; it can be let run."""

    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


def test_the_file_is_kept_small_without_losing_what_is_under_way(path: str) -> None:
    clock = Clock()
    with History(path, clock=clock) as opened:
        for number in range(10):
            opened.record(a_whole_dump("node1", START + number * 1000, 60))
            clock.now += 1000
        opened.record([event("began", "old", START - 1e6)])
        assert opened.trim(7500, 1000) == 3  # those that have been over for so long
        assert len(opened.past()) == 8
        assert opened.trim(1e9, 5) == 3
        left = opened.past()
        assert [dump.since for dump in left[:-1]] == [START + n * 1000 for n in (9, 8, 7, 6)]
        assert left[-1].node == "old"
        assert opened.trim(0, 0) == 4
        assert [dump.node for dump in opened.past()] == ["old"]
        opened.record([event("silent", "old", START - 1e6, 10)])
        assert len(opened.past()) == 1


def test_trimming_takes_many_at_a_time(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", 7)
    with History(path) as opened:
        for number in range(30):
            opened.record(a_whole_dump("node1", START + number, 0))
        assert opened.trim(1e9, 9) == 21
        assert opened.trim(-1.0, 9) == 9
        assert opened.past() == []


def test_a_call_is_written_whole_or_not_at_all(opened: History) -> None:
    opened.record([event("began", "node1")])
    opened.record([event("overflow", "unread", messages=1000)])  # which is no dump
    cannot_be_written = event("began", "node\udcff")
    with pytest.raises(HistoryError, match="cannot be written"):
        opened.record([event("silent", "node1"), event("began", "node2"), cannot_be_written])
    assert [dump.node for dump in opened.under_way()] == ["node1"]
    opened.record([event("silent", "node1"), event("began", "node2")])
    assert [dump.node for dump in opened.under_way()] == ["node2"]
    assert len(opened.past()) == 2


def test_what_is_recorded_is_to_survive_a_power_cut(opened: History) -> None:
    connection = opened._file.db  # nothing else shows it but a power cut
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# --- files that are not as they should be ---------------------------------------------------


def tamper(path: str, *statements: str) -> None:
    """What somebody else does with the database."""
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        for statement in statements:
            other.execute(statement)


def filled(path: str) -> None:
    with History(path) as opened:
        opened.record([one for n in range(3000) for one in a_whole_dump(f"node{n}", START + n, 5)])


def text(path: str) -> None:
    Path(path).write_text("this is no database\n" * 300)


def cut_short(path: str) -> None:
    filled(path)
    os.truncate(path, os.path.getsize(path) // 2)


def overwritten(path: str, at: int, size: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * size)


def with_a_broken_page(path: str) -> None:
    filled(path)
    overwritten(path, 4096 * 10, 4096)


def with_a_broken_table(path: str) -> None:
    filled(path)
    overwritten(path, 100, 200)


@pytest.mark.parametrize("damage", [text, cut_short, with_a_broken_page, with_a_broken_table])
def test_a_damaged_file_is_told_of_and_left_as_it_is(
    path: str, damage: Callable[[str], None]
) -> None:
    damage(path)
    before = Path(path).read_bytes()
    with pytest.raises(HistoryError, match=r"damaged .*; left untouched: stop") as caught:
        History(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize(
    "what",
    ["messages = 'many'", "since = 'noon'", "last = 9e999", "ended = x'00'", "node = x'ff'",
     "addresses = x'ff'"],
)  # fmt: skip
def test_a_row_that_is_no_dump_is_told_of(path: str, what: str) -> None:
    with History(path) as opened:
        opened.record([event("began", "node1", START)])
    tamper(path, f"UPDATE dump SET {what}")
    with History(path, writable=False) as opened:
        with pytest.raises(HistoryError, match=r"damaged \(a row of it is no dump\)"):
            opened.past()
        if "ended" not in what:
            with pytest.raises(HistoryError, match="damaged"):
                opened.under_way()


def test_a_file_that_is_damaged_while_it_is_in_use_is_told_of(path: str) -> None:
    filled(path)
    with History(path, writable=False) as opened:
        with_a_broken_page(path)
        with pytest.raises(HistoryError, match="damaged"):
            opened.past(most=100_000)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("CREATE TABLE dump (a)", "a database of another program"),
        (f"PRAGMA user_version = {SCHEMA + 1}", rf"a newer kdumpfence \(form {SCHEMA + 1}"),
    ],
)
def test_a_file_that_is_not_of_this_program_is_left_alone(
    path: str, statement: str, said: str
) -> None:
    if "CREATE" not in statement:
        History(path).close()
    tamper(path, statement)
    before = Path(path).read_bytes()
    for writable in (True, False):
        with pytest.raises(HistoryError, match=said):
            History(path, writable)
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize("begun", ["nothing", "empty", "without a table"])
def test_a_file_that_was_only_just_begun_is_taken(path: str, begun: str) -> None:
    if begun == "empty":
        Path(path).touch()
    elif begun == "without a table":  # killed between two steps
        tamper(path, "PRAGMA journal_mode = WAL")
    with History(path) as opened:
        opened.record([event("began")])
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA application_id").fetchone() == (APPLICATION,)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place, reason in (
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / "missing" / "history", "no such directory"),
        (Path("/dev/null"), "not a regular file"),
        (Path("/dev/null/history"), "Not a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(HistoryError, match=reason) as caught:
            History(str(place))
        assert str(place) in str(caught.value)


def test_a_name_with_characters_of_a_uri_is_that_file(tmp_path: Path) -> None:
    odd = tmp_path / "a?mode=memory#b%20c d"
    History(str(odd)).close()
    assert [one.name for one in tmp_path.iterdir()] == [odd.name]


def test_there_is_nothing_to_be_read_before_something_was_written(path: str) -> None:
    with pytest.raises(HistoryError, match=f"no history at {path}: kdumpfenced has not written"):
        History(path, writable=False)
    assert not os.path.exists(path)
    Path(path).touch()
    with pytest.raises(HistoryError, match=f"no history at {path}: the file is empty"):
        History(path, writable=False)


def test_a_locked_file_is_told_of_and_can_be_tried_again(path: str, opened: History) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(HistoryError, match="locked by another program"):
        opened.record([event("began")])
    other.execute("ROLLBACK")
    other.close()
    opened.record([event("began")])
    assert len(opened.past()) == 1


def test_rows_that_somebody_deleted_come_back_with_the_next_event(
    path: str, opened: History
) -> None:
    opened.record([event("began"), event("began", "node2")])
    tamper(path, "DELETE FROM dump WHERE node = 'node1'")
    opened.record([event("dumping", took=10, messages=2), event("dumping", "node2", took=9)])
    opened.record([event("silent", took=20, messages=3), event("silent", "node2", took=9)])
    assert {(one.node, one.last - one.since) for one in opened.past()} == {
        ("node1", 20),
        ("node2", 9),
    }


def test_a_file_that_was_moved_keeps_what_it_has_and_another_is_begun(path: str) -> None:
    with History(path) as opened:
        opened.record([event("began"), event("began", "node2")])
        for tail in ("", "-wal", "-shm"):
            os.rename(path + tail, f"{path}.kept{tail}")
        opened.record([event("dumping", took=10, messages=2)])
        opened.record([event("silent", took=20, messages=3)])
        assert [(one.node, one.took) for one in opened.past()] == [("node1", 20)]
    with History(path + ".kept") as kept:
        assert len(kept.past()) == 2


def test_a_closed_history_says_so(path: str) -> None:
    opened = History(path)
    opened.close()
    opened.close()
    with pytest.raises(HistoryError, match="closed"):
        opened.record([event("began")])


def test_nothing_is_left_open(path: str) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    text(path)
    for _ in range(20):
        with pytest.raises(HistoryError):
            History(path)
    os.unlink(path)
    for _ in range(20):
        filled_once = History(path)
        filled_once.record([event("began")])
        filled_once.close()
    assert descriptors() == before


# --- the disk -------------------------------------------------------------------------------


FAILING_DISK = """
import sys, resource
from kdumpfence.daemon.history import History, HistoryError
from kdumpfence.listener.dumps import Event
history = History(sys.argv[1])
events = [Event('began', f'n{n}', 1.0, 1.0 + n, 1.0, 1, ()) for n in range(1000)]
old = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, old[1]))
try:
    history.record(events)
except HistoryError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, old)
history.record(events)
print(len(history.past()))
"""


def test_a_disk_that_fails_is_told_of(path: str) -> None:
    done = run_program(FAILING_DISK, path)
    assert done.stderr == ""
    complaint, number = done.stdout.splitlines()
    assert complaint.startswith(f"{path}: ")
    assert number == "1000"


def test_the_log_does_not_grow_while_a_reader_has_the_file_open(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_file, "LOG_PAGES", 200)
    with History(path) as opened:
        opened.record([event("began", f"node{n}") for n in range(2000)])
        with History(path, writable=False) as reader:
            for step in range(30):
                assert len(reader.past(most=10)) == 10
                opened.record([event("dumping", f"node{n}", took=step) for n in range(2000)])
            assert os.path.getsize(path + "-wal") < 2 << 20


# --- readers without rights -----------------------------------------------------------------

READER = (
    "import os, sys\n"
    "from kdumpfence.daemon.history import History, HistoryError\n"
    "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    "try:\n    print(len(History(sys.argv[1], writable=False).past()))\n"
    "except HistoryError as error:\n    print(error)\n"
)


def read_as_nobody(path: Path) -> str:
    done = run_program(READER, str(path))
    assert done.stderr == ""
    return done.stdout.strip()


def test_who_may_read_the_file_can_whether_the_daemon_runs_or_not(public: Path, root: None) -> None:
    path = public / "history"
    opened = History(str(path), mode=0o644)
    for number in (1, 2):
        opened.record([event("began", f"node{number}")])
        assert read_as_nobody(path) == str(number)
    opened.close()
    assert read_as_nobody(path) == "2"
    assert sorted(one.name for one in public.iterdir()) == ["history"]
    path.chmod(0o600)
    assert read_as_nobody(path) == f"{path}: permission denied"


def test_memory_does_not_grow_with_what_is_over(opened: History) -> None:
    for at in range(3):
        nodes = [f"node{at}-{n}" for n in range(1000)]
        opened.record([event("began", node, START + at) for node in nodes])
        opened.record([event("silent", node, START + at, 5) for node in nodes])
    assert opened._rows == {}  # all that it keeps of dumps

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is recorded, found again, and removed: by age and by number."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable

import pytest

from kdumpfence.daemon import history_limits, history_rows
from kdumpfence.daemon.history import History, HistoryError
from kdumpfence.daemon.history_reading import Past
from kdumpfence.listener.events import Dump, Event, Kind

START = 1_795_000_000.25
DAY = 86400.0


def event(
    kind: Kind,
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


def tamper(path: str, *statements: str) -> None:
    """What somebody else does with the database."""
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        for statement in statements:
            other.execute(statement)


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
        assert opened.past() == [
            Past("node1", START, START + 20.75, START + 50.75, 5, both, 20.75, "silent")
        ]


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


# --- how they ended -------------------------------------------------------------------------


def ending(kind: Kind, when: float, node: str = "node1", sessions: tuple[int, ...] = ()) -> Event:
    """A dump of a minute that is over."""
    return Event(kind, node, when, when - 60, when, 7, ("192.0.2.1",), 60.0, sessions)


def test_how_a_dump_ended_is_kept_with_the_sessions_that_told_of_it(path: str) -> None:
    now = time.time()
    sessions = (0, 7, 2**64 - 1)
    with History(path) as opened:
        opened.record([ending("began", now, sessions=sessions[:1])])
        assert [(dump.end, dump.sessions) for dump in opened.past()] == [("", (0,))]
        assert opened.under_way()[0].sessions == (0,)
        opened.record([ending("finished", now, sessions=sessions)])
        opened.record([ending("failed", now, "node2"), ending("silent", now, "node3")])
    with History(path) as opened:
        found = {dump.node: dump for dump in opened.past()}
        ends = {node: dump.end for node, dump in found.items()}
        assert ends == {"node1": "finished", "node2": "failed", "node3": "silent"}
        assert found["node1"].sessions == sessions
        assert found["node1"].ended == now
        assert opened.under_way() == []
        assert opened.over() == [
            ending("finished", now, sessions=sessions), ending("failed", now, "node2")
        ]  # fmt: skip


@pytest.mark.parametrize("restart", [False, True])
def test_another_end_of_a_dump_takes_the_place_of_the_first_one(path: str, restart: bool) -> None:
    now = time.time()
    later = ending("finished", now, sessions=(1, 2))._replace(
        last=now + 40, took=100.0, when=now + 40
    )
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(History(path))
        opened.record([ending("began", now), ending("failed", now, sessions=(1,))])
        opened.record(a_whole_dump("node2", START, 5))
        if restart:
            opened.close()
            opened = stack.enter_context(History(path))
        opened.record([later])
        (dump,) = opened.past("node1")
        assert (dump.end, dump.ended, dump.took) == ("finished", now + 40, 100.0)
        assert dump.sessions == (1, 2)
        opened.record([ending("began", now + 500)])
        assert [one.end for one in opened.past("node1")] == ["", "finished"]
        assert opened.over() == []


def test_an_end_that_is_told_again_after_its_dump_was_removed_is_kept(path: str) -> None:
    now = time.time()
    with History(path) as opened:
        opened.record([ending("failed", now), ending("silent", now, "node2")])
        tamper(path, "DELETE FROM dump WHERE node = 'node1'")
        opened.record([ending("finished", now)])
        assert [dump.end for dump in opened.past("node1")] == ["finished"]
        assert len(opened.past()) == 2


def test_only_the_last_dump_of_a_node_goes_on_after_its_end_and_not_for_ever(path: str) -> None:
    now = time.time()
    with History(path) as opened:
        opened.record([ending("finished", now - 2 * DAY, "old")])
        opened.record([ending("finished", now - 900, "again"), ending("silent", now, "again")])
        opened.record([ending("finished", now - 900, "more"), ending("began", now, "more")])
        opened.record([ending("finished", now + 2 * DAY, "ahead")])
        opened.record([ending("failed", now - 900), ending("finished", now)])
        assert opened.over() == [ending("finished", now)]


@pytest.mark.parametrize(
    "damage",
    ["how = 'burnt'", "sessions = 'x'", "sessions = '10000000000000000'", "sessions = 7.5"],
)
def test_an_end_that_no_daemon_writes_is_damage(path: str, damage: str) -> None:
    with History(path) as opened:
        opened.record([ending("finished", time.time())])
        tamper(path, f"UPDATE dump SET {damage}")
        with pytest.raises(HistoryError, match="a row of it is no dump"):
            opened.past()


def test_of_very_many_ends_the_newest_can_be_told_again(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_rows, "MOST_OVER", 10)
    now = time.time()
    with History(path) as opened:
        opened.record([ending("failed", now, f"node{number}") for number in range(30)])
        opened.record([ending("finished", now, "node29")])
        assert [dump.end for dump in opened.past("node29")] == ["finished"]
        assert len(opened.past()) == 30


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
    monkeypatch.setattr(history_limits, "SLICE", 7)
    with History(path) as opened:
        for number in range(30):
            opened.record(a_whole_dump("node1", START + number, 0))
        assert opened.trim(1e9, 9) == 21
        assert opened.trim(-1.0, 9) == 9
        assert opened.past() == []


def test_a_call_is_written_whole_or_not_at_all(opened: History) -> None:
    opened.record([event("began", "node1")])
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


def test_memory_does_not_grow_with_what_is_over(opened: History) -> None:
    for at in range(3):
        nodes = [f"node{at}-{n}" for n in range(1000)]
        opened.record([event("began", node, START + at) for node in nodes])
        opened.record([event("silent", node, START + at, 5) for node in nodes])
    assert opened._rows.under_way == {}  # all that it keeps of dumps


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


@pytest.mark.slow
def test_the_file_does_not_grow_in_a_flood(path: str, opened: History) -> None:
    sizes = []
    for at in range(40):
        flood = [f"10.{at}.{n // 250}.{n % 250}" for n in range(1000)]
        opened.record(begun(flood, START + at), 2000, ())
        opened.record(over(flood, START + at), 2000, ())
        tamper(path, "PRAGMA wal_checkpoint(TRUNCATE)")
        sizes.append(os.path.getsize(path))
    assert sizes[-1] <= 1.5 * sizes[3]

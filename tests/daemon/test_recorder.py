# SPDX-License-Identifier: LGPL-2.1-or-later
"""What waits for a history that cannot be written: decided without a disk or a clock."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any, cast

import pytest

from kdumpfence.daemon.history import History, HistoryError
from kdumpfence.daemon.recorder import HOLD, RETRY_LAST, Recorder
from kdumpfence.listener.events import AnyEvent, Dump, Event, Kind, Overflow


class Disk:
    """What would be in the file; it can be broken."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.broken = ""
        self.patience = 0.0
        self.calls: list[list[Event]] = []
        self.tries = 0
        self.left: list[Dump] = []
        self.said: list[str] = []
        self.amended: list[str] = []
        self.in_place = True
        self.closed = 0

    # As a clock, a way to open it, and somebody to complain to

    def clock(self) -> float:
        return self.now

    def open(self, path: str) -> History:
        self.tries += bool(self.broken)
        self._check()
        return cast(History, self)

    def complain(self, level: str, text: str) -> None:
        self.said.append(text)

    # As a History

    def _check(self) -> None:
        if self.broken:
            self.now += self.patience
            raise HistoryError(self.broken)

    def record(self, events: Iterable[Event], most: int, named: Container[str]) -> None:
        self._check()
        self.calls.append(list(events))

    def under_way(self) -> list[Dump]:
        self._check()
        return self.left

    def trim(self, age: float, most: int) -> int:
        self._check()
        return 7

    def mark(self, named: Container[str]) -> None:
        self._check()

    def look(self) -> None:
        self._check()

    def close(self) -> None:
        self.closed += 1


def event(kind: Kind, node: str, last: float = 5.0, since: float = 1.0) -> Event:
    return Event(kind, node, last, since, last, 3, ("192.0.2.1",))


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def recorder(disk: Disk) -> Recorder:
    return made(disk)


def made(disk: Disk, **more: Any) -> Recorder:
    recorder = Recorder("/file", disk.complain, disk.open, disk.clock, **more)
    assert recorder.under_way() == disk.left or disk.broken
    return recorder


def mend(disk: Disk, recorder: Recorder) -> list[tuple[AnyEvent, bool]]:
    """It works again; what the next try tells."""
    disk.broken = ""
    disk.now += RETRY_LAST
    return recorder.record([])


def test_what_happens_is_written_and_told(disk: Disk) -> None:
    disk.amended = ["its mode was too open"]
    recorder = made(disk)
    assert disk.said == ["history: its mode was too open"]
    events = [event("began", "a"), event("began", "b")]
    assert recorder.record(events) == [(one, True) for one in events]
    assert disk.calls == [events]
    assert recorder.record([]) == []
    assert len(disk.calls) == 1


def test_a_short_failure_delays_what_is_told(disk: Disk, recorder: Recorder) -> None:
    disk.broken = "locked"
    first, second = event("began", "a"), event("began", "b")
    assert recorder.record([first]) == []
    assert (recorder.trouble, recorder.errors, recorder.held) == ("locked", 1, 1)
    assert recorder.trim(0) == 0
    disk.broken = ""
    assert recorder.record([second]) == []  # not yet tried again
    disk.now += 0.6
    assert recorder.record([]) == [(first, True), (second, True)]
    assert disk.calls == [[first, second]]
    assert (recorder.trouble, recorder.held) == ("", 0)
    assert len(disk.said) == 2
    assert "works again after 0.6 s" in disk.said[1]


def test_after_a_while_it_is_told_without_being_written(disk: Disk, recorder: Recorder) -> None:
    disk.broken = "full"
    began, silent = event("began", "a"), event("silent", "a", 9.0)
    assert recorder.record([began]) == []
    disk.now += HOLD
    assert recorder.record([]) == [(began, False)]
    assert recorder.record([silent]) == [(silent, False)]
    # The newest of the dump is written once; nothing is told twice.
    assert mend(disk, recorder) == []
    assert disk.calls == [[silent]]


def test_losses_of_datagrams_are_told_at_once(disk: Disk, recorder: Recorder) -> None:
    disk.broken = "full"
    loss = Overflow("overflow", "", 5.0, "unread", 3)
    assert recorder.record([loss, event("began", "a")]) == [(loss, True)]
    assert recorder.record([loss]) == [(loss, True)]
    assert recorder.held == 1


def test_it_is_tried_more_and_more_seldom_and_complained_of_once(
    disk: Disk, recorder: Recorder
) -> None:
    disk.broken = "full"
    for _ in range(6000):
        recorder.record([event("dumping", "a", disk.now)])
        disk.now += 0.1
    assert 600 / RETRY_LAST - 1 <= recorder.errors <= 600 / RETRY_LAST + 6
    assert len(disk.said) == 1
    disk.broken = "damaged"
    disk.now += RETRY_LAST
    recorder.record([])
    assert "damaged" in disk.said[1]


def test_what_is_held_is_bounded(disk: Disk) -> None:
    recorder = made(disk, most_held=100)
    disk.broken = "full"
    for number in range(250):
        recorder.record([event("began", f"n{number}")])
        recorder.record([event("dumping", f"n{number}", 9.0)])
    assert (recorder.held, recorder.lost) == (100, 150)
    mend(disk, recorder)
    assert [one.node for one in disk.calls[0]] == [f"n{number}" for number in range(150, 250)]
    assert {one.last for one in disk.calls[0]} == {9.0}
    assert recorder.lost == 150  # a counter does not go back


def test_a_dump_that_goes_on_is_not_the_first_to_be_given_up(disk: Disk) -> None:
    recorder = made(disk, most_held=2)
    disk.broken = "full"
    for node in ("a", "b", "a", "c"):
        recorder.record([event("dumping", node)])
    mend(disk, recorder)
    assert [one.node for one in disk.calls[0]] == ["a", "c"]


def test_two_dumps_of_a_node_are_both_held(disk: Disk, recorder: Recorder) -> None:
    disk.broken = "full"
    first, second = event("silent", "a", 5.0, 1.0), event("began", "a", 90.0, 90.0)
    recorder.record([first, second])
    mend(disk, recorder)
    assert disk.calls == [[first, second]]


def test_what_could_not_be_read_at_the_start_is_ended_later(disk: Disk) -> None:
    disk.left = [Dump("a", 1.0, 2.0, 3, ("192.0.2.1",)), Dump("b", 7.0, 8.0, 3, ())]
    disk.broken = "locked"
    recorder = made(disk)
    now = event("began", "b", 7.0, 7.0)
    recorder.record([now])
    mend(disk, recorder)
    (ended, written) = disk.calls[0]
    assert (ended.kind, ended.node, ended.since, ended.last) == ("silent", "a", 1.0, 2.0)
    assert written == now
    recorder.record([event("began", "c")])
    assert len(disk.calls[1]) == 1


def test_there_is_a_last_try_at_the_end(disk: Disk, recorder: Recorder) -> None:
    disk.broken = "full"
    began = event("began", "a")
    recorder.record([began])
    disk.broken = ""
    assert recorder.finish() == [(began, True)]
    assert disk.calls == [[began]]
    assert recorder.held == 0


def test_what_was_held_back_is_told_at_the_end_though_it_is_not_written(
    disk: Disk, recorder: Recorder
) -> None:
    disk.broken = "full"
    began = event("began", "a")
    assert recorder.record([began]) == []
    assert recorder.finish() == [(began, False)]
    assert recorder.finish() == []
    recorder.close()
    assert disk.said[-1] == "history: what was last heard of 1 dump could not be written"
    assert recorder.held == 1


def test_strangers_push_nothing_out_that_belongs_to_a_named_node(disk: Disk) -> None:
    recorder = made(disk, most_held=3)
    recorder.named = {"node1", "node2"}
    disk.broken = "full"
    recorder.record([event("began", "node1")])
    for number in range(50):
        recorder.record([event("began", f"192.0.2.{number}")])
    recorder.record([event("silent", "node2")])
    mend(disk, recorder)
    assert [one.node for one in disk.calls[0]] == ["node1", "192.0.2.49", "node2"]


def test_a_lock_that_is_waited_for_delays_what_is_told_by_no_more_than_that(
    disk: Disk, recorder: Recorder
) -> None:

    disk.patience = 0.5
    disk.broken = "locked"
    began = event("began", "a")
    start = disk.now
    told: list[tuple[AnyEvent, bool]] = recorder.record([began])
    while not told:
        disk.now += 0.1
        told = recorder.record([])
    assert told == [(began, False)]
    assert disk.now - start <= HOLD + 0.5 + 0.1


def test_a_file_that_nobody_finds_any_more_is_not_closed_before_it_is_put_back(
    disk: Disk, recorder: Recorder
) -> None:
    disk.broken, disk.in_place = "locked", False
    recorder.record([event("began", "a")])
    assert disk.closed == 0
    disk.in_place = True
    disk.now += RETRY_LAST
    recorder.record([])
    assert disk.closed == 1

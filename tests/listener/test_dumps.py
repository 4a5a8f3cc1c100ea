# SPDX-License-Identifier: GPL-2.0-or-later
"""The decision over many nodes, without sockets or clock."""

from __future__ import annotations

import gc
import math
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from kdumpfence.listener.dumps import MOST_ADDRESSES, Dump, Dumps, Event

A, B = "192.0.2.1", "192.0.2.2"


def test_the_first_message_begins_a_dump() -> None:
    dumps = Dumps()
    assert dumps.heard("node1", A, 100.0) == Event("began", "node1", 100.0, 100.0, 100.0, 1, (A,))
    assert "node1" in dumps
    assert len(dumps) == 1


def course(dumps: Dumps, times: list[float]) -> list[str | None]:
    """What is told of messages at these times, without a tick between them."""
    events = [dumps.heard("node1", A, when) for when in times]
    return [event and event.kind for event in events]


@pytest.mark.parametrize(
    ("repeat", "times", "told"),
    [
        (10.0, [0, 1, 9.99, 10], ["began", None, None, "dumping"]),
        (10.0, [0, 10, 19, 20, 29], ["began", "dumping", None, "dumping", None]),
        # It is counted from what was told, not from a rhythm.
        (10.0, [0, 15, 20, 25], ["began", "dumping", None, "dumping"]),
        (0.0, [0, 0, 1], ["began", "dumping", "dumping"]),
        # Times that go back, as those of two sockets may, are taken as they come.
        (10.0, [10, 5, 20], ["began", None, "dumping"]),
        # Only a tick ends a dump: who did not look cannot know that it was silent.
        (10.0, [0, 1000], ["began", "dumping"]),
    ],
)
def test_a_dump_that_goes_on_is_told_of_now_and_then(
    repeat: float, times: list[float], told: list[str | None]
) -> None:
    assert course(Dumps(repeat=repeat), times) == told


def test_an_event_has_first_and_last_time_number_and_addresses() -> None:
    dumps = Dumps(repeat=5.0)
    dumps.heard("node1", A, 10.0, 2)
    dumps.heard("node1", B, 12.0)
    assert dumps.heard("node1", A, 15.0, 4) == Event("dumping", "node1", 15, 10, 15, 7, (A, B), 5)
    assert dumps.heard("node1", A, 14.0) is None
    assert dumps.tick(60.0) == [Event("silent", "node1", 60, 10, 15, 8, (A, B), 5)]


@pytest.mark.parametrize(("now", "over"), [(29.99, False), (30.0, True), (1e9, True)])
def test_a_dump_is_over_when_nothing_was_heard_for_the_whole_time(now: float, over: bool) -> None:
    dumps = Dumps(silence=30.0)
    dumps.heard("node1", A, 0.0)
    assert bool(dumps.tick(now)) == over
    assert ("node1" in dumps) != over


def test_a_dump_began_with_the_first_of_the_messages_that_are_told_together() -> None:
    dumps = Dumps(silence=30.0, repeat=10.0)
    began = Event("began", "node1", 4, 4, 9, 5, (A,), 5)
    assert dumps.heard("node1", A, 9.0, 5, 4.0) == began
    dumping = Event("dumping", "node1", 19, 4, 19, 7, (A,), 15)
    assert dumps.heard("node1", A, 19.0, 2, 12.0) == dumping
    assert dumps.tick(48.9) == []
    assert dumps.tick(49.0) == [Event("silent", "node1", 49, 4, 19, 7, (A,), 15)]


def test_each_message_puts_the_end_off() -> None:
    dumps = Dumps(silence=30.0)
    for when in range(0, 300, 10):
        dumps.heard("node1", A, when)
        assert dumps.tick(when + 9.9) == []
        assert dumps.next_due is not None
        assert when + 9.9 < dumps.next_due <= when + 30
    assert [event.kind for event in dumps.tick(320.0)] == ["silent"]
    assert dumps.next_due is None


def test_those_silent_longest_are_told_first() -> None:
    dumps = Dumps(silence=30.0)
    for node, when in (("late", 9.0), ("early", 3.0), ("between", 5.0)):
        dumps.heard(node, A, when)
    assert [event.node for event in dumps.tick(100.0)] == ["early", "between", "late"]


def test_a_second_dump_of_a_node_begins_anew() -> None:
    dumps = Dumps()
    dumps.heard("node1", A, 0.0, 7)
    dumps.tick(30.0)
    assert dumps.heard("node1", B, 31.0) == Event("began", "node1", 31, 31, 31, 1, (B,))


def test_a_tick_can_be_had_in_pieces() -> None:
    dumps = Dumps(silence=30.0)
    for number in range(10):
        dumps.heard(f"node{number}", A, float(number))
    told = []
    while (due := dumps.next_due) is not None and due <= 35.0:
        piece = dumps.tick(35.0, most=2)
        assert len(piece) == 2
        told += [event.node for event in piece]
    assert told == [f"node{number}" for number in range(6)]


def test_a_forgotten_node_is_silent_if_it_was_dumping() -> None:
    dumps = Dumps()
    assert dumps.forget("node1") is None
    dumps.heard("node1", A, 5.0)
    assert dumps.forget("node1") == Event("silent", "node1", 5, 5, 5, 1, (A,))
    dumps.heard("node1", A, 6.0)
    assert dumps.forget("node1", 8.0) == Event("silent", "node1", 8, 6, 6, 1, (A,))
    assert dumps.forget("node1") is None
    assert dumps.tick(1000.0) == []


def test_a_node_that_was_forgotten_is_not_over_before_its_time() -> None:
    dumps = Dumps(silence=30.0)
    dumps.heard("node1", A, 0.0)
    dumps.forget("node1")
    dumps.heard("node1", A, 20.0)
    assert dumps.tick(49.9) == []
    assert len(dumps.tick(50.0)) == 1


def test_a_restored_dump_goes_on_as_the_same() -> None:
    dumps = Dumps(repeat=10.0)
    dumps.restore(Dump("node1", 5.0, 25.0, 3, (A,)))
    assert dumps.snapshot() == [Dump("node1", 5.0, 25.0, 3, (A,), 20.0)]
    assert dumps.heard("node1", B, 30.0) is None
    assert dumps.heard("node1", B, 35.0) == Event("dumping", "node1", 35, 5, 35, 5, (A, B), 30)


def test_what_a_dump_took_before_a_restart_is_what_was_measured() -> None:
    dumps = Dumps(repeat=0.0)
    # Its times say 1,000 s, since the clock was set meanwhile.
    dumps.restore(Dump("node1", 5.0, 1005.0, 3, (A,), 20.0))
    assert dumps.heard("node1", A, 1015.0) == Event("dumping", "node1", 1015, 5, 1015, 4, (A,), 30)
    dumps.heard("node1", A, 1010.0)  # of a moment before
    assert [dump.took for dump in dumps.snapshot()] == [30]


def test_the_silence_of_a_restored_dump_counts_from_when_there_was_listening_again() -> None:
    dumps = Dumps(silence=30.0)
    dumps.restore(Dump("node1", 5.0, 25.0, 3, (A,)), 1000.0)
    dumps.restore(Dump("node2", 5.0, 25.0, 3, (A,)), 1000.0)
    dumps.heard("node2", A, 1010.0)
    assert dumps.tick(1029.0) == []
    assert dumps.tick(1031.0) == [Event("silent", "node1", 1031.0, 5.0, 25.0, 3, (A,), 20.0)]
    assert dumps.tick(1039.0) == []
    assert len(dumps.tick(1040.0)) == 1


def test_a_node_that_is_dumping_cannot_be_restored() -> None:
    dumps = Dumps()
    dumps.heard("node1", A, 5.0)
    with pytest.raises(ValueError, match="'node1' is dumping already"):
        dumps.restore(Dump("node1", 1.0, 2.0, 1, (A,)))
    assert dumps.snapshot() == [Dump("node1", 5.0, 5.0, 1, (A,))]


def test_a_dump_from_ever_new_addresses_does_not_grow() -> None:
    dumps = Dumps()
    for number in range(1000):
        dumps.heard("node1", f"2001:db8::{number:x}", float(number))
    (dump,) = dumps.snapshot()
    assert dump.messages == 1000
    assert dump.addresses == tuple(f"2001:db8::{number:x}" for number in range(MOST_ADDRESSES))


def test_a_snapshot_has_the_order_of_the_beginnings_and_stays_what_it_was() -> None:
    dumps = Dumps()
    dumps.restore(Dump("old", 0.0, 1.0, 2, (A,)))
    for when, node in enumerate(["b", "a", "c", "b", "old"]):
        dumps.heard(node, A, 2.0 + when)
    before = dumps.snapshot()
    assert [dump.node for dump in before] == ["old", "b", "a", "c"]
    copy = list(before)
    dumps.heard("a", B, 50.0)
    dumps.tick(1000.0)
    assert before == copy


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_silence_that_cannot_be_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="must be a number of seconds above 0"):
        Dumps(silence=value)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_repeat_that_cannot_be_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="must be a number of seconds, 0 or more"):
        Dumps(repeat=value)


# ------------------------------------------------------------------------------ any order

SILENCE, REPEAT = 8.0, 3.0


class Model:
    """The same without any cleverness: it looks at all of them, each time."""

    def __init__(self) -> None:
        self.dumps: dict[str, dict[str, Any]] = {}

    def heard(self, node: str, address: str, when: float, messages: int) -> Event | None:
        kind = None
        if node not in self.dumps:
            kind = "began"
            self.dumps[node] = {
                "since": when,
                "last": when,
                "messages": 0,
                "addresses": [],
                "told": when,
                "took": 0.0,
            }
        dump = self.dumps[node]
        dump["took"] += max(0.0, when - dump["last"])
        dump["last"] = max(dump["last"], when)
        dump["messages"] += messages
        if address not in dump["addresses"]:
            dump["addresses"].append(address)
        if kind is None and when - dump["told"] >= REPEAT:
            kind = "dumping"
            dump["told"] = when
        return Event(kind, node, when, *self.rest(node)) if kind else None

    def rest(self, node: str) -> tuple[float, float, int, tuple[str, ...], float]:
        dump = self.dumps[node]
        where = tuple(dump["addresses"])
        return dump["since"], dump["last"], dump["messages"], where, dump["took"]

    def over(self, node: str) -> float:
        dump = self.dumps[node]
        over: float = max(dump["last"], dump.get("from", dump["last"])) + SILENCE
        return over

    def end(self, node: str, when: float) -> Event:
        event = Event("silent", node, when, *self.rest(node))
        del self.dumps[node]
        return event

    def tick(self, now: float) -> list[Event]:
        due = sorted((self.over(node), node) for node in self.dumps if self.over(node) <= now)
        return [self.end(node, now) for _, node in due]


NODES = st.sampled_from(["node1", "node2", "node3", "node4"])
TIMES = st.integers(0, 60).map(float)


class AnyOrder(RuleBasedStateMachine):
    """Whatever is told in whatever order, with times that go back as well."""

    dumped: Bundle[Dump] = Bundle("dumped")

    def __init__(self) -> None:
        super().__init__()
        self.dumps = Dumps(SILENCE, REPEAT)
        self.model = Model()

    @rule(node=NODES, address=st.sampled_from([A, B]), when=TIMES, messages=st.integers(1, 3))
    def heard(self, node: str, address: str, when: float, messages: int) -> None:
        expected = self.model.heard(node, address, when, messages)
        assert self.dumps.heard(node, address, when, messages) == expected

    @rule(now=TIMES)
    def tick(self, now: float) -> None:
        assert self.dumps.tick(now) == self.model.tick(now)

    @rule(now=TIMES, most=st.integers(1, 2))
    def tick_in_pieces(self, now: float, most: int) -> None:
        expected = self.model.tick(now)
        told = []
        for _ in range(100):
            if (due := self.dumps.next_due) is None or due > now:
                break
            told += self.dumps.tick(now, most)
        assert told == expected

    @rule(target=dumped, node=NODES, now=TIMES)
    def restart(self, node: str, now: float) -> Dump:
        """Forget a node; what it was can be restored later."""
        if node not in self.model.dumps:
            assert self.dumps.forget(node, now) is None
            return Dump(node, now, now + 1, 5, (B,))
        expected = self.model.end(node, now)
        assert self.dumps.forget(node, now) == expected
        return Dump(node, *expected[3:])

    @rule(dump=consumes(dumped), when=st.none() | TIMES)
    def restore(self, dump: Dump, when: float | None) -> None:
        if dump.node in self.model.dumps:
            with pytest.raises(ValueError, match="is dumping already"):
                self.dumps.restore(dump, when)
            return
        self.dumps.restore(dump, when)
        self.model.dumps[dump.node] = {
            "since": dump.since,
            "last": dump.last,
            "messages": dump.messages,
            "addresses": list(dump.addresses),
            "told": dump.last,
            "took": dump.took or dump.last - dump.since,
        }
        if when is not None:
            self.model.dumps[dump.node]["from"] = when

    @invariant()
    def both_know_the_same(self) -> None:
        known = [Dump(node, *self.model.rest(node)) for node in self.model.dumps]
        assert self.dumps.snapshot() == known
        assert len(self.dumps) == len(known)
        due = self.dumps.next_due
        assert (due is None) == (not known)
        assert due is None or due <= min(self.model.over(node) for node in self.model.dumps)

    def teardown(self) -> None:
        self.dumps.tick(1e6)
        assert sizes(self.dumps) == dict.fromkeys(sizes(self.dumps), 0)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


# ------------------------------------------------------------------------------ a long day


def sizes(dumps: Dumps) -> dict[str, int]:
    """How much each container in it holds."""
    found = {name: value for name, value in vars(dumps).items() if hasattr(value, "__len__")}
    assert len(found) >= 4
    return {name: len(value) for name, value in found.items()}


def live_through(dumps: Dumps, hours: int, chance: random.Random) -> int:
    """So many hours of a cloud: nodes crash, dump for minutes, are removed, come back."""
    told = 0
    dumping: dict[str, float] = {}
    for second in range(0, hours * 3600, 10):
        for _ in range(chance.randrange(2)):
            node = f"node{chance.randrange(100_000)}"
            dumping[node] = second + chance.uniform(0, 600)
        for node, until in list(dumping.items()):
            told += dumps.heard(node, A, float(second), 2) is not None
            if until < second:
                del dumping[node]
        if chance.random() < 0.05 and dumping:
            told += dumps.forget(chance.choice(list(dumping)), float(second)) is not None
        told += len(dumps.tick(float(second)))
    told += len(dumps.tick(math.inf))
    return told


def test_a_day_of_events_leaves_nothing_behind() -> None:
    dumps = Dumps()
    chance = random.Random(7410)
    live_through(dumps, 1, chance)  # what is made once is made
    tracemalloc.start()
    try:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        assert live_through(dumps, 24, chance) > 30_000
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sizes(dumps) == dict.fromkeys(sizes(dumps), 0)
    # A dict that has been larger keeps its table: some kilobytes, not a day's worth.
    assert after - before < 100_000

# SPDX-License-Identifier: GPL-2.0-or-later
"""The decision over many nodes, without sockets or clock."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from kdumpfence.listener.dumps import MOST_ADDRESSES, Dump, Dumps, Event

A, B = "192.0.2.1", "192.0.2.2"


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
    dumps = Dumps(repeat=repeat)
    events = [dumps.heard("node1", A, when) for when in times]
    assert [event and event.kind for event in events] == told
    assert "node1" in dumps


def test_an_event_has_first_and_last_time_number_addresses_and_what_it_took() -> None:
    dumps = Dumps(repeat=5.0)
    assert dumps.heard("node1", A, 10.0, 2) == Event("began", "node1", 10, 10, 10, 2, (A,), 0)
    dumps.heard("node1", B, 12.0)
    assert dumps.heard("node1", A, 15.0, 4) == Event("dumping", "node1", 15, 10, 15, 7, (A, B), 5)
    assert dumps.heard("node1", A, 14.0) is None
    assert dumps.tick(60.0) == [Event("silent", "node1", 60, 10, 15, 8, (A, B), 5)]


def test_what_a_restored_dump_took_is_what_was_measured() -> None:
    dumps = Dumps(repeat=0.0)
    # Its times say 1,000 s, since the clock was set meanwhile.
    dumps.restore(Dump("node1", 5.0, 1005.0, 3, (A,), 20.0))
    assert dumps.heard("node1", A, 1015.0) == Event("dumping", "node1", 1015, 5, 1015, 4, (A,), 30)
    dumps.heard("node1", A, 1010.0)  # of a moment before
    assert [dump.took for dump in dumps.snapshot()] == [30]


def test_a_dump_from_ever_new_addresses_does_not_grow() -> None:
    dumps = Dumps()
    for number in range(1000):
        dumps.heard("node1", f"2001:db8::{number:x}", float(number))
    (dump,) = dumps.snapshot()
    assert dump.messages == 1000
    assert dump.addresses == tuple(f"2001:db8::{number:x}" for number in range(MOST_ADDRESSES))


def test_a_snapshot_stays_what_it_was() -> None:
    dumps = Dumps()
    dumps.heard("a", A, 2.0)
    before = dumps.snapshot()
    copy = list(before)
    dumps.heard("a", B, 50.0)
    dumps.tick(1000.0)
    assert before == copy


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [("silence", value, "silence .*: must be .* above 0") for value in (0.0, -1.0)]
    + [("repeat", -1.0, "repeat .*: must be .* 0 or more")]
    + [
        (option, value, "must be")
        for option in ("silence", "repeat")
        for value in (math.nan, math.inf)
    ],
)
def test_a_number_of_seconds_that_cannot_be_is_refused(option: str, value: float, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Dumps(**{option: value})


# ------------------------------------------------------------------------------ any order

SILENCE, REPEAT = 8.0, 3.0


class Model:
    """The same without any cleverness: it looks at all of them, each time."""

    def __init__(self) -> None:
        self.dumps: dict[str, dict[str, Any]] = {}

    def begin(self, node: str, since: float, told: float) -> dict[str, Any]:
        dump = {"since": since, "last": since, "messages": 0, "addresses": (), "told": told}
        self.dumps[node] = {**dump, "took": 0.0, "from": -math.inf}
        return self.dumps[node]

    def heard(
        self, node: str, address: str, when: float, messages: int, first: float | None
    ) -> Event | None:
        kind, event_time = None, when
        if node not in self.dumps:
            kind = "began"
            event_time = when if first is None else min(first, when)
            self.begin(node, event_time, when)
        dump = self.dumps[node]
        dump["took"] += max(0.0, when - dump["last"])
        dump["last"] = max(dump["last"], when)
        dump["messages"] += messages
        if address not in dump["addresses"]:
            dump["addresses"] += (address,)
        if kind is None and when - dump["told"] >= REPEAT:
            kind = "dumping"
            dump["told"] = when
        return Event(kind, node, event_time, *self.rest(node)) if kind else None

    def rest(self, node: str) -> tuple[float, float, int, tuple[str, ...], float]:
        dump = self.dumps[node]
        return dump["since"], dump["last"], dump["messages"], dump["addresses"], dump["took"]

    def restore(self, dump: Dump, when: float | None) -> None:
        known = self.begin(dump.node, dump.since, dump.last)
        known.update(dump._asdict(), took=dump.took or dump.last - dump.since)
        if when is not None:
            known["from"] = when

    def over(self, node: str) -> float:
        dump = self.dumps[node]
        over: float = max(dump["last"], dump["from"]) + SILENCE
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

    @rule(
        node=NODES,
        address=st.sampled_from([A, B]),
        when=TIMES,
        messages=st.integers(1, 3),
        first=st.none() | TIMES,
    )
    def heard(self, **message: Any) -> None:
        assert self.dumps.heard(**message) == self.model.heard(**message)

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

    @rule(target=dumped, node=NODES, now=st.none() | TIMES)
    def restart(self, node: str, now: float | None) -> Dump:
        """Forget a node; what it was can be restored later."""
        if node not in self.model.dumps:
            assert self.dumps.forget(node, now) is None
            return Dump(node, 30.0, 31.0, 5, (B,))
        last = self.model.dumps[node]["last"]
        expected = self.model.end(node, last if now is None else now)
        assert self.dumps.forget(node, now) == expected
        return Dump(node, *expected[3:])

    @rule(dump=consumes(dumped), when=st.none() | TIMES)
    def restore(self, dump: Dump, when: float | None) -> None:
        if dump.node in self.model.dumps:
            with pytest.raises(ValueError, match=f"'{dump.node}' is dumping already"):
                self.dumps.restore(dump, when)
            return
        self.dumps.restore(dump, when)
        self.model.restore(dump, when)

    @invariant()
    def both_know_the_same(self) -> None:
        """In the order in which the dumps began."""
        known = [Dump(node, *self.model.rest(node)) for node in self.model.dumps]
        assert self.dumps.snapshot() == known
        assert len(self.dumps) == len(known)
        due = self.dumps.next_due
        assert (due is None) == (not known)
        assert due is None or due <= min(self.model.over(node) for node in self.model.dumps)

    def teardown(self) -> None:
        """When the last dump is over nothing is left of any."""
        self.dumps.tick(1e6)
        left = {
            name: value for name, value in vars(self.dumps).items() if hasattr(value, "__len__")
        }
        assert len(left) >= 4
        assert not any(map(len, left.values())), left


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

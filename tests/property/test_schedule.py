# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sender's schedule, under any weather and with a clock of the tests' own."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kdumpfence import _purewire
from kdumpfence._purewire import EARLY_MESSAGES
from tests.conftest import CORES, load_core
from tests.support.schedule import Destination, Schedule, Times, start
from tests.support.schedule import play as play_until

EARLY_GAP = _purewire.EARLY_GAP_NS / 1e9
RETRY_FIRST = _purewire.RETRY_NS / 1e9
RETRY_PATIENCE = _purewire.RETRY_PATIENCE_NS / 1e9
RETRY_LAST = _purewire.RETRY_LATER_NS / 1e9
SETTLING = _purewire.SETTLING_NS / 1e9
LATE_NETWORK = _purewire.LATE_NETWORK_NS / 1e9
ASKING = _purewire.ASKING_NS / 1e9

#: For sums of seconds in floating point.
TINY = 1e-6
NODES = ("a", "b", "c")
KEYS = [f"{node}{number}" for node in NODES for number in (1, 2)]


def shortest_gap(count: int, interval: float, before: int) -> float:
    """Seconds to the next message when `before` have left."""
    return min(EARLY_GAP, interval) if not count and before <= EARLY_MESSAGES else interval


class Sending(RuleBasedStateMachine):
    """Nodes appear, messages leave, fail and come back; the schedule keeps its word."""

    core_name: str

    @initialize(
        count=st.integers(0, 4), interval=st.integers(1, 20), start=st.sampled_from([0.0, 1e6])
    )
    def begin(self, count: int, interval: int, start: float) -> None:
        self.now = self.start = start
        self.count, self.interval = count, float(interval)
        self.schedule = Schedule(load_core(self.core_name), NODES, count, interval, start)
        self.gone: dict[Hashable, int] = {}
        self.tried: set[Hashable] = set()
        self.nodes_of: dict[Hashable, list[Hashable]] = {}
        self.awaited = set(NODES)
        self.earliest: dict[Hashable, float] = {}
        self.failing: dict[Hashable, float] = {}
        self.undisturbed: set[Hashable] = set()
        self.asked: dict[Hashable, float] = {}

    @rule(key=st.sampled_from(KEYS), other=st.sampled_from([None, None, None, *NODES]))
    def add(self, key: str, other: str | None) -> None:
        # Two names may turn out to be one machine.
        node = other or key[0]
        if node not in self.awaited:
            return
        new = key not in self.gone
        assert self.schedule.add(key, node, self.now) is new
        nodes = self.nodes_of.setdefault(key, [])
        if node not in nodes:
            nodes.append(node)
        if new:
            self.gone[key] = 0
            self.earliest[key] = self.now
            self.undisturbed.add(key)
            assert key in [d.key for d in self.schedule.due(self.now)]

    @rule(node=st.sampled_from(NODES))
    def never_resolves(self, node: str) -> None:
        if not any(node in nodes for nodes in self.nodes_of.values()):
            self.schedule.give_up(node)
            self.awaited.discard(node)

    @rule(seconds=st.floats(0, 30) | st.sampled_from([0.05, 0.1, 1.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now = round(self.now + seconds, 9)

    @rule()
    def wait_until_due(self) -> None:
        due = self.schedule.next_due(self.now)
        if due is not None:
            self.now = max(self.now, due)

    @rule(
        works=st.lists(st.sampled_from([True, False, None]), min_size=len(KEYS), max_size=len(KEYS))
    )
    def send(self, works: list[bool | None]) -> None:
        for destination, up in zip(self.schedule.due(self.now), works):
            if up:
                self.leaves(destination)
            elif up is None:
                self.schedule.taken(destination, self.now)
                self.asked[destination.key] = self.now
                self.tried.add(destination.key)
            else:
                self.fails(destination)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def a_neighbour_answers(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(map(str, self.asked))))
        self.undisturbed.discard(key)
        self.leaves(self.schedule.destinations[key])

    @rule()
    def neighbours_do_not_answer(self) -> None:
        late = {key for key, since in self.asked.items() if self.now - since >= ASKING - TINY}
        assert {str(destination.key) for destination in self.schedule.overdue(self.now)} == late
        for key in late:
            before = self.gone[key]
            assert self.schedule.lost(key, self.now) is not None
            assert self.gone[key] == before  # it had not counted
            del self.asked[key]
            self.failing.setdefault(key, self.now)
            self.undisturbed.discard(key)

    @rule()
    def nobody_is_trusted_any_more(self) -> None:
        self.schedule.doubt()
        assert not any(map(self.schedule.trusted, self.schedule.destinations))

    def leaves(self, destination: Destination) -> None:
        key = destination.key
        self.schedule.left(destination, self.now)
        self.tried.add(key)
        self.asked.pop(key, None)
        assert self.schedule.trusted(key) is (self.count == 0)
        self.gone[key] += 1
        self.failing.pop(key, None)
        gap = shortest_gap(self.count, self.interval, self.gone[key])
        if key in self.undisturbed:
            # No sooner than the interval allows, and never two in a burst.
            assert self.now >= self.earliest[key] - TINY
            self.earliest[key] += gap
        assert self.now + gap / 2 - TINY <= destination.due <= self.now + gap + TINY

    def fails(self, destination: Destination) -> None:
        key = destination.key
        self.schedule.failed(destination, self.now)
        self.tried.add(key)
        since = self.failing.setdefault(key, self.now)
        patient = self.now - since >= RETRY_PATIENCE
        gap = min(RETRY_LAST, self.interval) if patient else RETRY_FIRST
        assert self.now < destination.due <= self.now + gap + TINY

    @rule(again=st.booleans())
    def network_changes(self, again: bool) -> None:
        before = {key: d.due for key, d in self.schedule.destinations.items()}
        self.schedule.hurry(self.now, again)
        for key, destination in self.schedule.destinations.items():
            assert not self.schedule.trusted(key)
            if key in self.asked:
                if again:
                    del self.asked[key]
                    self.undisturbed.discard(key)
                    assert self.now < destination.due <= self.now + SETTLING + TINY
                continue
            if key in self.failing:
                assert destination.due <= self.now + SETTLING + TINY
            elif self.count:
                assert destination.due == before[key]
            else:
                assert destination.due <= self.now + SETTLING + EARLY_GAP + TINY
                self.undisturbed.discard(key)
            assert destination.due <= before[key]

    @precondition(lambda self: self.gone)
    @rule(key=st.sampled_from(KEYS))
    def comes_back(self, key: str) -> None:
        destination = self.schedule.lost(key, self.now)
        if key in self.asked:
            del self.asked[key]
            self.gone[key] += 1  # what is under way had not counted
        if self.gone.get(key, 0) == 0:
            assert destination is None
            return
        assert destination is not None
        self.gone[key] -= 1
        self.failing.setdefault(key, self.now)
        self.undisturbed.discard(key)
        assert destination.due <= self.now + min(RETRY_LAST, self.interval) + TINY

    @invariant()
    def counts_are_exact(self) -> None:
        for key, destination in self.schedule.destinations.items():
            assert destination.left == self.gone[key]
            if self.count:
                assert destination.left <= self.count
            assert destination.nodes == self.nodes_of[key]
        assert self.schedule.reached == self.reached()

    def reached(self) -> set[Hashable]:
        return {node for key, n in self.gone.items() if n for node in self.nodes_of[key]}

    @invariant()
    def nobody_is_forgotten(self) -> None:
        owed = [d for k, d in self.schedule.destinations.items() if self.is_owed(k)]
        due = self.schedule.due(self.now)
        expected = [d for d in owed if d.due <= self.now and d.key not in self.asked]
        assert sorted(str(d.key) for d in due) == sorted(str(d.key) for d in expected)
        for key in self.schedule.destinations:
            asked = self.schedule.asked(key)
            assert (asked is None) is (key not in self.asked)
        for destination in owed:
            assert destination.due <= self.now + max(self.interval, RETRY_LAST) + TINY

    def is_owed(self, key: Hashable) -> bool:
        return not self.count or self.gone[key] < self.count

    @invariant()
    def it_wakes_for_whoever_is_next_and_never_spins(self) -> None:
        next_due = self.schedule.next_due(self.now)
        for key, destination in self.schedule.destinations.items():
            if self.is_owed(key):
                assert next_due is not None
                since = self.asked.get(key)
                until = destination.due if since is None else since + ASKING
                assert next_due <= until + TINY or self.schedule.due(self.now)
        if next_due is not None and next_due <= self.now:
            assert self.schedule.due(self.now) or self.schedule.overdue(self.now)
        if next_due is None:
            # Nothing to wait for but a new address: so it is over, or has no end.
            assert not self.count or self.schedule.finished(self.now)

    @invariant()
    def it_ends_when_all_have_theirs_or_patience_does(self) -> None:
        under_way = any(0 < number < self.count for number in self.gone.values())
        patience = self.count * self.interval
        if not self.reached():
            patience = max(patience, LATE_NETWORK)
        patient = self.now < self.start + patience
        untried = set(self.gone) - self.tried
        over = not under_way and not untried and (self.reached() >= self.awaited or not patient)
        over = (self.count > 0 and over) or not self.awaited
        assert self.schedule.finished(self.now) is over


class SendingCompiled(Sending):
    core_name = "compiled"


class SendingPure(Sending):
    core_name = "pure"


TestSendingCompiled = SendingCompiled.TestCase
TestSendingPure = SendingPure.TestCase


# ---------------------------------------------------------- whole runs of the sender

Down = list[tuple[float, float]]
weathers = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 40)).map(lambda one: (one[0], one[0] + one[1])),
    max_size=3,
)
networks = st.dictionaries(st.sampled_from(KEYS), weathers, min_size=1)
cores = st.sampled_from(CORES).map(load_core)


def play(core: Any, downs: dict[str, Down], count: int, interval: float, until: float) -> Times:
    """When messages left for each key, to which there is no way while it is down."""

    def up(key: Hashable, now: float) -> bool:
        return not any(begin <= now < end for begin, end in downs[str(key)])

    return play_until(start(core, downs, count, interval), until, up)


@given(cores, networks, st.integers(1, 4), st.integers(1, 12))
def test_with_a_count_every_reached_address_gets_exactly_as_many(
    core: Any, downs: dict[str, Down], count: int, interval: int
) -> None:
    for key, times in play(core, downs, count, interval, 1000.0).items():
        assert len(times) in (0, count)
        for before, after in zip(times, times[1:]):
            assert after - before >= interval / 2 - TINY
        if not any(begin <= 0 for begin, _ in downs[str(key)]):
            assert times[0] == 0


@given(cores, networks, st.integers(1, 12))
def test_without_a_count_it_goes_on_as_soon_as_the_network_is_back(
    core: Any, downs: dict[str, Down], interval: int
) -> None:
    for key, times in play(core, downs, 0, interval, 300.0).items():
        for before, after in zip([0.0, *times], [*times, 300.0]):
            # An interval, the time the network was down, and the time until the next try.
            spells = downs[str(key)]
            down = sum(max(0.0, min(end, after) - max(begin, before)) for begin, end in spells)
            assert after - before <= interval + down + RETRY_LAST + TINY


@given(cores, networks, st.sampled_from(KEYS), weathers, st.integers(0, 3), st.integers(1, 12))
def test_how_one_destination_fares_is_nothing_to_another(
    core: Any, downs: dict[str, Down], key: str, weather: Down, count: int, interval: int
) -> None:
    """Whoever else there is, and however bad the way there: the same moments."""
    together = play(core, {**downs, key: weather}, count, interval, 200.0)
    alone = play(core, {key: weather}, count, interval, 200.0)
    # With a count, one that was never reached is waited for only as long as others are.
    if not count or (together[key] and alone[key]):
        assert together[key] == alone[key]

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The decision over many nodes, without sockets or clock."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from kdumpfence.listener.dumps import (
    OVERTAKEN,
    Dumps,
    Said,
)
from kdumpfence.listener.events import (
    MOST_ADDRESSES,
    MOST_SESSIONS,
    TOLD_ENDS,
    Dump,
    Event,
    Kind,
    ToldEnd,
)

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


def test_of_those_that_are_silent_no_more_are_looked_at_than_asked_for() -> None:
    dumps = Dumps(silence=30.0)
    for when in range(3):
        dumps.heard(f"node{when}", A, when)
    assert [event.node for event in dumps.tick(60.0, 2)] == ["node0", "node1"]
    assert dumps.next_due is not None
    assert dumps.next_due <= 60.0
    assert [event.node for event in dumps.tick(60.0, 2)] == ["node2"]


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


# --------------------------------------------------------------------- what the node says of it


def say(dumps: Dumps, when: float, state: str, session: int = 1, address: str = A) -> list[str]:
    """The kinds of the events that one status brings about."""
    events = dumps.told("node1", address, when, 1, when, [Said(session, state, when, 1)])
    return [event.kind for event in events]


@pytest.mark.parametrize("end", TOLD_ENDS)
def test_an_end_that_is_told_ends_the_dump_at_once(end: ToldEnd) -> None:
    dumps = Dumps(repeat=5.0)
    assert say(dumps, 10, "started") == ["began"]
    assert say(dumps, 12, "dumping") == []
    assert say(dumps, 16, "dumping") == ["dumping"]
    (event,) = dumps.told("node1", B, 20.5, 1, 20.5, [Said(2, end, 20.5, 1)])
    assert event == Event(end, "node1", 20.5, 10, 20.5, 4, (A, B), 10.5, (1, 2))
    assert "node1" not in dumps
    assert dumps.snapshot() == []


def test_what_goes_on_beside_the_call_that_told_the_end_takes_nothing_back() -> None:
    dumps = Dumps()
    say(dumps, 0, "dumping", session=1)
    assert say(dumps, 10, "finished", session=2) == ["finished"]
    for when in range(11, 500, 10):
        assert say(dumps, when, "dumping", session=1) == []
        assert dumps.heard("node1", A, when + 1) is None  # of another sender, a stock one
        assert say(dumps, when, "finished", session=2) == []
        assert dumps.tick(when) == []
    assert len(dumps) == 0


def test_another_session_begins_the_next_dump() -> None:
    dumps = Dumps()
    say(dumps, 0, "dumping", session=1)
    say(dumps, 10, "failed", session=2)
    say(dumps, 20, "dumping", session=1)
    (began,) = dumps.told("node1", A, 30, 4, 21, [Said(3, "started", 30, 4)])
    assert began == Event("began", "node1", 30, 30, 30, 1, (A,), 0, (3,))
    assert say(dumps, 31, "dumping", session=1) == []
    assert [event.kind for event in dumps.tick(61)] == ["silent"]


def test_the_first_message_of_the_ordinary_sender_may_come_after_the_end() -> None:
    """It may have been overtaken, if the dump was over as soon as there was a network."""
    dumps = Dumps()
    assert say(dumps, 0, "finished", session=2) == ["began", "finished"]
    assert say(dumps, OVERTAKEN, "dumping", session=1) == []
    assert say(dumps, 15, "dumping", session=1) == []
    assert say(dumps, 16, "dumping", session=3) == ["began"]


def test_any_message_after_the_silence_begins_the_next_dump() -> None:
    for message in ("plain", "new", "end"):
        for ticks in (True, False):
            dumps = Dumps()
            say(dumps, 0, "dumping")
            say(dumps, 10, "finished", session=2)
            assert dumps.heard("node1", A, 30) is None
            if ticks:
                assert dumps.tick(61) == []
            if message == "plain":
                began = dumps.heard("node1", A, 61)
                assert began is not None
                assert began.kind == "began"
            elif message == "new":
                assert say(dumps, 61, "dumping", session=3) == ["began"]
            else:
                assert say(dumps, 61, "failed", session=3) == ["began", "failed"]


def test_a_silence_within_what_is_told_at_once_begins_the_next_dump_too() -> None:
    """Nobody looked for so long that it may have been silent: no dump is missed for that."""
    dumps = Dumps()
    events = dumps.told("node1", A, 100, 9, 0, [Said(2, "finished", 10, 4)])
    assert [(event.kind, event.since, event.messages) for event in events] == [
        ("began", 0, 4),
        ("finished", 0, 4),
        ("began", 100, 5),
    ]


def test_of_two_ends_the_later_counts() -> None:
    dumps = Dumps()
    say(dumps, 0, "dumping", session=1)
    assert say(dumps, 60, "failed", session=2) == ["failed"]
    (event,) = dumps.told("node1", A, 90, 1, 90, [Said(3, "finished", 90, 1)])
    assert event == Event("finished", "node1", 90, 0, 90, 3, (A,), 90, (1, 2, 3))
    assert say(dumps, 95, "failed", session=2) == []  # it said so before
    assert say(dumps, 80, "failed", session=4) == []  # of before, from another address
    assert say(dumps, 96, "failed", session=5) == ["failed"]


def test_nobody_makes_up_any_number_of_ends() -> None:
    dumps = Dumps()
    kinds = [say(dumps, when, TOLD_ENDS[when % 2], session=when) for when in range(100)]
    assert sum(map(len, kinds)) == 1 + MOST_SESSIONS
    assert all(not some for some in kinds[MOST_SESSIONS:])


def test_sessions_that_are_kept_are_few() -> None:
    dumps = Dumps()
    for session in range(50):
        say(dumps, session, "dumping", session=session)
    assert dumps.snapshot()[0].sessions == tuple(range(MOST_SESSIONS))
    say(dumps, 50, "finished", session=99)
    assert say(dumps, 60, "dumping", session=0) == []
    assert say(dumps, 61, "dumping", session=49) == ["began"]


def test_of_one_batch_the_order_counts() -> None:
    dumps = Dumps()
    said = [Said(1, "dumping", 1, 2), Said(2, "failed", 3, 4), Said(3, "finished", 4, 5)]
    said.append(Said(4, "started", 20, 8))
    events = dumps.told("node1", A, 25, 10, 0, said)
    assert [(one.kind, one.when, one.since, one.messages) for one in events] == [
        ("began", 0, 0, 2),
        ("failed", 3, 0, 4),
        ("finished", 4, 0, 5),
        ("began", 20, 20, 1),
    ]
    (dump,) = dumps.snapshot()
    assert (dump.since, dump.last, dump.messages, dump.sessions) == (20, 25, 3, (4,))


def test_an_end_that_was_restored_is_what_it_was() -> None:
    dump = Dump("node1", 0.0, 50.0, 7, (A,), 50.0, (1, 2))
    dumps = Dumps()
    dumps.restore_end(dump, "failed", 50.0, 60.0)
    with pytest.raises(ValueError, match="'node1' is dumping already"):
        dumps.restore(dump)
    assert dumps.tick(89) == []
    assert dumps.heard("node1", A, 70) is None
    assert say(dumps, 71, "finished", session=3) == ["finished"]
    assert say(dumps, 75, "dumping", session=9) == []
    assert say(dumps, 77, "dumping", session=10) == ["began"]


def test_after_a_long_restart_sessions_still_belong_to_it_and_nothing_else_does() -> None:
    dump = Dump("node1", 0.0, 50.0, 7, (A,), 50.0, (1, 2))
    for session, begins in ((1, False), (3, True), (None, True)):
        dumps = Dumps()
        dumps.restore_end(dump, "failed", 50.0, 5000.0)
        if session is None:
            assert (dumps.heard("node1", A, 5001) is not None) == begins
        else:
            assert say(dumps, 5001, "dumping", session=session) == ["began"] * begins


def test_what_is_forgotten_is_told_once() -> None:
    dumps = Dumps(silence=10)
    say(dumps, 0, "finished")
    dumps.heard("node1", A, 8)
    assert dumps.next_due == 10
    assert dumps.tick(17) == []
    assert dumps.forgotten() == []
    assert dumps.next_due == 18
    assert dumps.tick(18) == []
    assert dumps.forgotten() == ["node1"]
    assert dumps.forgotten() == []
    assert dumps.next_due is None


# ------------------------------------------------------------------------------ any order

SILENCE, REPEAT = 8.0, 3.0


class Model:
    """The same without any cleverness: it looks at all of them, each time."""

    def __init__(self) -> None:
        self.dumps: dict[str, dict[str, Any]] = {}
        #: As `dumps`, with "how", "when" and "by".
        self.ended: dict[str, dict[str, Any]] = {}

    def begin(self, node: str, since: float, told: float) -> dict[str, Any]:
        dump = {"since": since, "last": since, "messages": 0, "addresses": (), "told": told}
        self.dumps[node] = {**dump, "took": 0.0, "from": -math.inf, "sessions": ()}
        return self.dumps[node]

    def grow(
        self, dump: dict[str, Any], address: str, when: float, messages: int, *sessions: int
    ) -> None:
        dump["took"] += max(0.0, when - dump["last"])
        dump["last"] = max(dump["last"], when)
        dump["messages"] += messages
        if address not in dump["addresses"]:
            dump["addresses"] += (address,)
        new = [session for session in sessions if session not in dump["sessions"]]
        dump["sessions"] = (dump["sessions"] + tuple(new))[:MOST_SESSIONS]

    def told(
        self,
        node: str,
        address: str,
        when: float,
        messages: int,
        first: float,
        said: list[Said],
    ) -> list[Event]:
        events = []
        before = 0
        for session, state, at, number in said:
            more, before = number - before, number
            if node in self.ended:
                over = self.ended[node]
                silent = at - over["last"] > SILENCE
                soon = state in TOLD_ENDS or at <= over["when"] + OVERTAKEN
                if session in over["sessions"] or (soon and not silent):
                    self.grow(over, address, at, more, session)
                    events += self.ends_again(node, session, state, at)
                    first = at
                    continue
                del self.ended[node]
                more, first = 1, at
            event = self.heard(node, address, at, more, first)
            first = at
            dump = self.dumps[node]
            self.grow(dump, address, at, 0, session)
            if event is not None and (event.kind == "began" or state not in TOLD_ENDS):
                events.append(event._replace(sessions=dump["sessions"]))
            if state in TOLD_ENDS:
                over = {**dump, "how": state, "when": at, "by": [session], "from": dump["last"]}
                self.ended[node] = over
                events.append(self.end(node, at, state))
        if messages > before:
            event = self.heard(node, address, when, messages - before, first)
            events += [event] if event is not None else []
        return events

    def ends_again(self, node: str, session: int, state: str, at: float) -> list[Event]:
        over = self.ended[node]
        if state not in TOLD_ENDS or session in over["by"] or len(over["by"]) >= MOST_SESSIONS:
            return []
        over["by"].append(session)
        if state == over["how"] or at < over["when"]:
            return []
        over.update(how=state, when=at)
        return [Event(state, node, at, *self.rest(over))]

    def goes_on(self, node: str, address: str, when: float, messages: int, since: float) -> float:
        """When the next dump began; infinity if this is still of the last one."""
        over = self.ended[node]
        if since - over["last"] > SILENCE:
            return since
        if when - max(since, over["last"]) > SILENCE:
            return when
        self.grow(over, address, when, messages)
        return math.inf

    def heard(
        self, node: str, address: str, when: float, messages: int, first: float | None
    ) -> Event | None:
        kind: Kind | None = None
        event_time = when
        if node not in self.dumps:
            kind = "began"
            event_time = when if first is None else min(first, when)
            if node in self.ended:
                event_time = self.goes_on(node, address, when, messages, event_time)
                if event_time == math.inf:
                    return None
                del self.ended[node]
            self.begin(node, event_time, when)
        dump = self.dumps[node]
        self.grow(dump, address, when, messages)
        if kind is None and when - dump["told"] >= REPEAT:
            kind = "dumping"
            dump["told"] = when
        return Event(kind, node, event_time, *self.rest(dump)) if kind else None

    def rest(self, dump: dict[str, Any]) -> tuple[Any, ...]:
        names = ("since", "last", "messages", "addresses", "took", "sessions")
        return tuple(dump[name] for name in names)

    def restore_end(self, dump: Dump, kind: ToldEnd, ended: float, when: float) -> None:
        over = {**dump._asdict(), "took": dump.took or dump.last - dump.since}
        over.update(how=kind, when=ended, by=[])
        self.ended[dump.node] = {**over, "from": max(when, dump.last)}

    def restore(self, dump: Dump, when: float | None) -> None:
        known = self.begin(dump.node, dump.since, dump.last)
        known.update(dump._asdict(), took=dump.took or dump.last - dump.since)
        if when is not None:
            known["from"] = when

    def over(self, node: str) -> float:
        dump = self.dumps.get(node) or self.ended[node]
        over: float = max(dump["last"], dump["from"]) + SILENCE
        return over

    def end(self, node: str, when: float, kind: Kind = "silent") -> Event:
        event = Event(kind, node, when, *self.rest(self.dumps[node]))
        del self.dumps[node]
        return event

    def tick(self, now: float) -> list[Event]:
        known = [*self.dumps, *self.ended]
        due = sorted((self.over(node), node) for node in known if self.over(node) <= now)
        for _, node in due:
            self.ended.pop(node, None)
        return [self.end(node, now) for _, node in due if node in self.dumps]


NODES = st.sampled_from(["node1", "node2", "node3", "node4"])
TIMES = st.integers(0, 60).map(float)


def test_the_end_of_a_restored_dump_is_looked_after_in_its_own_time() -> None:
    dumps = Dumps(SILENCE, REPEAT)
    dumps.restore(Dump("node1", 30.0, 31.0, 5, (B,)), 32.0)
    assert dumps.tick(31 + SILENCE) == []
    assert dumps.next_due == 32 + SILENCE
    dumps.told("node1", A, 30.5, 1, 30.5, [Said(1, "finished", 30.5, 1)])
    assert dumps.next_due == 31 + SILENCE


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

    @rule(
        node=NODES,
        address=st.sampled_from([A, B]),
        first=TIMES,
        said=st.lists(
            st.tuples(
                st.integers(1, 4),
                st.sampled_from(["started", "dumping", *TOLD_ENDS]),
                st.integers(0, 12),
                st.integers(1, 2),
            ),
            max_size=4,
        ),
        later=st.integers(0, 12),
        more=st.integers(0, 2),
    )
    def told(
        self,
        node: str,
        address: str,
        first: float,
        said: list[tuple[int, str, int, int]],
        later: int,
        more: int,
    ) -> None:
        when, number = first, 0
        statuses = []
        for session, state, gap, messages in said:
            when, number = when + gap, number + messages
            statuses.append(Said(session, state, when, number))
        what = (node, address, when + later, number + more, first, statuses)
        assert self.dumps.told(*what) == self.model.told(*what)

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
            self.model.ended.pop(node, None)
            return Dump(node, 30.0, 31.0, 5, (B,))
        last = self.model.dumps[node]["last"]
        expected = self.model.end(node, last if now is None else now)
        assert self.dumps.forget(node, now) == expected
        return Dump(node, *expected[3:])

    @rule(dump=consumes(dumped), kind=st.sampled_from(TOLD_ENDS), ended=TIMES, when=TIMES)
    def restore_end(self, dump: Dump, kind: ToldEnd, ended: float, when: float) -> None:
        if dump.node in {**self.model.dumps, **self.model.ended}:
            return
        self.dumps.restore_end(dump, kind, ended, when)
        self.model.restore_end(dump, kind, ended, when)

    @rule(dump=consumes(dumped), when=st.none() | TIMES)
    def restore(self, dump: Dump, when: float | None) -> None:
        if dump.node in {**self.model.dumps, **self.model.ended}:
            with pytest.raises(ValueError, match=f"'{dump.node}' is dumping already"):
                self.dumps.restore(dump, when)
            return
        self.dumps.restore(dump, when)
        self.model.restore(dump, when)

    @invariant()
    def both_know_the_same(self) -> None:
        """In the order in which the dumps began."""
        known = [Dump(node, *self.model.rest(dump)) for node, dump in self.model.dumps.items()]
        assert self.dumps.snapshot() == known
        assert len(self.dumps) == len(known)
        due = self.dumps.next_due
        looked_after = [*self.model.dumps, *self.model.ended]
        assert (due is None) == (not looked_after)
        assert due is None or due <= min(map(self.model.over, looked_after))

    def teardown(self) -> None:
        """When the last dump is over nothing is left of any."""
        self.dumps.tick(1e6)
        self.dumps.forgotten()
        left = {
            name: value for name, value in vars(self.dumps).items() if hasattr(value, "__len__")
        }
        assert len(left) >= 4
        assert not any(map(len, left.values())), left


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

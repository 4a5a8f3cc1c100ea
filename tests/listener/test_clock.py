# SPDX-License-Identifier: GPL-2.0-or-later
"""A system's clock that is set, and dumps that were under way before a restart."""

from __future__ import annotations

import time

import pytest

from kdumpfence.listener.dumps import Dump
from tests.listener.conftest import A, B, C, MakeListener, after_message, kinds, say, until


def set_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Put the system's clock forward, for those who ask Python."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + seconds)


def test_a_clock_that_is_set_does_not_change_when_a_dump_began(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = listen([A, B], repeat=0.0, silence=2.0)
    began = after_message(listening, A)
    set_clock(monkeypatch, 86400.0)
    listening.events(0)
    say(A, listening.port)
    say(B, listening.port)
    events = until(listening, lambda events: kinds(events).count("silent") == 2)
    later = began.when + 86000.0
    for event in events:
        assert min(event.when, event.last) > later
        assert (event.since == began.since) if event.node == A else (event.since > later)
    after_message(listening, A)
    seen = listening.snapshot()
    assert min(seen.when, seen.dumps[0].since) > later


def test_a_dump_from_before_a_restart_goes_on_as_the_same(listen: MakeListener) -> None:
    listening = listen({"node1": [A], "node2": [B]}, repeat=0.0, silence=2.0)
    long_ago = 1700000000.123456789
    old = [Dump(node, long_ago, long_ago + 9.1, 5, (C,), 9.0) for node in ("node1", "node2")]
    listening.restore(old)
    assert listening.snapshot().dumps == old
    dumping = after_message(listening, A)
    assert (dumping.kind, dumping.node, dumping.since) == ("dumping", "node1", long_ago)
    assert (dumping.messages, dumping.addresses) == (6, (C, A))
    events = until(listening, lambda events: len(events) == 2)
    assert [(event.kind, event.node, event.since) for event in events] == [
        ("silent", "node2", long_ago),
        ("silent", "node1", long_ago),
    ]
    assert (events[0].last, events[0].took) == (long_ago + 9.1, 9.0)


def test_a_dump_from_before_a_restart_stays_the_same_though_the_clock_is_behind(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The machine came up with a clock an hour behind, and later the time service sets it.
    listening = listen({"node1": [A], "node2": [B]}, repeat=0.0, silence=1.0)
    began = time.time() + 3000.123456789
    old = Dump("node1", began, began + 600.0, 5, (A,), 600.0)
    listening.restore([old])
    assert listening.snapshot().dumps == [old]
    dumping = after_message(listening, A)
    assert (dumping.kind, dumping.since, dumping.messages) == ("dumping", began, 6)
    assert 0 <= dumping.last - old.last < 60
    set_clock(monkeypatch, 3600.0)
    listening.events(0)
    say(A, listening.port)
    say(B, listening.port)
    told = {event.node: event for event in until(listening, lambda events: len(events) == 2)}
    dumping, other = told["node1"], told["node2"]
    assert (dumping.kind, dumping.since, dumping.messages) == ("dumping", began, 7)
    assert other.since > time.time() - 100.0
    since = {dump.node: dump.since for dump in listening.snapshot().dumps}
    assert since == {"node1": began, "node2": other.since}
    events = until(listening, lambda events: kinds(events).count("silent") == 2)
    (silent,) = [event for event in events if event.node == "node1"]
    assert silent.since == began
    assert 600.0 <= silent.last - silent.since < 700.0
    assert 600.0 <= silent.took < 700.0
    anew = after_message(listening, A)
    assert anew.kind == "began"
    assert abs(anew.since - time.time()) < 60

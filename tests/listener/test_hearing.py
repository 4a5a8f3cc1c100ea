# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a Listener hears and tells: nodes, networks, strangers, losses; on loopback, each core."""

from __future__ import annotations

import threading
import time
from ipaddress import ip_address
from typing import Any

import pytest

from kdumpfence.listener import reader
from kdumpfence.listener.events import AnyEvent, Dump, Event
from kdumpfence.wire import OWN_MESSAGE
from tests.listener.conftest import (
    NETWORK,
    PATIENCE,
    A,
    B,
    C,
    MakeListener,
    about_nodes,
    kinds,
    wait_for,
)


@pytest.mark.slow
def test_a_node_that_begins_to_dump_goes_on_and_falls_silent(listen: MakeListener) -> None:
    listening = listen({"node1": [A]}, silence_timeout=1.5, repeat_interval=0.0)
    before = time.time()
    began = listening.after_message(A)
    assert (began.kind, began.node, began.messages) == ("began", "node1", 1)
    assert began.addresses == (A,)
    assert before - 0.1 <= began.since == began.last == began.when <= time.time() + 0.1
    dumping = listening.after_message(A)
    assert (dumping.kind, dumping.messages, dumping.since) == ("dumping", 2, began.since)
    assert dumping.last > began.last
    silent = listening.only_event()
    assert silent[3:7] == (began.since, dumping.last, 2, (A,))
    assert silent.took == pytest.approx(silent.last - silent.since, abs=1e-3)
    assert (silent.kind, silent.node) == ("silent", "node1")
    assert silent.when - silent.last >= 1.5
    assert listening.events(0.1) == []


@pytest.mark.usefixtures("ipv6")
def test_all_addresses_of_a_node_are_one_dump(listen: MakeListener) -> None:
    listening = listen({"node1": [A, "::1", B]}, repeat_interval=0.0)
    for number, host in enumerate((B, "::1", A), 1):
        listening.after_message(host)
        (dump,) = listening.snapshot().dumps
        assert (dump.node, dump.messages) == ("node1", number)
    assert dump.addresses == (B, "::1", A)


def test_a_message_of_the_other_byte_order_and_one_with_a_trailer_count(
    listen: MakeListener,
) -> None:
    listening = listen([A, B])
    listening.say(A, OWN_MESSAGE[3::-1] + OWN_MESSAGE[:3:-1])
    listening.say(B, OWN_MESSAGE + b"x" * 1000)
    events = listening.several(2)
    assert {event[:2] for event in events} == {("began", A), ("began", B)}


def test_strangers_and_what_is_no_message_are_counted_and_tell_nothing(
    listen: MakeListener,
) -> None:
    listening = listen({"node1": [A]})
    for payload in (b"", OWN_MESSAGE[:7], b"x" * 8, OWN_MESSAGE[:4] + b"\2\2\2\2"):
        listening.say(A, payload)
    listening.say(B)
    wait_for(lambda: sum(listening.counted().values()) == 5)
    assert listening.counted() == {"short": 2, "magic": 1, "version": 1, "stranger": 1}
    assert listening.events(0.1) == []
    assert listening.after_message(A).kind == "began"
    assert listening.counted()["accepted"] == 1


def test_messages_that_nobody_waits_for_are_told_in_one(listen: MakeListener) -> None:
    """With the times of the first and of the last."""
    listening = listen([A])
    listening.say(A)
    listening.wait_for_count("accepted", 1)
    between = time.time()
    for _ in range(99):
        listening.say(A)
    listening.wait_for_count("accepted", 100)
    began = listening.only_event()
    assert began.messages == 100
    assert began.since == began.when <= between <= began.last


# ----------------------------------------------------------------------- nodes come and go


def test_all_nodes_can_be_replaced_at_once(listen: MakeListener) -> None:
    listening = listen({"node1": [A], "node2": [B]})
    listening.after_message(A)
    began = listening.after_message(B)
    listening.replace_nodes({"node2": [B], "node3": [C]})
    assert listening.nodes == ["node2", "node3"]
    assert [event[:2] for event in listening.events(20)] == [("silent", "node1")]
    assert listening.snapshot().dumps == [Dump("node2", *began[3:])]
    assert listening.after_message(C)[:2] == ("began", "node3")
    listening.say(A)
    listening.wait_for_count("stranger", 1)
    listening.replace_nodes([ip_address(A), B])
    assert sorted(event[:2] for event in listening.several(2)) == [
        ("silent", "node2"),
        ("silent", "node3"),
    ]
    assert listening.after_message(A)[:2] == ("began", A)


@pytest.mark.parametrize("wrong", [{"node4": ["224.0.0.1"]}, {"node4": [7]}, {"": [A]}, "node4"])
def test_nodes_of_which_one_cannot_be_replace_none(listen: MakeListener, wrong: Any) -> None:
    listening = listen({"node1": [A]})
    began = listening.after_message(A)
    nodes = wrong if isinstance(wrong, str) else {"node2": [B], **wrong}
    with pytest.raises((ValueError, TypeError)):
        listening.replace_nodes(nodes)
    assert listening.nodes == ["node1"]
    assert [dump[:2] for dump in listening.snapshot().dumps] == [("node1", began.since)]
    listening.say(B)
    listening.wait_for_count("stranger", 1)


def test_addresses_that_change_places_lose_nothing(listen: MakeListener) -> None:
    listening = listen({"node1": [A], "node2": [B]}, repeat_interval=0.0)
    listening.say(A)
    listening.say(B)
    listening.wait_for_count("accepted", 2)
    listening.replace_nodes({"node1": [B], "node2": [A]})
    listening.say(A)
    listening.wait_for_count("accepted", 3)
    dumps = {dump.node: (dump.messages, dump.addresses) for dump in listening.snapshot().dumps}
    assert dumps == {"node1": (1, (A,)), "node2": (2, (B, A))}
    assert listening.snapshot().shared == []


def test_a_node_can_be_added_and_removed_while_it_runs(listen: MakeListener) -> None:
    listening = listen(silence_timeout=60)
    assert listening.snapshot().nodes == 0
    listening.add("node1", [A])
    assert listening.after_message(A).kind == "began"
    listening.add("node1", [B])
    assert listening.snapshot().nodes == 1
    listening.remove("node1")
    silent = listening.only_event()
    assert (silent.kind, silent.node, silent.messages) == ("silent", "node1", 1)
    assert silent.when >= silent.last
    listening.say(B)
    listening.wait_for_count("stranger", 1)
    assert listening.events(0.1) == []
    assert listening.snapshot().dumps == []
    with pytest.raises(KeyError):
        listening.remove("node1")


def test_nodes_can_be_added_while_another_thread_waits_for_events(listen: MakeListener) -> None:
    listening = listen()
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(next(listening).node))
    thread.start()
    listening.add("node1", [A])
    listening.say(A)
    thread.join(20)
    assert found == ["node1"]


def test_an_address_of_two_nodes_counts_for_neither_and_is_shown(listen: MakeListener) -> None:
    listening = listen({"node1": [A, C], "node2": [B, C]})
    assert listening.snapshot().shared == [C]
    listening.say(C)
    listening.wait_for_count("stranger", 1)
    assert listening.after_message(B).node == "node2"
    listening.remove("node2")
    listening.say(C)
    events = listening.several(2)
    assert [event[:2] for event in events] == [("silent", "node2"), ("began", "node1")]


def test_an_address_of_two_nodes_is_no_node_of_a_network_either(listen: MakeListener) -> None:
    # One of the two is called as the network would call it.
    listening = listen({C: [C], "node2": [B, C]}, [NETWORK], max_admitted=1)
    listening.say(C)
    listening.wait_for_count("accepted", 1)
    assert listening.events(0) == []
    assert listening.after_message(A).node == A  # nor does it take the room of others


# -------------------------------------------------------------------------------- networks


def test_anyone_in_a_network_is_a_node_while_its_dump_lasts(listen: MakeListener) -> None:
    listening = listen(networks=["127.7.4.0/30", "::/0"], silence_timeout=0.4)
    listening.say(A)
    listening.say("127.7.4.4")  # outside; and none of the IPv6 addresses
    events = listening.until(lambda events: "silent" in kinds(events))
    assert [event[:2] for event in events] == [("began", A), ("silent", A)]
    assert listening.counted() == {"accepted": 1, "stranger": 1}
    assert listening.snapshot().nodes == 0
    assert listening.after_message(A).kind == "began"


@pytest.mark.slow
def test_what_finds_no_room_is_counted_and_told_and_room_comes_back(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "UPKEEP", 0.1)
    listening = listen({"node1": ["127.7.4.9"]}, [NETWORK], max_admitted=2, silence_timeout=1.5)
    for host in (A, B, C, C):
        listening.say(host)
    # Before the first look, or it might find one of the two.
    listening.wait_for_count("crowded", 2)
    listening.say("127.7.4.9")  # which was told of, so there is always room
    events = listening.until(lambda events: len(events) == 4)
    assert sorted(event.node for event in events if event.kind == "began") == [A, B, "node1"]
    (overflow,) = (event for event in events if event.kind == "overflow")
    assert (overflow.node, overflow.counter, overflow.messages) == ("", "crowded", 2)
    listening.until(lambda events: kinds(events).count("silent") == 3)
    assert listening.after_message(C)[:2] == ("began", C)


@pytest.mark.slow
def test_losses_are_told_of_at_most_every_few_seconds(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "UPKEEP", 0.02)
    monkeypatch.setattr(reader, "OVERFLOW_REPEAT", 1.0)
    listening = listen(networks=[NETWORK], max_admitted=0, silence_timeout=60)
    told: list[AnyEvent] = []
    end = time.monotonic() + PATIENCE
    sent = 0
    while len(told) < 3:
        assert time.monotonic() < end
        listening.say(A)
        sent += 1
        told += listening.events(0.01)
    times = [event.when for event in told]
    assert all(after - before > 0.999 for before, after in zip(times, times[1:]))
    # Not one is lost from the sum, however late it is told.
    before = sum(event.messages for event in told)
    told += listening.until(lambda events: before + sum(e.messages for e in events) == sent)
    assert set(kinds(told)) == {"overflow"}


@pytest.mark.slow
def test_an_admitted_node_that_is_told_of_later_stays_known(listen: MakeListener) -> None:
    listening = listen(networks=[NETWORK], max_admitted=1, silence_timeout=1.5)
    assert listening.after_message(A).node == A
    listening.add("node1", [A])
    listening.until(lambda events: ("silent", "node1") in [event[:2] for event in events])
    assert listening.after_message(B).node == B
    assert listening.after_message(A).node == "node1"  # the room is taken, but it needs none


def test_a_message_that_comes_while_silence_is_decided_begins_another_dump(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silence_while_a_message_comes() -> bool:
        listening = listen(networks=[NETWORK], silence_timeout=0.3)
        dumps = listening._events._dumps
        decide = dumps.tick
        came: list[bool] = []

        def tick(now: float, most: int | None = None) -> list[Event]:
            events = decide(now, most)
            if events and not came:
                listening.say(A)
                end = time.monotonic() + 1
                # The thread may be waiting for this lock, and then reads it only later.
                while listening.counted()["accepted"] < 2 and time.monotonic() < end:
                    time.sleep(0.01)
                came.append(listening.counted()["accepted"] == 2)
            return events

        monkeypatch.setattr(dumps, "tick", tick)
        listening.say(A)
        events = listening.several(4)
        assert kinds(events) == ["began", "silent"] * 2
        return came[0]

    assert any(silence_while_a_message_comes() for _ in range(10))


# ------------------------------------------------------------------- clocks and restarts


def set_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Put the system's clock forward, for those who ask Python."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + seconds)


@pytest.mark.slow
def test_a_clock_that_is_set_does_not_change_when_a_dump_began(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = listen([A, B], repeat_interval=0.0, silence_timeout=2.0)
    began = listening.after_message(A)
    set_clock(monkeypatch, 86400.0)
    listening.events(0)
    listening.say(A)
    listening.say(B)
    events = about_nodes(listening.until(lambda events: kinds(events).count("silent") == 2))
    later = began.when + 86000.0
    for event in events:
        assert min(event.when, event.last) > later
        assert (event.since == began.since) if event.node == A else (event.since > later)
    listening.after_message(A)
    seen = listening.snapshot()
    assert min(seen.when, seen.dumps[0].since) > later


@pytest.mark.parametrize("ahead", [-1e7, 3000.0], ids=["long ago", "by a clock that is behind now"])
@pytest.mark.slow
def test_a_dump_from_before_a_restart_goes_on_as_the_same(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    listening = listen({"node1": [A], "node2": [B]}, repeat_interval=0.0, silence_timeout=1.5)
    began = time.time() + ahead + 0.123456789
    old = [Dump(node, began, began + 600.0, 5, (C,), 9.0) for node in ("node1", "node2")]
    listening.restore(old)
    assert listening.snapshot().dumps == old
    dumping = listening.after_message(A)
    assert dumping[:2] == ("dumping", "node1")
    assert (dumping.since, dumping.messages, dumping.addresses) == (began, 6, (C, A))
    assert abs(dumping.last - max(began + 600.0, time.time())) < 60
    set_clock(monkeypatch, 3600.0)  # as a time service does
    listening.events(0)
    dumping = listening.after_message(A)
    assert (dumping.since, dumping.messages) == (began, 7)
    assert [dump.since for dump in listening.snapshot().dumps] == [began, began]
    events = listening.several(2)
    assert [(event.kind, event.node, event.since) for event in events] == [
        ("silent", "node2", began),
        ("silent", "node1", began),
    ]
    assert (events[0].last, events[0].took) == (began + 600.0, 9.0)
    assert abs(events[1].took - 9.0 - max(0.0, -ahead - 600.0)) < 60
    anew = listening.after_message(A)
    assert anew.kind == "began"
    assert abs(anew.since - time.time()) < 60

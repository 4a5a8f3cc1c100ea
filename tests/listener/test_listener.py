# SPDX-License-Identifier: GPL-2.0-or-later
"""Listeners on loopback, with real sockets and each core."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kdumpfence
from kdumpfence import addresses, filters
from kdumpfence.addresses import Address, LookUpError
from kdumpfence.listener import event_queue, reader
from kdumpfence.listener.dumps import Dump, Event
from kdumpfence.listener.listener import Listener
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import cannot_run, udp
from tests.listener.conftest import (
    PATIENCE,
    MakeListener,
    first_event,
    free_socket,
    has_ipv6,
    in_use,
    kinds,
    say,
    until,
    wait_for,
)

A, B, C = "127.7.4.1", "127.7.4.2", "127.7.4.3"


def test_a_node_that_begins_to_dump_goes_on_and_falls_silent(listen: MakeListener) -> None:
    listening = listen({"node1": [A]}, silence=1.5, repeat=0.0)
    before = time.time()
    say(A, listening.port)
    (began,) = until(listening, bool)
    assert (began.kind, began.node, began.messages) == ("began", "node1", 1)
    assert began.addresses == (A,)
    assert before - 0.1 <= began.since == began.last == began.when <= time.time() + 0.1
    say(A, listening.port)
    (dumping,) = until(listening, bool)
    assert (dumping.kind, dumping.messages, dumping.since) == ("dumping", 2, began.since)
    assert dumping.last > began.last
    (silent,) = until(listening, bool)
    assert silent[3:7] == (began.since, dumping.last, 2, (A,))
    assert silent.took == pytest.approx(silent.last - silent.since, abs=1e-3)
    assert (silent.kind, silent.node) == ("silent", "node1")
    assert silent.when - silent.last >= 1.5
    assert listening.events(0.1) == []


def test_all_addresses_of_a_node_are_one_dump(listen: MakeListener) -> None:
    if not has_ipv6():
        cannot_run("no IPv6 on loopback")
    listening = listen({"node1": [A, "::1", B]}, repeat=0.0)
    for number, host in enumerate((B, "::1", A), 1):
        say(host, listening.port)
        until(listening, bool)
        (dump,) = listening.snapshot().dumps
        assert (dump.node, dump.messages) == ("node1", number)
    assert dump.addresses == (B, "::1", A)


def test_a_message_of_the_other_byte_order_and_one_with_a_trailer_count(
    listen: MakeListener,
) -> None:
    listening = listen([A, B])
    say(A, listening.port, OWN_MESSAGE[3::-1] + OWN_MESSAGE[:3:-1])
    say(B, listening.port, OWN_MESSAGE + b"x" * 1000)
    events = until(listening, lambda events: len(events) == 2)
    assert {(event.kind, event.node) for event in events} == {("began", A), ("began", B)}


def test_strangers_and_what_is_no_message_are_counted_and_tell_nothing(
    listen: MakeListener,
) -> None:
    listening = listen({"node1": [A]})
    for payload in (b"", OWN_MESSAGE[:7], b"x" * 8, OWN_MESSAGE[:4] + b"\2\2\2\2"):
        say(A, listening.port, payload)
    say(B, listening.port)
    wait_for(lambda: sum(listening.snapshot().counts.values()) == 5)
    counts = listening.snapshot().counts
    assert {name: number for name, number in counts.items() if number} == {
        "short": 2,
        "magic": 1,
        "version": 1,
        "stranger": 1,
    }
    assert listening.events(0.1) == []
    say(A, listening.port)
    assert kinds(until(listening, bool)) == ["began"]
    assert listening.snapshot().counts["accepted"] == 1


def test_messages_that_nobody_waits_for_are_told_in_one(listen: MakeListener) -> None:
    """With the times of the first and of the last."""
    listening = listen([A])
    say(A, listening.port)
    wait_for(lambda: listening.snapshot().counts["accepted"] == 1)
    between = time.time()
    for _ in range(99):
        say(A, listening.port)
    wait_for(lambda: listening.snapshot().counts["accepted"] == 100)
    (began,) = until(listening, bool)
    assert began.messages == 100
    assert began.since == began.when <= between <= began.last


# ----------------------------------------------------------------------- nodes come and go


def test_a_node_can_be_added_and_removed_while_it_runs(listen: MakeListener) -> None:
    listening = listen(silence=60)
    assert listening.snapshot().nodes == 0
    listening.add("node1", [A])
    say(A, listening.port)
    assert kinds(until(listening, bool)) == ["began"]
    listening.add("node1", [B])
    assert listening.snapshot().nodes == 1
    listening.remove("node1")
    (silent,) = until(listening, bool)
    assert (silent.kind, silent.node, silent.messages) == ("silent", "node1", 1)
    assert silent.when >= silent.last
    say(B, listening.port)
    wait_for(lambda: listening.snapshot().counts["stranger"] == 1)
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
    say(A, listening.port)
    thread.join(20)
    assert found == ["node1"]


def test_an_address_of_two_nodes_counts_for_neither_and_is_shown(listen: MakeListener) -> None:
    listening = listen({"node1": [A, C], "node2": [B, C]})
    assert listening.snapshot().shared == [C]
    say(C, listening.port)
    wait_for(lambda: listening.snapshot().counts["stranger"] == 1)
    say(B, listening.port)
    (began,) = until(listening, bool)
    assert began.node == "node2"
    listening.remove("node2")
    say(C, listening.port)
    events = until(listening, lambda events: len(events) == 2)
    assert [(event.kind, event.node) for event in events] == [
        ("silent", "node2"),
        ("began", "node1"),
    ]


def test_an_address_of_two_nodes_is_no_node_of_a_network_either(listen: MakeListener) -> None:
    # One of the two is called as the network would call it.
    listening = listen({C: [C], "node2": [B, C]}, ["127.7.4.0/24"], room=1)
    say(C, listening.port)
    wait_for(lambda: listening.snapshot().counts["accepted"] == 1)
    assert listening.events(0) == []
    say(A, listening.port)  # nor does it take the room of others
    assert until(listening, bool)[0].node == A


class NameService:
    """Answers of a made-up name service, and how often it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}
        self.asked: list[str] = []

    def ask(self, name: str, family: int) -> list[Address]:
        self.asked.append(name)
        if name not in self.answers:
            raise LookUpError("not known yet")
        return [Address(socket.inet_aton(host)) for host in self.answers[name]]


@pytest.fixture
def name_service(monkeypatch: pytest.MonkeyPatch) -> NameService:
    service = NameService()
    monkeypatch.setattr(reader, "look_up_node", service.ask)
    return service


def test_a_name_that_leads_to_this_machine_is_no_nodes(
    listen: MakeListener, name_service: NameService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "look_up_node", addresses.look_up_node)
    monkeypatch.setattr(addresses, "look_up", name_service.ask)
    name_service.answers["node1"] = ["127.0.1.1"]  # as Debian's hosts file has it
    listening = listen(["node1"])
    wait_for(lambda: len(name_service.asked) >= 2)
    assert listening.snapshot().unresolved == ["node1"]
    say("127.0.1.1", listening.port)
    wait_for(lambda: listening.snapshot().counts["stranger"] == 1)


def test_a_name_is_asked_for_until_it_has_an_address(
    listen: MakeListener, name_service: NameService
) -> None:
    listening = listen({"node1": ["ring0.example", A]})
    say(A, listening.port)
    assert kinds(until(listening, bool)) == ["began"]  # what needs no name service is heard
    wait_for(lambda: len(name_service.asked) >= 3)
    assert listening.snapshot().unresolved == ["node1"]
    name_service.answers["ring0.example"] = [B]
    wait_for(lambda: listening.snapshot().unresolved == [])
    say(B, listening.port)
    wait_for(lambda: listening.snapshot().counts["accepted"] == 2)
    listening.events(0.1)
    (dump,) = listening.snapshot().dumps
    assert dump.addresses == (A, B)


def test_literals_never_reach_the_name_service(
    listen: MakeListener, name_service: NameService
) -> None:
    listening = listen({"node1": [A, B], "127.7.4.9": []})
    say(A, listening.port)
    until(listening, bool)
    assert name_service.asked == []


def test_a_thousand_names_are_all_looked_up(
    listen: MakeListener, name_service: NameService
) -> None:
    names = [f"node{number}" for number in range(1000)]
    name_service.answers = {
        name: [f"127.8.{number // 250}.{number % 250 + 1}"] for number, name in enumerate(names)
    }
    listening = listen(names)
    wait_for(lambda: listening.snapshot().unresolved == [])
    assert sorted(name_service.asked) == sorted(names)
    say("127.8.3.250", listening.port)
    assert until(listening, bool)[0].node == "node999"


def test_a_change_of_the_hosts_file_is_noticed(
    listen: MakeListener, name_service: NameService, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    hosts = tmp_path / "hosts"
    monkeypatch.setattr("kdumpfence.addresses.NAME_FILES", (str(hosts),))
    name_service.answers["node1"] = [A]
    listening = listen(["node1"])
    wait_for(lambda: listening.snapshot().unresolved == [])
    name_service.answers["node1"] = [B]
    hosts.write_text("changed")
    wait_for(lambda: len(name_service.asked) >= 2)
    # Asked is not answered yet: until then the new address is a stranger's, and a node repeats.
    event = first_event(listening, B)
    assert (event.kind, event.node, event.addresses) == ("began", "node1", (B,))
    # The old address is no longer the node's.
    strangers = listening.snapshot().counts["stranger"]
    say(A, listening.port)
    wait_for(lambda: listening.snapshot().counts["stranger"] == strangers + 1)


# -------------------------------------------------------------------------------- networks


def test_anyone_in_a_network_is_a_node_while_its_dump_lasts(listen: MakeListener) -> None:
    listening = listen(networks=["127.7.4.0/30"], silence=0.4)
    say(A, listening.port)
    say("127.7.4.4", listening.port)  # outside
    events = until(listening, lambda events: "silent" in kinds(events))
    assert [(event.kind, event.node) for event in events] == [("began", A), ("silent", A)]
    assert listening.snapshot().counts["stranger"] == 1
    assert listening.snapshot().nodes == 0
    say(A, listening.port)
    assert kinds(until(listening, bool)) == ["began"]


def test_what_finds_no_room_is_counted_and_told_and_room_comes_back(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "UPKEEP", 0.1)
    listening = listen(networks=["127.7.4.0/24"], room=2, silence=1.5)
    for host in (A, B, C, C):
        say(host, listening.port)
    # Before the first look, or it might find one of the two.
    wait_for(lambda: listening.snapshot().counts["crowded"] == 2)
    events = until(listening, lambda events: "overflow" in kinds(events))
    assert sorted(event.node for event in events if event.kind == "began") == [A, B]
    (overflow,) = (event for event in events if event.kind == "overflow")
    assert (overflow.node, overflow.messages, overflow.addresses) == ("crowded", 2, ())
    assert listening.snapshot().counts["crowded"] == 2
    until(listening, lambda events: kinds(events).count("silent") == 2)
    say(C, listening.port)
    assert until(listening, bool)[0][:2] == ("began", C)


def test_losses_are_told_of_at_most_every_few_seconds(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "UPKEEP", 0.02)
    monkeypatch.setattr(reader, "OVERFLOW_REPEAT", 1.0)
    listening = listen(networks=["127.7.4.0/24"], room=0, silence=60)
    told: list[Event] = []
    end = time.monotonic() + PATIENCE
    sent = 0
    while len(told) < 3:
        assert time.monotonic() < end
        say(A, listening.port)
        sent += 1
        told += listening.events(0.01)
    times = [event.when for event in told]
    assert all(after - before > 0.999 for before, after in zip(times, times[1:]))
    # Not one is lost from the sum, however late it is told.
    before = sum(event.messages for event in told)
    told += until(listening, lambda events: before + sum(e.messages for e in events) == sent)
    assert set(kinds(told)) == {"overflow"}


def test_a_node_that_was_told_of_always_has_room(listen: MakeListener) -> None:
    listening = listen({"node1": [A]}, ["127.7.4.0/24"], room=0)
    say(B, listening.port)
    say(A, listening.port)
    events = until(listening, lambda events: "began" in kinds(events))
    assert {event.node for event in events} <= {"node1", "crowded"}


def test_an_admitted_node_that_is_told_of_later_stays_known(listen: MakeListener) -> None:
    listening = listen(networks=["127.7.4.0/24"], room=1, silence=1.5)
    say(A, listening.port)
    assert until(listening, bool)[0].node == A
    listening.add("node1", [A])
    until(listening, lambda events: "silent" in kinds(events))
    say(B, listening.port)
    assert until(listening, bool)[0].node == B
    say(A, listening.port)  # the room is taken, but it needs none
    assert until(listening, bool)[0].node == "node1"


def test_all_of_ipv6_is_no_ipv4_address(listen: MakeListener) -> None:
    listening = listen(networks=["::/0"])
    say(A, listening.port)
    wait_for(lambda: sum(listening.snapshot().counts.values()))
    assert listening.snapshot().counts["stranger"] == 1


def test_a_message_that_comes_while_silence_is_decided_begins_another_dump(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silence_while_a_message_comes() -> bool:
        listening = listen(networks=["127.7.4.0/24"], silence=0.3)
        decide = listening._events._dumps.tick
        came: list[bool] = []

        def tick(now: float, most: int | None = None) -> list[Event]:
            events = decide(now, most)
            if events and not came:
                say(A, listening.port)
                end = time.monotonic() + 1
                # The thread may be waiting for this lock, and then reads it only later.
                while listening.snapshot().counts["accepted"] < 2 and time.monotonic() < end:
                    time.sleep(0.01)
                came.append(listening.snapshot().counts["accepted"] == 2)
            return events

        monkeypatch.setattr(listening._events._dumps, "tick", tick)
        say(A, listening.port)
        events = until(listening, lambda events: len(events) >= 4)
        assert kinds(events) == ["began", "silent"] * 2
        return came[0]

    assert any(silence_while_a_message_comes() for _ in range(10))


# ------------------------------------------------------------------- loops, and their end


def test_breaking_out_of_a_loop_loses_no_event_and_closing_leaves_nothing(
    listen: MakeListener,
) -> None:
    before = in_use()
    with listen([A, B, C]) as listening:
        for host in (A, B, C):
            say(host, listening.port)
        wait_for(lambda: listening.snapshot().counts["accepted"] == 3)
        told = []
        for event in listening:
            told.append(event.node)
            break
        assert select.select([listening], [], [], 20)[0], "the others can be had"
        told += [event.node for event in listening.events(20)]
        assert sorted(told) == [A, B, C]
        assert in_use() > before
    assert in_use() == before
    assert list(listening) == listening.events(None) == []
    assert listening.fileno() == -1
    listening.close()


def test_closing_ends_a_loop_in_the_same_thread(listen: MakeListener) -> None:
    listening = listen([A], repeat=0.0)
    say(A, listening.port)
    told = []
    for event in listening:
        told.append(event.kind)
        listening.close()
    assert told == ["began"]


def test_closing_from_another_thread_ends_all_loops(listen: MakeListener) -> None:
    before = in_use()
    listening = listen([A])
    threads = [threading.Thread(target=list, args=(listening,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    listening.close()
    for thread in threads:
        thread.join(20)
    wait_for(lambda: in_use() == before)


@contextlib.contextmanager
def on_alarm(handler: Any, after: float, again: float = 0.0) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, after, again)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_closing_from_a_signal_handler_ends_a_loop_that_waits(listen: MakeListener) -> None:
    before = in_use()
    listening = listen([A])
    with on_alarm(lambda *_: listening.close(), 0.1):
        assert list(listening) == []
    wait_for(lambda: in_use() == before)


def test_closing_from_a_signal_handler_at_any_moment_ends_it(listen: MakeListener) -> None:
    before = in_use()
    for number in range(40):
        listening = listen(networks=["127.0.0.0/8"], repeat=0.0, silence=0.01)

        def close(*_: object, its: Listener = listening) -> None:
            its.close()

        with udp(A) as sock, on_alarm(close, 0.002 + number * 0.0007):
            while not listening.closed:
                sock.sendto(OWN_MESSAGE, ("127.0.0.1", listening.port))
                with contextlib.suppress(KeyError):
                    listening.add("node1", [B])
                    listening.remove("node1")
                listening.events(0.0)
                listening.snapshot()
    wait_for(lambda: in_use() == before)


def test_an_exception_of_a_signal_handler_is_passed_on_and_all_goes_on(
    listen: MakeListener,
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    listening = listen([A])
    with pytest.raises(KeyboardInterrupt), on_alarm(fail, 0.1):
        next(listening)
    say(A, listening.port)
    assert next(listening).node == A


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_nobody_closed_warns_and_cleans_up(listen: MakeListener) -> None:
    del listen
    before = in_use()
    holder = [Listener([A], port=0)]
    with pytest.warns(ResourceWarning, match="unclosed <kdumpfence.Listener on port"):
        holder.clear()
    gc.collect()
    wait_for(lambda: in_use() == before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_it_cleans_up_even_where_warnings_are_errors(listen: MakeListener) -> None:
    del listen
    before = in_use()
    holder = [Listener([A], port=0)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        holder.clear()
        gc.collect()
    wait_for(lambda: in_use() == before)


def test_the_last_ring_is_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of an event loop waits until it can read; a thread may read before it looks."""
    bell = reader.Bell()
    with bell.held():
        read = os.read

        def read_after_it_was_closed(fd: int, most: int) -> bytes:
            monkeypatch.undo()
            bell.close()
            return read(fd, most)

        monkeypatch.setattr(os, "read", read_after_it_was_closed)
        bell.hush()
        assert bell.closed
        assert select.select([bell.readable], [], [], 0)[0]


def test_a_descriptor_can_be_waited_for(listen: MakeListener) -> None:
    listening = listen([A], silence=0.5)
    assert select.select([listening], [], [], 0)[0] == []
    assert listening.events(0) == []
    told = []
    say(A, listening.port)
    while "silent" not in told:  # silence makes it readable, too
        assert select.select([listening], [], [], 20)[0]
        told += kinds(listening.events(0))
    assert told == ["began", "silent"]


def test_events_come_in_pieces_and_the_descriptor_says_that_there_are_more(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_queue, "MOST", 10)
    hosts = [f"127.7.5.{last}" for last in range(1, 36)]
    listening = listen(hosts, silence=1.0)
    for host in hosts:
        say(host, listening.port)
    wait_for(lambda: listening.snapshot().counts["accepted"] == 35)
    told: list[Event] = []
    while len(told) < 70:
        assert select.select([listening], [], [], PATIENCE)[0]
        piece = listening.events(0)
        assert len(piece) <= 10
        told += piece
    for kind in ("began", "silent"):
        assert sorted(event.node for event in told if event.kind == kind) == sorted(hosts)


def test_a_wait_ends_with_its_time(listen: MakeListener) -> None:
    listening = listen([A])
    started = time.monotonic()
    assert listening.events(0.2) == []
    assert time.monotonic() - started >= 0.2


def test_a_snapshot_can_be_had_from_any_thread_at_any_time(listen: MakeListener) -> None:
    listening = listen(networks=["127.0.0.0/8"], repeat=0.0, silence=0.05)
    stop = threading.Event()
    failures: list[BaseException] = []

    def look() -> None:
        try:
            while not stop.is_set():
                seen = listening.snapshot()
                assert all(dump.messages >= 1 for dump in seen.dumps)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(300):
            say(f"127.7.6.{number % 200 + 1}", listening.port)
            listening.events(0)
        say("127.7.7.1", listening.port)
        until(listening, lambda events: "127.7.7.1" in {event.node for event in events})
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert failures == []


# --------------------------------------------------------------------- clocks and restarts


def test_a_clock_that_is_set_does_not_change_when_a_dump_began(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = listen([A, B], repeat=0.0, silence=2.0)
    say(A, listening.port)
    (began,) = until(listening, bool)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86400.0)
    listening.events(0)
    say(A, listening.port)
    say(B, listening.port)
    events = until(listening, lambda events: kinds(events).count("silent") == 2)
    for event in events:
        later = began.when + 86000.0
        assert event.when > later
        assert event.last > later
        assert (event.since == began.since) if event.node == A else (event.since > later)
    say(A, listening.port)
    until(listening, bool)
    seen = listening.snapshot()
    assert seen.when > later
    assert seen.dumps[0].since > later


def test_a_dump_from_before_a_restart_goes_on_as_the_same(listen: MakeListener) -> None:
    listening = listen({"node1": [A], "node2": [B]}, repeat=0.0, silence=2.0)
    long_ago = 1700000000.123456789
    old = [Dump(node, long_ago, long_ago + 9.1, 5, (C,), 9.0) for node in ("node1", "node2")]
    listening.restore(old)
    assert listening.snapshot().dumps == old
    say(A, listening.port)
    (dumping,) = until(listening, bool)
    assert (dumping.kind, dumping.node, dumping.since) == ("dumping", "node1", long_ago)
    assert (dumping.messages, dumping.addresses) == (6, (C, A))
    events = until(listening, lambda events: len(events) == 2)
    assert kinds(events) == ["silent", "silent"]
    assert [(event.node, event.since) for event in events] == [
        ("node2", long_ago),
        ("node1", long_ago),
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
    say(A, listening.port)
    (dumping,) = until(listening, bool)
    assert (dumping.kind, dumping.since, dumping.messages) == ("dumping", began, 6)
    assert 0 <= dumping.last - old.last < 60
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600.0)
    listening.events(0)
    say(A, listening.port)
    say(B, listening.port)
    (first, second) = until(listening, lambda events: len(events) == 2)
    (dumping, other) = (first, second) if first.node == "node1" else (second, first)
    assert (dumping.kind, dumping.since, dumping.messages) == ("dumping", began, 7)
    assert other.since > real() + 3500.0
    assert {(dump.node, dump.since) for dump in listening.snapshot().dumps} == {
        ("node1", began),
        ("node2", other.since),
    }
    events = until(listening, lambda events: kinds(events).count("silent") == 2)
    (silent,) = [event for event in events if event.node == "node1"]
    assert silent.since == began
    assert 600.0 <= silent.last - silent.since < 700.0
    assert 600.0 <= silent.took < 700.0
    say(A, listening.port)
    (anew,) = until(listening, bool)
    assert anew.kind == "began"
    assert abs(anew.since - time.time()) < 60


# ---------------------------------------------------------------------------------- sockets


def test_sockets_of_others_making_are_used_and_closed(listen: MakeListener) -> None:
    given = [free_socket(), free_socket()]
    ports = [sock.getsockname()[1] for sock in given]
    listening = listen([A, B], sockets=given)
    assert listening.port == ports[0]
    say(A, ports[0])
    say(B, ports[1])
    until(listening, lambda events: len(events) == 2)
    listening.close()
    assert [sock.fileno() for sock in given] == [-1, -1]


def test_a_queue_that_was_made_deep_with_more_rights_stays_so(
    listen: MakeListener, root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def depth(sock: socket.socket) -> int:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    queue = 1 << 24
    (given,) = reader.open_sockets([socket.AF_INET], 0)
    reader.deepen(given, queue)
    assert depth(given) == 2 * queue
    monkeypatch.setattr(reader, "_SO_RCVBUFFORCE", -1)  # as the kernel refuses it: an error
    shallow = udp()
    listen([A], sockets=[given, shallow], queue=2 * queue)
    assert depth(given) == 2 * queue
    most = int(Path("/proc/sys/net/core/rmem_max").read_text())
    assert depth(shallow) == 2 * min(2 * queue, most)


def test_what_came_before_there_was_a_listener_is_heard(listen: MakeListener) -> None:
    given = free_socket()
    say(A, given.getsockname()[1])
    assert until(listen([A], sockets=[given]), bool)[0].node == A


def test_a_socket_that_is_none_of_udp_is_refused(listen: MakeListener) -> None:
    with socket.socket() as tcp, pytest.raises(ValueError, match="not a UDP socket"):
        listen([A], sockets=[tcp])
    with socket.socket(type=socket.SOCK_DGRAM) as loose:
        with pytest.raises(ValueError, match="not bound"):
            listen([A], sockets=[loose])
        assert loose.fileno() >= 0, "it stays the caller's"
    with pytest.raises(ValueError, match="at least one"):
        listen([A], sockets=[])


def test_a_port_that_another_program_holds_is_refused_and_nothing_stays_open(
    listen: MakeListener,
) -> None:
    first = listen([A])
    before = in_use()
    with pytest.raises(OSError, match=rf"port {first.port}/udp: Address already in use") as error:
        listen([A], port=first.port)
    assert error.value.strerror is not None
    assert in_use() == before
    say(A, first.port)
    assert until(first, bool)


def test_where_no_descriptor_is_left_it_says_so_and_nothing_stays_open(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[object] = []
    refused: list[int | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda about: complaints.append(about.exc_value))
    before = in_use()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for left in range(20):
        with contextlib.ExitStack() as undo:
            undo.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            while (used := os.dup(0)) < before[1] + 20:  # without a gap below
                undo.callback(os.close, used)
            os.close(used)
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + left, hard))
            try:
                listening = listen([A])
            except OSError as error:
                refused.append(error.errno)
                continue
        listening.close()
        break
    gc.collect()
    assert refused == [errno.EMFILE] * left
    assert left >= 6  # two sockets and two pipes at least
    assert in_use() == before
    assert complaints == []


def test_any_port_is_one_that_is_free_for_both_families(root: None) -> None:
    code = """
import socket
from kdumpfence import Listener
with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
    file.write("50000 50003")
held = []
for port in (50000, 50001, 50002):
    held.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    held[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    held[-1].bind(("::", port))
for _ in range(10):
    with Listener(["192.0.2.1"], port=0) as listener:
        print(listener.port)
"""
    if not has_ipv6():
        cannot_run("no IPv6")
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["50003"] * 10, "")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"family": "ipv5"}, "family 'ipv5': must be one of auto, ipv4, ipv6"),
        ({"port": 65536}, "port 65536: must be 0 to 65535"),
        ({"room": -1}, "room -1"),
        ({"room": 1 << 32}, "room 4294967296: must be 0 to 4294967295"),
        ({"queue": 0}, "queue 0"),
        ({"queue": 1 << 31}, "queue 2147483648"),
        ({"silence": 0}, "silence 0"),
        ({"networks": ["192.0.2.1/24"]}, "network '192.0.2.1/24': .*has host bits set"),
        ({"networks": ["nonsense"]}, "network 'nonsense'"),
        ({"networks": ["::/0"], "family": "ipv4"}, "network '::/0': not an ipv4 network"),
        ({"networks": ["::ffff:192.0.2.0/120"], "family": "ipv6"}, "not an ipv6 network"),
        ({"networks": ["fe80::%lo/64"]}, "network 'fe80::%lo/64': .*without %"),
        ({"networks": ["224.0.0.0/4"]}, "network '224.0.0.0/4': no node can have an address in it"),
        ({"nodes": ["::1"], "family": "ipv4"}, "node '::1': not an ipv4 address"),
        ({"nodes": ["192.0.2.010"]}, "node '192.0.2.010': neither .* without leading zeros"),
        ({"nodes": ["a,b"]}, "node 'a,b': neither a host name nor an IP address"),
        ({"nodes": {"a": ["192.0.2.1,;"]}}, "node 'a': address ';': neither a host name nor an IP"),
        ({"nodes": {"[::1]": ["::2"]}}, "has an address for a name, but not as one of its"),
    ],
)
def test_what_cannot_be_is_refused(
    listen: MakeListener, arguments: dict[str, Any], why: str
) -> None:
    before = in_use()
    with pytest.raises(ValueError, match=why):
        listen(**arguments)
    assert in_use() == before


@pytest.mark.parametrize("arguments", [{"nodes": "node1"}, {"networks": "192.0.2.0/24"}])
def test_a_string_is_no_list(listen: MakeListener, arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="expected a list"):
        listen(**arguments)


def test_one_family_alone(listen: MakeListener) -> None:
    listening = listen([A], family="ipv4")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        if has_ipv6():
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            other.bind(("::", listening.port))
    say(A, listening.port)
    assert until(listening, bool)


def test_a_reading_thread_that_dies_is_no_secret(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    listening = listen([A])
    monkeypatch.setattr(reader.Reader, "_look_after", fail)
    with pytest.raises(RuntimeError, match="the reading thread has died"):
        until(listening, bool)


def test_while_the_kernel_is_short_of_memory_nobody_is_declared_silent(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = threading.Event()
    refused: set[int] = set()

    class Short(reader.Receiver):  # type: ignore[misc,name-defined]
        def count(self, deadline_ns: int | None, *others: Any) -> int:
            if short.is_set():
                refused.add(len(others))  # none: it is to read what has come so far
                raise OSError(errno.ENOMEM, "no memory")
            return int(super().count(deadline_ns, *others))

    monkeypatch.setattr(reader, "Receiver", Short)
    listening = listen([A], silence=1.0)
    say(A, listening.port)
    assert kinds(until(listening, bool)) == ["began"]
    short.set()
    listening._in_use.poke()
    wait_for(lambda: refused)
    say(A, listening.port)
    wait_for(lambda: 0 in refused)
    assert listening.events(0) == []
    short.clear()
    (silent,) = until(listening, bool)
    assert (silent.kind, silent.messages) == ("silent", 2)


# ---------------------------------------------------------------------------------- package


def test_the_package_has_it_and_the_agent_does_not_pay_for_it() -> None:
    assert kdumpfence.Listener is Listener
    assert {"Listener", "Event", "Dump", "Snapshot", "Dumps"} <= set(dir(kdumpfence))
    code = (
        "import sys, kdumpfence, kdumpfence.agent, kdumpfence.sender; "
        "print(*(name for name in ('typing', 'threading', 'kdumpfence.dumps', "
        "'kdumpfence.listener') if name in sys.modules)); kdumpfence.Listener"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    with pytest.raises(AttributeError, match="no attribute 'Listner'"):
        _ = kdumpfence.Listner  # type: ignore[attr-defined]


# --------------------------------------------------------- what the machine sends itself

IPV6_FREEBIND = 78


def forge(port: int) -> None:
    """What any user can do: a message to this machine, from an address that it does not have."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        sock.bind(("2001:db8::1", 0))
        sock.sendto(OWN_MESSAGE, ("::1", port))


def given_ipv6() -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.bind(("::1", 0))
    return sock


def test_a_socket_that_heard_before_it_was_guarded_is_emptied(listen: MakeListener) -> None:
    given = given_ipv6()
    port = given.getsockname()[1]
    forge(port)
    listening = listen({"node1": ["2001:db8::1"], "node2": ["::1"]}, sockets=[given])
    forge(port)
    say("::1", port)
    assert [event.node for event in until(listening, bool)] == ["node2"]
    assert listening.snapshot().counts["accepted"] == 1
    assert listening.snapshot().counts["short"] == 1
    assert listening.snapshot().counts["unread"] == 0


def test_what_came_between_two_listeners_with_one_socket_is_heard(listen: MakeListener) -> None:
    given = given_ipv6()
    kept = given.dup()
    listen(["::1"], sockets=[given]).close()
    say("::1", kept.getsockname()[1])
    forge(kept.getsockname()[1])
    (event,) = until(listen(["::1", "2001:db8::1"], sockets=[kept]), bool)
    assert event.node == "::1"


def test_the_guard_stays_when_rubbish_was_kept_out_and_is_again_let_in(
    listen: MakeListener,
) -> None:
    given = given_ipv6()
    port = given.getsockname()[1]
    listening = listen({"node1": ["2001:db8::1"], "node2": ["::1"]}, sockets=[given])
    reading_thread = listening._in_use
    for up in (True, False):
        reading_thread._fence(up)
        reading_thread._fenced_until = time.monotonic() + 60 if up else 0.0
        forge(port)
    say("::1", port)
    began = until(listening, lambda events: "began" in kinds(events))
    assert [event.node for event in began if event.kind == "began"] == ["node2"]
    assert listening.snapshot().counts["accepted"] == 1


def test_a_socket_whose_filter_cannot_be_had_is_refused(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = free_socket()
    given.setsockopt(socket.SOL_SOCKET, 44, 1)  # SO_LOCK_FILTER
    with pytest.raises(OSError, match="has a filter that cannot be removed"):
        listen([A], sockets=[given])
    given.close()
    monkeypatch.setattr(
        filters, "attach", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOMEM, "no memory"))
    )
    with pytest.raises(OSError, match="port 0/udp: cannot attach a socket filter: no memory"):
        listen([A])

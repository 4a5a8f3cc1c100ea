# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a Listener says when it is asked, whether anybody takes its events or not."""

from __future__ import annotations

import asyncio
import select
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from kdumpfence.listener import event_queue, reader
from kdumpfence.listener.dumps import SILENCE
from kdumpfence.listener.event_queue import EventQueue
from kdumpfence.listener.events import Dump, Overflow
from kdumpfence.listener.listener import Listener, ListenerClosed
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import udp
from tests.listener.conftest import (
    NETWORK,
    A,
    B,
    C,
    MakeListener,
    TrialListener,
    kinds,
    wait_for,
)

#: Whether node1 is dumping; None if it is not.
LOOKS: list[Callable[[Listener], object]] = [
    lambda one: one.dump("node1"),
    lambda one: one.dumps(["node1"])[0],
    lambda one: one.snapshot().dumps or None,
]


def let_pass(listening: TrialListener, seconds: float) -> None:
    """What was heard so far is so much longer ago, however fast the test is."""
    listening._events._clock.base += seconds
    counting = listening._in_use._counting
    if counting is not None:  # in the table that the kernel shares
        times = memoryview(counting._table.memory).cast("q")
        for at in range(2, len(times), 4):
            if times[at]:
                times[at] -= round(seconds * 1e9)


def test_a_message_and_the_silence_after_it_can_be_seen_without_taking_events(
    listen: MakeListener,
) -> None:
    listening = listen({"node1": [A]})
    assert listening.dump("node1") is None
    listening.say(A)
    listening.wait_for_count("accepted", 1)
    (dump,) = listening.snapshot().dumps
    assert dump == listening.dump("node1")
    assert (dump.node, dump.messages, dump.addresses) == ("node1", 1, (A,))
    let_pass(listening, SILENCE + 1)
    assert listening.snapshot().dumps == []
    assert listening.dump("node1") is None
    events = listening.events(0)
    assert kinds(events) == ["began", "silent"]


def after_silence(listen: MakeListener) -> TrialListener:
    """One that has heard node1, whose silence is over the limit by now; and nobody has looked."""
    listening = listen({"node1": [A]}, silence_timeout=0.2)
    listening.say(A)
    listening.wait_for_count("accepted", 1)
    time.sleep(0.3)
    return listening


@pytest.mark.parametrize("look", LOOKS)
def test_who_fell_silent_before_anybody_looked_is_not_dumping(
    listen: MakeListener, look: Callable[[Listener], object]
) -> None:
    """Nobody asked in that time, so the thread had no reason to read up to any moment."""
    assert look(after_silence(listen)) is None


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_is_current_though_the_thread_has_read_in_the_middle_of_it(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch, look: Callable[[Listener], object]
) -> None:
    """What the decision needs is read then, and nobody has decided yet."""
    first = EventQueue._look

    def look_and_be_late(queue: EventQueue) -> None:
        first(queue)
        now = time.monotonic()
        queue._reader.read_now(now)
        wait_for(lambda: queue._reader.through >= now)

    listening = after_silence(listen)
    monkeypatch.setattr(EventQueue, "_look", look_and_be_late)
    assert look(listening) is None


def test_a_look_waits_for_a_thread_that_takes_its_time(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that is busy."""
    read_all = reader.Reader._read_all

    def slow(its_reader: reader.Reader) -> None:
        time.sleep(1.2)
        read_all(its_reader)

    monkeypatch.setattr(reader.Reader, "_read_all", slow)
    assert after_silence(listen).dump("node1") is None


def test_a_thread_that_does_not_read_is_no_source_of_answers(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_queue, "READING", 0.1)
    go_on = threading.Event()
    monkeypatch.setattr(reader.Reader, "_read_all", lambda _: go_on.wait())
    listening = after_silence(listen)
    try:
        for ask in (
            lambda: listening.dump("node1"),
            lambda: listening.dumps(["node1"]),
            lambda: "node1" in listening,
        ):
            with pytest.raises(RuntimeError, match="the reading thread has not read for"):
                ask()
        assert [dump.node for dump in listening.snapshot().dumps] == ["node1"]
    finally:
        go_on.set()
    wait_for(lambda: listening.snapshot().dumps == [])


def test_a_look_goes_on_until_all_is_known(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_queue, "MOST", 10)
    hosts = [f"127.7.4.{last}" for last in range(1, 36)]
    listening = listen(networks=[NETWORK], max_admitted=35)
    looks: list[Callable[[], list[Dump | None]]] = [
        lambda: listening.dumps(hosts),
        lambda: [listening.dump(hosts[-1]), *listening.snapshot().dumps[1:]],
    ]
    for look in looks:
        before = listening.counts["accepted"]
        for host in hosts:
            listening.say(host)
        listening.wait_for_count("accepted", before + 35)
        assert all(look())
        assert len(listening.snapshot().dumps) == 35
        let_pass(listening, SILENCE + 1)
        assert not any(look())
        listening.events(0)


def test_node_in_listener_says_whether_it_is_dumping_and_takes_no_events(
    listen: MakeListener,
) -> None:
    listening = listen({"node1": [A], "node2": [B]})
    assert "node1" not in listening
    listening.say(A)
    listening.wait_for_count("accepted", 1)
    assert "node1" in listening
    assert "node2" not in listening
    assert A not in listening
    assert ip_address(A) not in listening
    listening.add(ip_address(C))
    listening.say(C)
    listening.wait_for_count("accepted", 2)
    assert ip_address(C) in listening
    assert listening.dump(ip_address(C)) == listening.dumps([ip_address(C)])[0] is not None
    assert listening.listens_for(ip_address(C))
    thing: Any = 7
    assert thing not in listening
    assert listening.nodes == ["node1", "node2", C]
    assert kinds(listening.events(0)) == ["began", "began"]
    assert bool(listening), "one without dumps is no empty list"
    with pytest.raises(TypeError):
        len(listening)  # type: ignore[arg-type]


def test_several_are_asked_for_at_once(listen: MakeListener) -> None:
    listening = listen(networks=[NETWORK])
    listening.say(A)
    listening.say(C)
    listening.wait_for_count("accepted", 2)
    found = listening.dumps([C, B, A])
    assert [dump and dump.node for dump in found] == [C, None, A]


def test_who_takes_events_all_the_time_can_do_without_a_look(listen: MakeListener) -> None:
    listening = listen([A])
    listening.say(A)
    listening.wait_for_count("accepted", 1)
    assert listening.snapshot(fresh=False).dumps == []
    assert listening.dumps([A], fresh=False) == [None]
    assert kinds(listening.events(0)) == ["began"]
    assert listening.snapshot(fresh=False).dumps == listening.dumps([A], fresh=False)


def test_a_look_wakes_whoever_waits_for_events(listen: MakeListener) -> None:
    listening = listen([A])
    taken: list[str] = []
    thread = threading.Thread(target=lambda: taken.extend(kinds([next(listening)])))
    thread.start()
    listening.say(A)
    wait_for(lambda: listening.dump(A))
    thread.join(20)
    assert taken == ["began"]
    listening.remove(A)
    assert listening.dump(A) is None
    assert select.select([listening], [], [], 0)[0], "the look took nothing away"
    assert kinds(listening.events(0)) == ["silent"]


def test_looks_of_which_nobody_takes_the_events_tell_once_that_it_goes_on(
    listen: MakeListener,
) -> None:
    listening = listen([A], repeat_interval=0.0)
    for number in range(1, 6):
        listening.say(A)
        listening.wait_for_count("accepted", number)
        dump = listening.dump(A)
        assert dump is not None
        assert dump.messages == number
    assert kinds(listening.events(0)) == ["began"]
    assert listening.after_message(A).messages == 6


def test_events_that_nobody_takes_are_bounded_and_their_loss_is_told(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_queue, "MOST_WAITING", 8)
    listening = listen([A, B])
    for number in range(1, 11):
        listening.say(A)
        listening.wait_for_count("accepted", number)
        assert listening.dump(A) is not None
        let_pass(listening, SILENCE + 1)
        assert listening.dump(A) is None
    events = listening.events(0)
    assert kinds(events) == ["began", "silent"] * 4
    (loss,) = listening.events(0)
    assert isinstance(loss, Overflow)
    assert (loss.counter, loss.messages) == ("untaken", 12)
    assert listening.events(0) == []


def test_a_dump_has_its_length_its_age_and_the_port_that_it_comes_from(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = listen([A])
    began = listening.after_message(A)
    assert began.duration == 0.0
    with udp(A) as sock:
        port = sock.getsockname()[1]
        # One that is read, whoever counts.
        sock.sendto(OWN_MESSAGE + b"more", ("127.0.0.1", listening.port))
        listening.wait_for_count("accepted", 2)
    dump = listening.dump(A)
    assert dump is not None
    assert dump.port == port != began.port
    assert dump.duration == dump.took > 0
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)  # as a time service does
    assert 0 <= dump.age < 60


def test_what_is_asked_after_the_end_is_refused(listen: MakeListener) -> None:
    """A yes from what was known earlier would be no proof of anything."""
    listening = listen([A])
    assert listening.after_message(A).kind == "began"
    listening.close()
    for ask in (
        lambda: listening.dump(A),
        lambda: listening.dumps([A]),
        lambda: A in listening,
        lambda: listening.add("node2", [B]),
        lambda: listening.remove(A),
        lambda: listening.replace_nodes([A]),
        lambda: listening.restore([]),
        listening.reload_keys,
        lambda: listening.answer_as("node1"),
        lambda: listening.next_event(0),
    ):
        with pytest.raises(ListenerClosed, match="this Listener is closed"):
            ask()
    assert [dump.node for dump in listening.snapshot().dumps] == [A]
    assert listening.counts["accepted"] == 1


def test_a_reading_thread_that_has_died_is_no_source_of_answers(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    listening = listen([A])
    assert listening.after_message(A).kind == "began"
    monkeypatch.setattr(reader.Reader, "_look_after", fail)
    wait_for(lambda: "not read any more: MemoryError" in listening.snapshot().deaf)
    for ask in (lambda: listening.dump(A), lambda: listening.dumps([A]), lambda: A in listening):
        with pytest.raises(RuntimeError, match="the reading thread has died"):
            ask()


def test_the_next_event_tells_nothing_yet_from_closed(listen: MakeListener) -> None:
    listening = listen([A])
    assert listening.next_event(0.05) is None
    listening.say(A)
    event = listening.next_event(20)
    assert event is not None
    assert event.kind == "began"
    closing = threading.Timer(0.1, listening.close)
    closing.start()
    with pytest.raises(ListenerClosed):
        listening.next_event()


def test_it_is_closed_behind_an_async_with(listen: MakeListener) -> None:
    async def play() -> Listener:
        async with listen([A]) as listening:
            assert not listening.closed
        return listening

    assert asyncio.run(play()).closed

# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways to take events from a Listener, and how they end: loops, descriptors, `close`, signals."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kdumpfence.listener import event_queue, reader
from kdumpfence.listener.dumps import Event
from kdumpfence.listener.listener import Listener
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import udp
from tests.listener.conftest import (
    PATIENCE,
    A,
    B,
    C,
    MakeListener,
    kinds,
    say,
    until,
    wait_for_count,
)


@contextlib.contextmanager
def in_threads(number: int, target: Callable[[], object]) -> Iterator[None]:
    """Runs it in so many threads beside what is done meanwhile; and none of them fails."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            target()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert failures == []


@contextlib.contextmanager
def on_alarm(handler: Any, after: float) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_breaking_out_of_a_loop_loses_no_event_and_closing_leaves_nothing(
    listen: MakeListener, leaves_nothing: Callable[[], bool]
) -> None:
    with listen([A, B, C]) as listening:
        for host in (A, B, C):
            say(host, listening.port)
        wait_for_count(listening, "accepted", 3)
        told = []
        for event in listening:
            told.append(event.node)
            break
        assert select.select([listening], [], [], 20)[0], "the others can be had"
        told += [event.node for event in listening.events(20)]
        assert sorted(told) == [A, B, C]
        assert not leaves_nothing()
    assert leaves_nothing()
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


@pytest.mark.usefixtures("leaves_nothing")
def test_closing_from_another_thread_ends_all_loops(listen: MakeListener) -> None:
    listening = listen([A])
    with in_threads(3, lambda: list(listening)):
        time.sleep(0.1)
        listening.close()


@pytest.mark.usefixtures("leaves_nothing")
def test_closing_from_a_signal_handler_ends_a_loop_that_waits(listen: MakeListener) -> None:
    listening = listen([A])
    with on_alarm(lambda *_: listening.close(), 0.1):
        assert list(listening) == []


@pytest.mark.usefixtures("leaves_nothing")
def test_closing_from_a_signal_handler_at_any_moment_ends_it(listen: MakeListener) -> None:
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
@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("action", ["always", "error"])
def test_one_that_nobody_closed_warns_and_cleans_up(action: Any) -> None:
    holder = [Listener([A], port=0)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        holder.clear()
        gc.collect()
    if action == "always":
        (warning,) = caught
        assert str(warning.message).startswith("unclosed <kdumpfence.Listener on port")
        assert warning.category is ResourceWarning


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


def test_a_descriptor_can_be_waited_for_and_a_wait_ends_with_its_time(
    listen: MakeListener,
) -> None:
    listening = listen([A], silence=0.5)
    assert select.select([listening], [], [], 0)[0] == []
    assert listening.events(0) == []
    started = time.monotonic()
    assert listening.events(0.2) == []
    assert time.monotonic() - started >= 0.2
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
    wait_for_count(listening, "accepted", 35)
    told: list[Event] = []
    while len(told) < 70:
        assert select.select([listening], [], [], PATIENCE)[0]
        piece = listening.events(0)
        assert len(piece) <= 10
        told += piece
    for kind in ("began", "silent"):
        assert sorted(event.node for event in told if event.kind == kind) == sorted(hosts)


def test_a_snapshot_can_be_had_from_any_thread_at_any_time(listen: MakeListener) -> None:
    listening = listen(networks=["127.0.0.0/8"], repeat=0.0, silence=0.05)
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            assert all(dump.messages >= 1 for dump in listening.snapshot().dumps)

    with in_threads(2, look):
        try:
            for number in range(300):
                say(f"127.7.6.{number % 200 + 1}", listening.port)
                listening.events(0)
            say("127.7.7.1", listening.port)
            until(listening, lambda events: "127.7.7.1" in {event.node for event in events})
        finally:
            stop.set()

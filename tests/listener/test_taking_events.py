# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ways to take events from a Listener, and how they end: loops, descriptors, `close`, signals."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import posix
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from kdumpfence.listener import event_queue
from kdumpfence.listener.bell import Bell
from kdumpfence.listener.events import AnyEvent
from kdumpfence.listener.listener import JOIN, Listener, ListenerClosed
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import udp
from tests.listener.conftest import PATIENCE, A, B, C, MakeListener, in_use, kinds


async def collect(listening: Listener, most: int) -> list[AnyEvent]:
    events: list[AnyEvent] = []
    async for event in listening:
        events.append(event)
        if len(events) == most:
            break
    return events


def run(coroutine: Coroutine[Any, Any, Any], pause: float = 1.0) -> tuple[Any, int]:
    """What comes of it, and how often another task had its turn meanwhile, with such pauses."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(pause)

    async def limited() -> Any:
        other = asyncio.create_task(take_turns())
        result = await asyncio.wait_for(coroutine, PATIENCE)
        other.cancel()
        return result

    return asyncio.run(limited()), turns


def take_in_loop(listening: Listener, most: int) -> list[AnyEvent]:
    return list(itertools.islice(listening, most))


def take_in_asyncio(listening: Listener, most: int) -> list[AnyEvent]:
    events: list[AnyEvent] = run(collect(listening, most))[0]
    return events


in_both_loops = pytest.mark.parametrize("take", [take_in_loop, take_in_asyncio])


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


@in_both_loops
def test_breaking_out_of_a_loop_loses_no_event_and_closing_leaves_nothing(
    listen: MakeListener,
    leaves_nothing: Callable[[], bool],
    take: Callable[[Listener, int], list[AnyEvent]],
) -> None:
    listening = listen([A, B, C])
    with listening:
        for host in (A, B, C):
            listening.say(host)
        listening.wait_for_count("accepted", 3)
        told = take(listening, 1)
        assert select.select([listening], [], [], 20)[0], "the others can be had"
        told += take(listening, 1)
        told += listening.events(20)
        assert sorted(event.node for event in told) == [A, B, C]
        assert not leaves_nothing()
    gc.collect()
    assert leaves_nothing()
    assert list(listening) == listening.events(None) == []
    assert listening.fileno() == -1
    listening.close()


def test_closing_ends_a_loop_in_the_same_thread(listen: MakeListener) -> None:
    listening = listen([A], repeat_interval=0.0)
    listening.say(A)
    told = []
    for event in listening:
        told.append(event.kind)
        listening.close()
    assert told == ["began"]


@in_both_loops
@pytest.mark.usefixtures("leaves_nothing")
def test_closing_from_another_thread_ends_all_loops(
    listen: MakeListener, take: Callable[[Listener, int], list[AnyEvent]]
) -> None:
    listening = listen([A])
    with in_threads(3, lambda: take(listening, 1)):
        time.sleep(0.1)
        listening.close()


@pytest.mark.usefixtures("leaves_nothing")
def test_closing_from_a_signal_handler_ends_a_loop_that_waits(listen: MakeListener) -> None:
    listening = listen([A])
    with on_alarm(lambda *_: listening.close(), 0.1):
        assert list(listening) == []


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.slow
def test_closing_from_a_signal_handler_at_any_moment_ends_it(listen: MakeListener) -> None:
    took = []
    for number in range(40):
        listening = listen(networks=["127.0.0.0/8"], repeat_interval=0.0, silence_timeout=0.01)

        def close(*_: object, its: Listener = listening) -> None:
            began = time.monotonic()
            its.close()
            took.append(time.monotonic() - began)

        with udp(A) as sock, on_alarm(close, 0.002 + number * 0.0007):
            while not listening.closed:
                sock.sendto(OWN_MESSAGE, ("127.0.0.1", listening.port))
                with contextlib.suppress(KeyError, ListenerClosed):
                    listening.add("node1", [B])
                    listening.remove("node1")
                listening.events(0.0)
                listening.snapshot()
    assert len(took) == 40
    assert max(took) < JOIN, "none waited for what it had interrupted itself"


def test_an_exception_of_a_signal_handler_is_passed_on_and_all_goes_on(
    listen: MakeListener,
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    listening = listen([A])
    with pytest.raises(KeyboardInterrupt), on_alarm(fail, 0.1):
        next(listening)
    listening.say(A)
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


def test_no_number_is_no_time_to_wait(listen: MakeListener) -> None:
    listening = listen({"a": [A]})
    for wait in (listening.events, listening.next_event):
        with pytest.raises(ValueError, match="timeout nan: must be a number of seconds"):
            wait(float("nan"))


def test_the_last_ring_is_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of an event loop waits until it can read; a thread may read before it looks."""
    bell = Bell()
    with bell.held():
        read = posix.read

        def read_after_it_was_closed(fd: int, most: int) -> bytes:
            monkeypatch.undo()
            bell.close()
            return read(fd, most)

        monkeypatch.setattr(posix, "read", read_after_it_was_closed)
        bell.hush()
        assert bell.closed
        assert select.select([bell.readable], [], [], 0)[0]


def test_a_descriptor_can_be_waited_for_and_a_wait_ends_with_its_time(
    listen: MakeListener,
) -> None:
    listening = listen([A], silence_timeout=0.5)
    assert select.select([listening], [], [], 0)[0] == []
    assert listening.events(0) == []
    started = time.monotonic()
    assert listening.events(0.2) == []
    assert time.monotonic() - started >= 0.2
    told = []
    listening.say(A)
    while "silent" not in told:  # silence makes it readable, too
        assert select.select([listening], [], [], 20)[0]
        told += kinds(listening.events(0))
    assert told == ["began", "silent"]


@pytest.mark.slow
def test_events_come_in_pieces_and_the_descriptor_says_that_there_are_more(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_queue, "MOST", 10)
    hosts = [f"127.7.5.{last}" for last in range(1, 36)]
    listening = listen(hosts, silence_timeout=1.0)
    for host in hosts:
        listening.say(host)
    listening.wait_for_count("accepted", 35)
    told: list[AnyEvent] = []
    while len(told) < 70:
        assert select.select([listening], [], [], PATIENCE)[0]
        piece = listening.events(0)
        assert len(piece) <= 10
        told += piece
    for kind in ("began", "silent"):
        assert sorted(event.node for event in told if event.kind == kind) == sorted(hosts)


def test_a_snapshot_can_be_had_from_any_thread_at_any_time(listen: MakeListener) -> None:
    listening = listen(networks=["127.0.0.0/8"], repeat_interval=0.0, silence_timeout=0.05)
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            assert all(dump.messages >= 1 for dump in listening.snapshot().dumps)

    with in_threads(2, look):
        try:
            for number in range(300):
                listening.say(f"127.7.6.{number % 200 + 1}")
                listening.events(0)
            listening.say("127.7.7.1")
            listening.until(lambda events: "127.7.7.1" in {event.node for event in events})
        finally:
            stop.set()


# ---------------------------------------------------------------------------- asyncio


@pytest.mark.slow
def test_events_come_as_they_happen_while_the_loop_runs(listen: MakeListener) -> None:
    listening = listen([A], silence_timeout=1.5, repeat_interval=0.0)

    async def play() -> list[AnyEvent]:
        events: list[AnyEvent] = []
        for _ in range(3):  # the next when the last was told, or two might be told in one
            listening.say(A)
            events += await collect(listening, 1)
        return events + await collect(listening, 1)

    events, turns = run(play(), 0.01)
    assert kinds(events) == ["began", "dumping", "dumping", "silent"]
    assert turns > 5, "the loop was not held up"


def test_a_task_that_is_cancelled_while_it_waits_leaves_nothing(listen: MakeListener) -> None:
    listening = listen([A])
    before = in_use()

    async def play() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(collect(listening, 1), 0.2)

    run(play())
    assert in_use() == before
    listening.say(A)
    assert next(listening).kind == "began"


def test_several_tasks_share_the_events(listen: MakeListener) -> None:
    hosts = [f"127.7.5.{last}" for last in range(1, 31)]
    listening = listen(hosts)
    found: list[AnyEvent] = []

    async def take() -> None:
        async for event in listening:
            found.append(event)
            if len(found) == len(hosts):
                listening.close()

    async def play() -> None:
        tasks = [asyncio.create_task(take()) for _ in range(3)]
        for host in hosts:
            await asyncio.sleep(0.002)
            listening.say(host)
        await asyncio.gather(*tasks)

    run(play())
    assert sorted(event.node for event in found) == sorted(hosts)


def test_a_flood_of_events_does_not_hold_up_the_loop_for_long(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_queue, "MOST", 50)
    listening = listen(networks=["127.0.0.0/8"])
    hosts = [f"127.7.{third}.{last}" for third in range(5) for last in range(1, 201)]
    for host in hosts:
        listening.say(host)
    listening.wait_for_count("accepted", len(hosts))
    events, turns = run(collect(listening, len(hosts)), 0)
    assert len(events) == len(hosts)
    assert turns >= len(hosts) / 50

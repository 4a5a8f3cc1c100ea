# SPDX-License-Identifier: GPL-2.0-or-later
"""A Listener on loopback with each core, and nodes that speak to it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import pytest

from kdumpfence.listener import listener, reader
from kdumpfence.listener.dumps import Event
from kdumpfence.listener.listener import Listener
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import cannot_run, udp

#: Seconds that a test waits for what has to come.
PATIENCE = 60.0

#: Nodes are played from these addresses; all are in NETWORK.
A, B, C = "127.7.4.1", "127.7.4.2", "127.7.4.3"
NETWORK = "127.7.4.0/24"

MakeListener = Callable[..., Listener]


@pytest.fixture
def listen(core: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeListener]:
    """Makes Listeners with that core on a free port, and closes them after the test."""
    monkeypatch.setattr(reader, "Receiver", core.Receiver)
    monkeypatch.setattr(listener, "Sources", core.Sources)
    made: list[Listener] = []

    def make(*arguments: Any, **options: Any) -> Listener:
        options.setdefault("port", 0)
        made.append(Listener(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def leaves_nothing(listen: MakeListener) -> Iterator[Callable[[], bool]]:
    """The test itself has to end all threads and close all descriptors; whether it has by now."""
    del listen  # what it closes is closed later
    before = in_use()
    yield lambda: in_use() == before
    wait_for(lambda: in_use() == before)


@pytest.fixture
def ipv6() -> None:
    """For tests that need IPv6 on loopback."""
    try:
        udp("::1").close()
    except OSError:
        cannot_run("no IPv6 on loopback")


def in_use() -> tuple[int, int]:
    """How many threads and descriptors this process has."""
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def say(host: str, port: int, payload: bytes = OWN_MESSAGE) -> None:
    """A datagram from that address of this machine to the port."""
    with udp(host) as sock:
        sock.sendto(payload, ("::1" if ":" in host else "127.0.0.1", port))


def until(listening: Listener, enough: Callable[[list[Event]], bool]) -> list[Event]:
    """The events until there are enough of them."""
    events: list[Event] = []
    end = time.monotonic() + PATIENCE
    while not enough(events):
        assert time.monotonic() < end, f"only {events[:20]}"
        events += listening.events(0.5)
    return events


def next_event(listening: Listener) -> Event:
    """The one event that comes next."""
    (event,) = until(listening, bool)
    return event


def after_message(listening: Listener, host: str) -> Event:
    """The one event that a message from there brings about."""
    say(host, listening.port)
    return next_event(listening)


def kinds(events: Iterable[Event]) -> list[str]:
    return [event.kind for event in events]


def wait_for(happened: Callable[[], object]) -> None:
    """Until it is so."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def counted(listening: Listener) -> dict[str, int]:
    """The counts that are not 0."""
    return {name: number for name, number in listening.snapshot().counts.items() if number}


def wait_for_count(listening: Listener, name: str, number: int) -> None:
    """Until there were so many datagrams of that kind."""
    wait_for(lambda: listening.snapshot().counts[name] == number)

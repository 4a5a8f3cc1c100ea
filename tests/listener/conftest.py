# SPDX-License-Identifier: GPL-2.0-or-later
"""A Listener on loopback with each core, and nodes that speak to it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import pytest

from kdumpfence.listener import dumps, listener, reader
from kdumpfence.listener.listener import Listener
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import udp

#: Seconds that a test waits for what has to come.
PATIENCE = 60.0

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


def say(host: str, port: int, payload: bytes = OWN_MESSAGE) -> None:
    """A datagram from that address of this machine to the port."""
    with udp(host) as sock:
        sock.sendto(payload, ("::1" if ":" in host else "127.0.0.1", port))


def until(listening: Listener, enough: Callable[[list[dumps.Event]], bool]) -> list[dumps.Event]:
    """The events until there are enough of them."""
    events: list[dumps.Event] = []
    end = time.monotonic() + PATIENCE
    while not enough(events):
        assert time.monotonic() < end, f"only {events[:20]}"
        events += listening.events(0.5)
    return events


def first_event(listening: Listener, host: str) -> dumps.Event:
    """What is told first of a node at that address, which repeats its message as senders do."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        say(host, listening.port)
        for event in listening.events(0.05):
            return event
    raise AssertionError(f"nothing is told of {host}")


def kinds(events: Iterable[dumps.Event]) -> list[str]:
    return [event.kind for event in events]


def wait_for(happened: Callable[[], object]) -> None:
    """Until it is so."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def in_use() -> tuple[int, int]:
    """How many threads and descriptors this process has."""
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def has_ipv6() -> bool:
    try:
        udp("::1").close()
    except OSError:
        return False
    return True


def free_socket() -> socket.socket:
    return udp("127.0.0.1")

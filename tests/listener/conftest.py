# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Listener on loopback with each core, and nodes that speak to it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import pytest

from kdumpfence import _purewire
from kdumpfence.listener import listener, reader
from kdumpfence.listener.events import AnyEvent, Event
from kdumpfence.listener.listener import Listener
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import cannot_run, udp
from tests.support.kernel import need_kernel_counting

#: Seconds that a test waits for what has to come.
PATIENCE = 60.0

#: Nodes are played from these addresses; all are in NETWORK.
A, B, C = "127.7.4.1", "127.7.4.2", "127.7.4.3"
NETWORK = "127.7.4.0/24"


class TrialListener(Listener):
    """A Listener, what nodes say to it, and what is waited for."""

    def say(self, host: str, payload: bytes = OWN_MESSAGE) -> None:
        """A datagram from that address of this machine to the Listener."""
        say(host, self.port, payload)

    def until(self, enough: Callable[[list[AnyEvent]], bool]) -> list[AnyEvent]:
        """The events until there are enough of them."""
        events: list[AnyEvent] = []
        end = time.monotonic() + PATIENCE
        while not enough(events):
            assert time.monotonic() < end, f"only {events[:20]}"
            events += self.events(0.5)
        return events

    def several(self, number: int) -> list[Event]:
        """The events until there are so many, which are all about nodes."""
        return about_nodes(self.until(lambda events: len(events) >= number))

    def only_event(self) -> Event:
        """The one event that comes next, which is about a node."""
        (event,) = about_nodes(self.until(bool))
        return event

    def after_message(self, host: str) -> Event:
        """The one event that a message from there brings about."""
        self.say(host)
        return self.only_event()

    def counted(self) -> dict[str, int]:
        """The counts that are not 0."""
        return {name: number for name, number in self.counts.items() if number}

    def wait_for_count(self, name: str, number: int) -> None:
        """Until there were so many datagrams of that kind."""
        wait_for(lambda: self.counted().get(name) == number)


MakeListener = Callable[..., TrialListener]


@pytest.fixture(params=["user", pytest.param("kernel", marks=pytest.mark.in_kernel)])
def counting(request: pytest.FixtureRequest) -> str:
    """Who counts messages that say nothing new: whatever holds for one way holds for the other."""
    way = str(request.param)
    if way == "kernel":
        need_kernel_counting()
    return way


@pytest.fixture
def listen(
    core: ModuleType, counting: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeListener]:
    """Makes Listeners with that core on a free port, and closes them after the test."""
    monkeypatch.setattr(reader, "Receiver", core.Receiver)
    monkeypatch.setattr(listener, "Sources", core.Sources)
    monkeypatch.setattr(listener, "Questions", core.Questions)
    for module in (reader, listener):
        monkeypatch.setattr(module, "signing_core", lambda: core if core.SIGNS else _purewire)
    made: list[TrialListener] = []

    def make(*arguments: Any, **options: Any) -> TrialListener:
        options.setdefault("port", 0)
        options.setdefault(
            "counting", "user" if options.get("auth", "none") != "none" else counting
        )
        made.append(TrialListener(*arguments, **options))
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


def about_nodes(events: Iterable[AnyEvent]) -> list[Event]:
    """The same, none of which may be a loss."""
    found = [event for event in events if event.kind != "overflow"]
    assert found == list(events)
    return found


def kinds(events: Iterable[AnyEvent]) -> list[str]:
    return [event.kind for event in events]


def wait_for(happened: Callable[[], object]) -> None:
    """Until it is so."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)

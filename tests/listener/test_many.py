# SPDX-License-Identifier: LGPL-2.1-or-later
"""Thousands of nodes at once, played from loopback's addresses by one socket."""

from __future__ import annotations

import socket
import time
from types import ModuleType
from typing import Any

import pytest

from kdumpfence.listener.events import AnyEvent
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import udp
from tests.listener.conftest import MakeListener, kinds, wait_for

NODES = 5000
PIECE = 100


def host(number: int) -> bytes:
    return bytes((127, 20 + (number >> 16), number >> 8 & 255, number & 255))


def text(number: int) -> str:
    return socket.inet_ntoa(host(number))


class Crowd:
    """So many nodes, each with an address of its own."""

    def __init__(self, core: Any, number: int, port: int) -> None:
        self.number = number
        self.sock = udp()
        self.transmitter = core.Transmitter(self.sock, OWN_MESSAGE)
        for one in range(number):
            self.transmitter.add(b"\x7f\0\0\1", port, 0, host(one))
            # Rubbish beside each message.
            self.transmitter.add(b"\x7f\0\0\1", port, 0, host(one), b"rubbish!")

    def panic(self) -> None:
        """All at once; in pieces, for a queue may be short where nobody may deepen it."""
        for first in range(0, 2 * self.number, PIECE):
            assert not any(self.transmitter.send(range(first, first + PIECE), 10**9))
            time.sleep(0.001)


@pytest.mark.slow
def test_of_thousands_that_panic_at_once_each_is_told_of_and_none_is_lost(
    listen: MakeListener, core: ModuleType
) -> None:
    nodes = {f"node{number}": [text(number)] for number in range(NODES)}
    listening = listen(nodes, silence_timeout=6.0, repeat_interval=60.0)
    crowd = Crowd(core, NODES, listening.port)
    with crowd.sock:
        crowd.panic()
        began = listening.several(NODES)
        assert set(kinds(began)) == {"began"}
        assert {event.node: event.addresses for event in began} == {
            name: tuple(addresses) for name, addresses in nodes.items()
        }
        crowd.panic()
        wait_for(lambda: listening.snapshot().counts["accepted"] == 2 * NODES)
        silent = listening.several(NODES)
    assert {(event.kind, event.messages) for event in silent} == {("silent", 2)}
    assert {event.node for event in silent} == set(nodes)
    seen = listening.snapshot()
    assert seen.dumps == []
    assert seen.counts["magic"] == 2 * NODES
    assert seen.counts["unread"] == 0


@pytest.mark.slow
def test_spoofed_sources_cannot_make_it_grow(listen: MakeListener, core: ModuleType) -> None:
    room = 50
    listening = listen(["192.0.2.1"], ["127.0.0.0/8"], max_admitted=room, silence_timeout=2.0)
    crowd = Crowd(core, NODES, listening.port)
    told: list[AnyEvent] = []
    with crowd.sock:
        crowd.panic()
        wait_for(lambda: sum(listening.snapshot().counts.values()) == 2 * NODES)
        told += listening.until(lambda events: kinds(events).count("silent") == room)
    counts = listening.snapshot().counts
    assert counts["accepted"] == room
    assert counts["crowded"] == NODES - room
    assert kinds(told).count("began") == room
    queue = listening._events
    assert len(queue._sources) == 1, "the node alone"
    assert (len(queue._hearing._admitted), len(queue)) == (0, 0), "what is over leaves nothing"
    listening.say("127.0.0.9")
    listening.until(lambda events: "127.0.0.9" in {event.node for event in events})

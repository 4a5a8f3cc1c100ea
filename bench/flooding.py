# SPDX-License-Identifier: GPL-2.0-or-later
"""A flood of foreign and malformed datagrams on loopback, for the agents to stand in.

Half are whole messages from nodes that nobody waits for, half are no messages, and none comes
from the node that is waited for: no agent, ours or stock, has anything to believe. The sending
is done by the caller's thread, so its processor time can be told. May be here: what a
flood consists of. May not: what it costs anybody.
"""

from __future__ import annotations

import socket
import time
from typing import NamedTuple

from bench.paired import Closing
from bench.programs import PORT
from kdumpfence.wire import OWN_MESSAGE, Transmitter

#: What is no message: empty, cut short, of another protocol, of another version.
MALFORMED = (b"", OWN_MESSAGE[:7], b"not a message" * 12, OWN_MESSAGE[:4] + b"\2\0\0\0")
#: Addresses that valid messages come from, and as many that malformed ones come from.
SOURCES = 32


class Sent(NamedTuple):
    """What a flood was."""

    datagrams: int
    seconds: float
    processor_ns: int  #: of the sending thread


class Flood(Closing):
    """One socket that plays all those who take part."""

    def __init__(self, sources: int = SOURCES) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._transmitter = Transmitter(self._socket, OWN_MESSAGE)
        loopback = socket.inet_aton("127.0.0.1")
        for number in range(sources):
            foreign = (0x7F080001 + number).to_bytes(4, "big")
            broken = (0x7F880001 + number).to_bytes(4, "big")
            payload = MALFORMED[number % len(MALFORMED)]
            self._transmitter.add(loopback, PORT, source=foreign)
            self._transmitter.add(loopback, PORT, source=broken, payload=payload)

    def send(self, seconds: float, rate: int = 0) -> Sent:
        """Flood for so long, at so many datagrams a second, evenly; 0: as fast as it goes.

        Those that the kernel refuses do not count. Only a flood without a rate tells what
        sending costs: the other waits in a loop, since no sleep is so short.
        """
        transmitter = self._transmitter
        began, used = time.monotonic(), time.thread_time_ns()
        total, turn = 0, 0
        while (now := time.monotonic() - began) < seconds:
            if not rate:
                total += transmitter.send().count(0)
            elif total <= now * rate:
                total += transmitter.send([turn]).count(0)
                turn = (turn + 1) % len(transmitter)
        return Sent(total, now, time.thread_time_ns() - used)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

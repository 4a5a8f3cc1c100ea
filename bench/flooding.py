# SPDX-License-Identifier: GPL-2.0-or-later
"""A flood of foreign and malformed datagrams on loopback, for the agents to stand in.

Half are whole messages from nodes that nobody waits for, half are no messages. The
sending is done by the caller's thread, so its processor time can be told. May be here: what a
flood consists of. May not: what it costs anybody.
"""

from __future__ import annotations

import socket
import time
from types import TracebackType
from typing import NamedTuple

from bench.programs import PORT
from kdumpfence.wire import OWN_MESSAGE, Transmitter

#: What is no message: empty, cut short, of another protocol, of another version.
MALFORMED = (b"", OWN_MESSAGE[:7], b"not a message" * 12, OWN_MESSAGE[:4] + b"\2\0\0\0")
#: Addresses that valid messages come from, and as many that malformed ones come from.
SOURCES = 16
#: Datagrams of one source one behind the other, at the greatest rate.
AT_ONCE = 64


class Sent(NamedTuple):
    """What a flood was."""

    datagrams: int
    seconds: float
    processor_ns: int  #: of the sending thread


class Flood:
    """The sockets of all those who take part."""

    def __init__(self, to: bytes = b"\x7f\0\0\1") -> None:
        """All send to that address, 4 bytes in network order."""
        self._sockets: list[socket.socket] = []
        self._singles: list[Transmitter] = []
        self._blocks: list[Transmitter] = []
        try:
            for number in range(SOURCES):
                for kind, payload in enumerate((OWN_MESSAGE, MALFORMED[number % len(MALFORMED)])):
                    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    self._sockets.append(sock)
                    sock.setblocking(False)
                    sock.bind((f"127.8.{kind}.{number + 1}", 0))
                    for transmitters, most in ((self._singles, 1), (self._blocks, AT_ONCE)):
                        transmitter = Transmitter(sock, payload)
                        for _ in range(most):
                            transmitter.add(to, PORT)
                        transmitters.append(transmitter)
        except BaseException:
            self.close()
            raise

    def send(self, seconds: float, rate: int = 0) -> Sent:
        """Flood for so long, at so many datagrams a second, evenly; 0: as fast as it goes.

        Those that the kernel refuses do not count. Only a flood without a rate tells what
        sending costs: the other waits in a loop, since no sleep is so short.
        """
        transmitters = self._singles if rate else self._blocks
        began, used = time.monotonic(), time.thread_time_ns()
        total, turn = 0, 0
        while (now := time.monotonic() - began) < seconds:
            if rate and total > now * rate:
                continue
            total += transmitters[turn].send().count(0)
            turn = (turn + 1) % len(transmitters)
        return Sent(total, now, time.thread_time_ns() - used)

    def close(self) -> None:
        """Close all sockets."""
        for sock in self._sockets:
            sock.close()

    def __enter__(self) -> Flood:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A listener's queue, filled from many nodes, for whatever is measured by emptying it.

The listener and who fills it are two sockets on loopback, in this process and on this processor,
and never at work at the same time: so only the emptying is measured. May be here: the
queue. May not: what empties it.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
from collections.abc import Callable

from kdumpfence import wire

SO_RCVBUFFORCE = 33
#: Bytes of queue asked for; the kernel doubles it and counts about 1 KiB a datagram.
ROOM = 128 << 20

MESSAGE = wire.encode("little")


def addresses(count: int) -> list[bytes]:
    """Distinct addresses of as many nodes: 127.1.0.0 and on."""
    return [(0x7F010000 + number).to_bytes(4, "big") for number in range(count)]


class Queue:
    """A bound listener, and who fills its queue with messages from nodes in random order."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.socket(family, socket.SOCK_DGRAM)
        self._sender = socket.socket(family, socket.SOCK_DGRAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        with contextlib.suppress(PermissionError):
            self.listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        for sock in (self.listener, self._sender):
            sock.setblocking(False)
        self.listener.bind((host, 0))
        self._to = socket.inet_pton(family, host), self.listener.getsockname()[1]

    def filler(self, nodes: list[bytes], depth: int, total: int) -> Callable[[], None]:
        """What puts the next `depth` of `total` messages of these nodes into the queue.

        Each node sends one before any sends another; when all are sent they come again.
        """
        order = list(nodes)
        random.Random(total).shuffle(order)
        crowd = wire.Transmitter(self._sender, MESSAGE)
        for source in itertools.islice(itertools.cycle(order), total):
            crowd.add(*self._to, source=source)
        turns = itertools.cycle(range(0, total - depth + 1, depth))

        def fill() -> None:
            first = next(turns)
            if any(crowd.send(range(first, first + depth), patience_ns=10**9)):
                raise RuntimeError("the queue cannot be filled")

        return fill

    def close(self) -> None:
        """Close the sockets."""
        self.listener.close()
        self._sender.close()

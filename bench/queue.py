# SPDX-License-Identifier: GPL-2.0-or-later
"""A listener's queue, filled from many nodes, for whatever is measured by emptying it.

The listener and who fills it are two sockets on loopback, in this process and on this processor,
and never at work at the same time: so only the emptying is measured. May be here: the
queue. May not: what empties it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import socket
import struct

from bench import paired

SO_RCVBUFFORCE = 33
#: Bytes of queue asked for; the kernel doubles it and counts about 1 KiB a datagram.
ROOM = 128 << 20

MESSAGE = bytes.fromhex("402a301b01000000")


def addresses(count: int, family: int = socket.AF_INET) -> list[bytes]:
    """Distinct addresses of as many nodes: 127.1.0.0 and on, or fd00:: and on."""
    if family == socket.AF_INET:
        first = 0x7F010000
        return [(first + number).to_bytes(4, "big") for number in range(count)]
    return [b"\xfd" + bytes(11) + number.to_bytes(4, "big") for number in range(1, count + 1)]


class Queue(paired.Closing):
    """A bound listener, and who fills its queue with messages from nodes in random order."""

    def __init__(self, wanted: int, host: str = "127.0.0.1") -> None:
        """`wanted` is the number of datagrams; `length` is how many of them fit."""
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.socket(self.family, socket.SOCK_DGRAM)
        self._filler = socket.socket(self.family, socket.SOCK_DGRAM)
        self.length = wanted
        try:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
            with contextlib.suppress(PermissionError):
                self.listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
            self.listener.setblocking(False)
            self.listener.bind((host, 0))
            own = socket.inet_pton(self.family, host)
            self._to = _packed_name(self.family, own, self.listener.getsockname()[1])
            self._fill = paired.c_library("filler").fill
            self._fill.restype = ctypes.c_long
            self.fill(own * wanted)
            fit = self._emptied()
            if fit < wanted:
                self.length = fit * 9 // 10  # other kernels' datagrams may be a little larger
        except BaseException:
            self.close()
            raise

    def senders(self, nodes: list[bytes], count: int) -> bytes:
        """What `fill` takes: `count` of these nodes at random, each once before any comes again."""
        order = list(nodes)
        random.Random(count).shuffle(order)
        order *= -(-count // len(order))
        return b"".join(order[:count])

    def fill(self, senders: bytes) -> None:
        """A message from each of these addresses, packed one behind the other. Raises OSError."""
        count = len(senders) // (4 if self.family == socket.AF_INET else 16)
        message = ctypes.create_string_buffer(MESSAGE, len(MESSAGE))
        out = self._fill(
            self._filler.fileno(),
            senders,
            count,
            int(self.family),
            self._to,
            len(self._to),
            message,
            len(MESSAGE),
        )
        if out != count:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def _emptied(self) -> int:
        got = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self.listener.recv(64)
                got += 1
        return got

    def close(self) -> None:
        self.listener.close()
        self._filler.close()


def _packed_name(family: int, packed: bytes, port: int) -> bytes:
    """A struct sockaddr_in or sockaddr_in6."""
    head = struct.pack("=H", family) + struct.pack(">H", port)
    return head + (packed + bytes(8) if family == socket.AF_INET else bytes(4) + packed + bytes(4))

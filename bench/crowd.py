# SPDX-License-Identifier: LGPL-2.1-or-later
"""A process that sends messages of many nodes as fast as it can, on a processor of its own.

May be here: sending, and what it costs. May not: who receives.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import socket
import struct
import time
from multiprocessing.connection import Connection

from bench.paired import OTHER_CPU
from bench.queue import MESSAGE
from kdumpfence import wire

#: Sent at a time; any number of nodes is a multiple of it.
PIECE = 250
_DONE = struct.Struct("=qq")


class Crowd:
    """The process. It sends over loopback, each node from its own address, in random order."""

    def __init__(self, nodes: list[bytes]) -> None:
        #: Can be read as soon as all is sent.
        self.done, end = os.pipe()
        # Which inherits descriptors, whatever this Python prefers.
        context = multiprocessing.get_context("fork")
        self._orders, theirs = context.Pipe()
        self._process = context.Process(target=_send, args=(theirs, end, list(nodes)), daemon=True)
        self._process.start()
        theirs.close()
        os.close(end)

    def send(self, port: int, times: int, seconds: float = 3600.0) -> None:
        """Have each node send so many messages, or fewer within so many seconds."""
        self._orders.send((port, times, seconds))

    def sent_until_now(self) -> int:
        """Have it stop sending, which it must still do; how many that were."""
        self._orders.send(None)
        return self.sent()[0]

    def sent(self) -> tuple[int, int]:
        """How many that were, and the nanoseconds of processor time that it took; waits for it."""
        number, took = _DONE.unpack(os.read(self.done, _DONE.size))
        return number, took

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._orders.close()
        os.close(self.done)


def _send(orders: Connection, done: int, nodes: list[bytes]) -> None:
    os.sched_setaffinity(0, {OTHER_CPU})
    random.Random(len(nodes)).shuffle(nodes)
    crowds: dict[int, wire.Transmitter] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        while True:
            port, times, seconds = orders.recv()
            if port not in crowds:
                crowds[port] = wire.Transmitter(sock, MESSAGE)
                for source in nodes:
                    crowds[port].add(b"\x7f\0\0\1", port, source=source)
            until, began, number = time.monotonic() + seconds, time.thread_time_ns(), 0
            for at in range(times * len(nodes) // PIECE):
                first = at * PIECE % len(nodes)
                if any(crowds[port].send(range(first, first + PIECE), patience_ns=10**9)):
                    raise RuntimeError("the kernel takes no more messages")
                number += PIECE
                if time.monotonic() > until:
                    break
                if orders.poll():
                    orders.recv()
                    break
            os.write(done, _DONE.pack(number, time.thread_time_ns() - began))

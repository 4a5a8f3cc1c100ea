# SPDX-License-Identifier: LGPL-2.1-or-later
"""Counting in the kernel: what a message costs beyond a filter that drops it, beside bare recvmmsg.

On one processor a program sends messages of known nodes as fast as it can, over loopback, where it
pays for what the kernel does with them; on the other one they are received. What counts is the time
of both, by messages that were received. What it comes to with a filter that drops all is
subtracted from both sides: the rest is the receiver's share.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import select
import socket
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection

from bench.cases.receive import PEER, bare
from bench.paired import OTHER_CPU, Figure, alternate, figure, pinned, say
from bench.queue import MESSAGE, Queue, addresses
from kdumpfence import filters, wire
from kdumpfence.listener.kernel.counting import load

#: Messages of a sample, at least; each node sends as many as any other.
MESSAGES = 200_000
#: Sent at a time.
PIECE = 250
#: Seconds. No node is news again.
SILENCE = 86_400.0
#: Seconds between two looks into the table, as a Listener has them, and nanoseconds after which a
#: node is told of again: never here.
LOOK, AGAIN_NS = 1.0, 1 << 62
#: Seconds that a receiver waits for more.
PATIENCE = 0.02


def _send(orders: Connection, nodes: list[bytes]) -> None:
    """Send messages of these nodes to each port that is asked for; answer with the nanoseconds."""
    os.sched_setaffinity(0, {OTHER_CPU})
    random.Random(len(nodes)).shuffle(nodes)
    crowds: dict[int, wire.Transmitter] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        while True:
            port, times = orders.recv()
            if port not in crowds:
                crowds[port] = wire.Transmitter(sock, MESSAGE)
                for source in nodes:
                    crowds[port].add(b"\x7f\0\0\1", port, source=source)
            began = time.perf_counter_ns()
            for _ in range(times):
                for first in range(0, len(nodes), PIECE):
                    crowds[port].send(range(first, first + PIECE), patience_ns=10**9)
            orders.send(time.perf_counter_ns() - began)


class _Sockets:
    """Three sockets: whose messages are dropped, counted by the kernel, and read by a bare loop."""

    def __init__(self, nodes: list[bytes]) -> None:
        self.times = max(1, MESSAGES // len(nodes))
        self.sent = self.times * len(nodes)
        self.lost = 0
        self.queues = {name: Queue() for name in ("floor", "kernel", "bare")}
        filters.attach(self.queues["floor"].listener, filters.NOTHING)
        listener = self.queues["kernel"].listener
        self.counting = load([listener], len(nodes), SILENCE, SILENCE)
        self.sources = wire.Sources()
        self.receiver = wire.Receiver(self.sources, batch=256, size=64)
        self.receiver.add_socket(listener)
        for number, packed in enumerate(nodes):
            self.sources.add(packed, 0, number)
        self.counting.share(self.sources)
        self.counting.attach(listener, filters.program("udp", 0, refused=filters.CUT))
        self.looked = 0.0
        self.drain = bare(self.queues["bare"].listener)
        self.orders, end = multiprocessing.Pipe()
        self.sender = multiprocessing.Process(target=_send, args=(end, list(nodes)), daemon=True)
        self.sender.start()

    def _read(self) -> int:
        """What a Listener does meanwhile; how many messages there were so far."""
        now = time.monotonic()
        if now >= self.looked + LOOK:
            self.looked = now
            self.counting.renew()
            self.sources.sweep(AGAIN_NS)
        self.receiver.count(0)
        return int(self.sources.counted + self.receiver.counts["accepted"])

    def sampler(self, name: str) -> Callable[[], float]:
        """Nanoseconds a message, sent and received."""
        sock = self.queues[name].listener
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        received = 0

        def receive() -> int:
            """How many messages came since the last time."""
            nonlocal received
            if name == "floor":
                return 0
            if name == "bare":
                return self.drain()
            before, received = received, self._read()
            return received - before

        def sample() -> float:
            self._read()
            got, began = 0, time.process_time_ns()
            self.orders.send((sock.getsockname()[1], self.times))
            while not self.orders.poll():
                poller.poll(PATIENCE * 1e3)
                got += receive()
            took: int = self.orders.recv()
            got += receive()
            took += time.process_time_ns() - began
            if name == "kernel" and got != self.sent:
                raise RuntimeError(f"{got:,} of {self.sent:,} messages were counted")
            if name == "bare":
                self.lost += self.sent - got
            return took / (got or self.sent)

        return sample

    def close(self) -> None:
        self.sender.kill()
        self.sender.join()
        self.sources.unshare()
        self.counting.close()
        for queue in self.queues.values():
            queue.close()


def _share(count: int, rounds: int) -> Figure:
    """The receiver's share with so many nodes."""
    say(f"counting in the kernel, {count:,} nodes")
    with closing(_Sockets(addresses(count))) as sockets:
        samples = alternate(rounds, **{name: sockets.sampler(name) for name in sockets.queues})
        lost = sockets.lost / (sockets.sent * (rounds + 1))
    floor, kernel, loop = (samples[name] for name in ("floor", "kernel", "bare"))
    return figure(
        f"kernel-{count}", "9 counting in the kernel",
        f"receiver's share of a message, {count:,} known nodes", "ns a message",
        tuple(one - other for one, other in zip(kernel, floor)),
        tuple(one - other for one, other in zip(loop, floor)),
        PEER, "at most", 0.2,
        f"Sending, with a filter that drops all, takes {statistics.median(floor):,.0f} ns. "
        f"The bare loop lost {lost:.1%} of the messages, the kernel counted all.",
    )  # fmt: skip


def figures(quick: bool) -> list[Figure]:
    """Figure 9."""
    rounds = 5 if quick else 21
    with pinned():
        return [_share(1_000, rounds), _share(100_000, rounds)]

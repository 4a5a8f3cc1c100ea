# SPDX-License-Identifier: GPL-2.0-or-later
"""Counting in the kernel: what a message costs beyond a filter that drops it, beside bare recvmmsg.

Messages of known nodes are sent over loopback, where the sender's processor does all the kernel's
work, and what the receiver does comes right after, on the same processor. So the time of the
whole, sender included, is that of the clock on the wall; what a filter takes that drops all is
subtracted from both sides, and the rest is the receiver's share.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import closing

from bench.cases.receive import PEER, SHORT, TIMES, bare
from bench.paired import Figure, alternate, figure, pinned, say
from bench.queue import Queue, addresses
from kdumpfence import filters, wire
from kdumpfence.listener.kernel.counting import load

#: Seconds. No node is news again.
_SILENCE = 86_400.0
#: Sent at a time, so that each node is heard once; any number of nodes here is a multiple of it.
_FIRST = 8


class _Sockets:
    """Three sockets: whose messages are dropped, counted by the kernel, and read by a bare loop."""

    def __init__(self, nodes: list[bytes]) -> None:
        self.nodes = nodes
        self.queues = {name: Queue() for name in ("floor", "kernel", "bare")}
        filters.attach(self.queues["floor"].listener, filters.NOTHING)
        listener = self.queues["kernel"].listener
        classic = filters.program("udp", 0, refused=filters.CUT)
        self.counting = load([listener], len(nodes), _SILENCE, _SILENCE)
        self.sources = wire.Sources()
        self.receiver = wire.Receiver(self.sources, batch=256, size=64)
        self.receiver.add_socket(listener)
        for number, packed in enumerate(nodes):
            self.sources.add(packed, 0, number)
        self.counting.share(self.sources)
        # Each is heard once, and has its place in the table from then on.
        fill = self.queues["kernel"].filler(nodes, _FIRST, len(nodes))
        while self.receiver.counts["accepted"] < len(nodes):
            fill()
            self.receiver.count(0)
        self.counting.attach(listener, classic)

    def sampler(self, name: str) -> Callable[[], float]:
        """Nanoseconds a message, sent and received."""
        fill = self.queues[name].filler(self.nodes, SHORT, max(TIMES * SHORT, len(self.nodes)))
        drain = {
            "floor": int,
            # Of those few nodes that found no room in the table the messages are read.
            "kernel": lambda: self.receiver.count(0),
            "bare": bare(self.queues["bare"].listener),
        }[name]

        def sample() -> float:
            self.counting.renew()
            took = []
            for _ in range(TIMES):
                began = time.perf_counter_ns()
                fill()
                if drain() != SHORT and name == "bare":
                    raise RuntimeError("not all messages were received")
                took.append(time.perf_counter_ns() - began)
            return statistics.median(took) / SHORT

        return sample

    def check(self, counted: int) -> None:
        """So many messages must have been counted, and hardly any of them by the receive loop."""
        read = self.receiver.counts["accepted"]
        if (
            self.sources.counted + read != counted + len(self.nodes)
            or read > len(self.nodes) + counted // 100
        ):
            raise RuntimeError(f"{self.sources.counted} counted and {read} read of {counted}")

    def close(self) -> None:
        self.sources.unshare()
        self.counting.close()
        for queue in self.queues.values():
            queue.close()


def _share(count: int, rounds: int) -> Figure:
    """The receiver's share with so many nodes."""
    say(f"counting in the kernel, {count:,} nodes")
    with closing(_Sockets(addresses(count))) as sockets:
        samples = alternate(rounds, **{name: sockets.sampler(name) for name in sockets.queues})
        sockets.check((rounds + 1) * TIMES * SHORT)
    floor, kernel, loop = (samples[name] for name in ("floor", "kernel", "bare"))
    return figure(
        f"kernel-{count}", "9 counting in the kernel",
        f"receiver's share of a message, {count:,} known nodes", "ns a message",
        tuple(one - other for one, other in zip(kernel, floor)),
        tuple(one - other for one, other in zip(loop, floor)),
        PEER, "at most", 0.2,
        f"Sending, with a filter that drops all, takes {statistics.median(floor):,.0f} ns.",
    )  # fmt: skip


def figures(quick: bool) -> list[Figure]:
    """Figure 9."""
    rounds = 5 if quick else 31
    with pinned():
        return [_share(1_000, rounds), _share(100_000, rounds)]

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Receiving: messages of known nodes, read, validated, matched and counted, from a full queue.

Ours and the peer are called in this process and empty the same socket's queue, filled in the same
way; only the loop differs. A sample is datagrams by the processor time of the emptying, so what
other programs take from this processor meanwhile does not count on either side.
"""

from __future__ import annotations

import ctypes
import socket
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from bench.paired import Figure, alternate, c_library, figure, pinned, say
from bench.queue import MESSAGE, Queue, addresses
from kdumpfence import _kdumpwire, _purewire

#: Datagrams read by one system call, and bytes of room for each: what the listener uses, and the
#: bare loop beside it.
BATCH = 256
SIZE = 64
#: How full the queue is when it is emptied. One of the default size holds some 250 of these
#: datagrams; they are still in the processor's caches then. Of a storm's queue they are not.
SHORT, DEEP = 256, 65_536
#: Short queues emptied for one sample.
TIMES = 64

#: Empties the queue; how many messages it counted.
Drain = Callable[[], int]


def bare(listener: socket.socket, names: bool = True) -> Drain:
    """The bare C loop on that socket: how many datagrams were in its queue."""
    library = c_library("recvmmsg")
    library.bare_make.restype = ctypes.c_void_p
    library.bare_drain.restype = ctypes.c_long
    made = ctypes.c_void_p(library.bare_make(BATCH, SIZE, int(names)))
    return lambda: int(library.bare_drain(made, listener.fileno()))


def ours(core: Any, listener: socket.socket, nodes: list[bytes]) -> Drain:
    """A core's loop on that socket; it must have counted each message for its node."""
    sources = core.Sources()
    for number, packed in enumerate(nodes):
        sources.add(packed, 0, number)
    receiver = core.Receiver(sources, batch=BATCH, size=SIZE)
    receiver.add_socket(listener)
    return lambda: int(receiver.count(0))


def plain(listener: socket.socket, nodes: list[bytes]) -> Drain:
    """What one writes in a page of Python: recvfrom, compare, look up, count."""
    messages = {socket.inet_ntop(listener.family, packed): 0 for packed in nodes}

    def drain() -> int:
        total = 0
        try:
            while True:
                data, address = listener.recvfrom(SIZE)
                if data == MESSAGE:
                    host = address[0]
                    if host in messages:
                        messages[host] += 1
                        total += 1
        except BlockingIOError:
            return total

    return drain


def sampler(queue: Queue, depth: int, nodes: list[bytes], drain: Drain) -> Callable[[], float]:
    """Fill the queue from these nodes and empty it: datagrams a second of processor time.

    Of short queues it is the median of TIMES of them: whoever else ran on this processor in
    between has left its caches cold.
    """
    times = TIMES if depth == SHORT else 1
    fill = queue.filler(nodes, depth, max(times * depth, len(nodes)))

    def sample() -> float:
        took = []
        for _ in range(times):
            fill()
            began = time.thread_time_ns()
            got = drain()
            took.append(time.thread_time_ns() - began)
            if got != depth:
                raise RuntimeError(f"{got} of {depth} datagrams were counted")
        return depth * 1e9 / statistics.median(took)

    return sample


class _Pairs:
    """Figures of one depth of one queue."""

    def __init__(self, queue: Queue, depth: int, rounds: int) -> None:
        self.queue, self.depth, self.rounds = queue, depth, rounds
        self._deep = depth == DEEP

    def _ours(self, nodes: list[bytes], core: Any = _kdumpwire) -> Callable[[], float]:
        return sampler(self.queue, self.depth, nodes, ours(core, self.queue.listener, nodes))

    def _samples(self, title: str, **calls: Callable[[], float]) -> dict[str, tuple[float, ...]]:
        say(title)
        return alternate(self.rounds, **calls)

    def beside_bare_c(
        self,
        key: str,
        title: str,
        nodes: list[bytes],
        *,
        names: bool = True,
        bound: float = 0.0,
        note: str = "",
    ) -> Figure:
        """The core and the bare loop; `names`: whether that one is told who sent."""
        title += ", deep queue" * self._deep
        peer = bare(self.queue.listener, names)
        samples = self._samples(
            title, ours=self._ours(nodes), peer=sampler(self.queue, self.depth, nodes, peer)
        )
        return figure(
            key + "-deep" * self._deep, "1 receive", title, "datagrams/s",
            samples["ours"], samples["peer"], PEER if names else NAMELESS_PEER,
            "at least" if bound else "", bound, note,
        )  # fmt: skip

    def known(self, *counts: int) -> list[Figure]:
        """With so many known nodes."""
        return [
            self.beside_bare_c(
                f"receive-{count}",
                f"receive, validate, match and count, {known(count)}",
                addresses(count),
                bound=0.95,
                note="" if self._deep or count < 100_000 else MANY_NOTE,
            )
            for count in counts
        ]

    def cost(self) -> Figure:
        """What many nodes cost beside few."""
        title = "cost of a datagram, 100,000 known nodes" + ", deep queue" * self._deep
        samples = self._samples(
            title, many=self._ours(addresses(100_000)), few=self._ours(addresses(10))
        )
        many, few = (tuple(1e9 / rate for rate in samples[name]) for name in ("many", "few"))
        return figure(
            "receive-cost" + "-deep" * self._deep, "1 receive", title, "ns a datagram",
            many, few, "the same with 10 known nodes", "at most", 1.3,
        )  # fmt: skip

    def pure(self, count: int) -> list[Figure]:
        """Both cores, and plain Python."""
        what = known(count) + ", deep queue" * self._deep
        nodes = addresses(count)
        samples = self._samples(
            f"compiled, pure and plain, {what}",
            compiled=self._ours(nodes),
            pure=self._ours(nodes, _purewire),
            plain=sampler(self.queue, self.depth, nodes, plain(self.queue.listener, nodes)),
        )
        key = f"{count}" + "-deep" * self._deep
        return [
            figure(
                f"compiled-{key}", "7 pure", f"compiled core, {what}", "datagrams/s",
                samples["compiled"], samples["pure"], "the pure core", "at least", 2.5,
                DEEP_NOTE if self._deep else "",
            ),
            figure(
                f"pure-{key}", "7 pure", f"pure core, {what}", "datagrams/s",
                samples["pure"], samples["plain"],
                "plain Python `recvfrom`, compare, look up, count", "at least", 1.0,
                OBJECTS_NOTE if count > 1 and not self._deep else "",
            ),
        ]  # fmt: skip


def known(count: int) -> str:
    return f"{count:,} known node" + "s" * (count > 1)


def figures(quick: bool) -> list[Figure]:
    """Figures 1 and 7."""
    rounds = 5 if quick else 61
    with pinned(), closing(Queue()) as queue, closing(Queue("::1")) as ipv6:
        short, deep = _Pairs(queue, SHORT, rounds), _Pairs(queue, DEEP, rounds // 2)
        fewer = _Pairs(queue, SHORT, rounds // 2)
        return [
            *short.known(1, 10, 1_000, 100_000),
            short.cost(),
            *deep.known(1, 100_000),
            deep.cost(),
            fewer.beside_bare_c(
                "receive-nameless",
                "the same, 1,000 known nodes, beside a loop that is not told who sent",
                addresses(1_000),
                names=False,
            ),
            _Pairs(ipv6, SHORT, rounds // 2).beside_bare_c(
                "receive-ipv6",
                "the same over IPv6, 1 known node",
                [socket.inet_pton(socket.AF_INET6, "::1")],
            ),
            *short.pure(1),
            *short.pure(1_000),
            *_Pairs(queue, DEEP, rounds // 4).pure(1_000),
        ]


MANY_NOTE = (
    "The table of 100,000 nodes is larger than the processor's own caches, and each datagram needs "
    "two lines of it: fetched ahead for a whole batch, but waited for all the same. A deep queue "
    "costs the kernel more, so that this weighs less."
)
OBJECTS_NOTE = (
    "Each node has a record with the time, the port and the number of its messages; the plain "
    "loop has a number in a dictionary."
)
DEEP_NOTE = (
    f"{DEEP:,} datagrams lie in the queue, no longer in the processor's caches: the kernel's own "
    "part grows, which is the same for all three. Even the bare C loop is then little more than "
    "twice as fast as the plain Python one."
)
PEER = f"bare C `recvmmsg`, the same batch of {BATCH}"
NAMELESS_PEER = "bare C `recvmmsg` without the senders' addresses"

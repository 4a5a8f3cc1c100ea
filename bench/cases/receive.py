# SPDX-License-Identifier: GPL-2.0-or-later
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
from typing import Any

from bench import paired
from bench.paired import Figure
from bench.queue import MESSAGE, Queue, addresses
from kdumpfence import _kdumpwire, _purewire

#: Datagrams read by one system call, and bytes of room for each: what the listener uses, and the
#: bare loop beside it.
BATCH = 256
SIZE = 64
NODES = (1, 10, 1_000, 100_000)
#: How full the queue is when it is emptied. A queue of the kernel's default size holds 256 of these
#: datagrams; they are still in the processor's caches then. Of a storm's queue they are not.
SHORT, DEEP = 256, 65_536
#: Short queues emptied for one sample.
TIMES = 64

Drain = Callable[[], int]


def bare(listener: socket.socket, names: bool = True) -> Drain:
    """The bare C loop on that socket: how many datagrams were in its queue."""
    library = paired.c_library("recvmmsg")
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
    width = len(nodes[0])
    senders = queue.senders(nodes, max(times * depth, len(nodes)))
    at = 0

    def sample() -> float:
        nonlocal at
        took = []
        for _ in range(times):
            if at + depth * width > len(senders):
                at = 0
            fill = senders[at : at + depth * width]
            at += len(fill)
            queue.fill(fill)
            began = time.thread_time_ns()
            got = drain()
            took.append(time.thread_time_ns() - began)
            if got != depth:
                raise RuntimeError(f"{got} of {depth} datagrams were counted")
        return depth * 1e9 / statistics.median(took)

    return sample


def known(count: int) -> str:
    return f"{count:,} known node" + "s" * (count > 1)


def figures(quick: bool, progress: Callable[[str], None]) -> list[Figure]:
    """Figures 1 and 7."""
    rounds = 5 if quick else 61
    with paired.pinned(), Queue(DEEP) as queue:
        found = [_receive(queue, SHORT, count, rounds, progress) for count in NODES]
        found.append(_cost(queue, SHORT, rounds, progress))
        found += [_receive(queue, DEEP, count, rounds // 2, progress) for count in (1, NODES[-1])]
        found.append(_cost(queue, DEEP, rounds // 2, progress))
        found.append(_nameless(queue, rounds // 2, progress))
        found += _pure(queue, rounds, progress)
    with paired.pinned(), Queue(SHORT, "::1") as queue:
        found.append(_ipv6(queue, rounds // 2, progress))
    return sorted(found, key=lambda one: one.group)


def _receive(
    queue: Queue, depth: int, count: int, rounds: int, progress: Callable[[str], None]
) -> Figure:
    title = f"receive, validate, match and count, {known(count)}"
    title += ", deep queue" * (depth == DEEP)
    progress(title)
    nodes = addresses(count)
    samples = paired.alternate(
        rounds,
        ours=sampler(queue, depth, nodes, ours(_kdumpwire, queue.listener, nodes)),
        peer=sampler(queue, depth, nodes, bare(queue.listener)),
    )
    return Figure(
        key=f"receive-{count}" + "-deep" * (depth == DEEP),
        group="1 receive",
        title=title,
        unit="datagrams/s",
        ours=samples["ours"],
        peer=samples["peer"],
        peer_name=PEER,
        wanted="at least",
        bound=0.95,
        note=MANY_NOTE if count == NODES[-1] and depth == SHORT else "",
    )


def _cost(queue: Queue, depth: int, rounds: int, progress: Callable[[str], None]) -> Figure:
    title = "cost of a datagram, 100,000 known nodes" + ", deep queue" * (depth == DEEP)
    progress(title)
    many, few = addresses(100_000), addresses(10)
    samples = paired.alternate(
        rounds,
        ours=sampler(queue, depth, many, ours(_kdumpwire, queue.listener, many)),
        peer=sampler(queue, depth, few, ours(_kdumpwire, queue.listener, few)),
    )
    return Figure(
        key="receive-cost" + "-deep" * (depth == DEEP),
        group="1 receive",
        title=title,
        unit="ns a datagram",
        ours=tuple(1e9 / rate for rate in samples["ours"]),
        peer=tuple(1e9 / rate for rate in samples["peer"]),
        peer_name="the same with 10 known nodes",
        wanted="at most",
        bound=1.3,
    )


def _nameless(queue: Queue, rounds: int, progress: Callable[[str], None]) -> Figure:
    title = "the same, 1,000 known nodes, beside a loop that is not told who sent"
    progress(title)
    nodes = addresses(1_000)
    samples = paired.alternate(
        rounds,
        ours=sampler(queue, SHORT, nodes, ours(_kdumpwire, queue.listener, nodes)),
        peer=sampler(queue, SHORT, nodes, bare(queue.listener, names=False)),
    )
    return Figure(
        key="receive-nameless",
        group="1 receive",
        title=title,
        unit="datagrams/s",
        ours=samples["ours"],
        peer=samples["peer"],
        peer_name="bare C `recvmmsg` without the senders' addresses",
    )


def _ipv6(queue: Queue, rounds: int, progress: Callable[[str], None]) -> Figure:
    title = "the same over IPv6, 1 known node"
    progress(title)
    nodes = [socket.inet_pton(socket.AF_INET6, "::1")]
    samples = paired.alternate(
        rounds,
        ours=sampler(queue, SHORT, nodes, ours(_kdumpwire, queue.listener, nodes)),
        peer=sampler(queue, SHORT, nodes, bare(queue.listener)),
    )
    return Figure(
        key="receive-ipv6",
        group="1 receive",
        title=title,
        unit="datagrams/s",
        ours=samples["ours"],
        peer=samples["peer"],
        peer_name=PEER,
    )


def _pure(queue: Queue, rounds: int, progress: Callable[[str], None]) -> list[Figure]:
    found = []
    for count, depth in ((1, SHORT), (1_000, SHORT), (1_000, DEEP)):
        what = known(count) + ", deep queue" * (depth == DEEP)
        progress(f"compiled, pure and plain, {what}")
        nodes = addresses(count)
        samples = paired.alternate(
            rounds if depth == SHORT else rounds // 4,
            compiled=sampler(queue, depth, nodes, ours(_kdumpwire, queue.listener, nodes)),
            pure=sampler(queue, depth, nodes, ours(_purewire, queue.listener, nodes)),
            plain=sampler(queue, depth, nodes, plain(queue.listener, nodes)),
        )
        key = f"{count}" + "-deep" * (depth == DEEP)
        found += [
            Figure(
                key=f"compiled-{key}",
                group="7 pure",
                title=f"compiled core, {what}",
                unit="datagrams/s",
                ours=samples["compiled"],
                peer=samples["pure"],
                peer_name="the pure core",
                wanted="at least",
                bound=2.5,
                note=DEEP_NOTE if depth == DEEP else "",
            ),
            Figure(
                key=f"pure-{key}",
                group="7 pure",
                title=f"pure core, {what}",
                unit="datagrams/s",
                ours=samples["pure"],
                peer=samples["plain"],
                peer_name="plain Python `recvfrom`, compare, look up, count",
                wanted="at least",
                bound=1.0,
                note=OBJECTS_NOTE if count > 1 and depth == SHORT else "",
            ),
        ]
    return found


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


if __name__ == "__main__":
    paired.run_alone(figures)

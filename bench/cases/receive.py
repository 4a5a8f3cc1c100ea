# SPDX-License-Identifier: GPL-2.0-or-later
"""Receiving: messages of known nodes, read, validated, matched and counted, from a full queue.

Ours and the peer are called in this process and empty the same socket's queue, filled in the same
way; only the loop differs. A sample is datagrams by the processor time of the emptying, so what
other programs take from this processor meanwhile does not count on either side.
"""

from __future__ import annotations

import ctypes
import socket
import time
from collections.abc import Callable
from typing import Any

from bench import paired
from bench.paired import Figure
from bench.queue import MESSAGE, Queue, addresses
from kdumpfence import _kdumpwire, _purewire

#: Datagrams read by one system call; ours and the bare loop's.
BATCH = 256
#: Bytes of room for each of them, ours and the bare loop's.
SIZE = 2048
NODES = (1, 10, 1_000, 100_000)
#: What fills the queue before each sample: one message of each of the most nodes.
LENGTH = 100_000

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


def sampler(queue: Queue, nodes: list[bytes], drain: Drain) -> Callable[[], float]:
    """Fill the queue from these nodes and empty it: datagrams a second of processor time."""
    senders = queue.senders(nodes)

    def sample() -> float:
        queue.fill(senders)
        began = time.thread_time_ns()
        got = drain()
        took = time.thread_time_ns() - began
        if got != queue.length:
            raise RuntimeError(f"{got} of {queue.length} datagrams were counted")
        return got * 1e9 / took

    return sample


def figures(quick: bool, progress: Callable[[str], None]) -> list[Figure]:
    """Figures 1 and 7."""
    rounds = 5 if quick else 21
    length = 10_000 if quick else LENGTH
    with paired.pinned(), Queue(length) as queue:
        found = _compiled(queue, rounds, progress)
        found += _pure(queue, rounds, progress)
    with paired.pinned(), Queue(length, "::1") as queue:
        progress("receive: IPv6")
        nodes = [socket.inet_pton(socket.AF_INET6, "::1")]
        samples = paired.alternate(
            rounds,
            ours=sampler(queue, nodes, ours(_kdumpwire, queue.listener, nodes)),
            peer=sampler(queue, nodes, bare(queue.listener)),
        )
        found.insert(
            len(NODES) + 1,
            Figure(
                key="receive-ipv6",
                group="1 receive",
                title="the same over IPv6, 1 known node",
                unit="datagrams/s",
                ours=samples["ours"],
                peer=samples["peer"],
                peer_name=PEER,
            ),
        )
    return found


PEER = f"bare C `recvmmsg`, the same batch of {BATCH}"


def _compiled(queue: Queue, rounds: int, progress: Callable[[str], None]) -> list[Figure]:
    found = []
    for count in NODES:
        progress(f"receive: {count:,} known nodes")
        nodes = addresses(count)
        samples = paired.alternate(
            rounds,
            ours=sampler(queue, nodes, ours(_kdumpwire, queue.listener, nodes)),
            peer=sampler(queue, nodes, bare(queue.listener)),
        )
        found.append(
            Figure(
                key=f"receive-{count}",
                group="1 receive",
                title=f"receive, validate, match and count, {count:,} known node"
                + "s" * (count > 1),
                unit="datagrams/s",
                ours=samples["ours"],
                peer=samples["peer"],
                peer_name=PEER,
                wanted="at least",
                bound=0.95,
            )
        )
    progress("receive: 100,000 nodes beside 10")
    many, few = addresses(NODES[-1]), addresses(10)
    samples = paired.alternate(
        rounds,
        ours=sampler(queue, many, ours(_kdumpwire, queue.listener, many)),
        peer=sampler(queue, few, ours(_kdumpwire, queue.listener, few)),
    )
    found.append(
        Figure(
            key="receive-cost",
            group="1 receive",
            title="cost of a datagram, 100,000 known nodes",
            unit="ns a datagram",
            ours=tuple(1e9 / rate for rate in samples["ours"]),
            peer=tuple(1e9 / rate for rate in samples["peer"]),
            peer_name="the same with 10 known nodes",
            wanted="at most",
            bound=1.3,
        )
    )
    progress("receive: without names")
    samples = paired.alternate(
        rounds,
        ours=sampler(queue, many, ours(_kdumpwire, queue.listener, many)),
        peer=sampler(queue, many, bare(queue.listener, names=False)),
    )
    found.append(
        Figure(
            key="receive-nameless",
            group="1 receive",
            title="100,000 known nodes, beside a loop that is not told who sent",
            unit="datagrams/s",
            ours=samples["ours"],
            peer=samples["peer"],
            peer_name="bare C `recvmmsg` without the senders' addresses",
        )
    )
    return found


def _pure(queue: Queue, rounds: int, progress: Callable[[str], None]) -> list[Figure]:
    found = []
    for count in (1, 1_000):
        progress(f"pure: {count:,} known nodes")
        nodes = addresses(count)
        samples = paired.alternate(
            max(5, rounds // 2),
            compiled=sampler(queue, nodes, ours(_kdumpwire, queue.listener, nodes)),
            pure=sampler(queue, nodes, ours(_purewire, queue.listener, nodes)),
            plain=sampler(queue, nodes, plain(queue.listener, nodes)),
        )
        known = f"{count:,} known node" + "s" * (count > 1)
        found += [
            Figure(
                key=f"compiled-{count}",
                group="7 pure",
                title=f"compiled core, {known}",
                unit="datagrams/s",
                ours=samples["compiled"],
                peer=samples["pure"],
                peer_name="the pure core",
                wanted="at least",
                bound=2.5,
            ),
            Figure(
                key=f"pure-{count}",
                group="7 pure",
                title=f"pure core, {known}",
                unit="datagrams/s",
                ours=samples["pure"],
                peer=samples["plain"],
                peer_name="plain Python `recvfrom`, compare, look up, count",
                wanted="at least",
                bound=1.0,
            ),
        ]
    return found


if __name__ == "__main__":
    paired.run_alone(figures)

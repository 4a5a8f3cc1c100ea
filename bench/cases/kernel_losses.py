# SPDX-License-Identifier: LGPL-2.1-or-later
"""Counting in the kernel: how many messages are lost when one core sends all that it can.

A hundred thousand nodes send without a pause for ten seconds, to a Listener whose kernel counts,
and to a bare loop that reads a queue of the same size on the same processor. Once with a deep
queue, the nodes' first messages included, and once with the queue that every program has, when all
nodes are dumping already.
"""

from __future__ import annotations

import ctypes
import select
import socket
import time
from contextlib import ExitStack, closing

from bench.cases.receive import BATCH, SIZE
from bench.crowd import Crowd
from bench.paired import Figure, c_library, figure, pinned, say
from bench.queue import SO_RCVBUFFORCE, addresses
from kdumpfence.listener.listener import Listener

GROUP = "9 kernel"
NODES = 100_000
SECONDS = 10.0
#: Messages of a node, at most: more than can be sent in that time.
MANY = 1 << 16
#: Bytes of queue asked for, and how it is called. The kernel grants twice as many.
QUEUES = {"deep": 1 << 26, "default": 212_992 // 2}
#: Seconds within which all that waits in a queue is read.
PATIENCE = 60.0


def ours(crowd: Crowd, queue: str, seconds: float) -> float:
    """Percent of the messages that a Listener counted whose kernel counts."""
    nodes = {f"node{at}": [socket.inet_ntoa(one)] for at, one in enumerate(addresses(NODES))}
    with Listener(
        nodes, host="127.0.0.1", port=0, counting="kernel", receive_buffer=QUEUES[queue]
    ) as listener:

        def sent(times: int, seconds: float) -> int:
            crowd.send(listener.port, times, seconds)
            while not select.select([crowd.done], [], [], 0)[0]:
                listener.events(0.1)
            return crowd.sent()[0]

        while queue == "default" and len(listener.snapshot(fresh=False).dumps) < NODES:
            sent(1, PATIENCE)
        before = listener.snapshot().counts["accepted"]
        total = sent(MANY, seconds)
        until = time.monotonic() + PATIENCE
        while True:
            counts = listener.snapshot().counts
            got = counts["accepted"] - before
            if got == total or counts["unread"] or time.monotonic() > until:
                return 100 * got / total


def bare(crowd: Crowd, queue: str, seconds: float) -> float:
    """Percent of the messages that the bare loop read."""
    library = c_library("recvmmsg")
    library.bare_make.restype = ctypes.c_void_p
    library.bare_follow.restype = ctypes.c_long
    made = ctypes.c_void_p(library.bare_make(BATCH, SIZE, 1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, QUEUES[queue])
        sock.bind(("127.0.0.1", 0))
        crowd.send(sock.getsockname()[1], MANY, seconds)
        got = library.bare_follow(made, sock.fileno(), crowd.done, ctypes.c_long(0))
        library.bare_free(made)
    return 100 * int(got) / crowd.sent()[0]


def figures(quick: bool) -> list[Figure]:
    """The losses of figure 9."""
    seconds = 0.5 if quick else SECONDS
    found = []
    with pinned(), ExitStack() as stack:
        crowd = stack.enter_context(closing(Crowd(addresses(NODES))))
        for queue, words in (
            ("deep", "first ones included, queue of 64 MiB"),
            ("default", "when all are dumping, queue of 208 KiB"),
        ):
            say(f"losses, {queue} queue")
            found.append(
                figure(
                    f"kernel-counted-{queue}", GROUP,
                    f"messages counted of {NODES:,} nodes, all that one core can send in "
                    f"{SECONDS:.0f} s; {words}", "%",
                    (ours(crowd, queue, seconds),), (bare(crowd, queue, seconds),),
                    "bare C `recvmmsg`, sleeping when the queue is empty", "at least", 100.0,
                    of="ours",
                )
            )  # fmt: skip
    return found

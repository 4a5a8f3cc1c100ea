# SPDX-License-Identifier: LGPL-2.1-or-later
"""Counting in the kernel: what a message costs beyond a filter that drops it, beside bare recvmmsg.

Messages of known nodes are sent over loopback, where the sender pays for what the kernel does with
them. What counts is the processor time of the whole, sender, receiver and the kernel's own threads,
by messages that were received; what it comes to with a filter that drops all is subtracted from
both sides. The rest is the receiver's share. It is measured in two ways:

- A sender that has a processor of its own sends as fast as it can, the receiver has another one.
  The bare loop either sleeps as soon as its queue is empty, or rests for a millisecond as a
  Listener does, and then finds full batches.
- On one processor 256 messages are sent, and then read at once: what a bare loop costs at best.

May not be here: losses, memory, the daemon (the cases beside this one).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import select
import socket
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from bench.cases.receive import BATCH, SIZE, bare
from bench.crowd import Crowd
from bench.paired import Figure, Samples, alternate, c_library, figure, pinned, say
from bench.queue import Queue, addresses
from kdumpfence import filters, wire
from kdumpfence.listener.kernel.counting import load
from kdumpfence.listener.reader import REST_NS

GROUP = "9 kernel"
#: Of the bare loop's share.
BOUND = 0.2
#: Messages of a sample, at least; each node sends as many as any other.
MESSAGES = 100_000
#: Sent, and then read, on one processor.
DEPTH = BATCH
#: How the bare loops wait.
LOOPS = {
    "sleeps": "sleeping when the queue is empty",
    "rests": "resting 1 ms after one that is not full",
}
#: Seconds. No node is news again.
SILENCE = 86_400.0
#: Nanoseconds after which a node is told of again: never here.
AGAIN_NS = 1 << 62
#: Seconds to wait for messages that are late.
PATIENCE = 1.0


@functools.cache
def _threads_of_the_kernel() -> list[Path]:
    """What tells of each that does what interrupts leave."""
    found = []
    for name in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if name.read_text().startswith("ksoftirqd/"):
                found.append(name.with_name("schedstat"))
    return found


def _kernels_own() -> int:
    """Nanoseconds that these have worked."""
    return sum(int(path.read_text().split()[0]) for path in _threads_of_the_kernel())


class Counted:
    """A socket whose nodes the kernel counts, and what a Listener does with it."""

    def __init__(self, sock: socket.socket, nodes: list[bytes]) -> None:
        self.counting = load([sock], len(nodes), SILENCE, SILENCE)
        self.sources = wire.Sources()
        self.receiver = wire.Receiver(self.sources, batch=BATCH, size=SIZE)
        self.receiver.add_socket(sock)
        for number, packed in enumerate(nodes):
            self.sources.add(packed, 0, number)
        self.counting.share(self.sources)
        self.counting.attach(sock, filters.program("udp", 0, refused=filters.CUT))
        self.counting.renew()

    @property
    def number(self) -> int:
        """Messages so far."""
        return int(self.sources.counted + self.receiver.counts["accepted"])

    def follow(self, stop: int) -> None:
        """Do what the thread of a Listener does until `stop` can be read."""
        self.counting.renew()
        self.receiver.count(time.monotonic_ns() + 60 * 10**9, (stop,), -1, REST_NS)
        self.receiver.count(0)
        self.sources.sweep(AGAIN_NS)

    def close(self) -> None:
        self.sources.unshare()
        self.counting.close()


class _Live:
    """Sockets that one process sends to, and this one reads."""

    def __init__(self, nodes: list[bytes], stack: ExitStack) -> None:
        self.times = max(1, MESSAGES // len(nodes))
        self.sent = self.times * len(nodes)
        self.lost: dict[str, list[float]] = {"kernel": [], "sleeps": [], "rests": []}
        self.queues = {
            name: stack.enter_context(closing(Queue()))
            for name in ("floor", "kernel", "sleeps", "rests")
        }
        filters.attach(self.queues["floor"].listener, filters.NOTHING)
        self.counted = stack.enter_context(closing(Counted(self.queues["kernel"].listener, nodes)))
        self.library = c_library("recvmmsg")
        self.library.bare_make.restype = ctypes.c_void_p
        self.library.bare_follow.restype = ctypes.c_long
        self.crowd = stack.enter_context(closing(Crowd(nodes)))

    def sampler(self, name: str) -> Callable[[], float]:
        """Nanoseconds a message, sent and received."""
        sock = self.queues[name].listener
        receive = self._receiver(name, sock)

        def sample() -> float:
            kernels, own = _kernels_own(), time.thread_time_ns()
            self.crowd.send(sock.getsockname()[1], self.times)
            got = receive()
            own = time.thread_time_ns() - own
            _, sending = self.crowd.sent()
            if name in self.lost:
                self.lost[name].append(1 - got / self.sent)
            return float(sending + own + _kernels_own() - kernels) / got

        return sample

    def _receiver(self, name: str, sock: socket.socket) -> Callable[[], int]:
        """What reads until all is sent; how many messages came."""
        if name == "kernel":

            def count() -> int:
                before = self.counted.number
                self.counted.follow(self.crowd.done)
                # What the kernel has put off comes when the sender is done already.
                until = time.monotonic() + PATIENCE
                while self.counted.number - before < self.sent and time.monotonic() < until:
                    time.sleep(0.01)
                    self.counted.receiver.count(0)
                return self.counted.number - before

            return count
        if name == "floor":

            def wait() -> int:
                select.select([self.crowd.done], [], [])
                return self.sent

            return wait
        made = ctypes.c_void_p(self.library.bare_make(BATCH, SIZE, 1))
        rest = ctypes.c_long(REST_NS if name == "rests" else 0)
        return lambda: int(self.library.bare_follow(made, sock.fileno(), self.crowd.done, rest))


class _InTurns:
    """Sockets whose messages are sent, and then read, on one processor."""

    def __init__(self, nodes: list[bytes], stack: ExitStack) -> None:
        self.nodes = nodes
        self.queues = {
            name: stack.enter_context(closing(Queue())) for name in ("floor", "kernel", "bare")
        }
        filters.attach(self.queues["floor"].listener, filters.NOTHING)
        self.counted = stack.enter_context(closing(Counted(self.queues["kernel"].listener, nodes)))

    def sampler(self, name: str) -> Callable[[], float]:
        """Nanoseconds a message, sent and received."""
        queue = self.queues[name]
        fill = queue.filler(self.nodes, DEPTH, math.lcm(DEPTH, len(self.nodes)))
        read: dict[str, Callable[[], int]] = {
            "floor": int,
            "kernel": lambda: int(self.counted.receiver.count(0)),
            "bare": bare(queue.listener),
        }
        times = max(MESSAGES, len(self.nodes)) // DEPTH

        def sample() -> float:
            self.counted.counting.renew()
            before, got, began = self.counted.number, 0, time.thread_time_ns()
            for _ in range(times):
                fill()
                got += read[name]()
            took = time.thread_time_ns() - began
            if name == "kernel":
                got = self.counted.number - before
            if name != "floor" and got != times * DEPTH:
                raise RuntimeError(f"{got:,} of {times * DEPTH:,} messages were counted")
            return took / (times * DEPTH)

        return sample


def _less(samples: Samples, floor: Samples) -> Samples:
    return tuple(one - other for one, other in zip(samples, floor))


def _shares(count: int, rounds: int) -> list[Figure]:
    """The receiver's share with so many nodes, in both ways."""
    nodes = addresses(count)
    found = []
    say(f"counting in the kernel, {count:,} nodes, a processor each")
    with ExitStack() as stack:
        live = _Live(nodes, stack)
        samples = alternate(rounds, **{name: live.sampler(name) for name in live.queues})
    floor = samples["floor"]
    for way, words in LOOPS.items():
        lost, ours = (statistics.fmean(live.lost[name]) for name in (way, "kernel"))
        found.append(
            figure(
                f"kernel-{count}-{way}", GROUP,
                f"receiver's share of a message, {count:,} known nodes, a processor each",
                "ns a message", _less(samples["kernel"], floor), _less(samples[way], floor),
                f"bare C `recvmmsg`, batches of {BATCH}, {words}", "at most", BOUND,
                f"Sending, with a filter that drops all, takes {statistics.median(floor):,.0f} ns. "
                f"The bare loop lost {lost:.1%} of the messages, ours {ours:.1%}.",
            )
        )  # fmt: skip
    say(f"counting in the kernel, {count:,} nodes, one processor")
    with ExitStack() as stack:
        turns = _InTurns(nodes, stack)
        samples = alternate(rounds, **{name: turns.sampler(name) for name in turns.queues})
    floor = samples["floor"]
    found.append(
        figure(
            f"kernel-{count}-turns", GROUP,
            f"the same, {DEPTH} sent and then read on one processor", "ns a message",
            _less(samples["kernel"], floor), _less(samples["bare"], floor),
            f"bare C `recvmmsg`, batches of {BATCH}, each of them full", "at most", BOUND,
            f"Sending, with a filter that drops all, takes {statistics.median(floor):,.0f} ns.",
        )
    )  # fmt: skip
    return found


def figures(quick: bool) -> list[Figure]:
    """The first lines of figure 9."""
    rounds = 3 if quick else 15
    with pinned():
        return [*_shares(1_000, rounds), *_shares(100_000, rounds)]

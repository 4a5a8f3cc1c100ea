# SPDX-License-Identifier: LGPL-2.1-or-later
"""Signed messages of known nodes: read, verified and counted, from a full queue.

Beside it the same library's HMAC-SHA256 alone, over the same packets as they lie in memory: what no
listener can do without. And what a signed message costs beside a bare one of the same node.

Each message is the next one of a session that has answered, so each is believed.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import random
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing

from bench.cases.receive import BATCH, SHORT, TIMES, ours, sampler
from bench.paired import ROOT, Figure, alternate, c_library, figure, pinned, say
from bench.queue import Queue, addresses
from kdumpfence import _kdumpwire, keys
from kdumpfence.wire import Packet, decode_packet, encode_packet

sys.path.insert(0, str(ROOT / "src" / "native"))
from build_flags import SOURCES, signing

KEY = bytes(range(32))
KEY_ID = keys.key_id(KEY)
SIZE = 160
BOUND = 300_000


class Nodes:
    """Nodes that sign, and the queue of a listener that believes them."""

    def __init__(self, queue: Queue, count: int) -> None:
        self.names = [f"node{number}" for number in range(count)]
        self.keys = [keys.node_key(KEY, name) for name in self.names]
        self._listener = queue.listener
        self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sender.bind(("127.0.0.1", 0))
        self._sequences = itertools.count(1)
        order = list(range(count))
        random.Random(count).shuffle(order)
        self._order = itertools.cycle(order)
        sources = _kdumpwire.Sources()
        signed = _kdumpwire.Signed(sources, [(KEY_ID, KEY)])
        for name in self.names:
            signed.add(name)
        self._receiver = _kdumpwire.Receiver(sources, signed=signed, batch=BATCH, size=SIZE)
        self._receiver.add_socket(queue.listener)
        for number in order:
            self._confirm(number)

    def packet(self, number: int, nonce: bytes = bytes(16)) -> bytes:
        """The next one of that node."""
        packet = Packet(
            "status", self.names[number], state="dumping", key_id=KEY_ID, interval=10_000,
            session=1, sequence=next(self._sequences), nonce=nonce,
        )  # fmt: skip
        return encode_packet(packet, self.keys[number])

    def _send(self, packet: bytes) -> None:
        self._sender.sendto(packet, self._listener.getsockname())

    def _confirm(self, number: int) -> None:
        self._send(self.packet(number))
        self._receiver.count(0)
        question = decode_packet(self._sender.recv(1024))
        if question is None:
            raise RuntimeError("that is no question")
        self._send(self.packet(number, question.nonce))
        if self._receiver.count(0) != 1:
            raise RuntimeError("the answer was not believed")

    def next(self, count: int) -> Iterator[int]:
        """The nodes that speak next, each before any does again."""
        return itertools.islice(self._order, count)

    def listen(self) -> float:
        """Messages a second of processor time, from short queues."""
        took = []
        for _ in range(TIMES):
            for number in self.next(SHORT):
                self._send(self.packet(number))
            began = time.thread_time_ns()
            got = self._receiver.count(0)
            took.append(time.thread_time_ns() - began)
            if got != SHORT:
                raise RuntimeError(f"{got} of {SHORT} messages were believed")
        return SHORT * 1e9 / statistics.median(took)

    def close(self) -> None:
        self._sender.close()


def bare(nodes: Nodes) -> Callable[[], float]:
    """The same for HMAC-SHA256 alone."""
    signs = signing()
    library = c_library("hmac", *signs.compile, f"-I{SOURCES}", libraries=signs.link)
    library.bare_prepare.restype = ctypes.c_void_p
    library.bare_verify.restype = ctypes.c_long
    library.bare_verify.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
    ]
    prepared = library.bare_prepare(b"".join(nodes.keys), len(nodes.keys))

    def sample() -> float:
        took = []
        for _ in range(TIMES):
            numbers = list(nodes.next(SHORT))
            packets = b"".join(nodes.packet(number) for number in numbers)
            of = (ctypes.c_uint32 * SHORT)(*numbers)
            began = time.thread_time_ns()
            fit = library.bare_verify(prepared, packets, of, SHORT)
            took.append(time.thread_time_ns() - began)
            if fit != SHORT:
                raise RuntimeError(f"{fit} of {SHORT} fit")
        return SHORT * 1e9 / statistics.median(took)

    return sample


def pair(count: int, rounds: int) -> list[Figure]:
    """The rate with so many nodes, and the cost."""
    nodes_are = f"{count:,} known node" + "s" * (count > 1)
    plain = addresses(count)
    with pinned(), contextlib.ExitStack() as stack:
        queue, unsigned = (stack.enter_context(closing(Queue())) for _ in range(2))
        nodes = stack.enter_context(closing(Nodes(queue, count)))
        say(f"signed messages, {nodes_are}")
        samples = alternate(
            rounds,
            signed=nodes.listen,
            peer=bare(nodes),
            unsigned=sampler(unsigned, SHORT, plain, ours(_kdumpwire, unsigned.listener, plain)),
        )
    signed, bare_ = (tuple(1e9 / rate for rate in samples[name]) for name in ("signed", "unsigned"))
    return [
        figure(
            f"signed-{count}", "8 signed", f"read, verify and count signed messages, {nodes_are}",
            "datagrams/s", samples["signed"], samples["peer"], PEER, "at least", BOUND, of="ours",
        ),
        figure(
            f"signed-cost-{count}", "8 signed", f"cost of a signed message, {nodes_are}",
            "ns a datagram", signed, bare_, "a bare message, the same number of nodes",
        ),
    ]  # fmt: skip


def figures(quick: bool) -> list[Figure]:
    """Figure 8."""
    return [one for count in (1, 1_000, 100_000) for one in pair(count, 3 if quick else 21)]


PEER = "HMAC-SHA256 of the same library alone, over the same packets in memory"

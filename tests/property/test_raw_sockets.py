# SPDX-License-Identifier: LGPL-2.1-or-later
"""The receive loop over real sockets: every verdict, against a judge of the tests' own.

Whole packets are written onto the loopback interface with a raw socket, good and bad in
every field, and heard by both cores at once, each on a raw socket of its own. A third raw
socket has a filter, so that the kernel's idea of it is compared with ours; a fourth hears
everything and so tells when all have it.
"""

from __future__ import annotations

import collections
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdumpfence import filters
from kdumpfence.addresses import Address
from tests.property import bpf
from tests.property.cores import Cores
from tests.property.packets import Packet, packets
from tests.support.judge import VERDICTS, judge_raw

IPV6_HDRINCL = 36
IPV6_RECVPKTINFO = 49
SO_RCVBUFFORCE = 33
#: Seconds for the kernel to deliver, and then for the cores to have read it: a test that
#: fails does so hundreds of times until its example is small.
PATIENCE, GRACE = 3.0, 0.1

SOURCES = {
    4: [bytes([127, 77, 0, number]) for number in range(1, 7)],
    6: [bytes(15) + b"\1", *(b"\xfd\x77" + bytes(13) + bytes([number]) for number in range(1, 6))],
}
#: These of them are nodes, with these numbers; the others are strangers.
NODES = {4: dict(zip(SOURCES[4], (5, 6, 7))), 6: dict(zip(SOURCES[6], (5, 6, 7)))}

Heard = tuple[int, bytes, int, int, str]


class Ether:
    """Raw sockets on loopback: one to write packets with, four to hear them."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.sockets: list[socket.socket] = []
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        # An address for every process, so that tests side by side do not hear each other.
        number = os.getpid() & 0xFFFF
        self.host = f"127.88.{number >> 8}.{number & 255}" if version == 4 else "::1"
        self.destination = socket.inet_pton(family, self.host)
        # Holds the port, so that it is nobody else's.
        holder = self._open(family, socket.SOCK_DGRAM, 0)
        holder.bind((self.host, 0))
        filters.attach(holder, filters.NOTHING)
        self.port: int = holder.getsockname()[1]
        self.writer = self._open(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        if version == 6:
            self.writer.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
        self.ears = [self._open(family, socket.SOCK_RAW, socket.IPPROTO_UDP) for _ in range(4)]
        for ear in self.ears:
            ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
            if version == 6:
                ear.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
            ear.bind((self.host, 0))

    def _open(self, family: int, kind: int, protocol: int) -> socket.socket:
        self.sockets.append(socket.socket(family, kind, protocol))
        return self.sockets[-1]

    def empty(self) -> None:
        for ear in self.ears:
            read_all(ear)

    def deliver(self, packets: list[Packet]) -> None:
        """Write the packets, and wait until they were heard."""
        for packet in packets:
            self.writer.sendto(packet.whole, (self.host, 0))
        missing = collections.Counter(packet.body for packet in packets)
        until = time.monotonic() + PATIENCE
        while missing and time.monotonic() < until:
            missing -= collections.Counter(map(self.body, read_all(self.ears[3])))
        assert not missing, "the kernel did not deliver what was written"

    def body(self, packet: bytes) -> bytes:
        """Without the IPv4 header: the kernel has written into that."""
        return packet[4 * (packet[0] & 15) if self.version == 4 else 0 :]

    def passed(self) -> list[bytes]:
        """What the filter of the third one let through."""
        return [self.body(packet) for packet in read_all(self.ears[2])]

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def read_all(sock: socket.socket) -> list[bytes]:
    """What lies in the queue."""
    got = []
    while True:
        try:
            got.append(sock.recv(65535, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return got


@pytest.fixture(scope="module", params=[4, 6], ids=["ipv4", "ipv6"])
def ether(request: pytest.FixtureRequest, raw_sockets: None) -> Iterator[Ether]:
    ether = Ether(request.param)
    yield ether
    ether.close()


def heard(receiver: Any, expected: int) -> list[Heard]:
    """What the receiver accepts, once it has counted as many datagrams as expected."""
    arrivals = receiver.take(batches=64)
    until = time.monotonic() + GRACE
    while sum(receiver.counts.values()) < expected and time.monotonic() < until:
        time.sleep(0.001)
        arrivals += receiver.take(batches=64)
    return sorted((a.node, a.packed, a.scope, a.port, repr(a.message)) for a in arrivals)


def tell(core: Any, nodes: dict[bytes, int]) -> Any:
    sources = core.Sources()
    for packed, node in nodes.items():
        sources.add(packed, node=node)
    return sources


@settings(max_examples=40)
@given(data=st.data(), size=st.sampled_from([65535, 64, 80]), batch=st.integers(1, 8))
@pytest.mark.slow
def test_raw_packets_are_judged_as_an_independent_judge_does(
    cores: Cores, ether: Ether, data: st.DataObject, size: int, batch: int
) -> None:
    nodes = NODES[ether.version]
    # A node's message that is good in all but one field is what matters: nodes twice.
    choice = packets(SOURCES[ether.version] + list(nodes), ether.destination, ether.port)
    sent = data.draw(st.lists(choice, min_size=20, max_size=40))
    code = filters.program(
        f"raw{ether.version}",
        ether.port,
        messages_only=True,
        sources=[Address(packed) for packed in nodes],
    )
    ether.empty()
    receivers, strangers = [], []
    for core, ear in zip(cores, ether.ears):
        strangers.append(core.Sources())
        receivers.append(
            core.Receiver(tell(core, nodes), strangers[-1], port=ether.port, batch=batch, size=size)
        )
        receivers[-1].add_socket(ear)
    filters.attach(ether.ears[2], code)
    ether.deliver(sent)

    counts = dict.fromkeys(VERDICTS, 0)
    accepted: list[Heard] = []
    unknown: set[tuple[bytes, int]] = set()
    for packet in sent:
        judged = judge_raw(
            packet.seen_raw, packet.source, packet.destination, set(nodes), ether.port, size
        )
        if judged.verdict is None:
            continue
        counts[judged.verdict] += 1
        if judged.verdict == "stranger":
            unknown.add((packet.source, bpf.LO if ether.version == 6 else 0))
        if judged.verdict == "accepted":
            order = "little" if packet.body[8] == 0x40 else "big"
            message = f"Message(version=1, byteorder='{order}', trailer={judged.trailer!r})"
            number = nodes[packet.source]
            accepted.append((number, packet.source, 0, judged.source_port, message))
    for receiver, others in zip(receivers, strangers):
        arrivals = heard(receiver, sum(counts.values()))
        assert receiver.counts == counts
        assert arrivals == sorted(accepted)
        assert set(others) == unknown
        assert receiver.errors == 0

    kept = [p.body for p in sent if bpf.run(code, p.seen_raw, p.whole, bpf.LO)]
    assert collections.Counter(ether.passed()) == collections.Counter(kept)

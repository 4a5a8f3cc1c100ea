# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program that counts in the kernel, run there over single packets (BPF_PROG_TEST_RUN).

For tests and for the fuzzer, beside a model of what it has to do: the codec is the judge of what is
a message, `tests.property.bpf` of what a classic filter keeps, and the rest is a few lines here.
What may not be in this file: packets, and pytest.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kdumpfence import _purewire
from kdumpfence.filters import Instruction
from kdumpfence.listener.kernel import assembler, bpf
from kdumpfence.listener.kernel.program import Table, text
from tests.property import bpf as machine

SECOND = 10**9
QUIET = 30 * SECOND
SEED = 0xFEDCBA9876543210
BUCKETS = 65
KEEP = 0xFFFFFFFF
KEEP_ALL: list[Instruction] = [(0x06, 0, 0, KEEP)]
#: Where the UDP header is in such a run, whose offsets count from the IP header: behind one of
#: IPv4 without options, with one, and of IPv6.
BASES = (20, 24, 40)
ENTRY = struct.Struct("=16sqII")
#: Bytes of a UDP datagram from its IP header on, at least: of fewer nothing is kept.
LEAST = 28
#: The index of the interface that packets come through.
LO = 1
#: Destination and source of an Ethernet frame: over lo, to another host, to all.
MACS = (bytes(12), b"\2\0\0\0\0\1\2\0\0\0\0\2", b"\1\0\x5e\0\0\1\2\0\0\0\0\1")


def mapped(packed: bytes) -> bytes:
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


def is_message(payload: bytes) -> bool:
    """Whether the codec says that this is a message and nothing else."""
    try:
        return bool(_purewire.decode(payload).trailer == b"")
    except _purewire.Rejected:
        return False


def frame(source: bytes, payload: bytes) -> bytes:
    """An Ethernet frame with a UDP datagram."""
    udp = struct.pack(">HHHH", 40000, 7410, 8 + len(payload), 0) + payload
    if len(source) == 4:
        kind, length = 0x0800, 20 + len(udp)
        ip = struct.pack(">BBHHHBBH", 0x45, 0, length, 1, 0, 64, 17, 0) + source + b"\x0a\0\0\x02"
    else:
        kind = 0x86DD
        ip = struct.pack(">IHBB", 6 << 28, len(udp), 17, 64) + source + bytes(15) + b"\2"
    return bytes(12) + struct.pack(">H", kind) + ip + udp


@dataclass
class Program:
    """A table, and programs that count in it."""

    table: bpf.SharedArray
    lease: bpf.SharedArray
    #: By base, and whatever else tells them apart.
    programs: dict[object, int]

    def load(self, classic: Iterable[Instruction], base: int, *, inside: bool = False) -> int:
        """One more."""
        terms = Table(self.table.fd, BUCKETS, SEED, self.lease.fd, QUIET)
        return bpf.load("test", assembler.assembled(text(terms, classic, inside=inside, base=base)))

    def put(self, packed: bytes, last: int, scope: int = 0, second: bool = False) -> int:
        """Give an entry to that source; where it is."""
        whole = (1 << 64) - 1
        high, low = struct.unpack("=QQ", mapped(packed))
        h = (high ^ SEED) * 0x9E3779B97F4A7C15 & whole
        h = ((h ^ h >> 32) ^ low ^ scope << 32) * 0xD6E8FEB86659FD93 & whole
        h = ((h ^ h >> 32) * 0xD6E8FEB86659FD93 & whole) >> 32
        h = (h * 0x9E3779B97F4A7C15 & whole) >> 32 if second else h
        bucket = h * BUCKETS >> 32
        for at in range(bucket * 128, bucket * 128 + 128, 32):
            if self.table.memory[at : at + 16] == bytes(16):
                ENTRY.pack_into(self.table.memory, at, mapped(packed), last, 0, scope)
                return at
        raise AssertionError("no room")

    def clear(self) -> None:
        self.table.memory[:] = bytes(len(self.table.memory))
        self.until(time.monotonic_ns() + 3600 * SECOND)

    def until(self, moment: int) -> None:
        struct.pack_into("=q", self.lease.memory, 0, moment)

    def entry(self, at: int) -> tuple[int, int]:
        """When it was counted last there, and how many messages."""
        _, last, messages, _ = ENTRY.unpack_from(self.table.memory, at)
        return last, messages

    def counts(self, source: bytes, payload: bytes, **options: int) -> bool:
        """Whether it counts this datagram; else it is kept."""
        base = 20 if len(source) == 4 else 40
        kept, _ = bpf.run(self.programs[base], frame(source, payload), **options)
        assert kept in (0, KEEP)
        return kept == 0

    def close(self) -> None:
        for program in self.programs.values():
            os.close(program)
        self.table.close()
        self.lease.close()


@contextlib.contextmanager
def made() -> Iterator[Program]:
    """One with a program for each base behind which nothing is dropped. Raises OSError."""
    program = Program(bpf.SharedArray("t", 128, BUCKETS), bpf.SharedArray("l", 8, 1), {})
    with contextlib.closing(program):
        for base in BASES:
            program.programs[base] = program.load(KEEP_ALL, base)
        yield program


def why_not() -> str:
    """Why the kernel does not run programs for us; "" if it does."""
    try:
        with made() as program:
            program.counts(socket.inet_aton("192.0.2.1"), b"")
    except OSError as error:
        return f"bpf: {errno.errorcode.get(error.errno or 0, '?')}: {error.strerror}"
    return ""


# ------------------------------------------------------------------------- the model


def source_of(network: bytes) -> bytes:
    """The address that an IP packet comes from; b"" if it is none."""
    version = network[0] >> 4
    return {4: network[12:16], 6: network[8:24]}.get(version, b"")


def is_link_local(source: bytes) -> bool:
    return len(source) == 16 and source[0] == 0xFE and source[1] & 0xC0 == 0x80


def kept_by(classic: list[Instruction], base: int, data: bytes) -> int:
    """How many bytes of this frame, which came over lo, the classic filter keeps."""
    # What the kernel makes of the destination: to all, to lo, or to another host.
    kind = 2 if data[0] & 1 else 0 if data[:6] == bytes(6) else 3
    return machine.run(classic, data[14 + base :], data[14:], LO, kind, data[:14])


def may_count(network: bytes, base: int, inside: bool) -> tuple[bytes, int] | None:
    """The source and its scope, if a packet is one of those that are counted of known sources."""
    source = source_of(network)
    if not source or not is_message(network[base + 8 :]):
        return None
    if not is_link_local(source):
        return source, 0
    return None if inside else (source, LO)

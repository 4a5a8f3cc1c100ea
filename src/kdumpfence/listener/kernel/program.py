# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program that counts in the kernel, instruction by instruction.

To read with its table beside it, which `kdumpfence.wire.Sources` shares: an array of buckets, each
with four entries, of which a source has one, in one of two buckets that its hash names.

    offset  bytes  of an entry
    0       16     the address, in network byte order; IPv4 as ::ffff:a.b.c.d; all zero: free
    16      8      when a message was counted last: CLOCK_MONOTONIC, nanoseconds; -2**63: never
    24      4      messages that were counted here, modulo 2**32
    28      4      index of the interface, of a link-local address; else 0

The program writes only the time and the number, this process only the rest, and the time when it
has just read a message itself. What may not be in this file: system calls.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import NamedTuple

from kdumpfence.filters import Instruction as Classic
from kdumpfence.listener.kernel import assembler as asm
from kdumpfence.listener.kernel.assembler import (
    FP,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    Line,
    Register,
)
from kdumpfence.wire import MAGIC, MESSAGE_SIZE, VERSION

#: Bytes of an entry, and entries of a bucket.
ENTRY, ENTRIES = 32, 4
_TIME, _NUMBER, _SCOPE = 16, 24, 28

#: What the hash is made with; sources.pxi has the same.
_FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93

_UDP_HEADER = 8
_FROM_NETWORK_HEADER = 1  # BPF_HDR_START_NET
# Where in the stack the source is, which is at 12 in IPv4's header, at 8 in IPv6's; and the message
# behind an IPv4 header without options and the UDP header.
_SOURCE4, _SOURCE6 = asm.HEADER_AT + 12, asm.HEADER_AT + 8
_MESSAGE4 = asm.HEADER_AT + asm.HEADER
_MAPPED = -48  # ::ffff:a.b.c.d: the second half of it
_BUCKETS = (-52, -56)

_KEEP = -1


class Table(NamedTuple):
    """What the program has to know of its table."""

    fd: int
    buckets: int
    #: 64 bits that nobody else knows.
    seed: int
    #: Another map: until when the program may count. CLOCK_MONOTONIC, nanoseconds.
    lease: int
    #: A source that was not heard for so many nanoseconds is news.
    quiet_ns: int


def text(
    table: Table, classic: Iterable[Classic] = (), *, inside: bool = False, base: int = 0
) -> list[Line]:
    """The program: what `classic` keeps is counted, or kept after all.

    `inside`: the socket hears VRFs, where the receive loop is told another interface than
    the program. `base`: where the UDP header is; for a UDP socket, at 0.
    """
    return [
        *header(base),
        *asm.translated(classic, "kept", base),
        "kept",
        *_is_message(base),
        *_source(inside),
        *_hashed(table),
        *_found(table, _BUCKETS[0]),
        *_found(table, _BUCKETS[1]),
        asm.jump("news"),
        *_count(table),
        "news",
        asm.move(R0, _KEEP),
        asm.leave(),
    ]


def header(base: int) -> list[Line]:
    """What a translated program needs, without which the packet is dropped; R9: the length.

    One call for it, with the message too if it may be one: calls are what costs most here.
    """
    return [
        asm.move(R6, Register(R1)),
        asm.load(4, R9, R1, asm.LENGTH),
        asm.move(R2, 0),
        asm.store(4, FP, _MESSAGE4, 0),
        asm.store(4, FP, _MESSAGE4 + 4, 0),
        asm.move(R3, Register(FP)),
        asm.change(R3, "+", asm.HEADER_AT),
        asm.move(R4, asm.HEADER),
        asm.jump_if(R9, "!=", base + _UDP_HEADER + MESSAGE_SIZE, "load"),
        asm.move(R4, asm.HEADER + MESSAGE_SIZE),
        "load",
        asm.move(R5, _FROM_NETWORK_HEADER),
        asm.call(asm.LOAD_BYTES_RELATIVE),
        asm.jump_if(R0, "==", 0, "header"),
        asm.move(R0, 0),
        asm.leave(),
        "header",
    ]


def _is_message(base: int) -> list[Line]:
    """Exactly one message, in either byte order, or it is news."""
    return [
        asm.jump_if(R9, "!=", base + _UDP_HEADER + MESSAGE_SIZE, "news"),
        asm.load(1, R1, FP, asm.HEADER_AT),
        asm.jump_if(R1, "!=", 0x45, "loaded"),
        asm.load(4, R7, FP, _MESSAGE4),
        asm.from_network(R7, 32),
        asm.load(4, R8, FP, _MESSAGE4 + 4),
        asm.from_network(R8, 32),
        asm.jump("look"),
        "loaded",
        asm.load_packet(4, base + _UDP_HEADER),
        asm.move(R7, Register(R0)),
        asm.load_packet(4, base + _UDP_HEADER + 4),
        asm.move(R8, Register(R0)),
        "look",
        asm.jump_if(R7, "==", MAGIC, "big", 32),
        asm.jump_if(R7, "!=", _swapped(MAGIC), "news", 32),
        asm.jump_if(R8, "!=", _swapped(VERSION), "news", 32),
        asm.jump("message"),
        "big",
        asm.jump_if(R8, "!=", VERSION, "news", 32),
        "message",
    ]


def _source(inside: bool) -> list[Line]:
    """R7, R8: the two halves of the source's address; R9: its scope."""
    return [
        asm.move(R9, 0),
        asm.load(1, R1, FP, asm.HEADER_AT),
        asm.change(R1, "&", 0xF0),
        asm.jump_if(R1, "==", 0x40, "IPv4"),
        asm.jump_if(R1, "!=", 0x60, "news"),
        asm.load(8, R7, FP, _SOURCE6),
        asm.load(8, R8, FP, _SOURCE6 + 8),
        asm.load(2, R1, FP, _SOURCE6),
        asm.from_network(R1, 16),
        asm.change(R1, "&", 0xFFC0),
        asm.jump_if(R1, "!=", 0xFE80, "source"),
        asm.jump("news") if inside else asm.load(4, R9, R6, asm.INTERFACE),
        *([] if inside else [asm.jump("source")]),
        "IPv4",
        asm.move(R7, 0),
        asm.store(4, FP, _MAPPED, socket.htonl(0xFFFF)),
        asm.load(4, R1, FP, _SOURCE4),
        asm.store(4, FP, _MAPPED + 4, Register(R1)),
        asm.load(8, R8, FP, _MAPPED),
        "source",
    ]


def _hashed(table: Table) -> list[Line]:
    """Write down in the stack which two buckets the source may be in."""
    return [
        *asm.constant(R1, table.seed),
        asm.change(R1, "^", Register(R7)),
        *asm.constant(R2, _FIRST),
        asm.change(R1, "*", Register(R2)),
        *_folded(),
        asm.change(R1, "^", Register(R8)),
        asm.move(R2, Register(R9)),
        asm.change(R2, "<<", 32),
        asm.change(R1, "^", Register(R2)),
        *asm.constant(R3, _SECOND),
        asm.change(R1, "*", Register(R3)),
        *_folded(),
        asm.change(R1, "*", Register(R3)),
        # Only its upper half depends on all of the address.
        asm.change(R1, ">>", 32),
        asm.move(R2, Register(R1)),
        *_bucket(R2, table.buckets, _BUCKETS[0]),
        *asm.constant(R2, _FIRST),
        asm.change(R1, "*", Register(R2)),
        asm.change(R1, ">>", 32),
        *_bucket(R1, table.buckets, _BUCKETS[1]),
    ]


def _bucket(number: int, buckets: int, where: int) -> list[Line]:
    """Of 32 bits of a hash: which bucket, so that any number of them will do."""
    return [
        asm.change(number, "*", buckets),
        asm.change(number, ">>", 32),
        asm.store(4, FP, where, Register(number)),
    ]


def _folded() -> list[Line]:
    """R1 ^= R1 >> 32"""
    return [
        asm.move(R2, Register(R1)),
        asm.change(R2, ">>", 32),
        asm.change(R1, "^", Register(R2)),
    ]


def _found(table: Table, bucket: int) -> list[Line]:
    """To "found", with R0 at the entry, if the source is in that bucket."""
    lines: list[Line] = [
        *asm.map_of(R1, table.fd),
        asm.move(R2, Register(FP)),
        asm.change(R2, "+", bucket),
        asm.call(asm.LOOK_UP),
        asm.jump_if(R0, "==", 0, "news"),
    ]
    for number in range(ENTRIES):
        following = f"bucket {bucket} entry {number + 1}"
        lines += [
            asm.load(8, R1, R0, 8),
            asm.jump_if(R1, "!=", Register(R8), following),
            asm.load(8, R1, R0, 0),
            asm.jump_if(R1, "!=", Register(R7), following),
            asm.load(4, R1, R0, _SCOPE),
            asm.jump_if(R1, "==", Register(R9), "found"),
            following,
        ]
        if number + 1 < ENTRIES:
            lines.append(asm.change(R0, "+", ENTRY))
    return lines


def _count(table: Table) -> list[Line]:
    """Count it and drop it, unless it is news after all."""
    return [
        "found",
        asm.move(R7, Register(R0)),
        asm.call(asm.NANOSECONDS),
        *asm.memory_of(R1, table.lease),
        asm.load(8, R1, R1, 0),
        asm.jump_if(R0, ">", Register(R1), "news"),
        asm.move(R2, Register(R0)),
        asm.load(8, R1, R7, _TIME),
        asm.change(R2, "-", Register(R1)),
        *asm.constant(R1, table.quiet_ns),
        asm.jump_if(R2, ">", Register(R1), "news"),
        asm.store(8, R7, _TIME, Register(R0)),
        asm.move(R1, 1),
        asm.add_atomically(4, R7, _NUMBER, R1),
        asm.move(R0, 0),
        asm.leave(),
    ]


def _swapped(value: int) -> int:
    return int.from_bytes(value.to_bytes(4, "big"), "little")

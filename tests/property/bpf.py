# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small machine for classic BPF programs, as Linux runs them on sockets.

Written from the kernel's Documentation/networking/filter.rst. Only what a socket filter
of ours may need; anything else is an error.
"""

from __future__ import annotations

from collections.abc import Sequence

LINK_HEADER = 0xFFE00000
NETWORK_HEADER = 0xFFF00000
PACKET_TYPE = 0xFFFFF004
INTERFACE = 0xFFFFF008

LO = 1
#: Of a packet: to this host, to all in the net, looped back to who sent it (linux/if_packet.h).
HOST, MULTICAST, LOOPBACK = 0, 2, 5

Instruction = tuple[int, int, int, int]


def run(
    code: Sequence[Instruction],
    data: bytes,
    network: bytes,
    interface: int = 2,
    packet_type: int = HOST,
    link: bytes = b"\2\0\0\0\0\1\2\0\0\0\0\2\x08\0",
) -> int:
    """How many bytes of the datagram the program keeps; 0 = it is dropped.

    `data` is what the socket's filter sees at offset 0, `network` the packet from its
    IP header on, `link` its Ethernet header; `interface` the index of the one it came over.
    """
    accumulator = index = at = 0
    while True:
        operation, true, false, k = code[at]
        at += 1
        if operation == 0x06:
            return k
        if operation & 0x07 == 0x05:
            taken = {
                0x05: True,
                0x15: accumulator == k,
                0x1D: accumulator == index,
                0x25: accumulator > k,
                0x35: accumulator >= k,
                0x45: bool(accumulator & k),
            }[operation]
            at += k if operation == 0x05 else (true if taken else false)
            continue
        if operation == 0x07:
            index = accumulator
            continue
        if operation == 0x54:
            accumulator &= k
            continue
        if k in (PACKET_TYPE, INTERFACE):
            assert operation == 0x20
            accumulator = packet_type if k == PACKET_TYPE else interface
            continue
        size = {0x20: 4, 0x40: 4, 0x28: 2, 0x48: 2, 0x30: 1, 0x50: 1, 0xB1: 1}[operation]
        offset = (k + index) & 0xFFFFFFFF if operation & 0xE0 == 0x40 else k
        seen = data
        if offset >= NETWORK_HEADER:
            seen, offset = network, offset - NETWORK_HEADER
        elif offset >= LINK_HEADER:
            seen, offset = link, offset - LINK_HEADER
        if offset + size > len(seen):
            return 0
        value = int.from_bytes(seen[offset : offset + size], "big")
        if operation == 0xB1:
            index = 4 * (value & 15)
        else:
            accumulator = value


def check(code: Sequence[Instruction]) -> None:
    """What a kernel asks of a program before it takes it."""
    assert 1 <= len(code) <= 4096
    assert code[-1][0] == 0x06
    for at, (operation, true, false, k) in enumerate(code):
        assert 0 <= true <= 255
        assert 0 <= false <= 255
        assert 0 <= k <= 0xFFFFFFFF
        if operation & 0x07 == 0x05:
            assert at + 1 + (k if operation == 0x05 else max(true, false)) < len(code)

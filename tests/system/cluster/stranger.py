# SPDX-License-Identifier: GPL-2.0-or-later
"""A stranger in the cluster's network: what it sends must never count as a node's fencing.

Run as a process, in a namespace where it can do no harm:

    stranger.py forge NODE TARGET...    valid messages from its own address, and with the node's
                                        address as their source everything that is almost one;
                                        for our agent alone
    stranger.py flood NODE TARGET...    valid messages and rubbish, as fast as it can, and all
                                        from its own address

Both go on until they are killed.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Sequence

PORT = 7410
MESSAGE = struct.pack("=II", 0x1B302A40, 1)
ALMOST = (
    b"",
    MESSAGE[:7],
    MESSAGE[:4],
    MESSAGE[:4] + b"\2\0\0\0",
    b"\0" + MESSAGE,
    b"\0" * 8,
    b"I am dumping",
)


def datagram(source: str, target: str, payload: bytes, *, intact: bool = True) -> bytes:
    """An IPv4 packet with a UDP datagram in it; the kernel fills in the rest of its header."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    udp = struct.pack("!HHHH", 40000, PORT, 8 + len(payload), 0) + payload
    checksum = _sum(addresses + struct.pack("!BBH", 0, socket.IPPROTO_UDP, len(udp)) + udp)
    if not intact:
        checksum ^= 0x5555
    udp = udp[:6] + struct.pack("!H", checksum or 0xFFFF) + udp[8:]
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0)
    return header + addresses + udp


def _sum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def forge(node: str, targets: Sequence[str]) -> None:
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    while True:
        for target in targets:
            own.sendto(MESSAGE, (target, PORT))
            for payload in ALMOST:
                raw.sendto(datagram(node, target, payload), (target, 0))
            raw.sendto(datagram(node, target, MESSAGE, intact=False), (target, 0))
        time.sleep(0.1)


def flood(targets: Sequence[str]) -> None:
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while True:
        for payload in (MESSAGE, *ALMOST):
            for target in targets:
                own.sendto(payload, (target, PORT))


if __name__ == "__main__":
    if sys.argv[1] == "forge":
        forge(sys.argv[2], sys.argv[3:])
    else:
        flood(sys.argv[3:])

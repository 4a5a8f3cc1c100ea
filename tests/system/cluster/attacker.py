# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stranger in the cluster's network: what it sends must never count as a node's fencing.

Run as a process, in a namespace where it can do no harm:

    attacker.py forge NODE TARGET...    valid messages from its own address, and with the node's
                                        address as their source everything that is almost one;
                                        for our agent alone
    attacker.py spoof NODE TARGET...    valid messages with the node's address as their source;
                                        for our agent alone
    attacker.py flood NODE TARGET...    valid messages and rubbish, as fast as it can, and all
                                        from its own address

All go on until they are killed.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.support.messages import MESSAGE, NO_MESSAGE, PORT, udp_datagram


def packet(source: str, target: str, payload: bytes, *, intact: bool = True) -> bytes:
    """An IPv4 packet with a UDP datagram in it; the kernel fills in the rest of its header."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    udp = udp_datagram(source, target, payload, sum_xor=0 if intact else 0x5555)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0)
    return header + addresses + udp


def forge(node: str, targets: Sequence[str]) -> None:
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    while True:
        for target in targets:
            own.sendto(MESSAGE, (target, PORT))
            for payload in NO_MESSAGE.values():
                raw.sendto(packet(node, target, payload), (target, 0))
            raw.sendto(packet(node, target, MESSAGE, intact=False), (target, 0))
        time.sleep(0.1)


def spoof(node: str, targets: Sequence[str]) -> None:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    while True:
        for target in targets:
            raw.sendto(packet(node, target, MESSAGE), (target, 0))
        time.sleep(0.1)


def flood(targets: Sequence[str]) -> None:
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while True:
        for payload in (MESSAGE, *NO_MESSAGE.values()):
            for target in targets:
                own.sendto(payload, (target, PORT))


if __name__ == "__main__":
    if sys.argv[1] == "forge":
        forge(sys.argv[2], sys.argv[3:])
    elif sys.argv[1] == "spoof":
        spoof(sys.argv[2], sys.argv[3:])
    else:
        flood(sys.argv[3:])

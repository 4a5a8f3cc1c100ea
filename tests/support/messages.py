# SPDX-License-Identifier: LGPL-2.1-or-later
"""Messages, what only looks like one, and UDP datagrams made by hand.

Nothing is taken from the product: the bytes are written out once more, on purpose.
"""

from __future__ import annotations

import socket
import struct
import sys

PORT = 7410
MAGIC, VERSION = 0x1B302A40, 1
#: As a node of this machine's byte order sends it, and one of the other order.
MESSAGE = struct.pack("=II", MAGIC, VERSION)
FOREIGN_MESSAGE = struct.pack(">II" if sys.byteorder == "little" else "<II", MAGIC, VERSION)

NO_MESSAGE = {
    **{f"its first {length} bytes": MESSAGE[:length] for length in range(len(MESSAGE))},
    "version 0": struct.pack("=II", MAGIC, 0),
    "version 2": struct.pack("=II", MAGIC, 2),
    "version 2 with a trailer": struct.pack("=II", MAGIC, 2) + MESSAGE,
    "a wrong magic": struct.pack("=II", MAGIC + 1, VERSION),
    "halves exchanged": struct.pack("=II", VERSION, MAGIC),
    "each half in another byte order": MESSAGE[:4] + FOREIGN_MESSAGE[4:],
    "a byte before a message": b"\0" + MESSAGE,
    "zeroes": bytes(8),
    "text": b"I am dumping" * 100,
}


def family(address: str) -> socket.AddressFamily:
    """The family of a numeric address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def checksum(data: bytes) -> int:
    """The Internet checksum of RFC 1071; an odd number of bytes is padded."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_datagram(
    source: str,
    target: str,
    payload: bytes,
    *,
    port: int = PORT,
    length: int | None = None,
    sum_is: int | None = None,
    sum_xor: int = 0,
) -> bytes:
    """A UDP header and this payload, to go behind an IP header.

    `length` is what the length field claims (by default the truth, 8 + payload). The checksum
    is computed over what that covers; `sum_is` replaces it and `sum_xor` falsifies it.
    """
    length = 8 + len(payload) if length is None else length
    ports_and_length = struct.pack("!3H", 5555, port, length)
    if sum_is is None:
        kind = family(source)
        addresses = socket.inet_pton(kind, source) + socket.inet_pton(kind, target)
        pseudo = addresses + struct.pack("!HH", socket.IPPROTO_UDP, length)
        covered = (ports_and_length + b"\0\0" + payload)[:length]
        sum_is = (checksum(pseudo + covered) or 0xFFFF) ^ sum_xor
    return ports_and_length + struct.pack("!H", sum_is) + payload


def udp_in_frame(frame: bytes) -> tuple[str, str, int, bytes] | None:
    """Source, destination, its port and the payload of a UDP datagram in an Ethernet frame."""
    kind, packet = frame[12:14], frame[14:]
    if kind == b"\x08\x00" and packet[9:10] == b"\x11":
        kind_of, addresses, datagram = socket.AF_INET, packet[12:20], packet[packet[0] % 16 * 4 :]
    elif kind == b"\x86\xdd" and packet[6:7] == b"\x11":
        kind_of, addresses, datagram = socket.AF_INET6, packet[8:40], packet[40:]
    else:
        return None
    if len(datagram) < 8:
        return None
    _, port, length, _ = struct.unpack("!4H", datagram[:8])
    half = len(addresses) // 2
    source, destination = (
        socket.inet_ntop(kind_of, part) for part in (addresses[:half], addresses[half:])
    )
    return source, destination, port, datagram[8:length]

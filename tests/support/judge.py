# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests and fuzzer compare with: the wire format and its rules, written a second time.

Nothing here may import the package, or the judge would be the accused. Sources: the
message format of the stock programs (uint32 magic, uint32 version, in the byte order of
the sending machine), RFC 768 (UDP), RFC 791 (IPv4), RFC 1071 (checksum), RFC 8200 (IPv6).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MAGIC = 0x1B302A40
LITTLE = struct.pack("<II", MAGIC, 1)
BIG = struct.pack(">II", MAGIC, 1)
UDP = 17
VERDICTS = (
    "accepted", "short", "magic", "version", "malformed", "checksum", "stranger", "crowded",
    "question", "unsigned", "key", "forged", "replayed",
)  # fmt: skip
#: Bytes of a packet (docs/protocol.md).
PACKET = 152


def verdict_of(data: bytes) -> str:
    """The verdict over the bytes of a datagram."""
    if len(data) < 8:
        return "short"
    words = [struct.unpack_from(order + "II", data) for order in "<>"]
    if (MAGIC, 1) in words:
        return "accepted"
    return "version" if MAGIC in [magic for magic, _ in words] else "magic"


def is_question(data: bytes) -> bool:
    """Whether these are a question, by the table in docs/protocol.md."""
    if len(data) != PACKET or data[:15] != b"KDFQUESTkdf1\0\x90" + data[14:15]:
        return False
    name = data[56:120].rstrip(b"\0")
    signed = data[14]
    key_id, mac = data[16:20], data[120:]
    return (
        data[15] == 0
        and signed in (0, 1)
        and any(key_id) == bool(signed)
        and (bool(signed) or not any(mac))
        and len(name) > 0
        and all(0x21 <= byte <= 0x7E for byte in name)
    )


def checksum(data: bytes) -> int:
    """The Internet checksum, before it is complemented."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(padded[i : i + 2], "big") for i in range(0, len(padded), 2))
    return 0 if total == 0 else (total - 1) % 0xFFFF + 1


def pseudo_header(source: bytes, destination: bytes, length: int) -> bytes:
    """What the UDP checksum covers beside the datagram."""
    return source + destination + struct.pack(">HBBH", length >> 16, 0, UDP, length & 0xFFFF)


def checksum_fits(source: bytes, destination: bytes, udp: bytes) -> bool:
    """Whether a receiver without a network card's help may believe this UDP datagram.

    A sum that is left to the card holds the bare pseudo-header's: such datagrams come
    from this machine itself.
    """
    field = int.from_bytes(udp[6:8], "big")
    if field == 0:
        return len(source) == 4
    head = pseudo_header(source, destination, len(udp))
    return field == checksum(head) or checksum(head + udp) == 0xFFFF


class Judged(NamedTuple):
    """What an independent judge says of a raw packet; `verdict` None: of another port."""

    verdict: str | None
    source_port: int = 0
    trailer: bytes = b""


def judge_raw(
    data: bytes, source: bytes, destination: bytes, known: set[bytes], port: int, size: int
) -> Judged:
    """Over what a raw socket hands over: for IPv4 with its header, for IPv6 without."""
    whole = len(data) <= size
    data = data[:size]
    if len(source) == 4:
        header = 4 * (data[0] & 15) if len(data) >= 20 else 0
        if header < 20 or header > len(data):
            return Judged("malformed")
        data = data[header:]
    if len(data) < 8:
        return Judged("malformed")
    source_port, own_port, length, _ = struct.unpack_from(">HHHH", data)
    if own_port != port:
        return Judged(None)
    if not whole or not 8 <= length <= len(data):
        return Judged("malformed")
    udp = data[:length]
    verdict = verdict_of(udp[8:])
    if size > PACKET and is_question(udp[8:]):
        verdict = "question"
    if verdict == "accepted" and not checksum_fits(source, destination, udp):
        verdict = "checksum"
    if verdict == "accepted" and source not in known:
        verdict = "stranger"
    return Judged(verdict, source_port, udp[16:])

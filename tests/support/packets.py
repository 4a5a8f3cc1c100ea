# SPDX-License-Identifier: LGPL-2.1-or-later
"""Packets and keys written a second time, from docs/protocol.md and the RFCs alone.

What the cores, the native sender and keys.py do is compared with this; it takes nothing from them.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from typing import NamedTuple

LENGTH = 152
SIGNED = 120

#: Offset and bytes of each field.
FIELDS = {
    "head": (0, 8),
    "magic": (8, 4),
    "length": (12, 2),
    "auth": (14, 1),
    "state": (15, 1),
    "key_id": (16, 4),
    "interval": (20, 4),
    "session": (24, 8),
    "sequence": (32, 8),
    "nonce": (40, 16),
    "name": (56, 64),
    "mac": (120, 32),
}
HEADS = {
    bytes.fromhex("402a301b 01000000"): ("status", "little"),
    bytes.fromhex("1b302a40 00000001"): ("status", "big"),
    b"KDFQUEST": ("question", ""),
    b"KDFALIVE": ("alive", ""),
}
STATES = ("", "started", "dumping", "finished", "failed")


class Told(NamedTuple):
    """What a packet says. `byteorder`: "" but in a status."""

    kind: str
    byteorder: str
    state: str
    key_id: int
    interval: int
    session: int
    sequence: int
    nonce: bytes
    name: str


def field(data: bytes, name: str) -> bytes:
    start, length = FIELDS[name]
    return data[start : start + length]


def replace(data: bytes, name: str, value: bytes) -> bytes:
    """The same with another value in a field, of the same length."""
    start, length = FIELDS[name]
    assert len(value) == length, name
    return data[:start] + value + data[start + length :]


def build(told: Told, key: bytes = b"") -> bytes:
    """The bytes of a packet, signed if there is a key; also of one that says what it may not."""
    (head,) = (bytes_ for bytes_, kind in HEADS.items() if kind == (told.kind, told.byteorder))
    values = {
        "head": head,
        "magic": b"kdf1",
        "length": (144).to_bytes(2, "big"),
        "auth": bytes([told.key_id != 0]),
        "state": bytes([STATES.index(told.state)]),
        "nonce": told.nonce,
        "name": told.name.encode("latin-1").ljust(64, b"\0"),
        "mac": bytes(32),
    }
    for name in ("key_id", "interval", "session", "sequence"):
        values[name] = getattr(told, name).to_bytes(FIELDS[name][1], "big")
    data = bytes(LENGTH)
    for name, value in values.items():
        data = replace(data, name, value)
    return sign(data, key) if key else data


def sign(data: bytes, key: bytes) -> bytes:
    return data[:SIGNED] + hmac_sha256(key, data[:SIGNED])


def why_none(data: bytes) -> str:
    """Why these bytes are no packet, MAC aside; "" if they are one."""
    if len(data) != LENGTH:
        return "length"
    if field(data, "head") not in HEADS:
        return "head"
    if field(data, "magic") != b"kdf1":
        return "magic"
    if field(data, "length") != b"\x00\x90":
        return "length field"
    signed = any(field(data, "key_id"))
    if field(data, "auth") != bytes([signed]):
        return "auth"
    if not signed and any(field(data, "mac")):
        return "MAC"
    kind = HEADS[field(data, "head")][0]
    if kind == "status":
        if field(data, "state") not in (b"\1", b"\2", b"\3", b"\4"):
            return "state"
    else:
        for name in ("state", "interval", "session", "sequence"):
            if any(field(data, name)):
                return name
    text, _, padding = field(data, "name").partition(b"\0")
    if not text or any(not 0x21 <= byte <= 0x7E for byte in text) or any(padding):
        return "name"
    return ""


def read(data: bytes) -> Told | None:
    """What these bytes say if they are a packet."""
    if why_none(data):
        return None
    kind, byteorder = HEADS[field(data, "head")]
    numbers = {
        name: int.from_bytes(field(data, name), "big")
        for name in ("key_id", "interval", "session", "sequence")
    }
    return Told(
        kind=kind,
        byteorder=byteorder,
        state=STATES[data[15]],
        nonce=field(data, "nonce"),
        name=field(data, "name").rstrip(b"\0").decode(),
        **numbers,
    )


def as_keywords(told: Told) -> Mapping[str, object]:
    """What a core's Packet is made with, beside kind and name."""
    given = told._asdict()
    for name in ("kind", "byteorder", "name"):
        del given[name]
    return given


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """RFC 2104, step by step."""
    block = 64
    if len(key) > block:
        key = hashlib.sha256(key).digest()
    key = key.ljust(block, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + data).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()


def hkdf_sha256(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, extract and expand."""
    pseudorandom = hmac_sha256(salt or bytes(32), secret)
    block, made = b"", b""
    for number in range(1, 256):
        if len(made) >= length:
            break
        block = hmac_sha256(pseudorandom, block + info + bytes([number]))
        made += block
    return made[:length]


@functools.cache
def key_id(cluster_key: bytes) -> int:
    return int.from_bytes(hkdf_sha256(cluster_key, b"", b"kdumpfence key id", 4), "big") or 1


@functools.cache
def node_key(cluster_key: bytes, name: str) -> bytes:
    return hkdf_sha256(cluster_key, b"", b"kdumpfence node key " + name.encode(), 32)

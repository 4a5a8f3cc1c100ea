# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the datagrams of a storm contain: messages, and what is nearly one or none at all."""

from __future__ import annotations

import random

from kdumpfence import wire
from kdumpfence.storm.pacing import VALID

FOREIGN = "foreign"
KINDS = (VALID, FOREIGN, "empty", "short", "magic", "version", "random", "long")
BYTEORDERS = ("own", "little", "big", "both")


def messages(byteorder: str) -> list[bytes]:
    """What valid messages look like; nodes have them in turn."""
    if byteorder == "own":
        return [wire.OWN_MESSAGE]
    chosen = ("little", "big") if byteorder == "both" else (byteorder,)
    return [wire.encode(one) for one in chosen]


def malformed(kind: str, message: bytes, rng: random.Random) -> bytes:
    """A datagram of that kind, made from a valid message."""
    if kind == "empty":
        return b""
    if kind == "short":
        return message[: rng.randint(1, len(message) - 1)]
    if kind == "long":
        return message + rng.getrandbits(8 * 1400).to_bytes(1400, "big")
    while True:
        if kind == "magic":
            made = rng.getrandbits(32).to_bytes(4, "big") + message[4:]
        elif kind == "version":
            made = message[:4] + rng.getrandbits(32).to_bytes(4, "big")
        else:
            size = rng.randint(1, 512)
            made = rng.getrandbits(8 * size).to_bytes(size, "big")
        if made[:8] not in (wire.encode("little"), wire.encode("big")):
            return made

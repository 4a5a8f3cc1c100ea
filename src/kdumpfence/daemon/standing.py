# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was last known of dumps under way that the kernel counts, as the history has it: one piece.

To write a hundred thousand rows takes a third of a second, to write what the Listener has of them
all (`Listener.figures`) some milliseconds. So a dump has a row since it began, and as long as
nothing but its messages changes, its last message and their number are here. What may not be in
this file: SQL.
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Mapping, Sequence

from kdumpfence.addresses import LookUpError, literal

#: Address as 16 bytes, interface, messages, last message (Unix time).
_FIGURES = struct.Struct("=16sIId")

#: By address and interface: last message, messages.
Standing = Mapping["tuple[bytes, int]", "tuple[float, int]"]


def read(figures: bytes) -> Standing:
    """What is in there; nothing if that is none of ours."""
    if len(figures) % _FIGURES.size:
        return {}
    return {
        (address, scope): (last, messages)
        for address, scope, messages, last in _FIGURES.iter_unpack(figures)
        if math.isfinite(last)
    }


def newest(
    standing: Standing,
    addresses: Sequence[str],
    since: float,
    last: float,
    messages: int,
    took: float,
) -> tuple[float, int, float]:
    """Last message, messages, and length of a dump under way, which its row has like this.

    What was counted before the row was written changes nothing.
    """
    before = last
    for address in addresses:
        found = standing.get(_key(address))
        if found is not None and found[0] > before:
            last, messages = max(last, found[0]), max(messages, found[1])
    if last > before:
        took = (took or max(0.0, before - since)) + last - before
    return last, messages, took


def _key(address: str) -> tuple[bytes, int]:
    if ":" not in address:
        try:
            return bytes(10) + b"\xff\xff" + socket.inet_aton(address), 0
        except OSError:
            return b"", 0
    try:
        found = literal(address, socket.AF_INET6)
    except LookUpError:
        return b"", 0  # its interface is gone, say
    return (found[0].packed, found[0].scope) if found else (b"", 0)

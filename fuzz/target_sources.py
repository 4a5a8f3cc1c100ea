# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fuzz target: any sequence of changes to the table of known sources, beside a dict.

Every three bytes are one change: what is done, and to which of 65,536 addresses.
"""

from __future__ import annotations

from typing import Any

from cores import both, pure
from frame import Finding, plant, run

MAPPED = bytes(10) + b"\xff\xff"

Key = tuple[bytes, int]


def address(number: int) -> Key:
    """IPv4, the same mapped into IPv6, IPv6, and link-local on one of four interfaces."""
    low = number >> 2
    v4 = b"\x0a\x4d" + low.to_bytes(2, "big")
    return (
        (v4, 0),
        (MAPPED + v4, 0),
        (b"\xfd" + bytes(13) + low.to_bytes(2, "big"), 0),
        (b"\xfe\x80" + bytes(12) + (low >> 2).to_bytes(2, "big"), 1 + (low & 3)),
    )[number & 3]


@plant(pure.Sources, "find")
def _(find: Any, sources: Any, packed: bytes, scope: int = 0) -> Any:
    """Among three, one address in 256 is not found."""
    if len(sources) == 3 and packed[-1] == 0x4D:
        return None
    return find(sources, packed, scope)


def check(data: bytes) -> None:
    both_sources = [core.Sources() for core in both]
    model: dict[Key, int] = {}
    for at in range(0, len(data) - 2, 3):
        action = data[at]
        number = int.from_bytes(data[at + 1 : at + 3], "big")
        # Now and then many at a time, or no table would ever grow.
        for one in range(number, number + (24 if action & 0xFC == 0xF8 else 1)):
            packed, scope = address(one & 0xFFFF)
            key = (packed[12:] if packed[:12] == MAPPED else packed, scope)
            if action & 3 <= 1:
                for sources in both_sources:
                    sources.add(packed, scope, one)
                model[key] = one
            elif action & 3 == 2:
                known = model.pop(key, None) is not None
                for sources in both_sources:
                    agree(sources.discard(packed, scope) is known, sources, "discards", key)
        for sources in both_sources:
            agree(sources.find(packed, scope) == model.get(key), sources, "finds", key)
    for sources in both_sources:
        agree(len(sources) == len(model), sources, "counts", len(model))
        agree(set(sources) == set(model), sources, "lists", set(model))
        for (packed, scope), node in model.items():
            agree(sources.find(packed, scope) == node, sources, "finds", (packed, scope))


def agree(condition: bool, sources: Any, does: str, what: object) -> None:
    if not condition:
        raise Finding(f"{type(sources).__module__} {does} wrongly: {what}")


if __name__ == "__main__":
    run(check)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzz target: any sequence of changes to the table of known sources, beside a dict.

Every three bytes are one change: what is done, and to which of 65,536 addresses.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from cores import Finding, atheris, both, pure

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


@atheris.instrument_func  # type: ignore[untyped-decorator]
def planted(table: Any, packed: bytes, scope: int = 0) -> Any:
    """A fault for the test of the fuzzer: among three, one address in 256 is not found."""
    if len(table) == 3 and packed[-1] == 0x4D:
        return None
    return pure_find(table, packed, scope)


pure_find = pure.Sources.find
if os.environ.get("KDUMPFENCE_FUZZ_PLANT") == "1":
    pure.Sources.find = planted


def check(data: bytes) -> None:
    """One input. Whatever it raises is a finding."""
    tables = [core.Sources() for core in both]
    model: dict[Key, int] = {}
    for at in range(0, len(data) - 2, 3):
        action = data[at]
        number = int.from_bytes(data[at + 1 : at + 3], "big")
        # Now and then many at a time, or no table would ever grow.
        for one in range(number, number + (24 if action & 0xFC == 0xF8 else 1)):
            packed, scope = address(one & 0xFFFF)
            key = (packed[12:] if packed[:12] == MAPPED else packed, scope)
            if action & 3 <= 1:
                for table in tables:
                    table.add(packed, scope, one)
                model[key] = one
            elif action & 3 == 2:
                known = model.pop(key, None) is not None
                for table in tables:
                    require(table.discard(packed, scope) is known, table, "discards", key)
        for table in tables:
            require(table.find(packed, scope) == model.get(key), table, "finds", key)
    for table in tables:
        require(len(table) == len(model), table, "counts", len(model))
        require(set(table) == set(model), table, "lists", set(model))
        for (packed, scope), node in model.items():
            require(table.find(packed, scope) == node, table, "finds", (packed, scope))


def require(condition: bool, table: Any, does: str, what: object) -> None:
    if not condition:
        raise Finding(f"{type(table).__module__} {does} wrongly: {what}")


if __name__ == "__main__":
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()

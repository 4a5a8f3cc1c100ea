# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fuzz target: any bytes through the codec of both cores, which must see the same in them."""

from __future__ import annotations

from typing import Any

from cores import both, pure
from frame import Finding, alone, judge, plant, run

verdict_of = judge.verdict_of


def outcome(core: Any, data: bytes) -> tuple[str, ...]:
    """The verdict and all that a caller can see of the result."""
    try:
        with alone(data) as buffer:
            message = core.decode(buffer)
    except core.Rejected as rejected:
        return rejected.reason, str(rejected)
    again = core.encode(message.byteorder) + message.trailer
    if again != data:
        raise Finding(f"{core.IMPLEMENTATION}: {data!r} was decoded, and encoded to {again!r}")
    return "accepted", repr(message), str(hash(message))


@plant(pure, "decode")
def _(decode: Any, data: Any) -> Any:
    """One trailer in 256 is lost."""
    message = decode(data)
    if message.trailer[:1] == b"z":
        return pure.Message(1, message.byteorder, b"")
    return message


def check(data: bytes) -> None:
    seen = [outcome(core, data) for core in both]
    if seen[0] != seen[1] or seen[0][0] != verdict_of(data):
        raise Finding(f"{data!r}: compiled {seen[0]}, pure {seen[1]}, {verdict_of(data)}")
    expected = dict.fromkeys(("accepted", *pure.REASONS), 0)
    for start in range(0, len(data), 8):
        expected[verdict_of(data[start : start + 8])] += 1
    for core in both:
        with alone(data) as buffer:
            counts = core.validate(buffer)
        if counts != expected:
            raise Finding(f"{data!r}: {core.IMPLEMENTATION} counts {counts}, not {expected}")


if __name__ == "__main__":
    run(check)

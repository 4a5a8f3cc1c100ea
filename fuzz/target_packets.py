# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fuzz target: any bytes as a packet, signed and as they come, through both cores and the rules."""

from __future__ import annotations

from typing import Any

from cores import both, pure
from frame import alone, packets, plant, require, run

KEY = bytes(range(32))


@plant(pure, "decode_packet")
def _(decode: Any, data: Any) -> Any:
    """One nonce in 64 is not read."""
    packet = decode(data)
    if packet is not None and sum(packet.nonce) % 64 == 7:
        return None
    return packet


def look(core: Any, data: bytes) -> tuple[str, bool]:
    """What a core sees in these bytes, and whether it says that they are signed with KEY."""
    with alone(data) as buffer:
        packet, fits = core.decode_packet(buffer), core.packet_fits(buffer, KEY)
    if packet is not None:
        key = packets.field(data, "mac") if packet.key_id else b""
        order = "big" if data[0] == 0x1B else "little"
        again = core.encode_packet(packet, key, order)
        same = again[: packets.SIGNED] == data[: packets.SIGNED]
        require(same, f"{core.IMPLEMENTATION} writes {again!r} of", data)
    return repr(packet), fits


def check(data: bytes) -> None:
    for given in (data, packets.sign(data, KEY)):
        compiled, mine = (look(core, given) for core in both)
        told = packets.read(given)
        require(compiled == mine, f"compiled sees {compiled}, pure {mine}", given)
        require((told is None) == (compiled[0] == "None"), f"the rules see {told}", given)
        right = told is not None and told.key_id != 0 and packets.sign(given, KEY) == given
        require(compiled[1] == right, f"fits: {compiled[1]}, not {right}", given)
        with alone(given) as buffer:
            macs = [core.mac(KEY, buffer) for core in both]
        require(macs == 2 * [packets.hmac_sha256(KEY, given)], f"MACs {macs}", given)


if __name__ == "__main__":
    run(check)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Forged and mutated packets without end, of every kind that somebody could think of who has heard
all that was said, and has every key but the node's.

Nothing is taken from the product: packets are those of `packets`, which is written from
docs/protocol.md.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from tests.support import packets
from tests.support.answerer import CURRENT, FOREIGN, NODE, PREVIOUS

ID = packets.key_id(CURRENT)
KEY = packets.node_key(CURRENT, NODE)

#: Makes what would be believed as it is, in either byte order; never the same twice.
Draw = Callable[[str], bytes]


def _told_otherwise(data: bytes, key: bytes, **fields: bytes) -> bytes:
    """With other values in these fields, signed with that key; b"": with the MAC that it had."""
    for name, value in fields.items():
        data = packets.replace(data, name, value)
    return packets.sign(data, key) if key else data


def _number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _of_other_nodes(data: bytes) -> Iterator[bytes]:
    other = packets.node_key(CURRENT, "node2")
    yield _told_otherwise(data, other)
    yield _told_otherwise(data, other, name=b"node2".ljust(64, b"\0"))
    yield _told_otherwise(data, packets.node_key(CURRENT, NODE.upper()))
    yield _told_otherwise(data, CURRENT)  # the cluster's own


def _of_other_clusters(data: bytes) -> Iterator[bytes]:
    foreign = packets.node_key(FOREIGN, NODE)
    yield _told_otherwise(data, foreign)
    yield _told_otherwise(data, foreign, key_id=_number(packets.key_id(FOREIGN)))
    yield _told_otherwise(data, bytes(32))


def _wrong_ids(data: bytes, dice: random.Random) -> Iterator[bytes]:
    yield _told_otherwise(data, KEY, key_id=_number(packets.key_id(PREVIOUS)))
    yield _told_otherwise(data, KEY, key_id=_number(dice.randrange(1, 1 << 32) ^ ID or 1))
    yield _told_otherwise(data, KEY, key_id=bytes(4))
    yield _told_otherwise(data, b"", key_id=_number(packets.key_id(PREVIOUS)))


def _unsigned(data: bytes) -> Iterator[bytes]:
    plain = _told_otherwise(data, b"", key_id=bytes(4), auth=b"\0")
    yield _told_otherwise(plain, b"", mac=bytes(32))
    yield plain
    yield _told_otherwise(data, b"", mac=bytes(32))
    yield data[:8]


def _other_heads(data: bytes) -> Iterator[bytes]:
    """Of the other byte order, and of the other kinds."""
    for head in packets.HEADS:
        if head != data[:8]:
            yield _told_otherwise(data, b"", head=head)


def _changed(data: bytes, dice: random.Random) -> Iterator[bytes]:
    name = dice.choice(list(packets.FIELDS))
    value = dice.randbytes(packets.FIELDS[name][1])
    if value != packets.field(data, name):
        yield packets.replace(data, name, value)
    changed = bytearray(data)
    for _ in range(dice.randint(2, 8)):
        changed[dice.randrange(8, len(data))] ^= dice.randrange(1, 256)
    if changed != data:
        yield bytes(changed)


def _pieces(data: bytes, other: bytes, dice: random.Random) -> Iterator[bytes]:
    """Of two packets; where both are one, there is nothing forged."""
    at, end = sorted(dice.sample(range(8, packets.LENGTH + 1), 2))
    mixed = data[:at] + other[at:end] + data[end:]
    if mixed not in (data, other):
        yield mixed


def forgeries(
    dice: random.Random, draw: Draw, recorded: Mapping[str, Sequence[bytes]]
) -> Iterator[tuple[str, bytes]]:
    """Kind and bytes of each, without end.

    In turns over all bits and lengths in both byte orders; `recorded`: by how it was come by, what
    is repeated as it is. It may grow meanwhile.
    """
    for byteorder in itertools.cycle(("little", "big")):
        for bit in range(8 * packets.LENGTH):
            data = draw(byteorder)
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            yield "one bit flipped", bytes(flipped)
            if bit % 8 == 0:
                yield "cut short", data[: bit // 8]
            turn = bit % 16
            if turn == 1:
                for kind, heard in recorded.items():
                    if heard:
                        yield kind, dice.choice(heard)
            elif turn == 3:
                yield from (("another node's key", one) for one in _of_other_nodes(data))
            elif turn == 5:
                yield from (("another cluster's key", one) for one in _of_other_clusters(data))
            elif turn == 7:
                yield from (("a wrong key id", one) for one in _wrong_ids(data, dice))
            elif turn == 9:
                yield from (("not signed", one) for one in _unsigned(data))
            elif turn == 11:
                yield from (("another head", one) for one in _other_heads(data))
            elif turn == 13:
                for _ in range(8):
                    yield from (("fields changed", one) for one in _changed(data, dice))
                    other = draw(byteorder)
                    yield from (("pieces of two", one) for one in _pieces(data, other, dice))
            elif turn == 15:
                yield "too long", data + dice.randbytes(dice.choice((1, 8, 152, 1300)))
                yield "rubbish", data[:8] + dice.randbytes(packets.LENGTH - 8)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The test vectors of docs/protocol.md, made by tests/support/packets.py.

    python -m tests.core.vectors

writes vectors.json anew. Bytes, key ids, sessions and nonces are hexadecimal there, big-endian;
`packet` is what the bytes say, `key` what they are signed with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support import packets
from tests.support.packets import Told

FILE = Path(__file__).with_name("vectors.json")

CLUSTER_KEYS = (bytes(range(32)), bytes(range(255, 223, -1)), bytes(32))
NODES = ("node1", "x", "node-with.dots_and~signs!", "n" * 64)
NONCE = bytes(range(0xA0, 0xB0))
SESSION = 0x0123456789ABCDEF


def status(byteorder: str = "little", **given: Any) -> Told:
    values: dict[str, Any] = {
        **{"kind": "status", "state": "dumping", "key_id": 0, "interval": 10_000},
        **{"session": SESSION, "sequence": 1, "nonce": bytes(16), "name": "node1"},
    }
    return Told(byteorder=byteorder, **{**values, **given})


def other(kind: str, **given: Any) -> Told:
    values: dict[str, Any] = {"key_id": 0, "nonce": NONCE, "name": "node1"}
    return Told(kind, "", "", interval=0, session=0, sequence=0, **{**values, **given})


def valid() -> Iterator[tuple[str, Told]]:
    """Packets, each with what is special about it; unsigned."""
    for byteorder in ("little", "big"):
        for state in packets.STATES[1:]:
            yield f"{state}, {byteorder}-endian", status(byteorder, state=state)
        yield f"an answer, {byteorder}-endian", status(byteorder, nonce=NONCE, sequence=2)
    for name in ("x", "n" * 64, "!~"):
        yield f"a name of {len(name)}", status(name=name)
        yield f"a question for a name of {len(name)}", other("question", name=name)
    yield (
        "the largest numbers",
        status(interval=2**32 - 1, session=2**64 - 1, sequence=2**64 - 1, nonce=b"\xff" * 16),
    )
    yield "the smallest numbers", status(interval=0, session=0, sequence=0)
    yield "a question", other("question")
    yield "alive", other("alive")


def invalid() -> Iterator[tuple[str, bytes]]:
    """What is no packet, each with the reason."""
    replace, build = packets.replace, packets.build
    key = packets.node_key(CLUSTER_KEYS[0], "node1")
    number = packets.key_id(CLUSTER_KEYS[0])
    plain, signed = build(status()), build(status(key_id=number), key)
    question, alive = build(other("question")), build(other("alive"))
    little, big = plain[:8], build(status("big"))[:8]
    yield "nothing", b""
    yield "a message without a trailer", little
    yield "the last byte is missing", plain[:-1]
    yield "a byte more", plain + b"\0"
    yield "a byte more behind the MAC", signed + b"\0"
    yield "twice the same", signed * 2
    yield "the first byte is missing", plain[1:]
    yield "the MAC is missing", signed[:120]
    yield "version 2", replace(plain, "head", bytes.fromhex("402a301b02000000"))
    yield "the version in the other byte order", replace(plain, "head", little[:4] + big[4:])
    yield "the magic of a message is another", replace(plain, "head", b"\x41" + little[1:])
    yield "a question in small letters", replace(question, "head", b"kdfquest")
    yield "neither question nor answer", replace(question, "head", b"KDFOTHER")
    yield "the magic of the trailer is another", replace(plain, "magic", b"kdf2")
    yield "the magic in the other byte order", replace(plain, "magic", b"1fdk")
    yield "the length is that of the whole", replace(plain, "length", b"\0\x98")
    yield "the length in the other byte order", replace(plain, "length", b"\x90\0")
    yield "the length is 0", replace(plain, "length", b"\0\0")
    yield "signed in an unknown way", replace(signed, "auth", b"\2")
    yield "signed without a key id", replace(signed, "key_id", bytes(4))
    yield "a key id, but not signed", replace(signed, "auth", b"\0")
    yield "a key id, but neither signed nor a MAC", replace(plain, "key_id", b"\0\0\0\1")
    yield "a MAC, but not signed", replace(plain, "mac", bytes(31) + b"\1")
    yield "a status without a state", replace(plain, "state", b"\0")
    yield "an unknown state", replace(plain, "state", b"\5")
    yield "a state of 255", replace(plain, "state", b"\xff")
    for kind, one in (("a question", question), ("alive", alive)):
        yield f"{kind} with a state", replace(one, "state", b"\2")
        yield f"{kind} with an interval", replace(one, "interval", b"\0\0\0\1")
        yield f"{kind} with a session", replace(one, "session", b"\x80" + bytes(7))
        yield f"{kind} with a sequence", replace(one, "sequence", bytes(7) + b"\1")
    for what, name in (
        ("no name", b""),
        ("a name that begins with a zero", b"\0node1"),
        ("a blank in the name", b"node 1"),
        ("a line feed in the name", b"node1\n"),
        ("a byte of 0x7F in the name", b"node\x7f"),
        ("a name that is not ASCII", "n\u00f6de1".encode()),
        ("bytes behind the name's end", b"node1\0x"),
        ("a byte at the end of the name's padding", b"node1".ljust(63, b"\0") + b"x"),
    ):
        yield what, replace(plain, "name", name.ljust(64, b"\0"))


def forged() -> Iterator[tuple[str, bytes, bytes]]:
    """Packets whose MAC does not fit, or that have none; and the key that would be asked for."""
    replace, build = packets.replace, packets.build
    cluster = CLUSTER_KEYS[0]
    key, number = packets.node_key(cluster, "node1"), packets.key_id(cluster)
    told = status(key_id=number, nonce=NONCE)
    signed = build(told, key)
    yield "not signed", build(status(nonce=NONCE)), key
    yield "the MAC is zeroes", replace(signed, "mac", bytes(32)), key
    yield (
        "the first bit of the MAC is another",
        signed[:120] + bytes([signed[120] ^ 128]) + signed[121:],
        key,
    )
    yield "the last bit of the MAC is another", signed[:-1] + bytes([signed[-1] ^ 1]), key
    yield "signed with another node's key", build(told, packets.node_key(cluster, "node2")), key
    yield "signed with the cluster's key", build(told, cluster), key
    other_key = packets.node_key(CLUSTER_KEYS[1], "node1")
    yield "signed with the key of another cluster", build(told, other_key), key
    yield (
        "the MAC of an unsigned one",
        build(told._replace(key_id=0), key)[:14]
        + signed[14:120]
        + build(told._replace(key_id=0), key)[120:],
        key,
    )
    for what, changed in (
        ("another nonce", told._replace(nonce=bytes(16))),
        ("another state", told._replace(state="finished")),
        ("another name", told._replace(name="node2")),
        ("another key id", told._replace(key_id=number ^ 1)),
        ("a later sequence", told._replace(sequence=2)),
        ("another session", told._replace(session=SESSION + 1)),
        ("another interval", told._replace(interval=1)),
        ("the other byte order", told._replace(byteorder="big")),
    ):
        yield (
            f"{what} under the same MAC",
            replace(build(changed), "auth", b"\1")[:120] + signed[120:],
            key,
        )
    asked = build(other("question", key_id=number), key)
    yield "a question made an answer", replace(asked, "head", b"KDFALIVE"), key


def as_json(told: Told) -> dict[str, object]:
    given = told._asdict()
    return {
        **given,
        "key_id": f"{told.key_id:08x}",
        "session": f"{told.session:016x}",
        "sequence": f"{told.sequence:016x}",
        "nonce": told.nonce.hex(),
    }


def from_json(given: dict[str, Any]) -> Told:
    numbers = {name: int(given[name], 16) for name in ("key_id", "session", "sequence")}
    return Told(**{**given, **numbers, "nonce": bytes.fromhex(given["nonce"])})


def make() -> dict[str, Any]:
    """What is in the file."""
    keys = [
        {
            "cluster_key": cluster.hex(),
            "key_id": f"{packets.key_id(cluster):08x}",
            "node_keys": {name: packets.node_key(cluster, name).hex() for name in NODES},
        }
        for cluster in CLUSTER_KEYS
    ]
    made = []
    for number, (what, told) in enumerate(valid()):
        made.append({
            "what": f"{what}, not signed",
            "packet": as_json(told),
            "key": "",
            "bytes": packets.build(told).hex(),
        })  # fmt: skip
        cluster = CLUSTER_KEYS[number % len(CLUSTER_KEYS)]
        signed = told._replace(key_id=packets.key_id(cluster))
        key = packets.node_key(cluster, told.name)
        made.append({
            "what": f"{what}, signed",
            "packet": as_json(signed),
            "key": key.hex(),
            "bytes": packets.build(signed, key).hex(),
        })  # fmt: skip
    return {
        "keys": keys,
        "packets": made,
        "no packets": [{"why": why, "bytes": data.hex()} for why, data in invalid()],
        "do not fit": [
            {"why": why, "key": key.hex(), "bytes": data.hex()} for why, data, key in forged()
        ],
    }


def written() -> str:
    return json.dumps(make(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(written())

# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes -> messages, on both cores. The literal bytes are what stock senders put on the wire."""

from __future__ import annotations

import array
import struct
from types import ModuleType

import pytest

LITTLE = b"\x40\x2a\x30\x1b\x01\x00\x00\x00"
BIG = b"\x1b\x30\x2a\x40\x00\x00\x00\x01"


def test_encode_writes_magic_and_version_in_the_byte_order_asked_for(core: ModuleType) -> None:
    assert core.encode("little") == struct.pack("<II", 0x1B302A40, 1) == LITTLE
    assert core.encode("big") == struct.pack(">II", 0x1B302A40, 1) == BIG


def test_encode_refuses_another_byte_order(core: ModuleType) -> None:
    with pytest.raises(ValueError, match="byteorder 'middle': not 'little' or 'big'"):
        core.encode("middle")


@pytest.mark.parametrize(("data", "byteorder"), [(LITTLE, "little"), (BIG, "big")])
@pytest.mark.parametrize("trailer", [b"", b"\0", b"trailer of some length" * 40])
def test_a_message_in_either_byte_order_is_decoded_with_its_trailer(
    core: ModuleType, data: bytes, byteorder: str, trailer: bytes
) -> None:
    message = core.decode(data + trailer)
    assert (message.version, message.byteorder, message.trailer) == (1, byteorder, trailer)
    assert message == core.Message(1, byteorder, trailer)
    assert hash(message) == hash(core.Message(1, byteorder, trailer))
    assert message != core.Message(1, byteorder, trailer + b"x")
    assert message != data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "short"),
        (LITTLE[:7], "short"),
        (b"\0" * 7, "short"),
        (b"\0" * 8, "magic"),
        (BIG[:4] + b"\xff" * 4, "version"),
        (b"\x41" + LITTLE[1:], "magic"),
        (LITTLE[:4] + struct.pack("<I", 2), "version"),
        (LITTLE[:4] + struct.pack("<I", 0), "version"),
        (LITTLE[:4] + struct.pack(">I", 1), "version"),
        (BIG[:4] + struct.pack(">I", 2), "version"),
        (BIG[:4] + struct.pack("<I", 1), "version"),
        (b"x" + LITTLE, "magic"),
        (b"junk" * 400, "magic"),
    ],
)
def test_what_is_no_message_is_rejected_with_its_reason(
    core: ModuleType, data: bytes, reason: str
) -> None:
    with pytest.raises(core.Rejected, match=f"^not a message: {reason}$") as caught:
        core.decode(data)
    assert caught.value.reason == reason
    assert reason in core.REASONS


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda b: array.array("B", b)])
def test_any_buffer_can_be_decoded(core: ModuleType, kind: type) -> None:
    assert core.decode(kind(LITTLE)).byteorder == "little"


@pytest.mark.parametrize("what", [None, 8, "text"])
def test_what_is_no_buffer_is_a_type_error(core: ModuleType, what: object) -> None:
    with pytest.raises(TypeError):
        core.decode(what)
    with pytest.raises(TypeError):
        core.validate(what)


def test_a_message_cannot_be_changed(core: ModuleType) -> None:
    message = core.decode(LITTLE)
    with pytest.raises(AttributeError):
        message.version = 2


def test_packed_messages_are_counted_by_verdict(core: ModuleType) -> None:
    version2 = LITTLE[:4] + b"\2\0\0\0"
    packed = (LITTLE * 5000 + BIG * 3000 + b"\0" * 8 * 7 + version2 * 2) * 3 + b"\x40\x2a\x30"
    assert core.validate(packed) == {
        "accepted": 24000,
        "short": 1,
        "magic": 21,
        "version": 6,
        "malformed": 0,
        "checksum": 0,
        "stranger": 0,
        "crowded": 0,
    }


def test_a_message_that_straddles_two_places_does_not_count(core: ModuleType) -> None:
    counts = core.validate(b"xxxx" + LITTLE + b"yyyy")
    assert counts["accepted"] == 0
    assert counts["magic"] == 2


def test_an_empty_buffer_holds_no_messages(core: ModuleType) -> None:
    assert set(core.validate(b"").values()) == {0}


@pytest.mark.parametrize("offset", range(4))
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 63, 64, 67])
def test_packed_messages_are_judged_alike_wherever_they_lie(
    core: ModuleType, offset: int, length: int
) -> None:
    words = [LITTLE, BIG, LITTLE[:4] + BIG[4:], BIG[:7] + b"\0", b"rubbish!", LITTLE[4:] * 2]
    chosen = [words[number * 7 % 11 % len(words)] for number in range(length)]
    counts = core.validate(memoryview(b"x" * offset + b"".join(chosen))[offset:])
    assert counts["accepted"] == sum(word in words[:2] for word in chosen)
    assert counts["version"] == sum(word in words[2:4] for word in chosen)
    assert counts["magic"] == sum(word in words[4:] for word in chosen)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bytes -> messages, on both cores. The literal bytes are what stock senders put on the wire."""

from __future__ import annotations

import array
import copy
import pickle
import struct
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.core.scene import BIG, LITTLE, NO_MESSAGES


def test_encode_writes_magic_and_version_in_the_byte_order_asked_for(core: ModuleType) -> None:
    assert core.encode("little") == struct.pack("<II", 0x1B302A40, 1) == LITTLE
    assert core.encode("big") == struct.pack(">II", 0x1B302A40, 1) == BIG


@pytest.mark.parametrize("byteorder", ["middle", "", "Big", "little\0", "\udc80", "n\u00f6"])
def test_encode_refuses_another_byte_order(core: ModuleType, byteorder: str) -> None:
    with pytest.raises(ValueError, match=r"byteorder '.*': not 'little' or 'big'") as refused:
        core.encode(byteorder)
    assert repr(byteorder) in str(refused.value)


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


@pytest.mark.parametrize(("data", "reason"), NO_MESSAGES)
def test_what_is_no_message_is_rejected_with_its_reason(
    core: ModuleType, data: bytes, reason: str
) -> None:
    with pytest.raises(core.Rejected, match=f"^not a message: {reason}$") as caught:
        core.decode(data)
    assert caught.value.reason == reason
    assert reason in core.REASONS


@pytest.mark.parametrize(
    "kind",
    [
        bytearray,
        lambda data: memoryview(data).cast("b"),
        lambda data: memoryview(b"xyz" + data + b"x")[3:-1],
        lambda data: array.array("B", data),
    ],
)
def test_any_buffer_is_read_as_its_bytes(core: ModuleType, kind: Callable[[bytes], Any]) -> None:
    assert core.decode(kind(BIG + b"z")) == core.Message(1, "big", b"z")
    assert core.validate(kind(LITTLE * 3 + BIG[:4])) == core.validate(LITTLE * 3 + BIG[:4])
    with pytest.raises(core.Rejected, match="short"):
        core.decode(kind(BIG[:7]))


@pytest.mark.parametrize("what", [None, 8, "text"])
def test_what_is_no_buffer_is_a_type_error(core: ModuleType, what: object) -> None:
    for read in (core.decode, core.validate):
        with pytest.raises(TypeError):
            read(what)


@pytest.mark.parametrize("field", ["version", "byteorder", "trailer"])
def test_a_message_is_a_value_that_can_be_copied_but_not_changed(
    core: ModuleType, field: str
) -> None:
    message = core.decode(LITTLE + b"z")
    for made in (copy.copy(message), copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert made == message
    with pytest.raises(AttributeError):
        setattr(message, field, getattr(message, field))
    with pytest.raises(AttributeError):
        delattr(message, field)
    with pytest.raises(AttributeError):
        message.another = 1
    assert message == core.decode(LITTLE + b"z")


def test_packed_messages_are_counted_by_verdict(core: ModuleType) -> None:
    version2 = LITTLE[:4] + b"\2\0\0\0"
    packed = (LITTLE * 5000 + BIG * 3000 + b"\0" * 8 * 7 + version2 * 2) * 3 + b"\x40\x2a\x30"
    counted = {"accepted": 24000, "short": 1, "magic": 21, "version": 6}
    unknown = dict.fromkeys(set(core.REASONS) - {*counted}, 0)
    assert core.validate(packed) == {**counted, **unknown}
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

# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes -> messages: any bytes at all, and both cores word for word the same."""

from __future__ import annotations

import copy
import pickle
import struct
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.judging import BIG, LITTLE, VERDICTS, Cores, near_messages, payloads, verdict_of

byte_orders = st.sampled_from(["little", "big"])


@given(byte_orders, st.binary())
def test_what_was_encoded_is_decoded(core: Any, byteorder: str, trailer: bytes) -> None:
    message = core.decode(core.encode(byteorder) + trailer)
    assert (message.version, message.byteorder, message.trailer) == (1, byteorder, trailer)
    assert message == core.Message(1, byteorder, trailer)
    assert hash(message) == hash(core.Message(1, byteorder, trailer))


@given(payloads)
def test_any_bytes_are_a_message_or_rejected_with_the_reason(core: Any, data: bytes) -> None:
    try:
        message = core.decode(data)
    except core.Rejected as rejected:
        assert rejected.reason == verdict_of(data)
        assert rejected.reason in core.REASONS
        assert str(rejected) == f"not a message: {rejected.reason}"
    else:
        assert verdict_of(data) == "accepted"
        assert type(message) is core.Message
        assert core.encode(message.byteorder) + message.trailer == data


@given(payloads)
def test_both_cores_see_the_same_in_any_bytes(cores: Cores, data: bytes) -> None:
    cores.do(lambda core: core.decode(data))
    cores.do(lambda core: core.validate(data))


@given(payloads, payloads)
def test_both_cores_find_the_same_messages_equal(cores: Cores, one: bytes, two: bytes) -> None:
    def compare(core: Any) -> tuple[bool, bool, bool]:
        a, b = core.decode(one), core.decode(two)
        if a == b:
            assert hash(a) == hash(b)
        return a == b, a != b, one == a

    cores.do(compare)
    cores.do(lambda core: core.decode(one) == core.decode(one))


@given(st.text())
@pytest.mark.slow
def test_no_other_byte_order_can_be_encoded(cores: Cores, byteorder: str) -> None:
    outcome = cores.do(lambda core: core.encode(byteorder))
    if byteorder in ("little", "big"):
        assert outcome == {"little": LITTLE, "big": BIG}[byteorder]
    else:
        assert isinstance(outcome, tuple)
        assert outcome[0] == "ValueError"


@given(near_messages, st.integers(0, 9), st.integers(0, 9))
def test_any_kind_of_buffer_is_read_as_its_bytes(
    core: Any, data: bytes, before: int, behind: int
) -> None:
    inside = memoryview(b"x" * before + data + b"x" * behind)[before : before + len(data)]
    for buffer in (bytearray(data), inside, array("B", data), memoryview(data).cast("b")):
        assert core.validate(buffer) == core.validate(data)
        if verdict_of(data) == "accepted":
            assert core.decode(buffer) == core.decode(data)
        else:
            with pytest.raises(core.Rejected, match=verdict_of(data)):
                core.decode(buffer)


@given(
    st.lists(st.sampled_from([LITTLE, BIG, bytes(8), LITTLE[:4] + BIG[4:]]) | payloads),
    st.integers(1, 300),
)
def test_packed_messages_are_validated_as_if_one_by_one(
    core: Any, parts: list[bytes], times: int
) -> None:
    packed = b"".join(parts) * times
    expected = dict.fromkeys(VERDICTS, 0)
    for start in range(0, len(packed), 8):
        try:
            core.decode(packed[start : start + 8])
            expected["accepted"] += 1
        except core.Rejected as rejected:
            expected[rejected.reason] += 1
    assert core.validate(packed) == expected
    assert list(core.validate(packed)) == list(VERDICTS)


@given(st.sampled_from([LITTLE, BIG]), st.integers(0, 63), st.integers(1, 20_000))
def test_one_flipped_bit_among_many_messages_is_seen(
    core: Any, message: bytes, bit: int, number: int
) -> None:
    packed = bytearray(message * number)
    packed[8 * (number // 2) + bit // 8] ^= 1 << bit % 8
    counts = core.validate(packed)
    assert counts["accepted"] == number - 1
    assert counts[verdict_of(bytes(packed[8 * (number // 2) :][:8]))] == 1


@given(st.sampled_from([LITTLE, BIG]), st.binary(max_size=8), st.sampled_from([0, 1, 2]))
def test_a_message_is_a_value_that_can_be_copied_but_not_changed(
    core: Any, head: bytes, trailer: bytes, field: int
) -> None:
    message = core.decode(head + trailer)
    assert copy.copy(message) == message
    assert copy.deepcopy(message) == message
    assert pickle.loads(pickle.dumps(message)) == message
    name = ("version", "byteorder", "trailer")[field]
    with pytest.raises(AttributeError):
        setattr(message, name, getattr(message, name))
    with pytest.raises(AttributeError):
        delattr(message, name)
    with pytest.raises(AttributeError):
        message.another = 1
    assert message == core.decode(head + trailer)


@given(st.integers(0, 2**32 - 1))
def test_of_all_versions_only_1_is_accepted(core: Any, version: int) -> None:
    counts = core.validate(struct.pack("<II", 0x1B302A40, version))
    assert counts["accepted" if version == 1 else "version"] == 1

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bytes -> messages: any bytes at all, and both cores word for word the same."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.property.cores import Cores
from tests.property.packets import payloads
from tests.support.judge import BIG, LITTLE, VERDICTS, verdict_of


@given(payloads)
def test_any_bytes_are_a_message_or_rejected_with_the_reason(cores: Cores, data: bytes) -> None:
    verdict = verdict_of(data)
    outcome = cores.do(lambda core: core.decode(data))
    if verdict != "accepted":
        text = f"not a message: {verdict}"
        assert outcome == ("Rejected", text, (text,), verdict)
    for core in cores:
        if verdict == "accepted":
            message = core.decode(data)
            assert type(message) is core.Message
            assert core.encode(message.byteorder) + message.trailer == data


@given(payloads, payloads)
def test_both_cores_find_the_same_messages_equal(cores: Cores, one: bytes, two: bytes) -> None:
    def compare(core: Any) -> tuple[bool, bool, bool]:
        a, b = core.decode(one), core.decode(two)
        if a == b:
            assert hash(a) == hash(b)
        return a == b, a != b, one == a

    cores.do(compare)
    cores.do(lambda core: core.decode(one) == core.decode(one))


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
        expected[verdict_of(packed[start : start + 8])] += 1
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

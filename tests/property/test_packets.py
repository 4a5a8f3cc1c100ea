# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bytes -> packets and back: both cores beside each other, and beside the rules written anew."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.property.cores import Cores
from tests.support import packets
from tests.support.packets import Told

letters = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
names = st.text(letters, min_size=1, max_size=64)
keys = st.binary(min_size=32, max_size=32)
nonces = st.binary(min_size=16, max_size=16)
#: Near their limits more often than elsewhere.
words = st.sampled_from([0, 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
longs = st.sampled_from([0, 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)

statuses = st.builds(
    Told,
    *(st.just("status"), st.sampled_from(["little", "big"]), st.sampled_from(packets.STATES[1:])),
    *(words, words, longs, longs, nonces, names),
)
others = st.builds(
    Told,
    *(st.sampled_from(["question", "alive"]), st.just(""), st.just("")),
    *(words, st.just(0), st.just(0), st.just(0), nonces, names),
)
told = statuses | others


def signed(told: Told, key: bytes) -> bytes:
    return packets.build(told, key if told.key_id else b"")


#: Packets with a field, a byte or a bit of another, or with an end that is missing or too much.
near = st.one_of(
    st.builds(signed, told, keys),
    st.builds(
        lambda data, name, value: packets.replace(
            data, name, (value * 64)[: packets.FIELDS[name][1]]
        ),
        st.builds(signed, told, keys),
        st.sampled_from(list(packets.FIELDS)),
        st.binary(min_size=1, max_size=64),
    ),
    st.builds(
        lambda data, at, byte: data[:at] + bytes([byte]) + data[at + 1 :],
        st.builds(signed, told, keys),
        st.integers(0, packets.LENGTH - 1),
        st.integers(0, 255),
    ),
    st.builds(lambda data, end: data[:end], st.builds(signed, told, keys), st.integers(0, 151)),
    st.builds(lambda data, more: data + more, st.builds(signed, told, keys), st.binary(min_size=1)),
    st.binary(min_size=packets.LENGTH, max_size=packets.LENGTH),
)


@given(told, keys)
def test_what_is_written_is_what_is_read_on_every_side(core: Any, told: Told, key: bytes) -> None:
    key = key if told.key_id else b""
    packet = core.Packet(told.kind, told.name, **packets.as_keywords(told))
    data = core.encode_packet(packet, key, told.byteorder or "little")
    assert data == packets.build(told, key)
    assert packets.read(data) == told
    again = core.decode_packet(data)
    assert again == packet
    assert hash(again) == hash(packet)
    if key:
        assert core.packet_fits(data, key)


@given(near)
def test_any_bytes_are_the_packet_that_the_rules_see_in_them(cores: Cores, data: bytes) -> None:
    rules = packets.read(data)
    seen = cores.do(lambda core: repr(core.decode_packet(data)))
    if rules is None:
        assert seen == "None"
        return
    for core in cores:
        packet = core.decode_packet(data)
        fields: dict[str, Any] = {
            name: getattr(packet, name, rules.byteorder) for name in Told._fields
        }
        assert Told(**fields) == rules


@given(near, keys)
def test_a_mac_fits_if_it_is_that_of_a_signed_packet(cores: Cores, data: bytes, key: bytes) -> None:
    def check(each: bytes) -> None:
        rules = packets.read(each)
        right = rules is not None and rules.key_id != 0 and packets.sign(each, key) == each
        assert cores.do(lambda core: core.packet_fits(each, key)) is right

    check(data)
    check(packets.sign(data.ljust(packets.SIGNED, b"\0"), key))


@given(told, keys, keys)
def test_only_the_key_it_was_signed_with_fits(
    core: Any, told: Told, key: bytes, another: bytes
) -> None:
    assume(key != another)
    data = signed(told._replace(key_id=told.key_id or 1), key)
    assert core.packet_fits(data, key)
    assert not core.packet_fits(data, another)


@given(
    st.sampled_from(["status", "question", "alive"]) | st.text(max_size=9),
    names | st.text(max_size=70),
    st.fixed_dictionaries(
        {},
        optional={
            "state": st.sampled_from(packets.STATES) | st.text(max_size=9),
            **{name: longs | st.integers() for name in ("key_id", "interval", "session")},
            "sequence": longs | st.integers(),
            "nonce": nonces | st.binary(max_size=20),
        },
    ),
)
def test_both_cores_refuse_the_same_for_the_same_reason(
    cores: Cores, kind: str, name: str, given: dict[str, Any]
) -> None:
    cores.do(lambda core: repr(core.Packet(kind, name, **given)))
    cores.do(lambda core: core.is_packet_name(name))


@given(keys | st.binary(max_size=40), st.binary(max_size=300))
def test_both_cores_compute_the_same_mac(cores: Cores, key: bytes, data: bytes) -> None:
    made = cores.do(lambda core: core.mac(key, data))
    if len(key) == 32:
        assert made == packets.hmac_sha256(key, data)

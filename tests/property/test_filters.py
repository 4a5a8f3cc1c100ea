# SPDX-License-Identifier: LGPL-2.1-or-later
"""A filter only ever drops what the receive loop would reject as well.

Programs are run in a machine of our own (`bpf`), which the kernel's is compared with in
test_raw_sockets.
"""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpfence import filters, wire
from kdumpfence.addresses import Address
from tests.property import bpf
from tests.property.packets import Packet, near_messages, packets
from tests.property.packets import near_questions as almost_questions
from tests.support.answerer import packet
from tests.support.judge import PACKET, is_question, judge_raw, verdict_of

PORT = 7410
V4 = [bytes([10, 0, 0, number]) for number in (1, 2, 3)] + [
    b"\x0a\1\0\1",
    b"\x20\1\x0d\xb8",
    b"\x7f\0\0\5",
]
V6 = [b"\xfd" + bytes(14) + bytes([number]) for number in (1, 2)] + [
    b"\xfd" + bytes(7) + b"\1" + bytes(6) + b"\1",
    b"\xfe\x80" + bytes(13) + b"\1",
    bytes(15) + b"\1",
    bytes(10) + b"\xff\xff" + V4[0],  # IPv4-mapped, and two that are not
    bytes(10) + b"\xff\xfe" + V4[0],
    bytes(9) + b"\1\xff\xff" + V4[0],
]
KINDS = [("udp", 4), ("udp", 6), ("raw4", 4), ("raw6", 6)]

#: About as many as there is room for in a program: 2 instructions a word and one more each.
many = st.one_of(
    st.integers(1200, 1230).map(
        lambda n: [Address(b"\x0b\0" + i.to_bytes(2, "big")) for i in range(n)]
    ),
    st.integers(395, 410).map(
        lambda n: [Address(b"\xfc" + bytes(13) + i.to_bytes(2, "big")) for i in range(n)]
    ),
)
known_sources = st.none() | st.lists(st.sampled_from(V4 + V6).map(Address), max_size=6) | many
vrfs = st.lists(st.integers(2, 6), max_size=5, unique=True)

#: Ethernet headers: from elsewhere, of a VRF's own datagrams, the IPv6 header in its place.
LINKS = [b"\2\0\0\0\0\1\2\0\0\0\0\2\x08\0", b"\2\0\0\0\0\1\2\0\0\0\0\1\x08\0"]
#: Destinations beside the usual: multicasts of both families, and the ends of their ranges.
MULTICASTS = [b"\xe0\0\0\1", b"\xef\xff\xff\xff", b"\xff\2" + bytes(13) + b"\1"]


class Way(NamedTuple):
    """How a packet came."""

    interface: int = 2
    packet_type: int = bpf.HOST
    link: bytes = LINKS[0]


ways = st.builds(
    Way,
    st.sampled_from([bpf.LO, bpf.LO, 2, 3, 257]),
    st.sampled_from([bpf.HOST, bpf.HOST, bpf.MULTICAST, bpf.LOOPBACK]),
    st.sampled_from(LINKS),
)


def case(kind: str, version: int, to: bytes | None = None) -> st.SearchStrategy[Packet]:
    """Packets that can come to a socket of this kind."""
    return packets(
        V4 if version == 4 else V6,
        to or (b"\x0a\0\0\x09" if version == 4 else V6[0]),
        PORT,
        good=kind == "udp",  # on a UDP socket the kernel has looked at the header
    )


def cases(kind: str, version: int) -> st.SearchStrategy[Packet]:
    length = 4 if version == 4 else 16
    to = [None, *(one for one in MULTICASTS if len(one) == length)]
    return st.sampled_from(to).flatmap(lambda one: case(kind, version, one))


def run(kind: str, code: list[filters.Instruction], packet: Packet, way: Way) -> int:
    """How many bytes the program keeps of the packet."""
    data = packet.whole if kind == "raw4" else packet.body
    return bpf.run(code, data, packet.whole, *way)


def runs(kind: str, code: list[filters.Instruction], packet: Packet, way: Way) -> bool:
    """Whether the program keeps the packet."""
    kept = run(kind, code, packet, way)
    assert kept in (0, 0xFFFFFFFF)
    return bool(kept)


def is_refused(packet: Packet, way: Way, inside: bool) -> bool:
    """Whether this machine sent the packet itself, or an IPv4 address is in an IPv6 header."""
    source, to = packet.source, packet.destination
    if source[:12] == bytes(10) + b"\xff\xff":
        return True
    loopback = source[0] == 127 if len(source) == 4 else source == bytes(15) + b"\1"
    if way.interface == bpf.LO or loopback:
        return not (way.interface == bpf.LO and loopback)
    if way.packet_type == bpf.LOOPBACK:
        return True
    multicast = 224 <= to[0] < 240 if len(to) == 4 else to[0] == 255
    own_multicast = multicast and way.packet_type == bpf.HOST
    return inside and (own_multicast or way.link[:6] == way.link[6:12])


@pytest.mark.parametrize(("kind", "version"), KINDS)
@given(
    data=st.data(),
    messages_only=st.booleans(),
    sources=known_sources,
    vrfs=vrfs,
    inside=st.booleans(),
    way=ways,
)
def test_a_filter_keeps_what_it_was_asked_for_and_so_all_that_would_be_accepted(
    kind: str,
    version: int,
    data: st.DataObject,
    messages_only: bool,
    sources: list[Address] | None,
    vrfs: list[int],
    inside: bool,
    way: Way,
) -> None:
    packet = data.draw(cases(kind, version))
    body = packet.body
    sources = None if kind == "udp" else sources
    code = filters.program(
        kind, PORT, messages_only=messages_only, sources=sources, vrfs=vrfs, inside=inside
    )
    bpf.check(code)
    known = {packet.source} if sources is None else {address.packed for address in sources}
    asked = kind == "udp" or body[2:4] == PORT.to_bytes(2, "big")
    if messages_only:
        whole = int.from_bytes(body[4:6], "big") >= 16
        asked = asked and whole and verdict_of(body[8:]) == "accepted"
    # For too many it lets all through.
    if code[-1][3] == 0:
        asked = asked and packet.source in known
    if kind == "udp":
        accepted = verdict_of(body[8:]) == "accepted" and packet.source in known
    else:
        judged = judge_raw(
            packet.seen_raw, packet.source, packet.destination, known, PORT, size=65535
        )
        accepted = judged.verdict == "accepted"
    assert asked or not accepted, "this test asks for less than the receive loop would accept"
    came_from_elsewhere = way.interface not in vrfs and not is_refused(packet, way, inside)
    assert runs(kind, code, packet, way) == (asked and came_from_elsewhere)


NONCE, NAME = bytes(range(16)), b"node1".ljust(64, b"\0")
STATUS = packet("status", NONCE, name="node1")
#: What packets can be asked to have, as the agent asks for it.
LOOKS = [
    {8: b"kdf1", 40: NONCE},
    {8: b"kdf1", 56: NAME},
    {8: b"kdf1", 56: b"node2".ljust(64, b"\0")},
]

#: Packets, and what is one but for a bit, a byte or a head.
near_packets = st.one_of(
    st.just(STATUS),
    st.sampled_from(["status", "alive", "question"]).map(lambda kind: packet(kind, NONCE)),
    st.sampled_from(["node", "node2", "node11"]).map(lambda name: packet("status", name=name)),
    st.integers(0, 8 * len(STATUS) - 1).map(
        lambda bit: (int.from_bytes(STATUS, "big") ^ 1 << bit).to_bytes(len(STATUS), "big")
    ),
    st.sampled_from([STATUS[:-1], STATUS + b"\0", STATUS[:8], b""]),
    st.binary(max_size=160),
)


@pytest.mark.parametrize(("kind", "version"), KINDS)
@given(
    data=st.data(),
    payload=near_packets,
    looks=st.none() | st.lists(st.sampled_from(LOOKS), max_size=3),
    messages_only=st.booleans(),
    questions=st.booleans(),
    way=ways,
)
def test_of_packets_those_are_kept_that_look_as_asked_for(
    kind: str,
    version: int,
    data: st.DataObject,
    payload: bytes,
    looks: list[dict[int, bytes]] | None,
    messages_only: bool,
    questions: bool,
    way: Way,
) -> None:
    source = data.draw(st.sampled_from(V4 if version == 4 else V6))
    options = b"\1" * data.draw(st.sampled_from([0, 4, 40])) if kind == "raw4" else b""
    length = (8 + len(payload)).to_bytes(2, "big")
    body = b"\1\2" + PORT.to_bytes(2, "big") + length + b"\0\0" + payload
    whole = Packet(source, V4[0] if version == 4 else V6[0], options, body)
    code = filters.program(
        kind, PORT, messages_only=messages_only, packets=looks, questions=questions
    )
    bpf.check(code)
    wanted = looks is None or (
        len(payload) == len(STATUS)
        and any(
            all(payload[at : at + len(part)] == part for at, part in look.items()) for look in looks
        )
    )
    wanted = wanted and (not messages_only or verdict_of(payload) == "accepted")
    asks = len(payload) == len(STATUS) and payload.startswith(b"KDFQUEST")
    wanted = wanted and (questions or not asks)
    assert runs(kind, code, whole, way) == (wanted and not is_refused(whole, way, inside=False))


def test_where_many_names_have_no_room_all_packets_are_kept() -> None:
    for kind in ("raw4", "raw6"):
        for number, kept in ((90, False), (120, True)):
            looks = [{8: b"kdf1", 56: f"n{i}".encode().ljust(64, b"\0")} for i in range(number)]
            code = filters.program(kind, PORT, messages_only=True, packets=looks)
            bpf.check(code)
            body = b"\1\2" + PORT.to_bytes(2, "big") + b"\0\xa0\0\0" + STATUS
            whole = Packet(*((V4[0], V4[1]) if kind == "raw4" else (V6[0], V6[1])), b"", body)
            assert runs(kind, code, whole, Way()) == kept


def test_so_many_addresses_have_room() -> None:
    for kind, length, most in (("raw4", 4, 800), ("raw6", 16, 380)):
        own = [Address(b"\x0b" + bytes(length - 3) + i.to_bytes(2, "big")) for i in range(1, most)]
        code = filters.program(
            kind, PORT, messages_only=True, sources=own, vrfs=range(2, 30), inside=True
        )
        assert code[-1] == (0x06, 0, 0, 0)


@given(data=st.data(), way=ways, version=st.sampled_from([4, 6]))
def test_on_a_udp_socket_what_the_machine_sent_itself_may_be_cut_to_its_header(
    data: st.DataObject, way: Way, version: int
) -> None:
    packet = data.draw(cases("udp", version))
    code = filters.program("udp", PORT, refused=filters.CUT)
    kept = run("udp", code, packet, way)
    assert kept == (8 if is_refused(packet, way, inside=False) else 0xFFFFFFFF)


@given(st.binary(max_size=60), st.booleans(), known_sources)
def test_no_bytes_bring_a_filter_out_of_step(
    data: bytes, messages_only: bool, sources: list[Address] | None
) -> None:
    for kind in ("udp", "raw4", "raw6"):
        known = None if kind == "udp" else sources
        code = filters.program(kind, PORT, messages_only=messages_only, sources=known)
        assert bpf.run(code, data, data) in (0, 0xFFFFFFFF)


@given(
    st.sampled_from(["udp", "raw4", "raw6"]),
    st.integers(1, 65535),
    st.booleans(),
    known_sources,
    st.integers(0, 2000).map(lambda number: range(2, 2 + number)),
    st.booleans(),
)
def test_the_kernel_takes_every_program(
    kind: str,
    port: int,
    messages_only: bool,
    sources: list[Address] | None,
    vrfs: range,
    inside: bool,
) -> None:
    known = None if kind == "udp" else sources
    code = filters.program(
        kind, port, messages_only=messages_only, sources=known, vrfs=vrfs, inside=inside
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            filters.attach(sock, code)
        except OSError as error:
            # It knows the program, and has no memory for so long a one (net.core.optmem_max).
            assert (error.errno, len(code) > 500) == (errno.ENOMEM, True)


key_ids = st.sampled_from([1, 0x4B444651, 2**32 - 1]) | st.integers(1, 2**32 - 1)
questions = st.builds(
    lambda key_id: wire.encode_packet(
        wire.Packet("question", "n", key_id=key_id), bytes(32) if key_id else b""
    ),
    st.just(0) | key_ids,
)
near_questions = st.one_of(
    questions,
    st.builds(
        lambda data, bit: (int.from_bytes(data, "big") ^ 1 << bit).to_bytes(len(data), "big"),
        questions,
        st.integers(0, 8 * wire.PACKET_BYTES - 1),
    ),
    st.builds(lambda data, end: data[:end], questions, st.integers(0, wire.PACKET_BYTES)),
    st.builds(lambda data, more: data + more, questions, st.binary(max_size=9)),
    st.binary(min_size=wire.PACKET_BYTES, max_size=wire.PACKET_BYTES),
)


@given(near_questions, st.just(0) | key_ids, st.booleans())
def test_a_filter_for_questions_keeps_every_question_and_of_one_key_if_asked_to(
    data: bytes, key_id: int, named: bool
) -> None:
    if named and data[8:]:
        key_id = int.from_bytes(data[16:20], "big")
    code = filters.questions(key_id)
    bpf.check(code)
    body = bytes(4) + (8 + len(data)).to_bytes(2, "big") + bytes(2) + data
    kept = bpf.run(code, body, body)
    assert kept in (0, 0xFFFFFFFF)
    asked = len(data) == wire.PACKET_BYTES and data[:8] == b"KDFQUEST"
    assert bool(kept) == (asked and key_id in (0, int.from_bytes(data[16:20], "big")))
    packet = wire.decode_packet(data)
    if packet is not None and packet.kind == "question":
        assert kept or key_id not in (0, packet.key_id)


@pytest.mark.parametrize("key_id", [0, 2**32 - 1])
def test_the_kernel_takes_a_filter_for_questions(key_id: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        filters.attach(sock, filters.questions(key_id))


def test_the_filter_of_a_socket_that_only_sends_keeps_nothing() -> None:
    bpf.check(filters.NOTHING)
    assert bpf.run(filters.NOTHING, b"x" * 100, b"x" * 100) == 0


def test_packets_or_sources_are_chosen_not_both() -> None:
    with pytest.raises(ValueError, match="sources or packets, not both"):
        filters.program("raw4", PORT, sources=[], packets=[])


def test_a_udp_socket_is_connected_not_filtered_by_source() -> None:
    with pytest.raises(ValueError, match="sources are for raw sockets"):
        filters.program("udp", PORT, sources=[])


@given(payload=almost_questions | near_messages, way=ways, version=st.sampled_from([4, 6]))
def test_with_questions_these_are_kept_too_and_what_could_be_none_is_not(
    payload: bytes, way: Way, version: int
) -> None:
    own = (V4, V6)[version == 6]
    length = (8 + len(payload)).to_bytes(2, "big")
    packet = Packet(
        own[0], own[1], b"", b"\1\2" + PORT.to_bytes(2, "big") + length + b"\0\0" + payload
    )
    code = filters.program("udp", PORT, messages_only=True, and_questions=True)
    bpf.check(code)
    head = len(payload) == PACKET and payload[:12] == b"KDFQUESTkdf1"
    assert head or not is_question(payload)
    wanted = head or verdict_of(payload) == "accepted"
    assert runs("udp", code, packet, way) == (wanted and not is_refused(packet, way, inside=False))
    without = filters.program("udp", PORT, messages_only=True)
    assert runs("udp", without, packet, way) <= (verdict_of(payload) == "accepted")


@pytest.mark.parametrize("kind", ["raw4", "raw6"])
def test_questions_are_heard_on_udp_sockets_alone(kind: str) -> None:
    with pytest.raises(ValueError, match="questions are for UDP sockets"):
        filters.program(kind, PORT, messages_only=True, and_questions=True)

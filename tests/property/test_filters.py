# SPDX-License-Identifier: GPL-2.0-or-later
"""A filter only ever drops what the receive loop would reject as well.

Programs are run in a machine of our own (`bpf`), which the kernel's is compared with in
test_raw_sockets.
"""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpfence import filters
from kdumpfence.addresses import Address

from . import bpf
from .judging import judge_raw, verdict_of
from .packets import Packet, packets

PORT = 7410
V4 = [bytes([10, 0, 0, number]) for number in (1, 2, 3)] + [b"\x0a\1\0\1", b"\x20\1\x0d\xb8"]
V6 = [b"\xfd" + bytes(14) + bytes([number]) for number in (1, 2)] + [
    b"\xfd" + bytes(7) + b"\1" + bytes(6) + b"\1",
    b"\xfe\x80" + bytes(13) + b"\1",
    bytes(15) + b"\1",
]
KINDS = [("udp", 4), ("udp", 6), ("raw4", 4), ("raw6", 6)]

many = st.integers(399, 402).map(lambda n: [Address(b"\x0b\0" + i.to_bytes(2, "big"))
                                            for i in range(n)])  # fmt: skip
known_sources = st.none() | st.lists(st.sampled_from(V4 + V6).map(Address), max_size=6) | many


def case(kind: str, version: int) -> st.SearchStrategy[Packet]:
    """Packets that can come to a socket of this kind."""
    return packets(
        V4 if version == 4 else V6,
        b"\x0a\0\0\x09" if version == 4 else V6[0],
        PORT,
        good=kind == "udp",  # on a UDP socket the kernel has looked at the header
    )


def runs(kind: str, code: list[filters.Instruction], packet: Packet) -> bool:
    """Whether the program keeps the packet."""
    data = packet.whole if kind == "raw4" else packet.body
    kept = bpf.run(code, data, packet.whole)
    assert kept in (0, 0xFFFFFFFF)
    return bool(kept)


@pytest.mark.parametrize(("kind", "version"), KINDS)
@given(data=st.data(), messages_only=st.booleans(), sources=known_sources)
def test_a_filter_keeps_whatever_the_receive_loop_would_accept(
    kind: str,
    version: int,
    data: st.DataObject,
    messages_only: bool,
    sources: list[Address] | None,
) -> None:
    packet = data.draw(case(kind, version))
    sources = None if kind == "udp" else sources
    code = filters.program(kind, PORT, messages_only=messages_only, sources=sources)
    bpf.check(code)
    known = {packet.source} if sources is None else {address.packed for address in sources}
    if kind == "udp":
        accepted = verdict_of(packet.body[8:]) == "accepted" and packet.source in known
    else:
        judged = judge_raw(
            packet.seen_raw, packet.source, packet.destination, known, PORT, size=65535
        )
        accepted = judged.verdict == "accepted"
    if accepted:
        assert runs(kind, code, packet)


@pytest.mark.parametrize(("kind", "version"), KINDS)
@given(data=st.data(), messages_only=st.booleans(), sources=known_sources)
def test_a_filter_keeps_only_what_it_was_asked_for(
    kind: str,
    version: int,
    data: st.DataObject,
    messages_only: bool,
    sources: list[Address] | None,
) -> None:
    packet = data.draw(case(kind, version))
    sources = None if kind == "udp" else sources
    code = filters.program(kind, PORT, messages_only=messages_only, sources=sources)
    body = packet.body
    asked = kind == "udp" or body[2:4] == PORT.to_bytes(2, "big")
    if messages_only:
        whole = int.from_bytes(body[4:6], "big") >= 16
        asked = asked and whole and verdict_of(body[8:]) == "accepted"
    # A program has room for 400 addresses; for more it lets all through.
    if sources is not None and len(sources) <= 400:
        asked = asked and packet.source in {address.packed for address in sources}
    assert runs(kind, code, packet) == asked


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
)
def test_the_kernel_takes_every_program(
    kind: str, port: int, messages_only: bool, sources: list[Address] | None
) -> None:
    known = None if kind == "udp" else sources
    code = filters.program(kind, port, messages_only=messages_only, sources=known)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        filters.attach(sock, code)


def test_the_filter_of_a_socket_that_only_sends_keeps_nothing() -> None:
    bpf.check(filters.NOTHING)
    assert bpf.run(filters.NOTHING, b"x" * 100, b"x" * 100) == 0


def test_a_udp_socket_is_connected_not_filtered_by_source() -> None:
    with pytest.raises(ValueError, match="sources are for raw sockets"):
        filters.program("udp", PORT, sources=[])

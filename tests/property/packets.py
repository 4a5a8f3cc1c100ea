# SPDX-License-Identifier: LGPL-2.1-or-later
"""Messages, and IP packets that carry them, good and bad in every field, for hypothesis."""

from __future__ import annotations

import struct
from typing import NamedTuple

from hypothesis import strategies as st

from tests.support.judge import BIG, LITTLE, MAGIC, UDP, checksum, pseudo_header

_orders = st.sampled_from("<>")

messages = st.builds(lambda head, rest: head + rest, st.sampled_from([LITTLE, BIG]), st.binary())

#: Bytes close to a message: the whole thing, one bit of it changed, part of it.
near_messages = st.one_of(
    messages,
    st.builds(
        lambda order, version, rest: struct.pack(order + "II", MAGIC, version) + rest,
        _orders,
        st.sampled_from([0, 1, 2, 0x01000000, 0x02000000, 0xFFFFFFFF]) | st.integers(0, 2**32 - 1),
        st.binary(max_size=8),
    ),
    st.builds(
        lambda order, bit: (int.from_bytes(struct.pack(order + "II", MAGIC, 1), "big") ^ 1 << bit)
        .to_bytes(8, "big"),
        _orders,
        st.integers(0, 63),
    ),
    st.builds(lambda head, end: head[:end], st.sampled_from([LITTLE, BIG]), st.integers(0, 8)),
    st.builds(lambda a, b: a[:4] + b[4:], st.sampled_from([LITTLE, BIG]),
              st.sampled_from([LITTLE, BIG])),
)  # fmt: skip

#: A question, or one byte of it changed, or of another length.
questions = st.builds(
    lambda signed, state, name, mac: (
        b"KDFQUESTkdf1\0\x90" + bytes([signed, state]) + bytes(3) + bytes([signed]) + bytes(20)
        + b"n" * 16 + name.ljust(64, b"\0") + mac
    ),
    st.sampled_from([0, 0, 1, 2]),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([b"node1", b"n" * 64, b"", b"a b"]),
    st.sampled_from([bytes(32), bytes(32), b"m" * 32]),
)  # fmt: skip
near_questions = st.one_of(
    questions,
    st.builds(
        lambda question, at, byte: question[:at] + bytes([byte]) + question[at + 1 :],
        questions, st.integers(0, 151), st.integers(0, 255),
    ),
    st.builds(lambda question, end: (question + b"\0")[:end], questions, st.integers(140, 153)),
)  # fmt: skip

payloads = st.one_of(near_messages, near_messages, near_questions, st.binary(max_size=40))


class Packet(NamedTuple):
    """An IP packet in parts."""

    source: bytes
    destination: bytes
    options: bytes
    #: UDP header and all behind it, whatever the UDP length says.
    body: bytes

    @property
    def whole(self) -> bytes:
        """What is on the wire; the IPv4 header's checksum is left to the kernel."""
        if len(self.source) == 4:
            words = 5 + len(self.options) // 4
            total = 4 * words + len(self.body)
            head = struct.pack(">BBHHHBBH", 0x40 | words, 0, total, 0, 0, 64, UDP, 0)
            return head + self.source + self.destination + self.options + self.body
        head = struct.pack(">IHBB", 6 << 28, len(self.body), UDP, 64)
        return head + self.source + self.destination + self.body

    @property
    def seen_raw(self) -> bytes:
        """What a raw socket hands over: IPv4 with its header, IPv6 without."""
        return self.whole if len(self.source) == 4 else self.body


def _complement(total: int) -> int:
    """The checksum field for this sum: never 0, which would mean that there is none."""
    return 0xFFFF - total or 0xFFFF


#: What can be amiss; one thing at a time tells most, so it is tried most.
FAULTS = ("port", "length", "padding", "checksum", "payload", "cut")

#: Behind the UDP datagram; the long one does not fit into a short buffer any more.
paddings = st.binary(max_size=12) | st.just(bytes(60))


@st.composite
def bodies(draw: st.DrawFn, source: bytes, destination: bytes, port: int, good: bool) -> bytes:
    """UDP datagrams to `port`; with `good` nothing in their headers is amiss."""
    faults = draw(
        st.sampled_from([(fault,) for fault in FAULTS])
        | st.just(())
        | st.lists(st.sampled_from(FAULTS)).map(tuple)
    )
    if good:
        faults = ("payload",) if faults else ()
    payload = draw(st.sampled_from([LITTLE, BIG]) | messages)
    if "payload" in faults:
        payload = draw(payloads)
    source_port = draw(st.integers(0, 65535))
    length = right = 8 + len(payload)
    to = port
    if "port" in faults:
        to = draw(st.sampled_from([port ^ 1, port >> 8 | (port & 255) << 8, 0]))
    if "length" in faults:
        length = draw(
            st.sampled_from([0, 7, 8, 15, 16, 17, right - 1, right + 1, 65535]) | st.integers(0, 40)
        )
    padding = draw(paddings) if "padding" in faults else b""
    # The checksum covers what the UDP length says, the padding behind that not.
    whole = struct.pack(">HHHH", source_port, to, length, 0) + payload + padding
    covered = whole[:length] if 8 <= length <= len(whole) else whole
    head = pseudo_header(source, destination, len(covered))
    field = _complement(checksum(head + covered))
    if "checksum" in faults:
        other_head = pseudo_header(source, destination, right + len(padding))
        field = draw(
            st.sampled_from(
                [
                    0,
                    checksum(head),  # left to a network card
                    _complement(checksum(other_head + whole)),  # over the padding as well
                    _complement(checksum(covered)),
                    _complement(field),
                ]
            )
            | st.integers(0, 15).map(lambda bit: field ^ 1 << bit)
            | st.integers(0, 65535)
        )
    whole = whole[:6] + struct.pack(">H", field) + whole[8:]
    return whole[: draw(st.integers(0, 15))] if "cut" in faults else whole


@st.composite
def packets(
    draw: st.DrawFn, sources: list[bytes], destination: bytes, port: int, good: bool = False
) -> Packet:
    """Packets from one of `sources`. IP options are such that a kernel passes them on."""
    source = draw(st.sampled_from(sources))
    options = b""
    if len(source) == 4 and not good:
        options = b"\1" * (4 * draw(st.sampled_from([0, 0, 0, 1, 2, 10])))
    body = draw(bodies(source, destination, port, good))
    return Packet(source, destination, options, body)

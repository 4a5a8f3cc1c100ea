# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program that counts in the kernel, run there over made-up packets (BPF_PROG_TEST_RUN).

The codec is the judge of what is a message, and a model of a page is the judge of the rest.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdumpfence import _purewire, filters
from kdumpfence.filters import Instruction
from kdumpfence.listener.kernel import assembler, bpf
from kdumpfence.listener.kernel.program import header
from kdumpfence.wire import PACKET_BYTES
from tests.property import bpf as machine
from tests.support import kernel_program
from tests.support.kernel import need_kernel_counting
from tests.support.kernel_program import (
    ENTRY,
    KEEP,
    LO,
    MACS,
    QUIET,
    SECOND,
    Program,
    frame,
    is_message,
    mapped,
)

LITTLE, BIG = _purewire.encode("little"), _purewire.encode("big")


@pytest.fixture(scope="module")
def made() -> Iterator[Program]:
    need_kernel_counting()
    with kernel_program.made() as one:
        yield one


@pytest.fixture
def program(made: Program) -> Program:
    made.clear()
    return made


addresses = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
payloads = st.one_of(
    st.sampled_from([LITTLE, BIG]),
    st.binary(max_size=200),
    st.builds(
        lambda head, tail: head + tail, st.sampled_from([LITTLE, BIG]), st.binary(max_size=80)
    ),
    st.builds(
        lambda head, at, value: head[:at] + bytes([value]) + head[at + 1 :],
        st.sampled_from([LITTLE, BIG]),
        st.integers(0, 7),
        st.integers(0, 255),
    ),
    st.builds(
        lambda head, length: head[:length], st.sampled_from([LITTLE, BIG]), st.integers(0, 8)
    ),
    st.builds(lambda a, b: a[:4] + b[4:], *[st.sampled_from([LITTLE, BIG])] * 2),
)


@given(address=addresses, other=addresses, payload=payloads, second=st.booleans())
@settings(max_examples=400)
def test_it_counts_exactly_the_messages_of_sources_that_it_knows(
    made: Program, address: bytes, other: bytes, payload: bytes, second: bool
) -> None:
    made.clear()
    link_local = len(address) == 16 and address[0] == 0xFE and address[1] & 0xC0 == 0x80
    known = mapped(address) != bytes(16)
    before = time.monotonic_ns()
    at = made.put(address, before, 1 if link_local else 0, second)
    counted = made.counts(address, payload)
    assert counted == (known and is_message(payload)) or not known
    last, messages = made.entry(at)
    if known:
        assert messages == counted
        assert before <= last <= time.monotonic_ns()
    if mapped(other) != mapped(address):
        assert not made.counts(other, payload)
    assert sum(made.entry(one)[1] for one in range(0, len(made.table.memory), 32)) == messages


NODE = socket.inet_aton("192.0.2.1")
NODE6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
LINK_LOCAL = socket.inet_pton(socket.AF_INET6, "fe80::1")


@pytest.mark.parametrize("node", [NODE, NODE6])
@pytest.mark.parametrize("message", [LITTLE, BIG])
def test_a_message_of_either_byte_order_over_either_family_is_counted(
    program: Program, node: bytes, message: bytes
) -> None:
    at = program.put(node, time.monotonic_ns())
    for number in range(1, 4):
        assert program.counts(node, message)
        assert program.entry(at)[1] == number


def test_after_a_pause_a_message_is_news(program: Program) -> None:
    late = program.put(NODE, time.monotonic_ns() - QUIET - SECOND)
    assert not program.counts(NODE, LITTLE)
    assert program.entry(late)[1] == 0
    in_time = program.put(NODE6, time.monotonic_ns() - QUIET + 10 * SECOND)
    assert program.counts(NODE6, LITTLE)
    assert program.entry(in_time)[0] > time.monotonic_ns() - SECOND


def test_an_entry_without_a_time_counts_nothing(program: Program) -> None:
    at = program.put(NODE, 0)
    assert not program.counts(NODE, LITTLE)
    assert program.entry(at) == (0, 0)


def test_nobody_is_counted_when_the_lease_has_ended(program: Program) -> None:
    at = program.put(NODE, time.monotonic_ns())
    program.until(time.monotonic_ns() - SECOND)
    assert not program.counts(NODE, LITTLE)
    program.until(0)
    assert not program.counts(NODE, LITTLE)
    assert program.entry(at)[1] == 0


def test_a_link_local_source_is_one_of_its_interface(program: Program) -> None:
    lo = program.put(LINK_LOCAL, time.monotonic_ns(), scope=1)
    assert program.counts(LINK_LOCAL, LITTLE)
    assert program.entry(lo)[1] == 1
    program.clear()
    program.put(LINK_LOCAL, time.monotonic_ns(), scope=2)
    program.put(LINK_LOCAL, time.monotonic_ns(), scope=0)
    assert not program.counts(LINK_LOCAL, LITTLE)


def test_other_addresses_have_no_scope(program: Program) -> None:
    program.put(NODE6, time.monotonic_ns(), scope=1)
    assert not program.counts(NODE6, LITTLE)


def test_every_entry_of_both_buckets_is_looked_at(program: Program) -> None:
    now = time.monotonic_ns()
    for second in (False, True):
        program.clear()
        at = program.put(NODE, now, second=second)
        bucket = at // 128 * 128
        for number in range(4):
            program.table.memory[:] = bytes(len(program.table.memory))
            place = bucket + 32 * number
            for other in range(bucket, bucket + 128, 32):
                ENTRY.pack_into(program.table.memory, other, mapped(b"\xc6\x33\x64\1"), now, 0, 0)
            ENTRY.pack_into(program.table.memory, place, mapped(NODE), now, 0, 0)
            assert program.counts(NODE, LITTLE)
            assert program.entry(place)[1] == 1


@pytest.mark.parametrize("length", [14, 15, 20, 34, 41, 42, 49])
def test_what_is_cut_off_is_never_counted(program: Program, length: int) -> None:
    program.put(NODE, time.monotonic_ns())
    cut = frame(NODE, LITTLE)[:length]
    try:
        kept, _ = bpf.run(program.programs[20], cut)
    except OSError:
        return  # too short for the kernel to try
    # Shorter than any datagram, it is of no interest to a socket.
    assert kept == (KEEP if length >= 14 + 20 + 8 else 0)
    assert all(program.entry(at)[1] == 0 for at in range(0, len(program.table.memory), 32))


def test_an_ipv4_header_with_options_makes_no_difference(program: Program) -> None:
    at = program.put(NODE, time.monotonic_ns())
    for payload in (LITTLE, BIG, LITTLE[:4] + BIG[4:], b"rubbish!"):
        data = frame(NODE, payload)
        data = data[:14] + b"\x46" + data[15:34] + bytes(4) + data[34:]
        kept, _ = bpf.run(program.programs[24], data)
        assert kept == (0 if is_message(payload) else KEEP)
    assert program.entry(at)[1] == 2


def test_another_version_of_ip_is_news(program: Program) -> None:
    program.put(NODE, time.monotonic_ns())
    data = bytearray(frame(NODE, LITTLE))
    for version in (0, 1, 5, 7, 15):
        data[14] = version << 4 | 5
        assert bpf.run(program.programs[20], bytes(data))[0] == KEEP


# ----------------------------------------------------------- classic programs, translated

#: Filters of UDP sockets: the guard, and what is behind it when a queue was overfull.
CLASSIC = {
    (fence, inside): filters.program(
        "udp",
        0,
        messages_only=fence > 0,
        and_questions=fence > 1,
        inside=inside,
        refused=0 if fence else filters.CUT,
    )
    for fence in range(3)
    for inside in (False, True)
}
LOOPBACKS = [b"\x7f\0\0\5", bytes(15) + b"\1", bytes(10) + b"\xff\xff\x7f\0\0\1"]


@pytest.fixture(scope="module")
def translations(made: Program) -> dict[tuple[int, bool, int], int]:
    del made  # for whether the kernel takes any
    return {
        (fence, inside, base): bpf.load("test", assembler.assembled(keeping(classic, base)))
        for (fence, inside), classic in CLASSIC.items()
        for base in (20, 40)
    }


def keeping(classic: list[Instruction], base: int) -> list[assembler.Line]:
    """The same program, and nothing that counts."""
    asm = assembler
    return [
        *header(base),
        *asm.translated(classic, "kept", base),
        "kept",
        asm.move(asm.R0, -1),
        asm.leave(),
    ]


def another_interface() -> int:
    """The index of one beside lo, or lo's if there is none."""
    return next((index for index, _ in socket.if_nameindex() if index != LO), LO)


@given(
    source=st.one_of(addresses, st.sampled_from(LOOPBACKS)),
    payload=st.one_of(payloads, st.just(b"KDFQUESTkdf1" + bytes(PACKET_BYTES - 12))),
    fence=st.integers(0, 2),
    inside=st.booleans(),
    elsewhere=st.booleans(),
    macs=st.sampled_from(MACS),
    multicast=st.booleans(),
)
@settings(max_examples=400)
def test_a_classic_program_decides_the_same_when_it_is_translated(
    translations: dict[tuple[int, bool, int], int],
    source: bytes,
    payload: bytes,
    fence: int,
    inside: bool,
    elsewhere: bool,
    macs: bytes,
    multicast: bool,
) -> None:
    base = 20 if len(source) == 4 else 40
    data = bytearray(frame(source, payload))
    data[:12] = macs
    if multicast:
        data[14 + base - len(source)] = 0xE1 if base == 20 else 0xFF
    interface = another_interface() if elsewhere else LO
    # What the kernel makes of the destination: to all, to lo, or to another host.
    kind = 2 if macs[0] & 1 else 0 if macs[:6] == bytes(6) and interface == LO else 3
    wanted = machine.run(
        CLASSIC[fence, inside],
        bytes(data[14 + base :]),
        bytes(data[14:]),
        interface,
        kind,
        bytes(data[:14]),
    )
    program = translations[fence, inside, base]
    kept, _ = bpf.run(program, bytes(data), interface if interface != LO else 0)
    assert kept == wanted


def test_what_no_filter_of_ours_has_is_not_translated() -> None:
    with pytest.raises(ValueError, match="classic instruction 0xb1: not known here"):
        assembler.translated([(0xB1, 0, 0, 0)], "kept")

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fuzz target: any packet through the program that counts in the kernel, which really runs there.

The first four bytes say which of the programs of a Listener it is, what the table and the lease
are like, and whether the rest is a whole packet from its IP header on or a datagram's content.
What has to come of it is said by tests.support.kernel_program, of which the codec is a part: what
the program keeps, and every byte of the table. Nothing guides into the kernel, only through that.
"""

from __future__ import annotations

import importlib
import struct
import time
from typing import Any

from cores import pure
from frame import atheris, plant, require, run

with atheris.instrument_imports(include=["tests.support.kernel_program", "tests.property.bpf"]):
    kernel: Any = importlib.import_module("tests.support.kernel_program")
bpf: Any = importlib.import_module("kdumpfence.listener.kernel.bpf")
filters: Any = importlib.import_module("kdumpfence.filters")

MESSAGES = [pure.encode(order) for order in ("little", "big")]
#: Those that a UDP socket of a Listener has, in a flood or not, and in VRFs or not.
CLASSIC = [
    (filters.program("udp", 0, messages_only=fence > 0, and_questions=fence > 1, inside=inside,
                     refused=0 if fence else filters.CUT), inside)
    for fence in range(3)
    for inside in (False, True)
]  # fmt: skip
CLASSIC += [(kernel.KEEP_ALL, False)]

_opened = kernel.made()
program: Any = _opened.__enter__()
for base in kernel.BASES:
    for at, (classic, inside) in enumerate(CLASSIC):
        program.programs[base, at] = program.load(classic, base, inside=inside)


@plant(kernel, "may_count")
def _(may_count: Any, network: bytes, base: int, inside: bool) -> Any:
    """One source in 64 is not counted."""
    found = may_count(network, base, inside)
    if found is not None and found[0][-1] & 63 == 0x0D:
        return None
    return found


def packet(how: int, base: int, rest: bytes) -> bytes:
    """From the IP header on."""
    if how & 1:
        return rest
    size = 16 if base == 40 else 4
    source, content = rest[:size].ljust(size, b"\x0a"), rest[size:]
    message = MESSAGES[how >> 1 & 1]
    content = (content, message, message + content, content[:7] + message[7:])[how >> 2 & 3]
    network: bytes = kernel.frame(source, content)[14:]
    return network if base != 24 else b"\x46" + network[1:20] + bytes(4) + network[20:]


def check(data: bytes) -> None:
    if len(data) < 5:
        return
    which, table, entry, how = data[:4]
    base = kernel.BASES[which % 3]
    number = which // 3 % len(CLASSIC)
    classic, inside = CLASSIC[number]
    network = packet(how, base, data[4:])
    kind = b"\x86\xdd" if base == 40 else b"\x08\0"
    whole = kernel.MACS[how >> 4 & 3 if how >> 4 & 3 < 3 else 0] + kind + network

    program.clear()
    now = time.monotonic_ns()
    last = (now, now - kernel.QUIET - kernel.SECOND, 0, now + 10 * kernel.SECOND)[table & 3]
    until = (now + 3600 * kernel.SECOND, now - kernel.SECOND, 0)[max(0, (table >> 2 & 7) - 5)]
    program.until(until)
    source = kernel.source_of(network)
    known = source if len(source) in (4, 16) else source.ljust(16, b"\1")
    if entry & 8:  # another one
        known = bytes([known[0] ^ 1 << (entry >> 4 & 7)]) + known[1:]
    scope = (0, kernel.LO, 2, 1 << 31)[entry & 3]
    if kernel.mapped(known) == bytes(16):
        known = b"\1" + known[1:]  # a free entry is no source's
    at = program.put(known, last, scope, bool(entry & 4))

    expected, counts = 0, False
    if len(network) >= kernel.LEAST:
        expected = kernel.kept_by(classic, base, whole)
        counts = expected == kernel.KEEP and until > now and last == now
        counts &= kernel.may_count(network, base, inside) == (known, scope)
    before = bytearray(program.table.memory[:])
    try:
        kept, _ = bpf.run(program.programs[base, number], whole)
    except OSError:
        least = 40 if base == 40 else kernel.LEAST
        require(len(network) < least, "the kernel does not try", data)
        return
    after = program.table.memory[:]
    expected = 0 if counts else expected
    require(kept == expected, f"the kernel keeps {kept}, not {expected}", data)
    if counts:
        when, counted = program.entry(at)
        require(counted == 1 and now <= when <= time.monotonic_ns(), f"{counted}, {when}", data)
        struct.pack_into("=qI", before, at + 16, when, 1)
    require(after == before, "something else is written in the table", data)


if __name__ == "__main__":
    run(check)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Instructions of eBPF, with labels, and classic programs as such.

A program is a list of instructions and of labels, which are strings; `assembled` makes the bytes
of it that the kernel takes. Registers are R0 to R9, and FP, the end of the stack, which is only
read: R0 is what a call returns, R1 to R5 are its arguments and do not survive it. What may not be
in this file: what a program is for.

Sources: Documentation/bpf/standardization/instruction-set.rst, linux/bpf.h, linux/filter.h.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from typing import NamedTuple, Union

from kdumpfence.filters import Instruction as Classic

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FP = range(11)

# Bytes of a load or a store, and what that is in an instruction.
_SIZES = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_IMMEDIATE, _REGISTER = 0x00, 0x08
_ALU64, _ALU32, _JUMP64, _JUMP32 = 0x07, 0x04, 0x05, 0x06

# What stands in place of a descriptor: it itself, or the memory of its only entry.
_MAP, _MAP_VALUE = 1, 2

#: Helpers.
LOOK_UP, NANOSECONDS, LOAD_BYTES_RELATIVE = 1, 5, 68

#: Offsets in struct __sk_buff, which R1 leads to at the beginning.
LENGTH, PACKET_TYPE, INTERFACE = 0, 4, 40


class Instruction(NamedTuple):
    """One instruction; `offset` may be the label that it jumps to."""

    code: int
    to: int = 0
    of: int = 0
    offset: Union[int, str] = 0  # noqa: UP007 - evaluated, and Python 3.9 knows no |
    value: int = 0


Line = Union[Instruction, str]

_OPERATIONS = {"+": 0x00, "-": 0x10, "*": 0x20, "&": 0x50, "<<": 0x60, ">>": 0x70, "^": 0xA0}
_MOVE = 0xB0
_CONDITIONS = {"==": 0x10, ">": 0x20, ">=": 0x30, "!=": 0x50}


class Register(int):
    """Marks an operand as a register where a number would be meant as such."""


def move(to: int, value: int) -> Instruction:
    """`to` = value, which is a number of 32 bits with a sign, or a Register."""
    return _operation(_MOVE, to, value)


def change(to: int, operation: str, value: int) -> Instruction:
    """`to` = to + value, say, in 64 bits."""
    return _operation(_OPERATIONS[operation], to, value)


def _operation(code: int, to: int, value: int) -> Instruction:
    if isinstance(value, Register):
        return Instruction(code | _ALU64 | _REGISTER, to, int(value))
    return Instruction(code | _ALU64 | _IMMEDIATE, to, 0, 0, value)


def constant(to: int, value: int) -> list[Line]:
    """`to` = value, of 64 bits."""
    return _wide(to, 0, value & 0xFFFFFFFF, value >> 32)


def map_of(to: int, fd: int) -> list[Line]:
    """`to` = the map with this descriptor, for LOOK_UP."""
    return _wide(to, _MAP, fd, 0)


def memory_of(to: int, fd: int) -> list[Line]:
    """`to` = where the only entry of the map with this descriptor is."""
    return _wide(to, _MAP_VALUE, fd, 0)


def _wide(to: int, of: int, low: int, high: int) -> list[Line]:
    return [Instruction(0x18, to, of, 0, low), Instruction(0, 0, 0, 0, high)]


def load(size: int, to: int, base: int, offset: int) -> Instruction:
    """`to` = the `size` bytes at base + offset, in this machine's byte order."""
    return Instruction(0x61 | _SIZES[size], to, base, offset)


def store(size: int, base: int, offset: int, value: int) -> Instruction:
    """The `size` bytes at base + offset = value, a number or a Register."""
    if isinstance(value, Register):
        return Instruction(0x63 | _SIZES[size], base, int(value), offset)
    return Instruction(0x62 | _SIZES[size], base, 0, offset, value)


def add_atomically(size: int, base: int, offset: int, of: int) -> Instruction:
    """The 4 or 8 bytes at base + offset += the register `of`, whoever else does so."""
    return Instruction(0xC3 | _SIZES[size], base, of, offset)


def load_packet(size: int, offset: int) -> Instruction:
    """R0 = 1, 2 or 4 bytes of the packet as a number; a packet without them is dropped.

    R6 has to be what R1 was at the beginning; R1 to R5 do not survive it.
    """
    return Instruction(0x20 | _SIZES[size], 0, 0, 0, offset)


def from_network(to: int, bits: int) -> Instruction:
    """`to` = its lowest 16, 32 or 64 bits, which were loaded from a packet, as a number."""
    return Instruction(0xDC, to, 0, 0, bits)


def jump(label: str) -> Instruction:
    """Go on at the label."""
    return Instruction(0x05, offset=label)


def jump_if(left: int, condition: str, right: int, label: str, bits: int = 64) -> Instruction:
    """To the label if the register `left` is == right, say: a number or a Register, unsigned."""
    code = _CONDITIONS[condition] | (_JUMP64 if bits == 64 else _JUMP32)
    if isinstance(right, Register):
        return Instruction(code | _REGISTER, left, int(right), label)
    return Instruction(code | _IMMEDIATE, left, 0, label, right)


def call(helper: int) -> Instruction:
    """R0 = what the helper returns."""
    return Instruction(0x85, value=helper)


def leave() -> Instruction:
    """The end: R0 is how many bytes of the packet are kept."""
    return Instruction(0x95)


def assembled(lines: Iterable[Line]) -> bytes:
    """The program: an array of struct bpf_insn."""
    code: list[Instruction] = []
    at: dict[str | int, int] = {}
    for line in lines:
        if isinstance(line, str):
            at[line] = len(code)
        else:
            code.append(line)
    return b"".join(
        _packed(line, at[line.offset] - here - 1 if isinstance(line.offset, str) else line.offset)
        for here, line in enumerate(code)
    )


def _packed(line: Instruction, offset: int) -> bytes:
    low, high = (line.to, line.of) if sys.byteorder == "little" else (line.of, line.to)
    return struct.pack("=BBhI", line.code, low | high << 4, offset, line.value & 0xFFFFFFFF)


# ----------------------------------------------------------------- classic programs

_LOADS = {0x20: 4, 0x28: 2, 0x30: 1}
_AND, _TAX, _RET = 0x54, 0x07, 0x06
_CLASSIC_JUMPS = {0x15: ("==", False), 0x35: (">=", False), 0x1D: ("==", True)}
#: From here on offsets are those from the IP header, ...
_NETWORK = 0xFFF00000
#: ...and from here on they name something else than bytes of the packet...
_OTHER = 0xFFFFF000
#: ...such as what struct __sk_buff has as well.
_FIELDS = {_OTHER + 4: PACKET_TYPE, _OTHER + 8: INTERFACE}

#: Classic programs have two registers, which are here:
_A, _X = R7, R8


#: What `translated` has to find at the end of the stack: as many bytes of the IP header, or of it
#: and what follows, as every UDP datagram has.
HEADER = 28
HEADER_AT = -40


def translated(program: Iterable[Classic], kept: str, base: int = 0) -> list[Line]:
    """A classic program of `kdumpfence.filters` for a UDP socket.

    R6 has to be as R1 was at the beginning, and HEADER bytes from the IP header on at HEADER_AT.
    Where it keeps the whole packet, it goes on at the label `kept`. `base`: where the UDP header
    is, for programs that are run where it is not at 0. Raises ValueError for other instructions.
    """
    lines: list[Line] = []
    for here, (code, jump_true, jump_false, value) in enumerate(program):
        lines.append(f"classic {here}")
        if code in _LOADS and value >= _OTHER:
            lines.append(load(4, _A, R6, _FIELDS[value]))
        elif code in _LOADS and 0 <= value - _NETWORK <= HEADER - _LOADS[code]:
            size = _LOADS[code]
            lines.append(load(size, _A, FP, HEADER_AT + value - _NETWORK))
            if size > 1:
                lines.append(from_network(_A, 8 * size))
        elif code in _LOADS:
            at = value - (1 << 32) if value >> 31 else value + base
            lines += [load_packet(_LOADS[code], at), move(_A, Register(R0))]
        elif code == _AND:
            lines.append(Instruction(_AND, _A, value=value))
        elif code == _TAX:
            lines.append(move(_X, Register(_A)))
        elif code in _CLASSIC_JUMPS:
            condition, by_register = _CLASSIC_JUMPS[code]
            right = Register(_X) if by_register else value
            lines.append(jump_if(_A, condition, right, f"classic {here + 1 + jump_true}", 32))
            if jump_false:
                lines.append(jump(f"classic {here + 1 + jump_false}"))
        elif code == _RET and value == 0xFFFFFFFF:
            lines.append(jump(kept))
        elif code == _RET:
            lines += [move(R0, value), leave()]
        else:
            raise ValueError(f"classic instruction {code:#x}: not known here")
    return lines

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a program needs before it can run: its interpreter and its libraries, from its ELF headers.

See elf(5). The program may be damaged, or made up: whatever its numbers say, nothing outside of it
is read.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_LOAD, _DYNAMIC, _INTERP = 1, 2, 3
_NEEDED, _STRINGS = 1, 5
_MOST = 1000  #: of anything in a table


class NotElf(Exception):
    """It is no program that a kernel could run; the text says why."""


class Needs(NamedTuple):
    """What has to be there."""

    interpreter: str  #: its path; "" if the program is static
    libraries: tuple[str, ...]  #: their names


def needs(program: bytes) -> Needs:
    """What this program needs. Raises NotElf."""
    if program[:4] != b"\x7fELF" or len(program) < 64 or program[4] not in (1, 2):
        raise NotElf("not a program")
    try:
        return _needs(program)
    except (struct.error, ValueError, OverflowError):
        raise NotElf("a damaged program") from None


def _needs(program: bytes) -> Needs:
    order = ">" if program[5] == 2 else "<"
    wide = program[4] == 2
    table, size, count = (
        struct.unpack_from(f"{order}Q14xHH", program, 32)
        if wide
        else struct.unpack_from(f"{order}I10xHH", program, 28)
    )
    # Kind, offset in the file, address, size in the file.
    fields = f"{order}I4xQQ8xQ" if wide else f"{order}III4xI"
    parts = [
        struct.unpack_from(fields, program, table + number * size)
        for number in range(min(count, _MOST))
    ]
    interpreter, libraries = "", []
    for kind, offset, _, length in parts:
        if kind == _INTERP:
            interpreter = program[offset : offset + length].partition(b"\0")[0].decode("ascii")
        elif kind == _DYNAMIC:
            tags = _tags(program, offset, length, f"{order}{'QQ' if wide else 'II'}")
            strings = next((value for tag, value in tags if tag == _STRINGS), 0)
            start = next(
                (
                    strings - address + at
                    for kind, at, address, size in parts
                    if kind == _LOAD and address <= strings < address + size
                ),
                0,
            )
            for tag, value in tags:
                if tag == _NEEDED and start:
                    name = program[start + value : start + value + 256].partition(b"\0")[0]
                    libraries.append(name.decode("ascii"))
    return Needs(interpreter, tuple(libraries))


def _tags(program: bytes, offset: int, length: int, fields: str) -> list[tuple[int, int]]:
    size = struct.calcsize(fields)
    found: list[tuple[int, int]] = []
    for at in range(offset, offset + min(length, _MOST * size) - size + 1, size):
        tag, value = struct.unpack_from(fields, program, at)
        if not tag:
            break
        found.append((tag, value))
    return found

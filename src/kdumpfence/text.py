# SPDX-License-Identifier: LGPL-2.1-or-later
"""Text that comes from outside: how it is shown, and the whole numbers in it.

What may not be in this file: what a program says, and which numbers it allows.
"""

from __future__ import annotations


def one_line(text: str) -> str:
    """`text` with everything escaped that could break a line or a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
                   for c in text)  # fmt: skip


def shown(text: str) -> str:
    """`text` for a complaint: quoted, in plain ASCII, and never longer than a glance."""
    try:
        given = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        given = text.encode("utf-8", "surrogatepass")
    plain = (
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}"
        for byte in given[:80]
    )
    return "'" + "".join(plain) + "'"


def whole_number(text: str, least: int, most: int) -> int | None:
    """The number that these decimal digits make; None if it is none, or not within the limits."""
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0") or "0"
    # Not int() of anything longer: it refuses more than 4300 digits in a way of its own.
    if len(digits) > len(str(most)) or not least <= int(digits) <= most:
        return None
    return int(digits)

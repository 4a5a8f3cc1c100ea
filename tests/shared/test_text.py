# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is shown is one line of plain text; what is a number."""

from __future__ import annotations

import pytest

from kdumpfence.text import one_line, shown, whole_number


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("1junk", "'1junk'"),
        ("it's", r"'it\x27s'"),
        ("a\\b\n", r"'a\x5cb\x0a'"),
        ("\udcff", r"'\xff'"),
        ("\ud800", r"'\xed\xa0\x80'"),
        ("x" * 100, f"'{'x' * 80}'"),
    ],
)
def test_what_was_given_is_shown_in_one_line_of_plain_text(text: str, line: str) -> None:
    assert shown(text) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("a\nb\r\x1b[31m\0", r"a\nb\r\x1b[31m\x00"),
        ("\udcff", r"\udcff"),
        ("näme", "näme"),
    ],
)
def test_nothing_can_break_the_line_or_the_terminal(text: str, line: str) -> None:
    assert one_line(text) == line


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("007", 7), ("0" * 5000 + "9", 9), ("10", None), ("9" * 5000, None), ("", None),
     ("-1", None), ("1.0", None), (" 1", None), ("\u0663", None), ("\u00b2", None)],
)  # fmt: skip
def test_a_number_is_decimal_digits_within_the_limits(text: str, number: int | None) -> None:
    assert whole_number(text, 0, 9) == number

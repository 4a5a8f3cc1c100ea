# SPDX-License-Identifier: LGPL-2.1-or-later
"""Numbers on the command line, as argparse's `type`: a function for each kind and range."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from fractions import Fraction

from kdumpfence.text import whole_number


def whole(what: str, least: int, most: int) -> Callable[[str], int]:
    """A reader of whole numbers in that range; complaints call them "not `what`"."""

    def read(text: str) -> int:
        number = whole_number(text, least, most)
        if number is not None:
            return number
        raise argparse.ArgumentTypeError(f"{text!r}: not {what} ({least} to {most})")

    return read


def decimal(what: str, most: int, least: int | None = None) -> Callable[[str], Fraction]:
    """A reader of numbers with up to nine decimals; without `least` they are above 0."""
    allowed = f"more than 0, at most {most}" if least is None else f"{least} to {most}"

    def read(text: str) -> Fraction:
        if re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,9})?", text):
            number = Fraction(text)
            if number <= most and (number > 0 if least is None else number >= least):
                return number
        raise argparse.ArgumentTypeError(f"{text!r}: not {what} ({allowed}; at most nine decimals)")

    return read

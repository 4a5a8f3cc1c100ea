# SPDX-License-Identifier: LGPL-2.1-or-later
"""How numbers and times are written for people."""

from __future__ import annotations

import contextlib
from datetime import datetime


def many(count: int, one: str, more: str) -> str:
    """A number with the word that goes with it."""
    return f"{count:,} {one if count == 1 else more}"


def moment(when: float) -> str:
    """A Unix time: local, with its offset, to the millisecond.

    One that no calendar has stands as its number.
    """
    with contextlib.suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(when).astimezone().isoformat(" ", "milliseconds")
    return f"{when:.0f}"

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a check finds."""

from __future__ import annotations

from typing import NamedTuple

#: States of a finding, the best first. What could not be checked is not fine either.
OK = "ok"
UNKNOWN = "unknown"
WARNING = "warning"
FAILS = "fails"
STATES = (OK, UNKNOWN, WARNING, FAILS)


class Finding(NamedTuple):
    """One thing that was looked at."""

    state: str
    check: str  #: what was looked at, in two or three words that stay the same: "memory reserved"
    text: str  #: what was found
    remedy: str = ""  #: what to do, a command where one is enough; "" if all is well


class Unknown(Exception):
    """Something cannot be looked at; the text says what, and why."""


def ok(check: str, text: str) -> Finding:
    """All is well there."""
    return Finding(OK, check, text)


def unknown(check: str, why: str, remedy: str = "") -> Finding:
    """It could not be checked."""
    return Finding(UNKNOWN, check, f"not checked: {why}", remedy)


def warning(check: str, text: str, remedy: str) -> Finding:
    """It may fail, or costs time."""
    return Finding(WARNING, check, text, remedy)


def fails(check: str, text: str, remedy: str) -> Finding:
    """A dump would be lost, or a dead node not be fenced."""
    return Finding(FAILS, check, text, remedy)


def worst(findings: list[Finding]) -> str:
    """The worst state among them."""
    return max((one.state for one in findings), key=STATES.index, default=OK)

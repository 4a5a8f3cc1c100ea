# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a reader is told: dumps, listeners and events, and where events go on. What may not be in
this file: connections.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Seen(NamedTuple):
    """A dump under way, as all listeners see it. Times are Unix times by the database's clock."""

    node: str
    since: float
    last: float
    messages: int
    addresses: tuple[str, ...]
    took: float
    #: Who hears it, or heard it; False: all of them are gone.
    listeners: tuple[str, ...]
    observed: bool


class ListenerState(NamedTuple):
    """How a listener is."""

    name: str
    #: "up", "stopped", or "gone": it has not come for half a minute.
    state: str
    version: str
    #: Seconds since it came last.
    age: float
    dumping: int
    #: Events that it has not handed on.
    waiting: int
    #: Seconds that its clock is behind the database's, and how wrong that may be.
    clock_behind: float
    clock_error: float
    trouble: str


class State(NamedTuple):
    """All of it at a moment, a Unix time by the database's clock."""

    when: float
    listeners: list[ListenerState]
    dumping: int
    #: Those that began last, newest first.
    dumps: list[Seen]


class Event(NamedTuple):
    """Something that happened to a dump. Fields are only added, at the end.

    `kind`: "began", "finished", "failed", "silent"; "resumed": it was taken for over, and is not;
    "unobserved": all who heard it are gone; "observed": one of them is back; "merged": it turned
    out to be another one, `merged_into`.
    """

    number: int
    timeline: int
    kind: str
    dump: int
    node: str
    at: float
    began: float
    last: float
    messages: int
    addresses: tuple[str, ...]
    took: float
    listeners: tuple[str, ...]
    merged_into: int | None
    recorded: float

    @property
    def cursor(self) -> str:
        """Where to go on after this one, for `Cursor.of`."""
        return f"{self.number}-{self.timeline}"


class Missed(NamedTuple):
    """Events that are not there any more, for they are too old."""

    number: int


class Cursor(NamedTuple):
    """After which event: its number, and the timeline that the database had then; 0: not known."""

    number: int
    timeline: int = 0

    @staticmethod
    def of(text: str) -> Cursor:
        """As it is written: 17 or 17-1. ValueError."""
        match = re.fullmatch(r"([0-9]{1,18})(?:-([0-9]{1,9}))?", text)
        if match is None:
            raise ValueError(f"{text!r}: not the number of an event, or a cursor such as 17-1")
        return Cursor(int(match[1]), int(match[2] or 0))

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the database said last of the other listeners, for the status page, out of memory.

The forwarder's thread asks, between two beats; who wants to show it waits for nothing. That it
cannot be had stops nothing either: events are handed on, and the page shows this daemon alone. What
may not be in this file: SQL but the one question, and how it is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from kdumpfence.database import overview
from kdumpfence.database.calls import BEAT
from kdumpfence.database.connection import driver, explained
from kdumpfence.database.overview import Overview

if TYPE_CHECKING:
    import psycopg

#: Seconds that the database may take for it: the next beat must not be late.
PATIENCE = 5.0

#: It gets a twentieth of the time at most, so the next question comes after so many times as long
#: as this one took. One that failed is repeated after that many seconds.
SPARE = 20.0
AGAIN = 60.0


class Around(NamedTuple):
    """What is known of the others."""

    #: None: nothing yet.
    overview: Overview | None
    #: Seconds since it was so.
    age: float
    #: Why there is nothing newer, in one line; "" if nothing is wrong.
    trouble: str


class Neighbours:
    """What is known, and since when."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._newest: tuple[Overview, float] | None = None
        self._next = 0.0
        self._trouble = ""
        self._said = ""

    def around(self, trouble: str) -> Around:
        """From any thread. `trouble`: what is wrong with the database as a whole."""
        newest = self._newest
        if newest is None:
            return Around(None, 0.0, trouble or self._trouble)
        return Around(newest[0], self._clock() - newest[1], trouble or self._trouble)

    def again(self) -> None:
        """There is a new connection."""
        self._next = 0.0

    def ask(self, connection: psycopg.Connection[Any], identity: str) -> str:
        """Ask if it is time to; a line for the log, or "". What a lost connection raises."""
        begun = self._clock()
        if begun < self._next:
            return ""
        module = driver()
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL statement_timeout = {PATIENCE * 1000:.0f}".encode())
                row = connection.execute(b"SELECT kdumpfence.overview(%s)", (identity,)).fetchone()
            found = overview.read(row[0] if row else None)
        except (module.Error, ValueError) as error:
            if connection.closed:
                raise
            return self._failed(str(explained(self._url, error)))
        now = self._clock()
        self._newest, self._trouble, self._said = (found, now), "", ""
        self._next = begun + max(BEAT, SPARE * (now - begun))
        return ""

    def _failed(self, text: str) -> str:
        self._next = self._clock() + AGAIN
        self._trouble = f"nothing of other listeners can be had: {text}"
        if text == self._said:
            return ""
        self._said = text
        return f"{self._trouble}; the status page shows this one alone"

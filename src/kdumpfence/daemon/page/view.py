# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the page shows at a moment, of one listener or of many, and who has to say so.

What may not be in this file: how it looks, and where it comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from kdumpfence.daemon.history_reading import Past
from kdumpfence.daemon.neighbours import Around
from kdumpfence.daemon.status import Status
from kdumpfence.database.seen import Seen
from kdumpfence.listener.events import Dump, Event

#: Dumps under way on a page, and dumps that are over.
ROWS = 100
PAST_ROWS = 50

#: Dumps that are over of which the figures and the chart are made, the last ones.
MOST_PAST = 1000


class Heard(NamedTuple):
    """A listener, as it said last."""

    #: The machine's name.
    name: str
    #: None: it never said anything. `age` is the seconds since it did, to whoever made the view.
    status: Status | None
    #: Seconds without a message after which it takes a dump for over.
    silence: float
    #: Why it cannot be relied on although its status says nothing of it, in one line.
    trouble: str = ""

    @property
    def troubles(self) -> list[str]:
        """All that is wrong with it, a line each."""
        known = self.status.troubles if self.status is not None else ()
        return [line for line in dict.fromkeys((self.trouble, *known)) if line]


class Row(NamedTuple):
    """A dump under way, and the listeners that hear it."""

    dump: Dump
    by: Sequence[str]


class Found(NamedTuple):
    """What is known of the one node that was asked for."""

    node: str
    #: Whether its dump would be heard.
    known: bool
    row: Row | None = None
    #: The end of its last dump.
    ended: Event | None = None
    #: What others hear that is not heard here.
    elsewhere: Seen | None = None


class View(NamedTuple):
    """Everything on a page."""

    #: Unix time.
    when: float
    listeners: Sequence[Heard]
    #: How many nodes are dumping, and, newest first, those from number `skipped` on: ROWS at most.
    dumping: int
    rows: Sequence[Row]
    skipped: int
    #: Dumps that are over, newest first, MOST_PAST at most.
    past: Sequence[Past]
    found: Found | None = None
    #: The dump under way that began first: power is needed for as long as that, at least.
    oldest: Dump | None = None
    #: The listeners that share a database with these; None: there is no database.
    around: Around | None = None


class Source(Protocol):
    """Says what there is to see. Called in the thread of the HTTP server: it must not wait."""

    def view(self, skip: int, node: str) -> View:
        """Now, with dumps under way from the `skip`-th on, and what is known of `node`, if any."""

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the daemon has told of dumps: those under way, and the last that began and ended, numbered.

The main loop tells, the threads that answer look into it. Nothing is in here before it is written
in the history, unless that cannot be written. What may not be in this file: how an answer looks.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from kdumpfence.listener.events import ENDS, Event

#: Beginnings and ends that are kept, for those who follow them. 70 MB, if there were so many.
MOST_EVENTS = 131_072


class Numbered(NamedTuple):
    """Something that was told. Numbers begin with 1 in each life of a daemon and only grow."""

    number: int
    event: Event


class Told:
    """Filled by one thread; any may look."""

    def __init__(self, most: int = MOST_EVENTS) -> None:
        #: Which life of a daemon the numbers are of.
        self.life = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._last = 0
        #: Node -> the number of its beginning, and what was told of it last; as they began.
        self._under_way: dict[str, Numbered] = {}
        self._most = most
        #: By their numbers, without a gap.
        #: The nodes whose dumps under way the history lacks.
        self.unrecorded: set[str] = set()
        self._events: dict[int, Numbered] = {}
        #: The ends among them, in their order, and of each node the last one.
        self._ended: deque[Numbered] = deque()
        self._ends: dict[str, Numbered] = {}

    def tell(self, event: Event, recorded: bool = True) -> Event | None:
        """Tell this; what was told of this dump before it, if it was under way."""
        kind, node = event.kind, event.node
        ends = kind in ENDS
        with self._lock:
            if recorded or ends:
                self.unrecorded.discard(node)
            else:
                self.unrecorded.add(node)
            before = self._under_way.get(node)
            if before is not None:
                if kind == "dumping":
                    self._under_way[node] = Numbered(before.number, event)
                    return before.event
                del self._under_way[node]  # what begins is the last one there
            self._last += 1
            new = Numbered(self._last, event)
            if ends:
                self._ends[node] = new
            else:
                self._under_way[node] = new
            if len(self._events) == self._most:
                self._forget(self._events.pop(self._last - self._most))
            self._events[self._last] = new
            if ends:
                self._ended.append(new)
            return None if before is None else before.event

    def _forget(self, oldest: Numbered) -> None:
        if self._ends.get(oldest.event.node) == oldest:
            del self._ends[oldest.event.node]
        if self._ended and self._ended[0] is oldest:
            self._ended.popleft()

    def __len__(self) -> int:
        """How many dumps are under way."""
        return len(self._under_way)

    def __iter__(self) -> Iterator[str]:
        """The nodes that are dumping; for the thread that tells."""
        return iter(self._under_way)

    def get(self, node: str) -> Event | None:
        """What was told last of this node's dump; None if it is not dumping."""
        found = self._under_way.get(node)
        return None if found is None else found.event

    def end_of(self, node: str) -> Event | None:
        """The last end of a dump of this node, if it is among those that are kept."""
        found = self._ends.get(node)
        return None if found is None else found.event

    def oldest(self, most: int) -> list[Event]:
        """The dumps under way that began first."""
        with self._lock:
            return [one.event for one in islice(self._under_way.values(), most)]

    def newest(self, most: int, skip: int = 0) -> list[Event]:
        """The dumps under way that began last, newest first; all but the first `skip` of them."""
        with self._lock:
            newest = reversed(self._under_way.values())
            return [one.event for one in islice(newest, skip, skip + most)]

    def page(self, after: int, most: int) -> list[Numbered]:
        """The dumps under way whose beginning has a number above `after`, in their order."""
        with self._lock:
            later = (one for one in self._under_way.values() if one.number > after)
            return list(islice(later, most))

    def ended(self, before: int | None, most: int) -> list[Numbered]:
        """The last ends, of those with a number below `before` if it is given, newest first."""
        with self._lock:
            ends = (one for one in reversed(self._ended) if not before or one.number < before)
            return list(islice(ends, most))

    def events(self, after: int, most: int) -> tuple[list[Numbered], int]:
        """What was told with a number above `after`, in its order; how many of that are gone."""
        with self._lock:
            first = max(after, self._last - len(self._events)) + 1
            end = min(first + most, self._last + 1)
            return [self._events[number] for number in range(first, end)], max(0, first - 1 - after)

    @property
    def last(self) -> int:
        """The number of what was told last."""
        return self._last

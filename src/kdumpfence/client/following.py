# SPDX-License-Identifier: LGPL-2.1-or-later
"""Follows what begins and ends at a daemon, over its restarts and those of the network between.

What may not be in this file: sockets.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Literal, NamedTuple, Union

from kdumpfence.client.errors import Unreachable
from kdumpfence.listener.events import Event
from kdumpfence.text import whole_number

if TYPE_CHECKING:
    from kdumpfence.client.client import Client

#: Seconds that one question waits at the daemon.
_WAIT = 30.0

#: Seconds between two tries to reach it: doubled from the first to the last.
_RETRY_FIRST, _RETRY_LAST = 0.1, 5.0

_MOST_NUMBER = (1 << 53) - 1


class Missed(NamedTuple):
    """Something was missed: ask for `dumps()` again, and compare."""

    kind: Literal["missed"]
    #: "": this is about no node. It is here for loops that look at `kind` and `node` alone.
    node: str
    #: When it was noticed, Unix time by this machine's clock.
    when: float
    #: How many beginnings and ends the daemon did not keep; 0 if it was restarted.
    number: int
    #: The daemon was restarted. What goes on since before comes next, as "dumping".
    restarted: bool


class Events:
    """What begins and ends, as an endless iterator; `Client.events` makes it.

    While the daemon cannot be reached it tries again; after `patience` seconds it raises
    Unreachable, and goes on where it was when it is asked for the next one. For one thread at a
    time.
    """

    def __init__(self, client: Client, after: str | None, patience: float) -> None:
        self._client = client
        self.patience = patience
        self._found: deque[tuple[Event | Missed, int]] = deque()
        if after is None:
            begun = client.follow()
            self._life, self._last = begun.life, begun.last
        else:
            life, dash, number = after.rpartition("-")
            last = whole_number(number, 0, _MOST_NUMBER)
            if not dash or not life or last is None:
                raise ValueError(f"place {after!r}: not one that an iterator had")
            self._life, self._last = life, last
        self._asked = self._life, self._last

    @property
    def place(self) -> str:
        """After what was taken last: for `Client.events`, also of another process."""
        return f"{self._life}-{self._last}"

    def next(self, timeout: float | None = None) -> Event | Missed | None:
        """The next one; None if there was none within `timeout` seconds (None: no end)."""
        until = None if timeout is None else time.monotonic() + timeout
        lost: float | None = None
        pause = _RETRY_FIRST
        while not self._found:
            left = _WAIT if until is None else min(_WAIT, until - time.monotonic())
            asked = time.monotonic()
            try:
                self._ask(max(0.0, left))
                lost = None
                if not self._found and time.monotonic() - asked < left / 2:
                    time.sleep(min(_RETRY_LAST, left / 2))  # it does not wait: an older version
            except Unreachable:
                now = time.monotonic()
                lost = now if lost is None else lost
                if now - lost >= self.patience:
                    raise
                if until is None or now + pause < until:
                    time.sleep(pause)
                elif now < until:
                    time.sleep(until - now)
                pause = min(2 * pause, _RETRY_LAST)
            if until is not None and time.monotonic() >= until:
                break
        if not self._found:
            return None
        found, number = self._found.popleft()
        self._life, self._last = self._asked[0], number
        return found

    def _ask(self, wait: float) -> None:
        life, last = self._asked
        found = self._client.follow(last, life, wait)
        now = time.time()
        first = found.last - len(found.events)
        if found.restarted or found.life != life:
            self._found.append((Missed("missed", "", now, 0, True), 0))
        if found.missed:
            self._found.append((Missed("missed", "", now, found.missed, False), first))
        for number, event in enumerate(found.events, first + 1):
            self._found.append((event, number))
        self._asked = found.life, found.last

    def close(self) -> None:
        """Hang up; the next one connects again."""
        self._client.close()

    def __iter__(self) -> Events:
        return self

    def __next__(self) -> Event | Missed:
        while True:
            found = self.next()
            if found is not None:
                return found

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


#: What an iterator over events yields: `kind` says which of the two it is.
AnyChange = Union[Event, Missed]

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What began and ended, as it happens: server-sent events (HTML Living Standard, 9.2).

    id: 0123456789abcdef-13
    event: began
    data: {"number": 13, "kind": "began", ...}

Each stream begins with an event "start". Ids are a daemon's life and a number in it, so a client
that comes back (Last-Event-ID) gets what it missed, or is told that it cannot. What may not be in
this file: HTTP.
"""

from __future__ import annotations

import time

from kdumpfence.daemon.json_text import event_text
from kdumpfence.daemon.told import Told

#: Seconds after which a stream says that it is still there.
HEARTBEAT = 15.0

#: Events in a piece: a millisecond, after which others have their turn.
_MOST = 200


class EventStream:
    """The events after a number, and then those that come, as `bounded_server.More`."""

    def __init__(self, told: Told, after: int, restarted: bool) -> None:
        self._told = told
        self._after = after
        self._restarted = restarted
        self._started = False
        self.due = time.monotonic() + HEARTBEAT

    def next(self) -> bytes | None:
        """The next piece; it never ends."""
        pieces = [] if self._started else [self._start()]
        self._started = True
        page, missed = self._told.events(self._after, _MOST)
        if missed:
            self._after += missed
            pieces.append(f'event: missed\ndata: {{"missed": {missed}}}\n\n')
        life = self._told.life
        for number, event in page:
            text = event_text(number, event)
            pieces.append(f"id: {life}-{number}\nevent: {event.kind}\ndata: {text}\n\n")
            self._after = number
        now = time.monotonic()
        if not pieces and now >= self.due:
            pieces.append(":\n\n")
        if pieces:
            self.due = now + HEARTBEAT
        return "".join(pieces).encode()

    def _start(self) -> str:
        life, after = self._told.life, self._after
        restarted = "true" if self._restarted else "false"
        return (
            f"retry: 1000\nid: {life}-{after}\nevent: start\n"
            f'data: {{"when": {round(time.time(), 3)!r}, "life": "{life}", '
            f'"restarted": {restarted}, "after": {after}}}\n\n'
        )

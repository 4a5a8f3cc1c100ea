# SPDX-License-Identifier: LGPL-2.1-or-later
"""The way of what happens: heard by the listener, written down by the recorder, and told then.

Told to the log, to those who ask or follow, to the database. What may not be in this file: what
any of them makes of it, and when it is time to do any of this.
"""

from __future__ import annotations

import contextlib
import math
import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from kdumpfence.daemon import restart
from kdumpfence.daemon.log import Journal
from kdumpfence.daemon.published import Published
from kdumpfence.daemon.recorder import Recorder
from kdumpfence.daemon.told import Told
from kdumpfence.listener.events import AnyEvent, Dump
from kdumpfence.listener.listener import Listener

if TYPE_CHECKING:
    from kdumpfence.daemon.forwarder import Forwarder

#: Events that are written down at a time, about: each time the disk has to confirm it.
BATCH = 32_768

#: Seconds for which they are gathered, at most: there may always be one more.
GATHER = 0.06

#: Seconds for which the history writes before those who answer see for themselves what was heard,
#: and between two times that they do.
SLOW = 0.1

#: Seconds at the end for writing down what was heard, at most: systemd waits for ten.
LAST_WORDS = 3.0


class Teller:
    """Of this listener, with this recorder. `news` is called when something was told."""

    def __init__(
        self,
        listener: Listener,
        recorder: Recorder,
        told: Told,
        journal: Journal,
        published: Published,
        forwarder: Forwarder | None,
        news: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._recorder = recorder
        self._told = told
        self._journal = journal
        self._published = published
        self._forwarder = forwarder
        self._news = news
        self._stood = False  # whether the history has any figures
        #: When the history was last given something to write that it has not written yet.
        self._writing_since = math.inf
        self._next_look = 0.0

    def restore(self, dumps: list[Dump]) -> None:
        """See `restart.restore`. Before anything is taken."""
        over = self._recorder.over()
        gone = restart.restore(dumps, over, self._listener, self._told, self._journal)
        self._tell(self._recorder.record(gone))

    def take(self) -> None:
        """What happened is written down, and told then."""
        events: list[AnyEvent] = []
        until = time.monotonic() + GATHER
        while len(events) < BATCH and time.monotonic() < until:
            more = self._listener.events(0)
            if not more:
                break
            events += more
        self._writing_since = time.monotonic()
        told = self._recorder.record(events)
        self._writing_since = math.inf
        self._tell(told)

    def stand(self) -> None:
        """Write down what no event tells: how far dumps are whose messages the kernel counts."""
        figures = self._listener.figures()
        if figures or self._stood:
            self._recorder.stand(figures)
        self._stood = bool(figures)

    def look(self) -> None:
        """For the threads that answer: what was heard is seen to, though the main loop writes."""
        now = time.monotonic()
        if now - self._writing_since > SLOW and now >= self._next_look:
            self._next_look = now + SLOW
            with contextlib.suppress(RuntimeError):
                self._listener.dumps([])

    def finish(self, alive: Callable[[], None]) -> None:
        """Write down and tell what is still to be had; calls `alive` now and then."""
        poller = select.poll()
        poller.register(self._listener.fileno(), select.POLLIN)
        until = time.monotonic() + LAST_WORDS
        with contextlib.suppress(OSError, RuntimeError):
            self.take()
            # A hundred thousand nodes that panic are more than a round takes.
            while poller.poll(0) and time.monotonic() < until:
                self.take()
                alive()
        self._tell(self._recorder.finish())
        with contextlib.suppress(OSError, RuntimeError):
            self._recorder.record(restart.unwritten(self._listener, self._told))

    def _tell(self, events: list[tuple[AnyEvent, bool]]) -> None:
        """Tell these; with each whether it is written."""
        if events and self._forwarder is not None:
            self._forwarder.wake()
        for event, recorded in events:
            self._journal.event(event, recorded=recorded)
            if event.kind == "overflow":
                continue
            self._published.happened(event, self._told.tell(event, recorded))
        if events:
            self._news()

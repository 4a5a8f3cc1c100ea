# SPDX-License-Identifier: LGPL-2.1-or-later
"""Taking the events of a `Listener`: in a thread, from a signal handler, in asyncio, by poll.

What may not be in this file: where events come from (`event_queue`).
"""

from __future__ import annotations

import math
import os
import time

from kdumpfence.listener.event_queue import EventQueue
from kdumpfence.listener.events import AnyEvent, ListenerClosed
from kdumpfence.listener.reader import Reader
from kdumpfence.listener.threads import wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import TypeVar

    from kdumpfence.listener.bell import Bell

    Itself = TypeVar("Itself", bound="Taking")

#: Seconds; a signal that came just before a poll does not end it, so none is longer.
SLICE = 0.5

#: What is said to those who use one that is closed.
CLOSED = "this Listener is closed: make a new one"


class Taking:
    """The part of a `Listener` that hands out its events."""

    _reader: Reader | None = None
    _events: EventQueue

    def events(self, timeout: float | None = None) -> list[AnyEvent]:
        """What happened; waits for it at most `timeout` seconds (None: no end).

        [] if nothing did, or the Listener is closed: `next_event` tells these two apart. At most
        some thousand at a time: call it again. RuntimeError if the reading thread has died.
        """
        bell = self._in_use.bell
        until = _end(timeout)
        with bell.held() as usable:
            while usable and not bell.closed:
                if not self._events:
                    rest = min(self._events.rest_until, until) - time.monotonic()
                    if rest > 0:
                        time.sleep(rest)
                    self._events.collect()
                taken = self._events.take()
                if taken:
                    return taken
                left = until - time.monotonic()
                if left <= 0:
                    break
                wait_readable(bell.readable, min(left, SLICE))
        return []

    def next_event(self, timeout: float | None = None) -> AnyEvent | None:
        """The next thing that happened; None if nothing did within `timeout` seconds.

        Without `timeout` it waits for ever. ListenerClosed if it was closed, before or meanwhile,
        and RuntimeError as `events`.
        """
        until = _end(timeout)
        while not self.closed:
            try:
                return self._events.pop()
            except IndexError:
                left = until - time.monotonic()
                found = self.events(None if timeout is None else max(0.0, left))
                self._events.put_back(found)
                if not found and left <= 0:
                    break
        if self.closed:
            raise ListenerClosed(CLOSED)
        return None

    def __iter__(self: Itself) -> Itself:
        return self

    def __next__(self) -> AnyEvent:
        while not self.closed:
            try:
                return self._events.pop()
            except IndexError:
                self._events.put_back(self.events())
        raise StopIteration

    def __aiter__(self: Itself) -> Itself:
        return self

    async def __anext__(self) -> AnyEvent:
        import asyncio  # those who get here have it anyway

        while not self.closed:
            if not self._events:
                # Others have their turn, even if there is no end of events.
                await asyncio.sleep(max(0.0, self._events.rest_until - time.monotonic()))
                self._events.collect()
            try:
                event = self._events.pop()
            except IndexError:
                await _rung(self._in_use.bell)
                continue
            self._events.ring_for_the_rest()
            return event
        raise StopAsyncIteration

    def fileno(self) -> int:
        """A descriptor that can be read when there are events, for poll; -1 when closed.

        Not for reading: call `events(0)` then, which may come to nothing all the same.
        """
        return -1 if self.closed else self._in_use.bell.readable

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._in_use.bell.closed

    @property
    def _in_use(self) -> Reader:
        if self._reader is None:
            raise RuntimeError("this Listener was not initialised")
        return self._reader


def _end(timeout: float | None) -> float:
    """Until when it is waited, by CLOCK_MONOTONIC."""
    if timeout is None:
        return math.inf
    if math.isnan(timeout):
        raise ValueError(f"timeout {timeout}: must be a number of seconds")
    return time.monotonic() + timeout


async def _rung(bell: Bell) -> None:
    """Wait for the bell in this task's event loop."""
    import asyncio

    with bell.held() as usable:
        if not usable:
            return
        # One of its own: several tasks may wait, and it stays when the bell is closed.
        fd = os.dup(bell.readable)
    loop = asyncio.get_running_loop()
    rung: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(fd, _set, rung)
        await rung
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

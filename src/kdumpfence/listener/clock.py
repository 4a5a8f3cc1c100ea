# SPDX-License-Identifier: LGPL-2.1-or-later
"""The clock that a `Listener` decides by, and what its times are as Unix times.

Decisions need a clock that only goes forward, users want Unix times, and the system's clock may
be set in between, or have been wrong before a restart. What may not be in this file: decisions.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from typing import TypeVar

from kdumpfence.listener.events import Dump, Event

#: Seconds by which the system's clock has to jump to be followed.
CLOCK_STEP = 0.5
MOST_CLOCK_STEPS = 64

Told = TypeVar("Told", Event, Dump)


class Clock:
    """A clock that only goes forward. All its times are float seconds.

    Its times begin as Unix times and then follow CLOCK_MONOTONIC. When the system's clock is
    set, later times are told by the new one; earlier ones, and so the beginning of a dump,
    stay what they were.
    """

    def __init__(self) -> None:
        #: What is added to a time of CLOCK_MONOTONIC to have one of this clock.
        self.base = time.time() - time.monotonic()
        #: When the system's clock was set, and by how much it leads from the beginning and since
        #: each of these. Replaced as one, for `told` is called without a lock.
        self._line: tuple[list[float], list[float]] = ([], [0.0])
        #: Restored, and begun later than the clock says that it is: node -> (first message, and
        #: by how much its times are ahead of the clock).
        self._ahead: dict[str, tuple[float, float]] = {}

    def now(self) -> float:
        """The time on this clock."""
        return time.monotonic() + self.base

    def follow(self) -> None:
        """See whether the system's clock was set."""
        now = self.now()
        lead = time.time() - now
        steps, leads = self._line
        if abs(lead - leads[-1]) > CLOCK_STEP:
            steps, leads = [*steps, now], [*leads, lead]
            self._line = (steps[-MOST_CLOCK_STEPS:], leads[-MOST_CLOCK_STEPS - 1 :])

    def unix(self, moment: float) -> float:
        """A time of this clock as Unix time."""
        steps, leads = self._line
        return moment + leads[bisect_right(steps, moment)]

    @property
    def unix_base(self) -> float:
        """What is added to a time of CLOCK_MONOTONIC of now to have a Unix time."""
        return self.base + self._line[1][-1]

    def told(self, what: Told) -> Told:
        """An event or a dump with Unix times instead of this clock's."""
        told = what
        if self._line[0]:
            told = told._replace(since=self.unix(what.since), last=self.unix(what.last))
            if isinstance(told, Event):
                told = told._replace(when=self.unix(told.when))
        restored = self._ahead.get(what.node)
        if restored is not None:
            since, ahead = restored
            told = told._replace(since=since, last=what.last + ahead)
        return told

    def all_told(self, dumps: list[Dump]) -> list[Dump]:
        """The same for all of them; at once where the two clocks never differed."""
        return [self.told(dump) for dump in dumps] if self._line[0] or self._ahead else dumps

    def restored(self, dump: Dump) -> Dump:
        """A dump from before a restart in times of this clock; it is `told` as it was."""
        now = self.now()
        ahead = max(dump.since, dump.last) - now
        if ahead <= 0:
            return dump
        # The clock was set back meanwhile, or will be right only later. The dump keeps the times
        # and the length that it had; its silence counts from now.
        self._ahead[dump.node] = (dump.since, ahead)
        return dump._replace(since=dump.since - ahead, last=now)

    def rename(self, node: str, name: str) -> None:
        """The dump of this node goes on under another name."""
        if node in self._ahead:
            self._ahead[name] = self._ahead[node]

    def forget(self, node: str) -> None:
        """The dump of this node is over."""
        self._ahead.pop(node, None)

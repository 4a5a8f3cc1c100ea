# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hands what happened to the history, and holds it while the history cannot be written.

One rule holds all through: what happened is written first, and told only then, so no event that
anybody was told of is lost with a kill -9. What may not be in this file: SQL, and what an event
looks like to people.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Container, Iterable
from typing import TypeVar

from kdumpfence.daemon.formats import many
from kdumpfence.daemon.history import History, HistoryError, HistoryInUse
from kdumpfence.daemon.history_reading import Past
from kdumpfence.daemon.outbox import Outbox
from kdumpfence.listener.events import AnyEvent, Dump, Event

#: Seconds between two tries to write to a history that failed: doubled from the first to the
#: last.
RETRY_FIRST = 0.5
RETRY_LAST = 10.0

#: Seconds for which what happened waits for the history before it is told all the same.
HOLD = 2.0

#: Dumps that wait for the history at most. One takes some 500 bytes.
MOST_HELD = 262_144


Done = TypeVar("Done")


class Recorder:
    """The history, and a memory for what it could not take.

    While it fails, what happened is held back: for `HOLD` seconds from everybody, since it may
    be a short lock; then it is told, marked as not recorded, for somebody may have to decide
    whether a node's power is cut, and the next try goes on. Of each dump only the newest is
    held, and of dumps MOST_HELD at most: then those that were held longest are given up, and
    counted; those of nodes that nobody named before all others.
    """

    def __init__(
        self,
        path: str,
        complain: Callable[[str, str], None],
        open_history: Callable[[str], History] = History,
        clock: Callable[[], float] = time.monotonic,
        most_held: int = MOST_HELD,
    ) -> None:
        #: Dumps that the history may have, and the nodes whose dumps go before all others.
        self.most = 1 << 60
        self.named: Container[str] = ()
        self._path = path
        self._complain = complain
        self._open_history = open_history
        self._clock = clock
        self._most_held = most_held
        self._history: History | None = None
        self._held: dict[tuple[str, float], Event] = {}
        # Those of them whose node nobody named, which are given up first.
        self._strangers: dict[tuple[str, float], None] = {}
        self._untold: list[Event] = []
        self._failing_since: float | None = None
        self._next_try = 0.0
        self._delay = RETRY_FIRST
        self._read = False
        self._amended: list[str] = []
        #: What is wrong with it, "" if nothing is.
        self.trouble = ""
        self.errors = 0
        #: Dumps that were given up.
        self.lost = 0

    @property
    def held(self) -> int:
        """Dumps whose newest is not written."""
        return len(self._held)

    def under_way(self) -> list[Dump]:
        """What was under way when the history was written last; [] if it cannot be read.

        HistoryInUse if another daemon writes to it.
        """
        now = self._clock()
        try:
            dumps = self._opened().under_way()
        except HistoryInUse:
            raise
        except HistoryError as error:
            self._failed(error, now)
            return []
        self._read = True
        return dumps

    def over(self) -> list[Event]:
        """The ends that nodes told of their last dumps, if they may still be heard of."""
        return self._try(lambda history: history.over()) or []

    def past(self, most: int) -> list[Past]:
        """The dumps that were recorded last; [] if they cannot be read."""
        return self._try(lambda history: history.past(most=most)) or []

    def record(self, events: Iterable[AnyEvent]) -> list[tuple[AnyEvent, bool]]:
        """Write this and what is held; what may be told now, and whether it is written."""
        about_dumps: list[Event] = []
        told: list[tuple[AnyEvent, bool]] = []
        for event in events:
            if event.kind == "overflow":
                told.append((event, True))
            else:
                about_dumps.append(event)
        if self._failing_since is None and not about_dumps:
            return told
        now = self._clock()
        if self._failing_since is None or now >= self._next_try:
            try:
                history = self._opened()
                everything = [*self._left_over(history), *self._held.values(), *about_dumps]
                history.record(everything, self.most, self.named)
            except HistoryError as error:
                self._failed(error, now)
                now = self._clock()
            else:
                self._worked()
                told += [(event, True) for event in [*self._untold, *about_dumps]]
                self._untold.clear()
                return told
        self._hold(about_dumps)
        if self._failing_since is not None and now - self._failing_since >= HOLD:
            told += [(event, False) for event in self._untold]
            self._untold.clear()
        return told

    def _left_over(self, history: History) -> list[Event]:
        """The ends of what was under way before the start, if that could not be read then.

        It cannot be restored any more; what still sends has begun anew meanwhile.
        """
        if self._read:
            return []
        ends = [
            Event("silent", dump.node, time.time(), *dump[1:])
            for dump in history.under_way()
            if (dump.node, dump.since) not in self._held
        ]
        self._read = True
        return ends

    def look(self) -> None:
        """See whether the file is still where it was, and look after it if it is not."""
        self._try(lambda history: history.look())

    def trim(self, age: float) -> int:
        """Remove what was over for so many seconds of a daemon's life, and what is too much;
        how many dumps were removed.
        """
        return self._try(lambda history: history.trim(age, self.most)) or 0

    def stand(self, figures: bytes) -> None:
        """Write down what is newest of dumps under way: `Listener.figures`."""
        self._try(lambda history: history.stand(figures))

    def hand_over(self, upto: int, renumber: int = 0, refused: Collection[int] = ()) -> bool:
        """See `History.hand_over`; whether it was done."""

        def work(history: History) -> bool:
            history.hand_over(upto, renumber, refused)
            return True

        return bool(self._try(work))

    @property
    def outbox(self) -> Outbox | None:
        """What is to be handed on, if anything is and the file is open."""
        return None if self._history is None else self._history.outbox

    def mark(self) -> None:
        """`named` has changed."""
        self._try(lambda history: history.mark(self.named))

    def finish(self) -> list[tuple[AnyEvent, bool]]:
        """Try for the last time; what is still to be told then, whether it is written or not."""
        self._next_try = 0.0
        told = self.record([])
        told += [(event, False) for event in self._untold]
        self._untold.clear()
        return told

    def close(self) -> None:
        """Close the file; says what could not be written."""
        if self._held:
            dumps = many(len(self._held), "dump", "dumps")
            self._complain("error", f"history: what was last heard of {dumps} could not be written")
        if self._history is not None:
            self._history.close()
            self._history = None

    def _try(self, work: Callable[[History], Done]) -> Done | None:
        """Do this with the history; None if it fails, or fails at the moment."""
        if self._failing_since is not None or self._history is None:
            return None
        now = self._clock()
        try:
            return work(self._history)
        except HistoryError as error:
            self._failed(error, now)
            return None

    def _opened(self) -> History:
        if self._history is None:
            self._history = self._open_history(self._path)
            for line in self._history.amended:
                if line not in self._amended:
                    self._amended.append(line)
                    self._complain("warning", f"history: {line}")
            self._history.mark(self.named)
        return self._history

    def _hold(self, events: list[Event]) -> None:
        for event in events:
            key = (event.node, event.since)
            self._held.pop(key, None)
            self._held[key] = event
            self._strangers.pop(key, None)
            if event.node not in self.named:
                self._strangers[key] = None
        while len(self._held) > self._most_held:
            key = next(iter(self._strangers or self._held))
            del self._held[key]
            self._strangers.pop(key, None)
            self.lost += 1
        # Between a failure and the end of HOLD this can be no more than happened in a moment.
        self._untold += events

    def _failed(self, error: HistoryError, now: float) -> None:
        """What was tried at `now` did not work."""
        self.errors += 1
        if self._failing_since is None:
            self._failing_since = now
            self._delay = RETRY_FIRST
        if str(error) != self.trouble:
            self.trouble = str(error)
            self._complain("error", f"history: {error}; still listening, will try again")
        # What was repaired meanwhile has to be opened anew. But a file that nobody else finds any
        # more would be lost with that: it puts itself back first.
        if self._history is not None and self._history.in_place:
            self._history.close()
            self._history = None
        self._next_try = self._clock() + self._delay
        self._delay = min(2 * self._delay, RETRY_LAST)

    def _worked(self) -> None:
        if self._failing_since is not None:
            seconds = self._clock() - self._failing_since
            self._complain(
                "warning",
                f"history: works again after {seconds:.1f} s; wrote {len(self._held)} held dumps, "
                f"lost {self.lost}",
            )
        self._failing_since = None
        self.trouble = ""
        self._held.clear()
        self._strangers.clear()

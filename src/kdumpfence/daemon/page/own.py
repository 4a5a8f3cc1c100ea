# SPDX-License-Identifier: LGPL-2.1-or-later
"""What this daemon shows on the page: what it published, told and was told, out of memory.

Past dumps are those that the history had at the start, and those that ended since. The file is
not read again: the HTTP server's thread must not wait for a disk, for it also says whether the
daemon is well. What may not be in this file: how it looks.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from kdumpfence.daemon import control
from kdumpfence.daemon.history_reading import Past
from kdumpfence.daemon.neighbours import Around
from kdumpfence.daemon.page.view import MOST_PAST, ROWS, Found, Heard, Row, View
from kdumpfence.daemon.status import Status
from kdumpfence.daemon.told import Told
from kdumpfence.listener.events import Event


class Own:
    """A page's source; see `control.Answers` for the first three parameters.

    `trouble`: what keeps the daemon from its work, from any thread, "" if nothing does. `before`:
    past dumps of the time before the start. `around`: what is known of other listeners, if a
    database is shared with some.
    """

    def __init__(
        self,
        told: Told,
        figures: control.Figures,
        listens_for: Callable[[str], bool],
        name: str,
        silence: float,
        trouble: Callable[[], str],
        before: Iterable[Past] = (),
        around: Callable[[], Around | None] = lambda: None,
    ) -> None:
        self._told = told
        self._figures = figures
        self._listens_for = listens_for
        self._name = name
        self._silence = silence
        self._trouble = trouble
        self._around = around
        self._before = [dump for dump in before if dump.ended is not None][:MOST_PAST]
        self._ended: deque[Past] = deque(maxlen=MOST_PAST)  # newest first
        self._past: list[Past] | None = None
        self._published: tuple[Status | Callable[[], Status], float] | None = None

    def publish(self, status: Status | Callable[[], Status]) -> None:
        """As `daemon.questions.Questions.publish`."""
        self._published = (status, time.monotonic())

    def ended(self, event: Event) -> None:
        """A dump is over. From the main loop."""
        self._ended.appendleft(as_past(event))
        self._past = None

    def view(self, skip: int, node: str) -> View:
        """See `Source`."""
        dumps = control.current(self._told.newest(ROWS, skip), self._figures)
        around = self._elsewhere()
        return View(
            time.time(),
            [Heard(self._name, self._status(), self._silence, self._trouble())],
            len(self._told),
            [Row(dump, (self._name,)) for dump in dumps],
            skip,
            self._over(),
            self._find(node, around) if node else None,
            next(iter(control.current(self._told.oldest(1), self._figures)), None),
            around,
        )

    def _elsewhere(self) -> Around | None:
        """Without what is heard here and the database did not know yet."""
        around = self._around()
        if around is None or around.overview is None:
            return around
        known = around.overview
        dumps = [dump for dump in known.dumps if self._told.get(dump.node) is None]
        dumping = known.dumping - (len(known.dumps) - len(dumps))
        return around._replace(overview=known._replace(dumps=dumps, dumping=dumping))

    def _status(self) -> Status | None:
        published = self._published
        if published is None:
            return None
        newest, when = published
        status = newest if isinstance(newest, Status) else newest()
        return status._replace(age=time.monotonic() - when)

    def _over(self) -> list[Past]:
        """Newest end first. Of two ends of one dump that contradict each other the later counts."""
        past = self._past
        if past is None:
            newest: dict[tuple[str, float], Past] = {}
            for dump in (*self._ended.copy(), *self._before):
                newest.setdefault((dump.node, dump.since), dump)
            past = self._past = list(newest.values())[:MOST_PAST]
        return past

    def _find(self, node: str, around: Around | None) -> Found:
        under_way, ended = self._told.get(node), self._told.end_of(node)
        row = None
        if under_way is not None:
            (dump,) = control.current([under_way], self._figures)
            row = Row(dump, (self._name,))
        known = around.overview.dumps if around is not None and around.overview is not None else ()
        elsewhere = next((dump for dump in known if dump.node == node), None)
        return Found(node, self._listens_for(node), row, ended, elsewhere)


def as_past(event: Event) -> Past:
    """The end of a dump as the history would have it."""
    return Past(
        event.node,
        event.since,
        event.last,
        event.when,
        event.messages,
        event.addresses,
        event.took,
        event.kind,
        event.sessions,
    )

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Past and present dumps on disk: who crashed when, how long it took, from which address.

One SQLite file, which is all that survives a daemon that is killed or a power cut. It is opened,
read and written here, each time under the lock and in a transaction. Where the file is, who may
read it and whether it is whole: history_file.py. What its rows say: history_reading.py. Which row
an event changes: history_rows.py. What is removed: history_limits.py. Who is dumping is decided in
listener/dumps.py, and what people are shown is in cli/history.py.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Container, Iterable

from kdumpfence.daemon import history_limits as limits
from kdumpfence.daemon import history_reading as reading
from kdumpfence.daemon.history_file import (
    MODE,
    PATH,
    SCHEMA,
    HistoryError,
    HistoryFile,
    HistoryInUse,
)
from kdumpfence.daemon.history_reading import Past
from kdumpfence.daemon.history_rows import Changes, Rows
from kdumpfence.daemon.outbox import Outbox
from kdumpfence.listener.events import ENDS, Dump, Event

__all__ = ["PATH", "History", "HistoryError", "HistoryInUse"]

#: The kinds of events that say something about a dump.
KINDS = ("began", "dumping", *ENDS)


class History:
    """The file at `path`, opened, or created when `writable`. From any thread, one at a time.

    Of daemons only one can have it open; `mode` (as of chmod) is who may read it. `clock` tells
    seconds; nobody may be able to set it. `spool`: what happens goes into an outbox as well.
    Raises HistoryError when it cannot be used, HistoryInUse if another daemon uses it. What is
    damaged or foreign is left as it is.
    """

    def __init__(
        self,
        path: str = PATH,
        writable: bool = True,
        mode: int = MODE,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        spool: bool = False,
    ) -> None:
        self._file = HistoryFile(path, writable, mode, spool)
        self._writable = writable
        #: What is to be handed on, if anything is.
        self.outbox: Outbox | None = None
        self._pushed_out = 0  # dumps that `record` has removed to make room
        self._lock = threading.Lock()
        self._rows = Rows()
        self._age = limits.Age(clock)
        self._count = 0  # dumps in it
        with self._file.explained():
            self._open()
        self._form = SCHEMA if writable else self._file.schema

    @property
    def amended(self) -> list[str]:
        """What was amended when the file was opened, a line each."""
        return self._file.amended

    @property
    def in_place(self) -> bool:
        """Whether the open files are those that others find by their names."""
        return self._file.in_place

    def record(
        self, events: Iterable[Event], most: int = 1 << 60, named: Container[str] | None = None
    ) -> None:
        """Write down what happened, in one transaction; it is on the disk when this returns.

        After a HistoryError the same events can be given again. Events of one dump are cumulative,
        so of several in one call the last one counts. Events of other kinds than KINDS are left
        out. Then there are `most` dumps at most, and those under way of nodes in `named` (None:
        of all nodes).
        """
        about_dumps = [event for event in events if event.kind in KINDS]
        newest = {(event.node, event.since): event for event in about_dumps}
        with self._lock, self._file.explained():
            if not newest:
                return
            self._follow()
            self._write(newest, most, named, about_dumps)
            self._follow()  # nobody is told before it is where the next one will look for it

    def look(self) -> None:
        """See whether the file is still where it was; what was taken away is put back."""
        with self._lock, self._file.explained():
            self._follow()

    def mark(self, named: Container[str]) -> None:
        """Nodes that are in `named` have a name in the settings, all others have not."""
        with self._lock, self._file.explained():
            self._file.db.create_function("is_named", 1, lambda node: int(node in named))
            wrong = "WHERE named <> is_named(node)"
            # First looked for, which needs no lock.
            if self._file.db.execute(f"SELECT 1 FROM dump {wrong} LIMIT 1").fetchone():  # noqa: S608
                with self._file.transaction():
                    self._file.db.execute(f"UPDATE dump SET named = is_named(node) {wrong}")  # noqa: S608
            self._rows.mark(named)

    def under_way(self) -> list[Dump]:
        """The dumps that were not over when they were last heard of, oldest first."""
        with self._lock, self._file.explained():
            return reading.under_way(self._file.db, self._form)

    def over(self) -> list[Event]:
        """The ends that nodes told of their last dumps, of those that may still be heard of."""
        with self._lock, self._file.explained():
            return reading.over(self._file.db, self._form)

    def past(
        self, node: str | None = None, since: float | None = None, most: int = 1000
    ) -> list[Past]:
        """The `most` dumps that were recorded last, over or not, those that began last first.

        Of one node only, and only those that began at `since` (Unix time) or later, if given.
        """
        with self._lock, self._file.explained():
            return reading.past(self._file.db, self._form, node, since, most)

    def stand(self, figures: bytes) -> None:
        """Write down what a Listener has of the dumps under way: `Listener.figures`."""
        with self._lock, self._file.explained(), self._file.transaction():
            self._file.db.execute("UPDATE standing SET figures = ?", (figures,))

    def trim(self, age: float, most: int) -> int:
        """Remove dumps that have been over for `age` seconds of a daemon's life, and then those
        that are too many, as `record` does; how many were removed since the last time.

        In transactions of 20,000 rows, each some 0.1 s.
        """
        removed, self._pushed_out = self._pushed_out, 0
        with self._lock, self._file.explained():
            self._keep_age()
            done = limits.SLICE
            while done == limits.SLICE:
                with self._file.transaction():
                    done = limits.remove_old(self._file.db, self._age.now() - age)
                removed += done
            (self._count,) = self._file.db.execute("SELECT count(*) FROM dump").fetchone()
            done = limits.SLICE
            while done == limits.SLICE:
                changes: Changes = {}
                with self._file.transaction():
                    wanted = min(limits.SLICE, self._count - most)
                    done = limits.make_room(self._file.db, wanted, self._rows, changes)
                self._rows.change(changes)
                self._count -= done
                removed += done
        return removed

    def hand_over(self, upto: int, renumber: int, refused: Collection[int] = ()) -> None:
        """The database has what the outbox holds up to a number; 0: nothing new.

        `renumber`: it has numbers up to that one, which this file may not know of. `refused`: it
        does not take those.
        """
        with self._lock, self._file.explained():
            if self.outbox is None:
                return
            if refused:
                with self._file.transaction():
                    self.outbox.give_up(refused)
            if renumber > self.outbox.newest:
                with self._file.transaction():
                    self.outbox.renumber(renumber)
            if upto:
                with self._file.transaction():
                    self.outbox.forget(upto)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        with self._lock:
            if self._writable:
                with contextlib.suppress(HistoryError), self._file.explained():
                    self._follow()
                    self._keep_age()
            self._file.close()

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The file

    def _open(self) -> None:
        self._file.open()
        if not self._writable:
            return
        try:
            self._settle()
            self._rows.load(self._file.db)
            (self._count,) = self._file.db.execute("SELECT count(*) FROM dump").fetchone()
            self._age.load(self._file.db)
            self.outbox = self._file.outbox
        except BaseException:
            self._file.close()
            raise

    def _settle(self) -> None:
        """Have what is newest in the rows: what is written from now on is of another life."""
        changes = reading.behind(self._file.db)
        if changes is None:
            return
        with self._file.transaction():
            self._file.db.executemany(
                "UPDATE dump SET last = ?, messages = ?, took = ? WHERE id = ?", changes
            )
            self._file.db.execute("UPDATE standing SET figures = x''")

    def _follow(self) -> None:
        """Go on where the names lead to, if somebody moved or removed file or log."""
        if not self._file.in_place:
            self._file.leave()
            self._open()

    # What is written

    def _write(
        self,
        newest: dict[tuple[str, float], Event],
        most: int,
        named: Container[str] | None,
        everything: list[Event],
    ) -> None:
        with self._file.transaction():
            (highest,) = self._file.db.execute("SELECT max(id) FROM dump").fetchone()
            entries = self._rows.entries(
                newest.values(), (highest or 0) + 1, self._age.now(), named
            )
            new = entries.write(self._file.db, named)
            # Those that were too many before are left to `trim`.
            wanted = min(self._count + new - most, new + limits.SLICE)
            pushed_out = limits.make_room(self._file.db, wanted, self._rows, entries.under_way)
            if self.outbox is not None:
                # A dump has a beginning and an end.
                self.outbox.add(everything, named, 2 * most)
        self._count += new - pushed_out
        self._pushed_out += pushed_out
        self._rows.written(entries)

    def _keep_age(self) -> None:
        with self._file.transaction():
            self._age.keep(self._file.db)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Past and present dumps on disk: who crashed when, how long it took, from which address.

One SQLite file, which is all that survives a daemon that is killed or a power cut. Whatever
is said about that file must live here; who is dumping is decided in listener/dumps.py,
and what people are shown is in cli/history.py. Where the file is, who may read it and whether it
is whole: history_file.py.

A dump is one row, known by its node and its first message. Rows are added at the end and then
changed by their number, so a hundred thousand nodes that panic together write one stretch of
the file and not all of it, and there is no index but of what may be pushed out first.

Two rules for what is removed:

- By age, but not by the system's clock, which may be years ahead before somebody sets it: age
  is the time for which daemons have run with this file since the dump was over.
- By number, in the very transaction that adds more: first dumps of nodes that nobody named (a
  network admitted them, so anybody may have made them up), those that are over before those
  under way; then those of named nodes that are over.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Container, Iterable
from typing import Any, NamedTuple

from kdumpfence.daemon import standing
from kdumpfence.daemon.history_file import (
    MODE,
    PATH,
    SCHEMA,
    HistoryError,
    HistoryFile,
    HistoryInUse,
)
from kdumpfence.daemon.outbox import Outbox
from kdumpfence.listener.events import ENDS, TOLD_ENDS, Dump, Event, as_told_end

__all__ = ["PATH", "History", "HistoryError", "HistoryInUse", "Past"]

#: The kinds of events that say something about a dump.
KINDS = ("began", "dumping", *ENDS)

#: Seconds for which it is known after a restart that a node had told of its dump's end: as long as
#: its crash kernel may stay up, and its sender with it.
RECENT = 86400.0

#: Dumps with such an end whose row is known, to write another end into it.
MOST_OVER = 131_072

#: Rows that `trim` takes away in one transaction.
SLICE = 20000

_ADD = (
    "INSERT INTO dump (id, node, since, last, ended, messages, addresses, took, age, named, how, "
    "sessions) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
)
_CHANGE = (
    "UPDATE dump SET last = ?, ended = ?, messages = ?, addresses = ?, took = ?, age = ?, how = ?, "
    "sessions = ? WHERE id = ? AND node = ? AND since = ?"
)
#: What `_past` reads of a file, by its form.
_COLUMNS = {
    1: "node, since, last, ended, messages, addresses, NULL, '', ''",
    2: "node, since, last, ended, messages, addresses, took, '', ''",
    3: "node, since, last, ended, messages, addresses, took, how, sessions",
}
_COLUMNS[4] = _COLUMNS[3]

#: Where a dump under way stands: number of its row, first message, whether its node is named.
#: Plain tuples, as a hundred thousand may have to be made at once.
_Row = tuple[int, float, bool]


class Past(NamedTuple):
    """One dump, over or not. Times are Unix time in seconds."""

    node: str
    since: float  # first message
    last: float  # last message
    ended: float | None  # when it was taken for over; None: it is under way
    messages: int
    addresses: tuple[str, ...]
    took: float = 0.0  # seconds from the first message to the last; 0: not measured
    end: str = ""  # how it ended: "finished", "failed" or "silent"; "": it is under way
    sessions: tuple[int, ...] = ()  # of the senders that told of it


class History:
    """The file at `path`, opened, or created when `writable`. From any thread, one at a time.

    Of daemons only one can have it open; `mode` (as of chmod) is who may read it. `clock` tells
    seconds; nobody may be able to set it. `spool`: what happens goes into an outbox as well.
    Raises HistoryError when it cannot be used, HistoryInUse if another daemon uses it. What is
    damaged or foreign is left as it is.

    Longer than other classes: what it knows of the dumps under way changes together with the
    table, so all that writes to it is here.
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
        self._clock = clock
        self._lock = threading.Lock()
        #: Node -> its dump under way.
        self._rows: dict[str, _Row] = {}
        #: Node -> its last dump, if that is over as it told; the oldest first, MOST_OVER at most.
        self._over: dict[str, _Row] = {}
        self._count = 0
        self._young = 0.0  # what its age was when the clock was at `_since`
        self._since = 0.0
        with self._file.explained():
            self._open()
        self._columns = _COLUMNS[SCHEMA if writable else self._file.schema]

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
            self._rows = {
                node: (at, since, node in named) for node, (at, since, _) in self._rows.items()
            }

    def under_way(self) -> list[Dump]:
        """The dumps that were not over when they were last heard of, oldest first."""
        query = f"SELECT {self._columns} FROM dump WHERE ended IS NULL ORDER BY id"  # noqa: S608
        dumps: dict[str, Dump] = {}
        with self._lock, self._file.explained():
            figures = self._standing()
            # A node has one at most: an older one was left over.
            for row in self._file.db.execute(query):
                found = _newest(_past(row), figures)
                node, since, last, _, messages, addresses, took, _, sessions = found
                dumps[node] = Dump(node, since, last, messages, addresses, took, sessions)
        return sorted(dumps.values(), key=lambda dump: dump.since)

    def over(self) -> list[Event]:
        """The ends that nodes told of their last dumps, of those that may still be heard of."""
        with self._lock, self._file.explained():
            found = [_past(row) for row in self._last_told(self._columns)]
        events = []
        for node, since, last, ended, messages, addresses, took, how, sessions in found:
            end = as_told_end(how)
            if end is not None:
                what = (since, last, messages, addresses, took, sessions)
                events.append(Event(end, node, ended or last, *what))
        return events

    def _last_told(self, columns: str) -> sqlite3.Cursor:
        """These columns of the nodes' last dumps, if they ended as told, and not long ago."""
        recent = "how <> '' AND ended BETWEEN ? AND ?"
        query = (
            f"SELECT {columns} FROM dump WHERE {recent} AND id IN "  # noqa: S608
            f"(SELECT max(id) FROM dump WHERE id >= (SELECT min(id) FROM dump WHERE {recent}) "
            "GROUP BY node) ORDER BY id"
        )
        between = (time.time() - RECENT, time.time() + RECENT)
        return self._file.db.execute(query, between * 2)

    def past(
        self, node: str | None = None, since: float | None = None, most: int = 1000
    ) -> list[Past]:
        """The `most` dumps that were recorded last, over or not, those that began last first.

        Of one node only, and only those that began at `since` (Unix time) or later, if given.
        """
        conditions, values = ["1"], []  # type: list[str], list[Any]
        if node is not None:
            conditions.append("node = ?")
            values.append(node)
        if since is not None:
            conditions.append("since >= ?")
            values.append(since)
        # By number, which is there in order, and not by time: that would be to sort them all.
        query = (
            f"SELECT {self._columns} FROM dump WHERE {' AND '.join(conditions)} "  # noqa: S608
            "ORDER BY id DESC LIMIT ?"
        )
        with self._lock, self._file.explained():
            # All at once: a reader that takes its time would keep the log from being emptied.
            found = [_past(row) for row in self._file.db.execute(query, (*values, max(0, most)))]
            figures = self._standing() if any(dump.ended is None for dump in found) else {}
        found = [_newest(dump, figures) for dump in found]
        return sorted(found, key=lambda dump: dump.since, reverse=True)

    def stand(self, figures: bytes) -> None:
        """Write down what a Listener has of the dumps under way: `Listener.figures`."""
        with self._lock, self._file.explained(), self._file.transaction():
            self._file.db.execute("UPDATE standing SET figures = ?", (figures,))

    def _standing(self) -> standing.Standing:
        """What is newer than the rows."""
        if not self._writable and self._file.schema < 4:
            return {}
        rows = self._file.db.execute("SELECT figures FROM standing").fetchall()
        return standing.read(rows[0][0]) if rows and isinstance(rows[0][0], bytes) else {}

    def _settle(self) -> None:
        """Have it in the rows: what is written from now on is of another life of a daemon."""
        figures = self._standing()
        if not figures:
            return
        query = f"SELECT id, {_COLUMNS[SCHEMA]} FROM dump WHERE ended IS NULL"  # noqa: S608
        changes = []
        for at, *row in self._file.db.execute(query):
            before = _past(tuple(row))
            after = _newest(before, figures)
            if after != before:
                changes.append((after.last, after.messages, after.took, at))
        with self._file.transaction():
            self._file.db.executemany(
                "UPDATE dump SET last = ?, messages = ?, took = ? WHERE id = ?", changes
            )
            self._file.db.execute("UPDATE standing SET figures = x''")

    def trim(self, age: float, most: int) -> int:
        """Remove dumps that have been over for `age` seconds of a daemon's life, and then those
        that are too many, as `record` does; how many were removed since the last time.

        In transactions of 20,000 rows, each some 0.1 s.
        """
        removed, self._pushed_out = self._pushed_out, 0
        with self._lock, self._file.explained():
            self._keep_age()
            done = SLICE
            while done == SLICE:
                with self._file.transaction():
                    done = _remove(
                        self._file.db, "ended IS NOT NULL AND age < ?", SLICE, self._age() - age
                    )
                removed += done
            (self._count,) = self._file.db.execute("SELECT count(*) FROM dump").fetchone()
            done = SLICE
            while done == SLICE:
                rows: dict[str, _Row | None] = {}
                with self._file.transaction():
                    done = self._make_room(min(SLICE, self._count - most), rows)
                _change(self._rows, rows)
                self._count -= done
                removed += done
        return removed

    def hand_over(self, upto: int, renumber: int) -> None:
        """The database has what the outbox holds up to a number; 0: nothing new.

        `renumber`: it has numbers up to that one, which this file may not know of.
        """
        with self._lock, self._file.explained():
            if self.outbox is None:
                return
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
        query = "SELECT node, id, since, named FROM dump WHERE ended IS NULL ORDER BY id"
        try:
            self._settle()
            self._rows = {
                node: (at, since, bool(named))
                for node, at, since, named in self._file.db.execute(query)
            }
            self._over = {
                node: (at, since, bool(named))
                for node, at, since, named in self._last_told("node, id, since, named")
            }
            (self._count,) = self._file.db.execute("SELECT count(*) FROM dump").fetchone()
            (self._young,) = self._file.db.execute("SELECT max(age) FROM file").fetchone()
            self.outbox = self._file.outbox
        except BaseException:
            self._file.close()
            raise
        self._since = self._clock()

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
            number = (highest or 0) + 1
            rows: dict[str, _Row | None] = {}  # what changes in self._rows...
            over: dict[str, _Row | None] = {}  # ...and in self._over
            add: list[tuple[Any, ...]] = []
            change: list[tuple[Any, ...]] = []
            left_over: list[tuple[Any, ...]] = []
            age = self._age()
            for event in newest.values():
                kind, node, when, since, last, messages, addresses, took, sessions = event[:9]
                ended, aged = (when, age) if kind in ENDS else (None, 0.0)
                length = took or max(0.0, last - since)  # 0: nobody measured it
                how = kind if kind in TOLD_ENDS else ""
                where = " ".join(addresses)
                said = " ".join([f"{one:x}" for one in sessions]) if sessions else ""
                row = rows[node] if node in rows else self._rows.get(node)
                if row is None and how:  # the node may have told of another end before
                    row = over[node] if node in over else self._over.get(node)
                    row = row if row and row[1] == since else None
                if row is not None and row[1] == since:
                    change.append(
                        (last, ended, messages, where, length, aged, how, said, row[0], node, since)
                    )
                else:
                    if row is not None:  # its end was never told
                        left_over.append((when, age, row[0], node))
                    row = (number, since, named is None or node in named)
                    add.append(
                        (number, node, since, last, ended, messages, where, length, aged, row[2])
                        + (how, said)
                    )
                    number += 1
                rows[node] = None if ended is not None else row
                if how or node in self._over or node in over:
                    over[node] = row if how else None
            # Added first: a dump may be left over in the same call.
            self._file.db.executemany(_ADD, add)
            change.sort(key=lambda row: row[-3])  # each page of the file once
            if change and self._file.db.executemany(_CHANGE, change).rowcount != len(change):
                add += _put_back(self._file.db, change, named)
            self._file.db.executemany(
                "UPDATE dump SET ended = ?, age = ? WHERE id = ? AND node = ? AND ended IS NULL",
                left_over,
            )
            # Those that were too many before are left to `trim`.
            wanted = min(self._count + len(add) - most, len(add) + SLICE)
            pushed_out = self._make_room(wanted, rows)
            if self.outbox is not None:
                # A dump has a beginning and an end.
                self.outbox.add(everything, named, 2 * most)
        self._count += len(add) - pushed_out
        self._pushed_out += pushed_out
        _change(self._rows, rows)
        _change(self._over, over)
        while len(self._over) > MOST_OVER:
            del self._over[next(iter(self._over))]

    def _make_room(self, wanted: int, rows: dict[str, _Row | None]) -> int:
        """Remove so many dumps, if there are that many that may be; how many it removed.

        `rows` is what changes in `_rows` in this transaction; it is kept up to date.
        """
        removed = _remove(self._file.db, "named = 0 AND ended IS NOT NULL", wanted)
        if removed < wanted:
            under_way = {**self._rows, **rows}
            strangers = ((row[0], node) for node, row in under_way.items() if row and not row[2])
            oldest = heapq.nsmallest(wanted - removed, strangers)
            self._file.db.executemany("DELETE FROM dump WHERE id = ?", [(at,) for at, _ in oldest])
            rows.update((node, None) for _, node in oldest)
            removed += len(oldest)
        if removed < wanted:
            removed += _remove(self._file.db, "named = 1 AND ended IS NOT NULL", wanted - removed)
        return removed

    def _age(self) -> float:
        """Seconds for which daemons have run with this file."""
        return self._young + max(0.0, self._clock() - self._since)

    def _keep_age(self) -> None:
        with self._file.transaction():
            self._file.db.execute("UPDATE file SET age = ?", (self._age(),))


def _change(rows: dict[str, _Row], changes: dict[str, _Row | None]) -> None:
    """What became of rows, once it is written."""
    for node, now in changes.items():
        rows.pop(node, None)
        if now is not None:
            rows[node] = now


def _put_back(
    db: sqlite3.Connection, change: list[tuple[Any, ...]], named: Container[str] | None
) -> list[tuple[Any, ...]]:
    """Rows are missing that somebody else took away: they are under way all the same."""
    there = "SELECT 1 FROM dump WHERE id = ?"
    missing = [
        (at, node, since, *told[:-2], named is None or node in named, *told[-2:])
        for *told, at, node, since in change
        if db.execute(there, (at,)).fetchone() is None
    ]
    db.executemany(_ADD, missing)
    return missing


def _remove(db: sqlite3.Connection, condition: str, most: int, *values: float) -> int:
    """Remove the oldest dumps of this condition, at most so many; return their number."""
    if most <= 0:
        return 0
    query = (
        f"DELETE FROM dump WHERE id IN (SELECT id FROM dump WHERE {condition} "  # noqa: S608
        "ORDER BY id LIMIT ?)"
    )
    return db.execute(query, (*values, most)).rowcount


def _newest(dump: Past, figures: standing.Standing) -> Past:
    """A dump with what is newer than its row, if it is under way."""
    if dump.ended is not None or not figures:
        return dump
    last, messages, took = standing.newest(
        figures, dump.addresses, dump.since, dump.last, dump.messages, dump.took
    )
    return dump._replace(last=last, messages=messages, took=took)


def _past(row: tuple[Any, ...]) -> Past:
    """A dump; what no daemon has written is damage that SQLite does not see."""
    node, since, last, ended, messages, addresses, took, how, sessions = row
    sound = (
        isinstance(node, str)
        and _is_time(since)
        and _is_time(last)
        and (ended is None or _is_time(ended))
        and isinstance(messages, int)
        and isinstance(addresses, str)
        and (took is None or _is_time(took))
        and how in ("", *TOLD_ENDS)
        and isinstance(sessions, str)
        and all(re.fullmatch("[0-9a-f]{1,16}", one) for one in sessions.split())
    )
    if not sound:
        raise sqlite3.DatabaseError("a row of it is no dump")
    end = "" if ended is None else how or "silent"
    numbers = tuple(int(one, 16) for one in sessions.split())
    where = tuple(addresses.split())
    return Past(node, since, last, ended, messages, where, took or 0.0, end, numbers)


def _is_time(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)

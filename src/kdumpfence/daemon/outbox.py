# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happened and is still to be handed on to the database, in the history's file.

Two tables beside the history's own, there only where a database is configured: who this listener is
to the database, and what happened, numbered, written in the transaction that writes the history.
So whatever was told is in here, in its order. Of a dump that goes on only the newest word is kept.
Handing on is forwarder.py's; what may not be in this file: PostgreSQL.
"""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from kdumpfence.listener.events import Event

#: Events of nodes that nobody named go first where there are too many; see `Outbox.add`.
_TABLES = """
CREATE TABLE IF NOT EXISTS outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- a number is never given twice
    kind TEXT NOT NULL,
    node TEXT NOT NULL,
    happened INTEGER NOT NULL,              -- times: microseconds of Unix time
    since INTEGER NOT NULL,
    last INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    addresses TEXT NOT NULL,
    took REAL NOT NULL,
    sessions TEXT NOT NULL,
    named INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS outbox_passing ON outbox (seq) WHERE named = 0;
CREATE TABLE IF NOT EXISTS listener (identity TEXT NOT NULL);
"""

_COLUMNS = "kind, node, happened, since, last, messages, addresses, took, sessions, named"
_ADD = f"INSERT INTO outbox ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)"  # noqa: S608

#: As SQLite makes JSON of some rows, without any work for Python.
_READ = """
SELECT json_group_array(json_object(
        'seq', seq, 'kind', kind, 'node', node, 'happened', happened, 'since', since,
        'last_heard', last, 'messages', messages, 'addresses', addresses, 'took', took,
        'sessions', sessions, 'named', json(CASE WHEN named THEN 'true' ELSE 'false' END))),
    max(seq)
FROM (SELECT * FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?)
"""

#: Rows that are removed at a time, some 10 ms.
SLICE = 5000


class Batch(NamedTuple):
    """Some of what waits."""

    #: A JSON list of objects, in order; "": there is nothing.
    text: str
    #: The number of the last one in it, and of the last one that there is.
    last: int
    newest: int


class Outbox:
    """The tables in that open file of the history, which are made if they are not there."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        for statement in _TABLES.split(";"):
            db.execute(statement)
        found = db.execute("SELECT identity FROM listener").fetchone()
        if found is None:
            found = (str(uuid.uuid4()),)
            db.execute("INSERT INTO listener VALUES (?)", found)
        #: Who this listener is.
        self.identity: str = found[0]
        #: Events that were given up: there were too many, or the database refuses them.
        self.lost = 0
        self._count: int = db.execute("SELECT count(*) FROM outbox").fetchone()[0]
        #: Dumps that go on -> the number of what was said of them last.
        self._goes_on: dict[tuple[str, float], int] = {}

    def __len__(self) -> int:
        """How many events are in it, those included that are kept for a while after they left."""
        return self._count

    @property
    def newest(self) -> int:
        """The number that was given last; 0: none was."""
        found = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        return 0 if found is None else int(found[0])

    def add(self, events: Iterable[Event], named: Container[str] | None, most: int) -> None:
        """Put these in, within the caller's transaction; there are `most` events at most then.

        Too many: those of nodes that nobody named go first, then the oldest.
        """
        told: dict[tuple[str, float], int] = {}
        listed = list(events)
        for place, event in enumerate(listed):
            told[event.node, event.since] = place
        number = self.newest
        rows, replaced = [], []
        goes_on: dict[tuple[str, float], int | None] = {}
        for place, event in enumerate(listed):
            key = (event.node, event.since)
            if event.kind == "dumping":
                if told[key] != place:
                    continue
                old = self._goes_on.get(key)
                if old is not None:
                    replaced.append((old,))
            number += 1
            goes_on[key] = number if event.kind == "dumping" else None
            rows.append(
                (
                    event.kind,
                    event.node,
                    _microseconds(event.when),
                    _microseconds(event.since),
                    _microseconds(event.last),
                    event.messages,
                    " ".join(event.addresses),
                    event.took,
                    " ".join(f"{one:x}" for one in event.sessions),
                    int(named is None or event.node in named),
                )
            )
        gone = 0
        if replaced:
            gone = self._db.executemany("DELETE FROM outbox WHERE seq = ?", replaced).rowcount
        self._db.executemany(_ADD, rows)
        self._count += len(rows) - gone
        self._remember(goes_on)
        excess = self._count - most
        if excess > 0:
            given_up = self._remove("named = 0", min(excess, len(rows) + SLICE))
            given_up += self._remove("1", min(excess, len(rows) + SLICE) - given_up)
            self.lost += given_up

    def _remember(self, goes_on: Mapping[tuple[str, float], int | None]) -> None:
        for key, number in goes_on.items():
            if number is None:
                self._goes_on.pop(key, None)
            else:
                self._goes_on[key] = number

    def _remove(self, condition: str, most: int) -> int:
        if most <= 0:
            return 0
        removed: int = self._db.execute(
            f"DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox WHERE {condition} "  # noqa: S608
            "ORDER BY seq LIMIT ?)",
            (most,),
        ).rowcount
        self._count -= removed
        return int(removed)

    def forget(self, upto: int) -> int:
        """Remove what is there, within the caller's transaction; how many (SLICE at most)."""
        removed = self._remove(f"seq <= {int(upto)}", SLICE)
        if removed < SLICE:
            self._goes_on = {key: number for key, number in self._goes_on.items() if number > upto}
        return removed

    def give_up(self, numbers: Iterable[int]) -> None:
        """Remove these, which the database refuses, within the caller's transaction."""
        for number in numbers:
            self.lost += self._remove(f"seq = {int(number)}", 1)

    def renumber(self, above: int) -> None:
        """Go on with numbers above that one, within the caller's transaction.

        The database knows of numbers that this file does not: it was put back from a copy.
        """
        newest = self.newest
        if above > newest:
            self._db.execute("UPDATE outbox SET seq = seq + ?", (above,))
            if newest == 0:
                self._db.execute("INSERT INTO sqlite_sequence VALUES ('outbox', 0)")
            self._db.execute(
                "UPDATE sqlite_sequence SET seq = ? WHERE name = 'outbox'", (above + newest,)
            )
            self._goes_on.clear()

    def put_back(self) -> None:
        """Take in what the attached database `rescued` has of these tables, if it has them."""
        found = self._db.execute(
            "SELECT count(*) FROM rescued.sqlite_master WHERE name IN ('outbox', 'listener')"
        ).fetchone()
        if found != (2,):
            return
        row = self._db.execute("SELECT identity FROM rescued.listener").fetchone()
        if row is None:
            return
        # A new file has nothing that was told yet: it goes on where the old one was.
        self._db.execute("UPDATE listener SET identity = ?", row)
        self.identity = row[0]
        self._db.execute(f"INSERT OR IGNORE INTO outbox SELECT seq, {_COLUMNS} FROM rescued.outbox")  # noqa: S608
        self._db.execute(
            "UPDATE sqlite_sequence SET seq = max(seq, coalesce((SELECT seq FROM "
            "rescued.sqlite_sequence WHERE name = 'outbox'), 0)) WHERE name = 'outbox'"
        )
        (self._count,) = self._db.execute("SELECT count(*) FROM outbox").fetchone()


def read(path: str, after: int, most: int) -> Batch:
    """What is in the outbox of that file with a number above `after`, `most` events at most.

    From any thread and whenever: opens the file for itself. sqlite3.Error if it cannot be read.
    """
    uri = f"file:{quote(path)}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=2.0)) as db:
        text, last = db.execute(_READ, (after, most)).fetchone()
        row: Any = db.execute("SELECT max(seq) FROM outbox").fetchone()
    newest = int(row[0] or 0)
    return Batch("", after, newest) if last is None else Batch(text, int(last), newest)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)

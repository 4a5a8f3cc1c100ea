# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which row of the history has a node's dump, and what becomes of rows when something happens.

A dump is one row, known by its node and its first message. Rows are added at the end and then
changed by their number, so a hundred thousand nodes that panic together write one stretch of
the file and not all of it, and there is no index but of what may be pushed out first. For that the
rows of the dumps under way are known here: Rows changes once Entries are on the disk, and not
before. What may not be in this file: transactions, and how many rows there may be.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable, Mapping
from typing import Any

from kdumpfence.daemon.history_reading import last_told
from kdumpfence.listener.events import ENDS, TOLD_ENDS, Event

#: Dumps whose end their nodes told and whose row is known, to write another end into it.
MOST_OVER = 131_072

_ADD = (
    "INSERT INTO dump (id, node, since, last, ended, messages, addresses, took, age, named, how, "
    "sessions) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
)
_CHANGE = (
    "UPDATE dump SET last = ?, ended = ?, messages = ?, addresses = ?, took = ?, age = ?, how = ?, "
    "sessions = ? WHERE id = ? AND node = ? AND since = ?"
)
_LEAVE_OVER = "UPDATE dump SET ended = ?, age = ? WHERE id = ? AND node = ? AND ended IS NULL"

#: Where a dump stands: number of its row, first message, whether its node is named.
#: Plain tuples, as a hundred thousand may have to be made at once.
Row = tuple[int, float, bool]

#: What becomes of nodes' rows; None: it is not known any more.
Changes = dict[str, "Row | None"]


class Entries:
    """What is to be written, and what changes in Rows with that."""

    def __init__(self) -> None:
        self.under_way: Changes = {}
        self.over: Changes = {}
        self.add: list[tuple[Any, ...]] = []
        self.change: list[tuple[Any, ...]] = []
        #: Dumps whose end was never told: another one of their node has begun.
        self.left_over: list[tuple[Any, ...]] = []

    def write(self, db: sqlite3.Connection, named: Container[str] | None) -> int:
        """Write it, within the caller's transaction; how many rows are new."""
        # Added first: a dump may be left over in the same call.
        db.executemany(_ADD, self.add)
        new = len(self.add)
        self.change.sort(key=lambda row: row[-3])  # each page of the file once
        if self.change and db.executemany(_CHANGE, self.change).rowcount != len(self.change):
            new += self._put_back(db, named)
        db.executemany(_LEAVE_OVER, self.left_over)
        return new

    def _put_back(self, db: sqlite3.Connection, named: Container[str] | None) -> int:
        """Rows are missing that somebody else took away: they are under way all the same."""
        there = "SELECT 1 FROM dump WHERE id = ?"
        missing = [
            (at, node, since, *told[:-2], named is None or node in named, *told[-2:])
            for *told, at, node, since in self.change
            if db.execute(there, (at,)).fetchone() is None
        ]
        db.executemany(_ADD, missing)
        return len(missing)


class Rows:
    """The rows that may change: as they are in the table, or none."""

    def __init__(self) -> None:
        #: Node -> its dump under way.
        self.under_way: dict[str, Row] = {}
        #: Node -> its last dump, if that is over as it told; the oldest first, MOST_OVER at most.
        self._over: dict[str, Row] = {}

    def load(self, db: sqlite3.Connection) -> None:
        """Know those of this table."""
        columns = "node, id, since, named"
        under_way = f"SELECT {columns} FROM dump WHERE ended IS NULL ORDER BY id"  # noqa: S608
        self.under_way = _by_node(db.execute(under_way))
        self._over = _by_node(last_told(db, columns))

    def mark(self, named: Container[str]) -> None:
        """Nodes that are in `named` have a name in the settings, all others have not."""
        self.under_way = {
            node: (at, since, node in named) for node, (at, since, _) in self.under_way.items()
        }

    def entries(
        self, events: Iterable[Event], number: int, age: float, named: Container[str] | None
    ) -> Entries:
        """What these events write, one a dump: new rows from `number` on, ends at that `age`."""
        made = Entries()
        rows, over = made.under_way, made.over
        for event in events:
            kind, node, when, since, last, messages, addresses, took, sessions = event[:9]
            ended, aged = (when, age) if kind in ENDS else (None, 0.0)
            length = took or max(0.0, last - since)  # 0: nobody measured it
            how = kind if kind in TOLD_ENDS else ""
            where = " ".join(addresses)
            said = " ".join([f"{one:x}" for one in sessions]) if sessions else ""
            row = rows[node] if node in rows else self.under_way.get(node)
            if row is None and how:  # the node may have told of another end before
                row = over[node] if node in over else self._over.get(node)
                row = row if row and row[1] == since else None
            if row is not None and row[1] == since:
                made.change.append(
                    (last, ended, messages, where, length, aged, how, said, row[0], node, since)
                )
            else:
                if row is not None:  # its end was never told
                    made.left_over.append((when, age, row[0], node))
                row = (number, since, named is None or node in named)
                made.add.append(
                    (number, node, since, last, ended, messages, where, length, aged, row[2])
                    + (how, said)
                )
                number += 1
            rows[node] = None if ended is not None else row
            if how or node in self._over or node in over:
                over[node] = row if how else None
        return made

    def written(self, entries: Entries) -> None:
        """They are on the disk."""
        self.change(entries.under_way)
        _change(self._over, entries.over)
        while len(self._over) > MOST_OVER:
            del self._over[next(iter(self._over))]

    def change(self, changes: Mapping[str, Row | None]) -> None:
        """Follow what became of dumps under way, once it is on the disk."""
        _change(self.under_way, changes)


def _by_node(found: Iterable[tuple[Any, ...]]) -> dict[str, Row]:
    return {node: (at, since, bool(named)) for node, at, since, named in found}


def _change(rows: dict[str, Row], changes: Mapping[str, Row | None]) -> None:
    for node, now in changes.items():
        rows.pop(node, None)
        if now is not None:
            rows[node] = now

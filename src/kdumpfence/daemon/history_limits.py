# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is removed from the history, and what goes first.

Two rules:

- By age, but not by the system's clock, which may be years ahead before somebody sets it: age
  is the time for which daemons have run with this file since the dump was over.
- By number, in the very transaction that adds more: first dumps of nodes that nobody named (a
  network admitted them, so anybody may have made them up), those that are over before those
  under way; then those of named nodes that are over.

What may not be in this file: when it is done, and transactions.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable

from kdumpfence.daemon.history_rows import Changes, Rows

#: Rows that are taken away in one transaction.
SLICE = 20000


class Age:
    """Of the file: seconds for which daemons have run with it. `clock` is set by nobody."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._young = 0.0  # what it was when the clock was at `_since`
        self._since = 0.0

    def load(self, db: sqlite3.Connection) -> None:
        """It goes on from what this file has."""
        (self._young,) = db.execute("SELECT max(age) FROM file").fetchone()
        self._since = self._clock()

    def now(self) -> float:
        """What it is."""
        return self._young + max(0.0, self._clock() - self._since)

    def keep(self, db: sqlite3.Connection) -> None:
        """Write it down, within the caller's transaction."""
        db.execute("UPDATE file SET age = ?", (self.now(),))


def remove_old(db: sqlite3.Connection, age: float) -> int:
    """Remove dumps that were over at a lower age of the file, SLICE at most; how many."""
    return _remove(db, "ended IS NOT NULL AND age < ?", SLICE, age)


def make_room(db: sqlite3.Connection, wanted: int, rows: Rows, changes: Changes) -> int:
    """Remove so many dumps, if there are that many that may be; how many it removed.

    `changes` is what changes in `rows.under_way` in this transaction; it is kept up to date.
    """
    removed = _remove(db, "named = 0 AND ended IS NOT NULL", wanted)
    if removed < wanted:
        under_way = {**rows.under_way, **changes}
        strangers = ((row[0], node) for node, row in under_way.items() if row and not row[2])
        oldest = heapq.nsmallest(wanted - removed, strangers)
        db.executemany("DELETE FROM dump WHERE id = ?", [(at,) for at, _ in oldest])
        changes.update((node, None) for _, node in oldest)
        removed += len(oldest)
    if removed < wanted:
        removed += _remove(db, "named = 1 AND ended IS NOT NULL", wanted - removed)
    return removed


def _remove(db: sqlite3.Connection, condition: str, most: int, *values: float) -> int:
    """Remove the oldest dumps of this condition, at most so many; return their number."""
    if most <= 0:
        return 0
    query = (
        f"DELETE FROM dump WHERE id IN (SELECT id FROM dump WHERE {condition} "  # noqa: S608
        "ORDER BY id LIMIT ?)"
    )
    return db.execute(query, (*values, most)).rowcount

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the history says: questions to its table, and the dumps that its rows stand for.

A row is believed only if a daemon could have written it. What may not be in this file:
anything that changes the table, and locks, which are `history`'s.
"""

from __future__ import annotations

import math
import re
import sqlite3
import time
from typing import Any, NamedTuple

from kdumpfence.daemon import standing
from kdumpfence.daemon.history_file import SCHEMA
from kdumpfence.listener.events import TOLD_ENDS, Dump, Event, as_told_end

#: Seconds for which it is known after a restart that a node had told of its dump's end: as long as
#: its crash kernel may stay up, and its sender with it.
RECENT = 86400.0

#: What is read of a row, by its form.
COLUMNS = {
    1: "node, since, last, ended, messages, addresses, NULL, '', ''",
    2: "node, since, last, ended, messages, addresses, took, '', ''",
    3: "node, since, last, ended, messages, addresses, took, how, sessions",
}
COLUMNS[4] = COLUMNS[3]


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


def under_way(db: sqlite3.Connection, form: int) -> list[Dump]:
    """The dumps that were not over when they were last heard of, oldest first.

    `form` is the table's, here as below.
    """
    figures = _standing(db, form)
    query = f"SELECT {COLUMNS[form]} FROM dump WHERE ended IS NULL ORDER BY id"  # noqa: S608
    dumps: dict[str, Dump] = {}
    # A node has one at most: an older one was left over.
    for row in db.execute(query):
        found = _newest(_past(row), figures)
        node, since, last, _, messages, addresses, took, _, sessions = found
        dumps[node] = Dump(node, since, last, messages, addresses, took, sessions)
    return sorted(dumps.values(), key=lambda dump: dump.since)


def over(db: sqlite3.Connection, form: int) -> list[Event]:
    """The ends that nodes told of their last dumps, of those that may still be heard of."""
    events = []
    for row in last_told(db, COLUMNS[form]).fetchall():
        node, since, last, ended, messages, addresses, took, how, sessions = _past(row)
        end = as_told_end(how)
        if end is not None:
            what = (since, last, messages, addresses, took, sessions)
            events.append(Event(end, node, ended or last, *what))
    return events


def last_told(db: sqlite3.Connection, columns: str) -> sqlite3.Cursor:
    """These columns of the nodes' last dumps, if they ended as told, and not long ago."""
    recent = "how <> '' AND ended BETWEEN ? AND ?"
    query = (
        f"SELECT {columns} FROM dump WHERE {recent} AND id IN "  # noqa: S608
        f"(SELECT max(id) FROM dump WHERE id >= (SELECT min(id) FROM dump WHERE {recent}) "
        "GROUP BY node) ORDER BY id"
    )
    between = (time.time() - RECENT, time.time() + RECENT)
    return db.execute(query, between * 2)


def past(
    db: sqlite3.Connection, form: int, node: str | None, since: float | None, most: int
) -> list[Past]:
    """See `History.past`."""
    conditions, values = ["1"], []  # type: list[str], list[Any]
    if node is not None:
        conditions.append("node = ?")
        values.append(node)
    if since is not None:
        conditions.append("since >= ?")
        values.append(since)
    # By number, which is there in order, and not by time: that would be to sort them all.
    query = (
        f"SELECT {COLUMNS[form]} FROM dump WHERE {' AND '.join(conditions)} "  # noqa: S608
        "ORDER BY id DESC LIMIT ?"
    )
    # All at once: a reader that takes its time would keep the log from being emptied.
    found = [_past(row) for row in db.execute(query, (*values, max(0, most)))]
    figures = _standing(db, form) if any(dump.ended is None for dump in found) else {}
    found = [_newest(dump, figures) for dump in found]
    return sorted(found, key=lambda dump: dump.since, reverse=True)


def behind(db: sqlite3.Connection) -> list[tuple[float, int, float, int]] | None:
    """The rows of dumps under way that lack what is newest: last message, messages and length as
    they should be, and the row's number. None: nothing is newer than rows.

    For a table of the newest form.
    """
    figures = _standing(db, SCHEMA)
    if not figures:
        return None
    query = f"SELECT id, {COLUMNS[SCHEMA]} FROM dump WHERE ended IS NULL"  # noqa: S608
    changes = []
    for at, *row in db.execute(query):
        before = _past(tuple(row))
        after = _newest(before, figures)
        if after != before:
            changes.append((after.last, after.messages, after.took, at))
    return changes


def _standing(db: sqlite3.Connection, form: int) -> standing.Standing:
    """What is newer than the rows."""
    if form < 4:
        return {}
    rows = db.execute("SELECT figures FROM standing").fetchall()
    return standing.read(rows[0][0]) if rows and isinstance(rows[0][0], bytes) else {}


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

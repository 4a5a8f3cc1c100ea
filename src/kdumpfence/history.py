# SPDX-License-Identifier: GPL-2.0-or-later
"""Past and present dumps on disk: who crashed when, how long it took, from which address.

One SQLite file, which is all that survives a daemon that is killed or a power cut. Whatever
is said about that file must live here; who is dumping is decided in dumps.py, and what is
shown to people is in window.py.

A dump is one row, known by its node and its first message. Rows are added at the end and then
changed by their number, so a hundred thousand nodes that panic together write one stretch of
the file and not all of it, and no index has to be kept.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import stat
import threading
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

from .dumps import Dump, Event

#: Where kdumpfenced keeps it.
PATH = "/var/lib/kdumpfenced/history.sqlite"

#: Number of the table's form; a file with a higher one is of a newer kdumpfence.
SCHEMA = 1

#: SQLite's application_id of these files.
APPLICATION = 0x6B647066

#: The kinds of events that say something about a dump.
KINDS = ("began", "dumping", "silent")

#: Seconds for which another program may keep the file locked.
_PATIENCE = 2.0

#: Bytes; the write-ahead log is cut to this when it was longer.
_LOG_LIMIT = 1 << 26

#: Pages (of 4096 bytes) in the log from which on they are moved to the file. With SQLite's
#: own 1000 each page that changes again and again would be written twice each time.
_LOG_PAGES = 8192

#: Rows that `trim` takes away in one transaction.
_SLICE = 20000

_TABLE = """
CREATE TABLE dump (
    id INTEGER PRIMARY KEY,   -- in the order in which they began
    node TEXT NOT NULL,
    since REAL NOT NULL,      -- first message, Unix time
    last REAL NOT NULL,       -- last message
    ended REAL,               -- when it was taken for over; NULL: not yet
    messages INTEGER NOT NULL,
    addresses TEXT NOT NULL   -- with blanks between them
)
"""
_ADD = "INSERT INTO dump (id, node, since, last, ended, messages, addresses) VALUES (?,?,?,?,?,?,?)"
_CHANGE = (
    "UPDATE dump SET last = ?, ended = ?, messages = ?, addresses = ? "
    "WHERE id = ? AND node = ? AND since = ?"
)
_COLUMNS = "node, since, last, ended, messages, addresses"


class HistoryError(Exception):
    """The file cannot be used; the text is one line for people.

    `again` tells whether the same call may succeed later: a full disk, yes; a damaged file, no.
    """

    def __init__(self, text: str, again: bool = False) -> None:
        super().__init__(text)
        self.again = again


class Past(NamedTuple):
    """One dump, over or not. Times are Unix time in seconds."""

    node: str
    since: float  # first message
    last: float  # last message
    ended: float | None  # when it was taken for over; None: it is under way
    messages: int
    addresses: tuple[str, ...]


class History:
    """The file at `path`, opened, or created when `writable`. From any thread, one at a time.

    Raises HistoryError when it cannot be used. What is damaged or foreign is left as it is.
    """

    def __init__(self, path: str = PATH, writable: bool = True) -> None:
        self.path = os.path.abspath(path)
        self.writable = writable
        self._lock = threading.Lock()
        #: Node -> (number of the row, first message) of its dump under way.
        self._rows: dict[str, tuple[int, float]] = {}
        self._inode = (0, 0)
        self._open()

    def record(self, events: Iterable[Event]) -> None:
        """Write down what happened, in one transaction; it is on the disk when this returns.

        After a HistoryError nothing of it was written, and the same events can be given again.
        Events of one dump are cumulative, so of several in one call the last one counts.
        Events of other kinds than KINDS are left out.
        """
        newest: dict[tuple[str, float], Event] = {}
        for event in events:
            if event.kind in KINDS:
                newest[event.node, event.since] = event
        with self._lock, self._explained():
            if not newest:
                return
            if self._inode != _inode(self.path):
                # Moved away or removed by somebody: what is written there would be lost.
                self._close()
                self._open()
            self._write(newest)

    def under_way(self) -> list[Dump]:
        """The dumps that were not over when they were last heard of, oldest first."""
        query = f"SELECT {_COLUMNS} FROM dump WHERE ended IS NULL ORDER BY id"  # noqa: S608
        dumps: dict[str, Dump] = {}
        with self._lock, self._explained():
            # A node has one at most: an older one was left over.
            for row in self._db.execute(query):
                node, since, last, _, messages, addresses = _past(row)
                dumps[node] = Dump(node, since, last, messages, addresses)
        return sorted(dumps.values(), key=lambda dump: dump.since)

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
            f"SELECT {_COLUMNS} FROM dump WHERE {' AND '.join(conditions)} "  # noqa: S608
            "ORDER BY id DESC LIMIT ?"
        )
        with self._lock, self._explained():
            # All at once: a reader that takes its time would keep the log from being emptied.
            found = [_past(row) for row in self._db.execute(query, (*values, max(0, most)))]
        return sorted(found, key=lambda dump: dump.since, reverse=True)

    def trim(self, before: float, most: int) -> int:
        """Remove dumps that were over before `before` (Unix time), and the oldest of those
        that are over until no more than `most` dumps are left; return how many it removed.

        Dumps under way stay. In transactions of 20,000 rows, each some 0.1 s.
        """
        removed = 0
        with self._lock, self._explained():
            removed += self._remove("ended < ?", (before,))
            (count,) = self._db.execute("SELECT count(*) FROM dump").fetchone()
            if count > most:
                removed += self._remove("ended IS NOT NULL", (), count - max(0, most))
        return removed

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        with self._lock:
            self._close()

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, newest: dict[tuple[str, float], Event]) -> None:
        with self._transaction():
            (highest,) = self._db.execute("SELECT max(id) FROM dump").fetchone()
            number = (highest or 0) + 1
            rows: dict[str, tuple[int, float] | None] = {}  # what changes in self._rows
            add: list[tuple[Any, ...]] = []
            change: list[tuple[Any, ...]] = []
            left_over: list[tuple[Any, ...]] = []
            for (node, since), event in newest.items():
                ended = event.when if event.kind == "silent" else None
                addresses = " ".join(event.addresses)
                row = rows[node] if node in rows else self._rows.get(node)
                if row is not None and row[1] == since:
                    at = row[0]
                    change.append((event.last, ended, event.messages, addresses, at, node, since))
                else:
                    if row is not None:  # its end was never told
                        left_over.append((event.when, row[0], node))
                    at, number = number, number + 1
                    add.append((at, node, since, event.last, ended, event.messages, addresses))
                rows[node] = None if ended is not None else (at, since)
            # Added first: a dump may be left over in the same call.
            self._db.executemany(_ADD, add)
            change.sort(key=lambda row: row[4])  # each page of the file once
            if change and self._db.executemany(_CHANGE, change).rowcount != len(change):
                self._put_back(change)
            self._db.executemany(
                "UPDATE dump SET ended = ? WHERE id = ? AND node = ? AND ended IS NULL", left_over
            )
        for node, now in rows.items():
            if now is None:
                self._rows.pop(node, None)
            else:
                self._rows[node] = now

    def _put_back(self, change: list[tuple[Any, ...]]) -> None:
        """Rows are missing that somebody else took away: they are under way all the same."""
        there = "SELECT 1 FROM dump WHERE id = ?"
        for last, ended, messages, addresses, at, node, since in change:
            if self._db.execute(there, (at,)).fetchone() is None:
                self._db.execute(_ADD, (at, node, since, last, ended, messages, addresses))

    def _remove(self, condition: str, values: tuple[Any, ...], most: int | None = None) -> int:
        """Remove the oldest dumps of this condition, at most so many; return their number."""
        removed = 0
        query = (
            f"DELETE FROM dump WHERE id IN (SELECT id FROM dump WHERE {condition} "  # noqa: S608
            "ORDER BY id LIMIT ?)"
        )
        while True:
            limit = _SLICE if most is None else min(_SLICE, most - removed)
            with self._transaction():
                done = self._db.execute(query, (*values, limit)).rowcount
            removed += done
            if done < limit or limit == 0:
                return removed

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
            raise

    def _open(self) -> None:
        with self._explained():
            self._check_place()
            self._db = self._connect()
            try:
                self._prepare()
                query = "SELECT node, id, since FROM dump WHERE ended IS NULL ORDER BY id"
                if self.writable:
                    self._rows = {row[0]: (row[1], row[2]) for row in self._db.execute(query)}
                self._inode = _inode(self.path)
            except BaseException:
                self._close()
                raise

    def _close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def _check_place(self) -> None:
        """What SQLite would call "unable to open", or would wait for."""
        try:
            kind = os.stat(self.path).st_mode
        except FileNotFoundError:
            if not self.writable:
                raise HistoryError(
                    f"no history at {self.path}: kdumpfenced has not written one there"
                ) from None
            folder = os.path.dirname(self.path)
            if not os.path.isdir(folder):
                raise HistoryError(f"{self.path}: no such directory: {folder}") from None
            if not os.access(folder, os.W_OK | os.X_OK):
                raise HistoryError(f"{self.path}: {_why_not(folder)}: {folder}", True) from None
            return
        except OSError as error:
            raise HistoryError(f"{self.path}: {error.strerror}") from None
        if not stat.S_ISREG(kind):
            raise HistoryError(f"{self.path}: not a regular file")
        if not os.access(self.path, os.R_OK | (os.W_OK if self.writable else 0)):
            raise HistoryError(f"{self.path}: {_why_not(self.path)}", True)

    def _connect(self) -> sqlite3.Connection:
        uri = f"file:{quote(self.path)}?mode=" + ("rwc" if self.writable else "ro")
        if not self.writable and not self._can_share():
            uri += "&immutable=1"
        return sqlite3.connect(
            uri, uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )

    def _can_share(self) -> bool:
        """Whether a reader can have the log's index, which it has to make if there is none.

        Where it cannot, and there is no log either, nobody writes: the file alone is all.
        """
        return (
            os.path.exists(self.path + "-wal")
            or os.path.exists(self.path + "-shm")
            or os.access(os.path.dirname(self.path), os.W_OK)
        )

    def _prepare(self) -> None:
        """Look whether it is ours and whole; a new file gets its table."""
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (schema,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION and (application or schema or tables):
            raise HistoryError(
                f"{self.path}: a database of another program, not a history of kdumpfenced"
            )
        if schema > SCHEMA:
            raise HistoryError(
                f"{self.path}: written by a newer kdumpfence (form {schema}, this one knows "
                f"{SCHEMA}): install that one again, or move the file away"
            )
        if not self.writable:
            if not tables:
                raise HistoryError(f"no history at {self.path}: the file is empty")
            return
        self._db.execute(f"PRAGMA journal_size_limit = {_LOG_LIMIT}")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        self._db.execute("PRAGMA synchronous = FULL")  # NORMAL would lose the last seconds
        if tables:
            (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
        (mode,) = self._db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise HistoryError(f"{self.path}: this file system allows no write-ahead log")
        if not tables:
            with self._transaction():
                self._db.execute(_TABLE)
                self._db.execute(f"PRAGMA user_version = {SCHEMA}")
                self._db.execute(f"PRAGMA application_id = {APPLICATION}")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """What SQLite says, in words that tell what to do."""
        try:
            yield
        except sqlite3.ProgrammingError as error:
            raise HistoryError(f"{self.path}: {error}") from None
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise self._explain(error) from None

    def _explain(self, error: Exception) -> HistoryError:
        said = " ".join(str(error).split())
        if isinstance(error, sqlite3.OperationalError):
            if "full" in said:
                return HistoryError(f"{self.path}: no space left for it", again=True)
            if "locked" in said:
                return HistoryError(f"{self.path}: locked by another program", again=True)
            if "readonly" in said:
                return HistoryError(f"{self.path}: it or its directory cannot be written", True)
            if "unable to open" in said:
                return HistoryError(f"{self.path}: cannot be opened, or its -wal and -shm", True)
            return HistoryError(f"{self.path}: {said}", again="I/O" in said)
        if isinstance(error, sqlite3.IntegrityError) or not isinstance(error, sqlite3.Error):
            return HistoryError(f"{self.path}: cannot be written down: {said}")
        return HistoryError(
            f"{self.path}: damaged ({said}); it is left as it is: stop kdumpfenced and move it "
            "away with its -wal and -shm, or save what can be read by sqlite3's .recover"
        )


def _past(row: tuple[Any, ...]) -> Past:
    """A dump; what no daemon has written is damage that SQLite does not see."""
    node, since, last, ended, messages, addresses = row
    sound = (
        isinstance(node, str)
        and _is_time(since)
        and _is_time(last)
        and (ended is None or _is_time(ended))
        and isinstance(messages, int)
        and isinstance(addresses, str)
    )
    if not sound:
        raise sqlite3.DatabaseError("a row of it is no dump")
    return Past(node, since, last, ended, messages, tuple(addresses.split()))


def _is_time(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _why_not(path: str) -> str:
    """Why what is there cannot be used as it should."""
    with contextlib.suppress(OSError):
        if os.statvfs(path).f_flag & os.ST_RDONLY and os.access(path, os.R_OK):
            return "the file system is mounted read-only"
    return "permission denied"


def _inode(path: str) -> tuple[int, int]:
    try:
        about = os.stat(path)
    except OSError:
        return (0, 0)
    return about.st_dev, about.st_ino

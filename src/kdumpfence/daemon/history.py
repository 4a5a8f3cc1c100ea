# SPDX-License-Identifier: GPL-2.0-or-later
"""Past and present dumps on disk: who crashed when, how long it took, from which address.

One SQLite file, which is all that survives a daemon that is killed or a power cut. Whatever
is said about that file must live here; who is dumping is decided in dumps.py, and what is
shown to people is in window.py.

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
import errno
import fcntl
import heapq
import math
import os
import sqlite3
import stat
import struct
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

from kdumpfence.listener.dumps import Dump, Event

#: Where kdumpfenced keeps it.
PATH = "/var/lib/kdumpfenced/history.sqlite"

#: Number of the table's form; a file with a higher one is of a newer kdumpfence.
SCHEMA = 2

#: SQLite's application_id of these files.
APPLICATION = 0x6B647066

#: The kinds of events that say something about a dump.
KINDS = ("began", "dumping", "silent")

#: Who may read the file and write to it.
MODE = 0o600

#: Seconds for which another program may keep the file locked: for whoever reads, and for the
#: daemon, whose main loop stands still meanwhile.
_PATIENCE = 2.0
_PATIENCE_WRITING = 0.5

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
#: What form 2 has besides.
_MORE = (
    # Seconds from the first message to the last, by a clock that nobody sets. NULL: not measured.
    "ALTER TABLE dump ADD COLUMN took REAL",
    # Age of the file when it was over.
    "ALTER TABLE dump ADD COLUMN age REAL NOT NULL DEFAULT 0",
    # 1: the node stands in the settings; 0: a network admitted it.
    "ALTER TABLE dump ADD COLUMN named INTEGER NOT NULL DEFAULT 1",
    "CREATE INDEX passing ON dump (id) WHERE named = 0 AND ended IS NOT NULL",
    # Seconds for which daemons have run with it.
    "CREATE TABLE file (age REAL NOT NULL)",
    "INSERT INTO file VALUES (0)",
)
_ADD = (
    "INSERT INTO dump (id, node, since, last, ended, messages, addresses, took, age, named) "
    "VALUES (?,?,?,?,?,?,?,?,?,?)"
)
_CHANGE = (
    "UPDATE dump SET last = ?, ended = ?, messages = ?, addresses = ?, took = ?, age = ? "
    "WHERE id = ? AND node = ? AND since = ?"
)
_OLD_COLUMNS = "node, since, last, ended, messages, addresses"
_COLUMNS = f"{_OLD_COLUMNS}, took"
_ALL = f"{_COLUMNS}, age, named"

#: Behind the name of a file that was removed while it was open: what it held.
_RESCUED = "-rescued"

#: A byte of the file that SQLite never locks: it is the daemon's.
_OURS = 1 << 62


#: Where a dump under way stands: number of its row, first message, whether its node is named.
#: Plain tuples, as a hundred thousand may have to be made at once.
_Row = tuple[int, float, bool]


class HistoryError(Exception):
    """The file cannot be used; the text is one line for people.

    `again` tells whether the same call may succeed later: a full disk, yes; a damaged file, no.
    """

    def __init__(self, text: str, again: bool = False) -> None:
        super().__init__(text)
        self.again = again


class HistoryInUse(HistoryError):
    """Another daemon writes to the file."""


class Past(NamedTuple):
    """One dump, over or not. Times are Unix time in seconds."""

    node: str
    since: float  # first message
    last: float  # last message
    ended: float | None  # when it was taken for over; None: it is under way
    messages: int
    addresses: tuple[str, ...]
    took: float = 0.0  # seconds from the first message to the last; 0: not measured


class History:
    """The file at `path`, opened, or created when `writable`. From any thread, one at a time.

    Of daemons only one can have it open; `mode` (as of chmod) is who may read it. `clock` tells
    seconds; nobody may be able to set it. Raises HistoryError when it cannot be used, HistoryInUse
    if another daemon uses it. What is damaged or foreign is left as it is.
    """

    def __init__(
        self,
        path: str = PATH,
        writable: bool = True,
        mode: int = MODE,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self.path = os.path.abspath(path)
        self.writable = writable
        self.mode = mode
        #: What was amended when it was opened, a line each.
        self.amended: list[str] = []
        self._pushed_out = 0  # dumps that `record` has removed to make room
        self._clock = clock
        self._lock = threading.Lock()
        #: Node -> its dump under way.
        self._rows: dict[str, _Row] = {}
        self._count = 0
        self._young = 0.0  # what its age was when the clock was at `_since`
        self._since = 0.0
        self._files: list[tuple[int, int]] = []
        self._fd = -1
        self._real = self.path  # where its name led to: the log's name is that of the real file
        self._columns = _COLUMNS
        self._open()

    def record(
        self, events: Iterable[Event], most: int = 1 << 60, named: Container[str] | None = None
    ) -> None:
        """Write down what happened, in one transaction; it is on the disk when this returns.

        After a HistoryError the same events can be given again. Events of one dump are cumulative,
        so of several in one call the last one counts. Events of other kinds than KINDS are left
        out. Then there are `most` dumps at most, and those under way of nodes in `named` (None:
        of all nodes).
        """
        newest: dict[tuple[str, float], Event] = {}
        for event in events:
            if event.kind in KINDS:
                newest[event.node, event.since] = event
        with self._lock, self._explained():
            if not newest:
                return
            self._follow()
            self._write(newest, most, named)
            self._follow()  # nobody is told before it is where the next one will look for it

    def look(self) -> None:
        """See whether the file is still where it was; what was taken away is put back."""
        with self._lock, self._explained():
            self._follow()

    def mark(self, named: Container[str]) -> None:
        """Nodes that are in `named` have a name in the settings, all others have not."""
        with self._lock, self._explained():
            self._db.create_function("is_named", 1, lambda node: int(node in named))
            wrong = "WHERE named <> is_named(node)"
            # First looked for, which needs no lock.
            if self._db.execute(f"SELECT 1 FROM dump {wrong} LIMIT 1").fetchone():  # noqa: S608
                with self._transaction():
                    self._db.execute(f"UPDATE dump SET named = is_named(node) {wrong}")  # noqa: S608
            self._rows = {
                node: (at, since, node in named) for node, (at, since, _) in self._rows.items()
            }

    def under_way(self) -> list[Dump]:
        """The dumps that were not over when they were last heard of, oldest first."""
        query = f"SELECT {self._columns} FROM dump WHERE ended IS NULL ORDER BY id"  # noqa: S608
        dumps: dict[str, Dump] = {}
        with self._lock, self._explained():
            # A node has one at most: an older one was left over.
            for row in self._db.execute(query):
                node, since, last, _, messages, addresses, took = _past(row)
                dumps[node] = Dump(node, since, last, messages, addresses, took)
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
            f"SELECT {self._columns} FROM dump WHERE {' AND '.join(conditions)} "  # noqa: S608
            "ORDER BY id DESC LIMIT ?"
        )
        with self._lock, self._explained():
            # All at once: a reader that takes its time would keep the log from being emptied.
            found = [_past(row) for row in self._db.execute(query, (*values, max(0, most)))]
        return sorted(found, key=lambda dump: dump.since, reverse=True)

    def trim(self, age: float, most: int) -> int:
        """Remove dumps that have been over for `age` seconds of a daemon's life, and then those
        that are too many, as `record` does; how many were removed since the last time.

        In transactions of 20,000 rows, each some 0.1 s.
        """
        removed, self._pushed_out = self._pushed_out, 0
        with self._lock, self._explained():
            self._keep_age()
            done = _SLICE
            while done == _SLICE:
                with self._transaction():
                    done = self._remove("ended IS NOT NULL AND age < ?", _SLICE, self._age() - age)
                removed += done
            (self._count,) = self._db.execute("SELECT count(*) FROM dump").fetchone()
            done = _SLICE
            while done == _SLICE:
                rows: dict[str, _Row | None] = {}
                with self._transaction():
                    done = self._make_room(min(_SLICE, self._count - most), rows)
                self._take_over(rows)
                self._count -= done
                removed += done
        return removed

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        with self._lock:
            with contextlib.suppress(HistoryError), self._explained():
                if self._fd >= 0:
                    self._follow()
                    self._keep_age()
            self._close()

    def __enter__(self) -> History:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What is written

    def _write(
        self, newest: dict[tuple[str, float], Event], most: int, named: Container[str] | None
    ) -> None:
        with self._transaction():
            (highest,) = self._db.execute("SELECT max(id) FROM dump").fetchone()
            number = (highest or 0) + 1
            rows: dict[str, _Row | None] = {}  # what changes in self._rows
            add: list[tuple[Any, ...]] = []
            change: list[tuple[Any, ...]] = []
            left_over: list[tuple[Any, ...]] = []
            age = self._age()
            for kind, node, when, since, last, messages, addresses, took in newest.values():
                ended, aged = (when, age) if kind == "silent" else (None, 0.0)
                length = took or max(0.0, last - since)  # 0: nobody measured it
                where = " ".join(addresses)
                row = rows[node] if node in rows else self._rows.get(node)
                if row is not None and row[1] == since:
                    at = row[0]
                    change.append((last, ended, messages, where, length, aged, at, node, since))
                else:
                    if row is not None:  # its end was never told
                        left_over.append((when, age, row[0], node))
                    row = (number, since, named is None or node in named)
                    add.append(
                        (number, node, since, last, ended, messages, where, length, aged, row[2])
                    )
                    number += 1
                rows[node] = None if ended is not None else row
            # Added first: a dump may be left over in the same call.
            self._db.executemany(_ADD, add)
            change.sort(key=lambda row: row[6])  # each page of the file once
            if change and self._db.executemany(_CHANGE, change).rowcount != len(change):
                add += self._put_back(change, named)
            self._db.executemany(
                "UPDATE dump SET ended = ?, age = ? WHERE id = ? AND node = ? AND ended IS NULL",
                left_over,
            )
            # Those that were too many before are left to `trim`.
            wanted = min(self._count + len(add) - most, len(add) + _SLICE)
            pushed_out = self._make_room(wanted, rows)
        self._count += len(add) - pushed_out
        self._pushed_out += pushed_out
        self._take_over(rows)

    def _take_over(self, rows: dict[str, _Row | None]) -> None:
        """What changed in `_rows`, once it is written."""
        for node, now in rows.items():
            if now is None:
                self._rows.pop(node, None)
            else:
                self._rows[node] = now

    def _put_back(
        self, change: list[tuple[Any, ...]], named: Container[str] | None
    ) -> list[tuple[Any, ...]]:
        """Rows are missing that somebody else took away: they are under way all the same."""
        there = "SELECT 1 FROM dump WHERE id = ?"
        missing = [
            (at, node, since, *told, named is None or node in named)
            for *told, at, node, since in change
            if self._db.execute(there, (at,)).fetchone() is None
        ]
        self._db.executemany(_ADD, missing)
        return missing

    def _make_room(self, wanted: int, rows: dict[str, _Row | None]) -> int:
        """Remove so many dumps, if there are that many that may be; how many it removed.

        `rows` is what changes in `_rows` in this transaction; it is kept up to date.
        """
        removed = self._remove("named = 0 AND ended IS NOT NULL", wanted)
        if removed < wanted:
            under_way = {**self._rows, **rows}
            strangers = ((row[0], node) for node, row in under_way.items() if row and not row[2])
            oldest = heapq.nsmallest(wanted - removed, strangers)
            self._db.executemany("DELETE FROM dump WHERE id = ?", [(at,) for at, _ in oldest])
            rows.update((node, None) for _, node in oldest)
            removed += len(oldest)
        if removed < wanted:
            removed += self._remove("named = 1 AND ended IS NOT NULL", wanted - removed)
        return removed

    def _remove(self, condition: str, most: int, *values: float) -> int:
        """Remove the oldest dumps of this condition, at most so many; return their number."""
        if most <= 0:
            return 0
        query = (
            f"DELETE FROM dump WHERE id IN (SELECT id FROM dump WHERE {condition} "  # noqa: S608
            "ORDER BY id LIMIT ?)"
        )
        return self._db.execute(query, (*values, most)).rowcount

    def _age(self) -> float:
        """Seconds for which daemons have run with this file."""
        return self._young + max(0.0, self._clock() - self._since)

    def _keep_age(self) -> None:
        with self._transaction():
            self._db.execute("UPDATE file SET age = ?", (self._age(),))

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

    # The file

    def _open(self) -> None:
        with self._explained():
            self._real = os.path.realpath(self.path)
            self.amended.clear()
            self._check_place()
            if self.writable:
                self._fd = self._hold()
            try:
                self._db = self._connect()
                self._prepare()
                if self.writable:
                    self._put_rescued_back()
                    self._load()
            except BaseException:
                self._close()
                raise

    def _load(self) -> None:
        query = "SELECT node, id, since, named FROM dump WHERE ended IS NULL ORDER BY id"
        self._rows = {
            node: (at, since, bool(named)) for node, at, since, named in self._db.execute(query)
        }
        (self._count,) = self._db.execute("SELECT count(*) FROM dump").fetchone()
        (self._young,) = self._db.execute("SELECT max(age) FROM file").fetchone()
        self._since = self._clock()
        self._files = self._there()

    def _close(self) -> None:
        with contextlib.suppress(sqlite3.Error, AttributeError):
            self._db.close()
        # Not before: to close any descriptor of the file ends SQLite's locks on it.
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _hold(self) -> int:
        """Make the file if there is none, and hold it against other daemons.

        It is the file that is held and not its name, so a second name leads to the same lock.
        """
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(self._real, flags | os.O_CREAT | os.O_EXCL, self.mode)
            os.fchmod(fd, self.mode)  # whatever the umask
        except FileExistsError:
            fd = os.open(self._real, flags)
        try:
            about = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, _OURS, 1, 0)
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, about)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                os.close(fd)
                raise HistoryInUse(
                    f"{self.path}: another kdumpfenced writes this history: "
                    "give each a [history] path of its own",
                    again=True,
                ) from None
            # A file system without such locks.
        self._set_modes()
        return fd

    def _set_modes(self) -> None:
        """Let nobody but those who may do anything with the file and its log.

        Who can read it can hold its locks, and so keep the daemon from writing.
        """
        for tail in ("", "-wal", "-shm"):
            path = self._real + tail
            with contextlib.suppress(OSError):
                found = stat.S_IMODE(os.stat(path).st_mode)
                if found != self.mode:
                    os.chmod(path, self.mode)
                if found & ~self.mode:
                    self.amended.append(
                        f"{path}: mode {found:04o} let others in: set to {self.mode:04o}"
                    )

    def _there(self) -> list[tuple[int, int]]:
        """Which files are found by the names of file, log and index."""
        return [_inode(path) for path in (self.path, self._real + "-wal", self._real + "-shm")]

    @property
    def in_place(self) -> bool:
        """Whether the open files are those that others find by their names."""
        return self._fd < 0 or self._files == self._there()

    def _follow(self) -> None:
        """Go on where the names lead to, if somebody moved or removed file or log.

        Nothing that was recorded is lost: a file that was only moved has it all, and what was
        in a file that is gone goes to the new one.
        """
        if self.in_place:
            return
        if os.fstat(self._fd).st_nlink:
            busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise HistoryError(
                    f"{self.path}: its log was taken away, and a reader keeps it open", again=True
                )
        else:
            self._rescue()
        self._close()
        self._open()

    def _rescue(self) -> None:
        """Copy what the removed file holds to one beside it."""
        rescued = self._real + _RESCUED
        unfinished = rescued + "-new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)  # of a try that failed
        os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self.mode))
        with contextlib.closing(sqlite3.connect(unfinished)) as copy:
            self._db.backup(copy)
        os.rename(unfinished, rescued)

    def _put_rescued_back(self) -> None:
        """Take in what `_rescue` left: what was told of those dumps last."""
        rescued = self._real + _RESCUED
        if not os.path.exists(rescued):
            return
        self._db.execute("ATTACH ? AS rescued", (rescued,))
        with self._transaction():
            self._db.execute(
                "DELETE FROM dump WHERE (node, since) IN (SELECT node, since FROM rescued.dump)"
            )
            self._db.execute(
                f"INSERT INTO dump ({_ALL}) SELECT {_ALL} FROM rescued.dump ORDER BY id"  # noqa: S608
            )
            self._db.execute("UPDATE file SET age = max(age, (SELECT max(age) FROM rescued.file))")
        self._db.execute("DETACH rescued")
        for tail in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(rescued + tail)

    def _check_place(self) -> None:
        """What SQLite would call "unable to open", or would wait for."""
        folder = os.path.dirname(self._real)
        try:
            if self.writable:
                self._check_owners()
            about = os.stat(self.path)
        except FileNotFoundError:
            if not self.writable:
                raise HistoryError(
                    f"no history at {self.path}: kdumpfenced has not written one there"
                ) from None
            if not os.path.isdir(folder):
                raise HistoryError(f"{self.path}: no such directory: {folder}") from None
            if not os.access(folder, os.W_OK | os.X_OK):
                raise HistoryError(f"{self.path}: {_why_not(folder)}: {folder}", True) from None
            return
        except OSError as error:
            raise HistoryError(f"{self.path}: {error.strerror}") from None
        if not stat.S_ISREG(about.st_mode):
            raise HistoryError(f"{self.path}: not a regular file")
        if not os.access(self.path, os.R_OK | (os.W_OK if self.writable else 0)):
            raise HistoryError(f"{self.path}: {_why_not(self.path)}", True)

    def _check_owners(self) -> None:
        """Nobody else may have put there what SQLite would believe."""
        folder = os.stat(os.path.dirname(self._real))
        if folder.st_mode & stat.S_IWOTH or folder.st_uid not in (0, os.geteuid()):
            self.amended.append(
                f"{self.path}: others can write to its directory: put it into one of its own"
            )
        for tail in ("", "-wal", "-shm", "-journal", _RESCUED):
            with contextlib.suppress(FileNotFoundError):
                user = os.stat(self._real + tail).st_uid
                if user not in (0, os.geteuid()):
                    raise HistoryError(
                        f"{self._real}{tail}: belongs to user {user}, and not to the daemon's: "
                        "chown it, or remove it",
                        again=True,
                    )

    def _connect(self) -> sqlite3.Connection:
        uri = f"file:{quote(self.path)}?mode=" + ("rw" if self.writable else "ro")
        if not self.writable and not self._can_share():
            uri += "&immutable=1"
        return sqlite3.connect(
            uri,
            uri=True,
            timeout=_PATIENCE_WRITING if self.writable else _PATIENCE,
            isolation_level=None,
            check_same_thread=False,
        )

    def _can_share(self) -> bool:
        """Whether a reader can have the log's index, which it has to make if there is none.

        Where it cannot, and there is no log either, nobody writes: the file alone is all.
        """
        return (
            os.path.exists(self._real + "-wal")
            or os.path.exists(self._real + "-shm")
            or os.access(os.path.dirname(self._real), os.W_OK)
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
            if schema == 1:
                self._columns = f"{_OLD_COLUMNS}, NULL"
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
        if schema < SCHEMA:
            with self._transaction():
                if not tables:
                    self._db.execute(_TABLE)
                for more in _MORE:
                    self._db.execute(more)
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
        except OSError as error:
            raise HistoryError(f"{self.path}: {error.strerror}", again=True) from None

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
    node, since, last, ended, messages, addresses, took = row
    sound = (
        isinstance(node, str)
        and _is_time(since)
        and _is_time(last)
        and (ended is None or _is_time(ended))
        and isinstance(messages, int)
        and isinstance(addresses, str)
        and (took is None or _is_time(took))
    )
    if not sound:
        raise sqlite3.DatabaseError("a row of it is no dump")
    return Past(node, since, last, ended, messages, tuple(addresses.split()), took or 0.0)


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

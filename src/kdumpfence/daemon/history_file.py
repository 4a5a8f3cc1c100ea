# SPDX-License-Identifier: LGPL-2.1-or-later
"""The history's file: where it is, who may read it, whether it is whole and still in its place.

SQLite keeps what is in it; here is what SQLite would not look after. What may not be in this
file: what a dump is, and when one is written or removed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from typing import Literal
from urllib.parse import quote

from kdumpfence.daemon import instance
from kdumpfence.daemon.outbox import Outbox

#: Where kdumpfenced keeps it.
PATH = "/var/lib/kdumpfenced/history.sqlite"

#: Number of the table's form; a file with a higher one is of a newer kdumpfence.
SCHEMA = 4

#: SQLite's application_id of these files.
APPLICATION = 0x6B647066

#: Who may read the file and write to it.
MODE = 0o600

#: Seconds for which another program may keep the file locked: for whoever reads, and for the
#: daemon, whose main loop stands still meanwhile.
PATIENCE = 2.0
PATIENCE_WRITING = 0.5

#: Bytes; the write-ahead log is cut to this when it was longer.
LOG_LIMIT = 1 << 26

#: Pages (of 4096 bytes) in the log from which on they are moved to the file. With SQLite's
#: own 1000 each page that changes again and again would be written twice each time.
LOG_PAGES = 8192

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
#: What a form has that the one before it has not.
_MORE = {
    2: (
        # Seconds from the first message to the last, by a clock that nobody sets; NULL: unknown.
        "ALTER TABLE dump ADD COLUMN took REAL",
        # Age of the file when it was over.
        "ALTER TABLE dump ADD COLUMN age REAL NOT NULL DEFAULT 0",
        # 1: the node stands in the settings; 0: a network admitted it.
        "ALTER TABLE dump ADD COLUMN named INTEGER NOT NULL DEFAULT 1",
        "CREATE INDEX passing ON dump (id) WHERE named = 0 AND ended IS NOT NULL",
        # Seconds for which daemons have run with it.
        "CREATE TABLE file (age REAL NOT NULL)",
        "INSERT INTO file VALUES (0)",
    ),
    3: (
        # How it ended: "finished" or "failed" if the node said so; else "".
        "ALTER TABLE dump ADD COLUMN how TEXT NOT NULL DEFAULT ''",
        # Of the senders that told of it, in hexadecimal digits with blanks between them.
        "ALTER TABLE dump ADD COLUMN sessions TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX told ON dump (ended) WHERE how <> ''",
    ),
    4: (
        # What is newer than the rows of dumps under way: standing.py.
        "CREATE TABLE standing (figures BLOB NOT NULL)",
        "INSERT INTO standing VALUES (x'')",
    ),
}
#: The columns of a form, all but the number.
COLUMNS = {2: "node, since, last, ended, messages, addresses, took, age, named"}
COLUMNS[3] = COLUMNS[4] = f"{COLUMNS[2]}, how, sessions"

#: Behind the name of a file that was removed while it was open: what it held.
_RESCUED = "-rescued"

#: Behind the name of the file: itself, its write-ahead log, and the index of that.
_TAILS = ("", "-wal", "-shm")


class HistoryError(Exception):
    """The file cannot be used; the text is one line for people."""


class HistoryInUse(HistoryError):
    """Another daemon writes to the file."""


class HistoryFile:
    """The file at `path`, opened, or created when `writable`. `open` may be called again.

    Raises HistoryError when it cannot be used, HistoryInUse if another daemon uses it. What is
    damaged or foreign is left as it is.
    """

    def __init__(self, path: str, writable: bool, mode: int, spool: bool = False) -> None:
        self.path = os.path.abspath(path)
        self.mode = mode
        #: Form of the table that was found.
        self.schema = SCHEMA
        #: What was amended when it was opened, a line each.
        self.amended: list[str] = []
        self.db: sqlite3.Connection
        #: What is to be handed on, with `spool`.
        self.outbox: Outbox | None = None
        self._spool = spool
        self._writable = writable
        self._places: list[tuple[int, int]] = []
        self._fd = -1
        self._real = self.path  # where its name led to: the log's name is that of the real file

    def open(self) -> None:
        """Open it, checked; `amended` is of this time."""
        self._real = os.path.realpath(self.path)
        self.amended.clear()
        self._check_place()
        if self._writable:
            try:
                self._fd = instance.hold(self._real, self.mode)
            except instance.InUse:
                raise HistoryInUse(
                    f"{self.path}: in use by another kdumpfenced: give each its own [history] path"
                ) from None
        try:
            if self._writable:
                self._set_modes()
            self.db = self._connect()
            self._prepare()
            if self._spool:
                self.outbox = Outbox(self.db)
            if self._writable:
                self._put_rescued_back()
            self._places = self._there()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of it; a second time does nothing."""
        with contextlib.suppress(sqlite3.Error, AttributeError):
            self.db.close()
        # Not before: to close any descriptor of the file ends SQLite's locks on it.
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _set_modes(self) -> None:
        """Let nobody but those who may do anything with the file and its log.

        Who can read it can hold its locks, and so keep the daemon from writing.
        """
        for tail in _TAILS:
            path = self._real + tail
            with contextlib.suppress(OSError):
                found = stat.S_IMODE(os.stat(path).st_mode)
                if found != self.mode:
                    os.chmod(path, self.mode)
                if found & ~self.mode:
                    self.amended.append(
                        f"{path}: mode {found:04o} was too open; set to {self.mode:04o}"
                    )

    def _there(self) -> list[tuple[int, int]]:
        """Which files are found by the names of file, log and index."""
        return [_inode(path) for path in (self.path, self._real + "-wal", self._real + "-shm")]

    @property
    def in_place(self) -> bool:
        """Whether the open files are those that others find by their names."""
        return self._fd < 0 or self._places == self._there()

    def leave(self) -> None:
        """Close it, because file or log were moved or removed: `open` goes on where the names lead.

        Nothing that was recorded is lost: a file that was only moved has it all, and what was
        in a file that is gone goes to the new one.
        """
        if os.fstat(self._fd).st_nlink:
            busy, _, _ = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise HistoryError(
                    f"{self.path}: its log was taken away, and a reader keeps it open"
                )
        else:
            self._rescue()
        self.close()

    def _rescue(self) -> None:
        """Copy what the removed file holds to one beside it."""
        rescued = self._real + _RESCUED
        unfinished = rescued + "-new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)  # of a try that failed
        os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self.mode))
        with contextlib.closing(sqlite3.connect(unfinished)) as copy:
            self.db.backup(copy)
        os.rename(unfinished, rescued)

    def _put_rescued_back(self) -> None:
        """Take in what `_rescue` left: what was told of those dumps last."""
        rescued = self._real + _RESCUED
        if not os.path.exists(rescued):
            return
        self.db.execute("ATTACH ? AS rescued", (rescued,))
        (form,) = self.db.execute("PRAGMA rescued.user_version").fetchone()
        columns = COLUMNS[form if form in COLUMNS else SCHEMA]
        with self.transaction():
            self.db.execute(
                "DELETE FROM dump WHERE (node, since) IN (SELECT node, since FROM rescued.dump)"
            )
            self.db.execute(
                f"INSERT INTO dump ({columns}) SELECT {columns} FROM rescued.dump ORDER BY id"  # noqa: S608
            )
            self.db.execute("UPDATE file SET age = max(age, (SELECT max(age) FROM rescued.file))")
            if form >= 4:
                figures = "(SELECT figures FROM rescued.standing)"
                self.db.execute(f"UPDATE standing SET figures = {figures}")  # noqa: S608
            if self.outbox is not None:
                self.outbox.put_back()
        self.db.execute("DETACH rescued")
        for tail in _TAILS:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(rescued + tail)

    def _check_place(self) -> None:
        """What SQLite would call "unable to open", or would wait for."""
        folder = os.path.dirname(self._real)
        try:
            if self._writable:
                self._check_owners()
            about = os.stat(self.path)
        except FileNotFoundError:
            if not self._writable:
                raise HistoryError(
                    f"no history at {self.path}: kdumpfenced has not written one there"
                ) from None
            if not os.path.isdir(folder):
                raise HistoryError(f"{self.path}: no such directory: {folder}") from None
            if not os.access(folder, os.W_OK | os.X_OK):
                raise HistoryError(f"{self.path}: {_why_not(folder)}: {folder}") from None
            return
        except OSError as error:
            raise HistoryError(f"{self.path}: {error.strerror}") from None
        if not stat.S_ISREG(about.st_mode):
            raise HistoryError(f"{self.path}: not a regular file")
        if not os.access(self.path, os.R_OK | (os.W_OK if self._writable else 0)):
            raise HistoryError(f"{self.path}: {_why_not(self.path)}")

    def _check_owners(self) -> None:
        """Nobody else may have put there what SQLite would believe."""
        folder = os.stat(os.path.dirname(self._real))
        if folder.st_mode & stat.S_IWOTH or folder.st_uid not in (0, os.geteuid()):
            self.amended.append(
                f"{self.path}: others can write to its directory: move it to a directory of its own"
            )
        for tail in ("", "-wal", "-shm", "-journal", _RESCUED):
            with contextlib.suppress(FileNotFoundError):
                user = os.stat(self._real + tail).st_uid
                if user not in (0, os.geteuid()):
                    raise HistoryError(
                        f"{self._real}{tail}: owned by user {user}, not by the daemon's user: "
                        "chown or remove it"
                    )

    def _connect(self) -> sqlite3.Connection:
        uri = f"file:{quote(self.path)}?mode=" + ("rw" if self._writable else "ro")
        if not self._writable and not _can_share(self._real):
            uri += "&immutable=1"
        return sqlite3.connect(
            uri,
            uri=True,
            timeout=PATIENCE_WRITING if self._writable else PATIENCE,
            isolation_level=None,
            check_same_thread=False,
        )

    def _prepare(self) -> None:
        """See that it is ours and whole; a new file gets its table."""
        # At one moment: the daemon may be making it.
        with self.transaction("DEFERRED"):
            (application,) = self.db.execute("PRAGMA application_id").fetchone()
            (schema,) = self.db.execute("PRAGMA user_version").fetchone()
            (tables,) = self.db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION and (application or schema or tables):
            raise HistoryError(
                f"{self.path}: a database of another program, not a history of kdumpfenced"
            )
        if schema > SCHEMA:
            raise HistoryError(
                f"{self.path}: written by a newer kdumpfence (form {schema}, this one knows "
                f"{SCHEMA}): install that one again, or move the file away"
            )
        self.schema = schema
        if not self._writable:
            if not tables:
                raise HistoryError(f"no history at {self.path}: the file is empty")
            return
        self.db.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT}")
        self.db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        self.db.execute("PRAGMA synchronous = FULL")  # NORMAL would lose the last seconds
        if tables:
            (found,) = self.db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
        (mode,) = self.db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise HistoryError(
                f"{self.path}: this file system does not support SQLite's write-ahead log"
            )
        if schema < SCHEMA:
            with self.transaction():
                if not tables:
                    self.db.execute(_TABLE)
                for form, statements in _MORE.items():
                    for statement in statements if form > schema else ():
                        self.db.execute(statement)
                self.db.execute(f"PRAGMA user_version = {SCHEMA}")
                self.db.execute(f"PRAGMA application_id = {APPLICATION}")

    @contextlib.contextmanager
    def transaction(self, kind: Literal["DEFERRED", "IMMEDIATE"] = "IMMEDIATE") -> Iterator[None]:
        """All that is written meanwhile, or nothing of it.

        DEFERRED: what is read is of one moment.
        """
        self.db.execute(f"BEGIN {kind}")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self.db.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """What SQLite says, in words that tell what to do."""
        try:
            yield
        except sqlite3.ProgrammingError as error:
            raise HistoryError(f"{self.path}: {error}") from None
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise _explanation(self.path, error) from None
        except OSError as error:
            raise HistoryError(f"{self.path}: {error.strerror}") from None


def _explanation(path: str, error: Exception) -> HistoryError:
    said = " ".join(str(error).split())
    if isinstance(error, sqlite3.OperationalError):
        known = {
            "full": "no space left on device",
            "locked": "locked by another program",
            "readonly": "no write permission for it or its directory",
            "unable to open": "cannot open it, its -wal or its -shm",
        }
        for part, text in known.items():
            if part in said:
                return HistoryError(f"{path}: {text}")
        return HistoryError(f"{path}: {said}")
    if isinstance(error, sqlite3.IntegrityError) or not isinstance(error, sqlite3.Error):
        return HistoryError(f"{path}: cannot be written: {said}")
    return HistoryError(
        f"{path}: damaged ({said}); left untouched: stop kdumpfenced and move it "
        "away with its -wal and -shm, or save what can be read by sqlite3's .recover"
    )


def _can_share(path: str) -> bool:
    """Whether a reader can have the log's index, which it has to make if there is none.

    Where it cannot, and there is no log either, nobody writes: the file alone is all.
    """
    return (
        os.path.exists(path + "-wal")
        or os.path.exists(path + "-shm")
        or os.access(os.path.dirname(path), os.W_OK)
    )


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

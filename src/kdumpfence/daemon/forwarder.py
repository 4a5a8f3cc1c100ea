# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hands the outbox on to the database, in a thread of its own: nothing else waits for that.

It reads a batch from the file, asks the database to take it, and only then goes on with the next;
so its memory is that of a batch, whatever waits. Numbers tell the database what it has already.
When it does not get through, it says so once, tries again, and what waits stays in the file. An
event that the database refuses for what it says is set aside, and the others go on. The main loop
looks in now and then: it writes the lines for the log, removes from the file what has been in the
database for a while, and cuts the connection if the thread hangs. What may not be in this file:
what the database makes of it, and SQL of the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from kdumpfence._version import __version__
from kdumpfence.daemon import outbox
from kdumpfence.daemon.formats import many
from kdumpfence.daemon.neighbours import Around, Neighbours
from kdumpfence.database import schema
from kdumpfence.database.calls import BEAT
from kdumpfence.database.connection import (
    DatabaseError,
    connect,
    explained,
    refuses_data,
    shown,
)
from kdumpfence.text import one_line

if TYPE_CHECKING:
    import psycopg

#: Events that are handed on in one transaction, at most.
BATCH = 1000

#: And so many after failures.
LEAST = 50

#: Seconds between two tries, doubled from the first to the last; where somebody has to do something
#: before it can work, the last.
RETRY_FIRST = 0.5
RETRY_LAST = 15.0

#: Seconds without an answer after which the connection is cut.
STUCK = 30.0

#: Seconds for which what was handed on is kept: a replica that becomes the primary may lack it.
KEEP = 600.0

#: Seconds between two calls that remove what is too old from the database.
TRIM_EVERY = 3600.0

#: Measurements of the clock of which the best counts.
CLOCKS = 8

#: Dumps of which is remembered that an event of theirs was set aside, at most.
REFUSED = 1000

#: Characters of a node's name in a line of the log, at most.
MOST_NAME = 100

_HAND_ON = "kdumpfence.hand_on(%s, %s, %s, %s, %s, %s)"


class Listener(NamedTuple):
    """What the database is told of this daemon when it connects."""

    identity: str
    name: str
    silence: float


class Figures(NamedTuple):
    """What the main loop knows of this daemon, for those who look at the database."""

    dumping: int = 0
    trouble: str = ""


class Forwarder:
    """The thread, once `start` was called. `path` is the history's file.

    `shows`: somebody wants to be told `around`.
    """

    def __init__(
        self,
        url: str,
        path: str,
        listener: Callable[[], Listener],
        clock: Callable[[], float] = time.monotonic,
        shows: bool = False,
    ) -> None:
        self._url = url
        self._path = path
        self._listener = listener
        self._clock = clock
        self._life = secrets.token_hex(8)
        self._thread = threading.Thread(target=self._run, name="database", daemon=True)
        self._woken = threading.Event()
        self._ending = False
        self._neighbours = Neighbours(url, clock) if shows else None
        #: Of the main loop.
        self.figures = Figures()
        #: Lines for the log: (level, text).
        self._lines: deque[tuple[str, str]] = deque(maxlen=100)
        #: What is wrong, "" if nothing is, and since when nothing came through.
        self.trouble = "not connected yet"
        self._failing_since: float | None = clock()
        #: The last number that the database has, and the last one that there is.
        self.handed_on = 0
        self.newest = 0
        #: The database has numbers up to this one, and the file does not.
        self.renumber = 0
        self.errors = 0
        #: Numbers of events that were set aside: the main loop removes them from the file.
        self.refused: list[int] = []
        self._size = BATCH
        # Of so many events that are next, one is refused; 0: none is known to be.
        self._suspects = 0
        self._told_refused: set[tuple[object, object]] = set()
        self._kept: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._asked_since: float | None = None
        self._clocks: deque[tuple[int, int]] = deque(maxlen=CLOCKS)
        self._next_beat = self._next_trim = 0.0

    # For the main loop

    def start(self) -> None:
        """RuntimeError if there can be no further thread."""
        self._thread.start()

    def wake(self) -> None:
        """There is something to hand on."""
        self._woken.set()

    @property
    def waiting(self) -> int:
        """Events that the database does not have yet, about."""
        return max(0, self.newest - self.handed_on)

    @property
    def works(self) -> bool:
        """Whether what happens is in the database within moments."""
        return not self.trouble

    def around(self) -> Around | None:
        """The other listeners as of a while ago, None if nobody wanted that; from any thread."""
        neighbours = self._neighbours
        return None if neighbours is None else neighbours.around(self.trouble)

    def look(self) -> list[tuple[str, str]]:
        """Lines for the log; a connection that has not answered for STUCK seconds is cut."""
        since = self._asked_since
        if since is not None and self._clock() - since > STUCK:
            self._cut()
        lines = []
        with contextlib.suppress(IndexError):
            while True:
                lines.append(self._lines.popleft())
        return lines

    def forgettable(self) -> int:
        """Up to which number the file needs nothing any more."""
        now = self._clock()
        if not self._kept or self._kept[-1][1] != self.handed_on:
            self._kept.append((now, self.handed_on))
        number = 0
        while self._kept and now - self._kept[0][0] > KEEP:
            number = self._kept.popleft()[1]
        return number

    def finish(self, seconds: float) -> None:
        """Hand on what there still is, for so long; then give up."""
        self._ending = True
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
            if self._thread.is_alive():
                self._cut()
                self._thread.join(0.5)

    def _cut(self) -> None:
        """Whoever waits for an answer on this connection gets an error instead."""
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    # The thread

    def _run(self) -> None:
        delay = RETRY_FIRST
        while True:
            connected = self._clock()
            try:
                with self._connected() as connection:
                    self._serve(connection)
                return
            except DatabaseError as error:
                lasting = error.lasting
                self._failed(str(error))
            except sqlite3.Error as error:
                lasting = False
                self._failed(f"cannot read the outbox in {self._path}: {error}")
            except Exception as error:
                # A thread that ends would be noticed by nobody.
                lasting = False
                self._failed(f"{type(error).__name__}: {error}")
            if self._ending:
                return
            if self._clock() - connected > RETRY_LAST:
                delay = RETRY_FIRST
            self._pause(RETRY_LAST if lasting else delay)
            delay = min(2 * delay, RETRY_LAST)

    def _pause(self, seconds: float) -> None:
        end = self._clock() + seconds
        while not self._ending and self._clock() < end:
            self._woken.clear()
            self._woken.wait(max(0.0, end - self._clock()))

    @contextlib.contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        self._asked_since = self._clock()
        connection = None
        try:
            connection = connect(
                self._url,
                options="-c statement_timeout=60000 -c lock_timeout=20000 "
                "-c idle_in_transaction_session_timeout=60000",
            )
            with self._lock:
                # Its own descriptor: libpq may close its at any time, and another gets the number.
                self._socket = socket.socket(fileno=os.dup(connection.fileno()))
            yield connection
        except sqlite3.Error:
            raise
        except Exception as error:
            if isinstance(error, DatabaseError):
                raise
            raise explained(self._url, error) from None
        finally:
            self._asked_since = None
            with self._lock:
                if self._socket is not None:
                    self._socket.close()
                    self._socket = None
            if connection is not None:
                with contextlib.suppress(Exception):
                    connection.close()

    def _ask(  # the only value of a row
        self, connection: psycopg.Connection[Any], query: str, *values: object
    ) -> Any:  # noqa: ANN401
        self._asked_since = self._clock()
        row = connection.execute(query.encode(), values).fetchone()
        self._asked_since = None
        return None if row is None else row[0]

    def _serve(self, connection: psycopg.Connection[Any]) -> None:
        """Hand on until the end."""
        if self._ask(connection, "SELECT pg_is_in_recovery()"):
            raise DatabaseError(
                "it is a read-only replica: name the primary, or all hosts with "
                "target_session_attrs=read-write"
            )
        schema.need(connection)
        self._clocks.clear()
        self._next_beat = 0.0
        self._register(connection)
        if self._neighbours is not None:
            self._neighbours.again()
        while True:
            ending = self._ending
            self._woken.clear()
            if self._clock() >= self._next_beat:
                self._measure(connection)
            batch = outbox.read(self._path, self.handed_on, self._next_size())
            self.newest = max(self.newest, batch.newest)
            gone = not batch.text or self._hand_on(connection, batch)
            if gone and (batch.last == batch.newest or not batch.text):
                self._worked()
            now = self._clock()
            if now >= self._next_beat or (ending and not batch.text):
                self._beat(connection, stopping=ending and not batch.text)
                self._next_beat = now + BEAT
                if not ending:
                    self._look_around(connection)
            if ending and not batch.text:
                return
            if not batch.text:
                if now >= self._next_trim:
                    self._trim(connection, now)
                self._woken.wait(max(0.0, self._next_beat - self._clock()))

    def _next_size(self) -> int:
        """How many events to hand on next: half of those among which one is refused."""
        return min(self._size, max(1, self._suspects // 2)) if self._suspects else self._size

    def _hand_on(self, connection: psycopg.Connection[Any], batch: outbox.Batch) -> bool:
        """Whether these are dealt with; if not, one of them is refused, and fewer are to follow."""
        asked = self._next_size()
        try:
            self.handed_on = self._ask(
                connection, f"SELECT {_HAND_ON}", *self._handed(batch, batch.text)
            )
        except Exception as error:
            if not refuses_data(error):
                raise
            events = json.loads(batch.text)
            self._suspects = len(events)
            if len(events) > 1:
                return False
            if not self._takes_others(connection, batch):
                raise
            self._set_aside(events[0], error)
            self.handed_on = batch.last
            self._suspects = 0
            return True
        self._suspects = max(0, self._suspects - asked)
        self._size = min(BATCH, 2 * self._size)
        return True

    def _handed(self, batch: outbox.Batch, text: str) -> tuple[object, ...]:
        """What `hand_on` is given."""
        left_over = max(0, batch.newest - batch.last)
        return (*self._speaker(), *self._offset(), left_over, text)

    def _takes_others(self, connection: psycopg.Connection[Any], batch: outbox.Batch) -> bool:
        """Whether the database would take a dump that nothing is wrong with; it keeps none.

        If not, the fault is not the event's, and all that follow would be set aside.
        """
        now = round(time.time() * 1e6)
        sound = {"node": "kdumpfence", "happened": now, "since": now, "last_heard": now}
        sound |= {"messages": 1, "addresses": "192.0.2.1", "took": 0, "sessions": "", "named": True}
        kinds = enumerate(("began", "finished"))
        text = json.dumps([{**sound, "seq": batch.last + at, "kind": kind} for at, kind in kinds])
        try:
            # Divided by zero, it is undone in the same statement: no client that hangs in between
            # can keep the lock.
            self._ask(connection, f"SELECT 1 / (0 * {_HAND_ON})", *self._handed(batch, text))
        except Exception as error:
            if not refuses_data(error):
                raise
            return getattr(error, "sqlstate", "") == "22012"
        return False

    def _set_aside(self, event: dict[str, Any], error: Exception) -> None:
        """Go on without this event. One line a dump: more of it may be refused."""
        self.errors += 1
        self.refused.append(int(event["seq"]))
        dump = (event["node"], event["since"])
        if dump in self._told_refused:
            return
        if len(self._told_refused) >= REFUSED:
            self._told_refused.clear()
        self._told_refused.add(dump)
        self._lines.append(
            (
                "error",
                f"database {shown(self._url)}: refuses {event['kind']!r} of node "
                f"{one_line(str(event['node']))[:MOST_NAME]}: {explained(self._url, error)}; lost "
                f"there, the history in {self._path} has it",
            )
        )

    def _speaker(self) -> tuple[str, str]:
        return self._listener().identity, self._life

    def _register(self, connection: psycopg.Connection[Any]) -> None:
        identity, name, silence = self._listener()
        number = self._ask(
            connection,
            "SELECT kdumpfence.register(%s, %s, %s, %s, %s * interval '1 second')",
            *(identity, self._life, name, __version__, silence),
        )
        newest = outbox.read(self._path, 0, 1).newest
        if number > newest and number > self.newest:
            # An empty outbox says nothing of its last number: the main loop knows it.
            self.renumber = number
        self.handed_on = number

    def _measure(self, connection: psycopg.Connection[Any]) -> None:
        """How far this machine's clock is behind the database's; the best of some counts."""
        before = time.time()
        theirs = self._ask(
            connection, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        )
        after = time.time()
        error = max(0, round((after - before) / 2 * 1e6))
        offset = int(theirs) - round((before + after) / 2 * 1e6)
        if self._clocks and abs(offset - self._offset()[0]) > error + self._offset()[1] + 1_000_000:
            self._clocks.clear()  # one of the clocks was set
        self._clocks.append((error, offset))

    def _offset(self) -> tuple[int, int]:
        """Microseconds: the offset, 0 if none can be told from none, and how wrong that may be."""
        error, offset = min(self._clocks)
        return (0 if abs(offset) <= error else offset), error

    def _beat(self, connection: psycopg.Connection[Any], stopping: bool) -> None:
        now = self.figures
        self._ask(
            connection,
            "SELECT kdumpfence.beat(%s, %s, %s, %s, %s, %s, %s, %s)",
            *self._speaker(),
            *self._offset(),
            self.waiting,
            now.dumping,
            now.trouble[:1000],
            stopping,
        )

    def _look_around(self, connection: psycopg.Connection[Any]) -> None:
        if self._neighbours is not None:
            self._asked_since = self._clock()
            line = self._neighbours.ask(connection, self._listener().identity)
            self._asked_since = None
            if line:
                self._lines.append(("warning", f"database {shown(self._url)}: {line}"))

    def _trim(self, connection: psycopg.Connection[Any], now: float) -> None:
        self._next_trim = now + TRIM_EVERY
        removed = self._ask(connection, "SELECT kdumpfence.trim_history()")
        if removed:
            self._next_trim = now  # there may be more
            self._lines.append(
                ("info", f"database: removed {many(removed, 'old dump', 'old dumps')}")
            )

    # What is said of it

    def _failed(self, text: str) -> None:
        self.errors += 1
        # A database that is too slow for so many gets fewer.
        self._size = max(LEAST, self._size // 2)
        if self._failing_since is None:
            self._failing_since = self._clock()
        if text != self.trouble:
            self.trouble = text
            self._lines.append(
                (
                    "error",
                    f"database {shown(self._url)}: {text}; still listening, events wait in "
                    f"{self._path}",
                )
            )

    def _worked(self) -> None:
        if self._failing_since is None and not self.trouble:
            return
        first = self.trouble == "not connected yet"
        seconds = self._clock() - (self._failing_since or self._clock())
        self._failing_since, self.trouble = None, ""
        what = "connected" if first else f"works again after {seconds:.1f} s"
        self._lines.append(
            ("info" if first else "warning", f"database {shown(self._url)}: {what}, has all events")
        )

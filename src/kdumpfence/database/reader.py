# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the database knows: who is dumping, what was, what happens, and how its listeners are.

A reader needs the role kdumpfence_reader, and does no harm on a replica. What may not be in this
file: what people are shown.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kdumpfence.database import schema
from kdumpfence.database.connection import DatabaseError, connect, explaining
from kdumpfence.database.seen import Cursor, Event, ListenerState, Missed, Seen, State

if TYPE_CHECKING:
    pass

#: Events that are asked for at a time.
PAGE = 1000

#: Seconds between two looks for events without a notification; on a replica, which has none.
QUIET = 10.0
QUIET_REPLICA = 1.0


def _unix(column: str) -> str:
    return f"extract(epoch FROM {column})::double precision"


_SEEN = (
    f"SELECT node, {_unix('began')}, {_unix('last')}, messages, addresses, seconds, listeners, "
    "observed FROM kdumpfence.dumping ORDER BY began DESC LIMIT %s"
)
_LISTENERS = (
    f"SELECT name, state, version, {_unix('clock_timestamp() - seen')}, dumping, waiting, "
    "clock_behind::double precision, clock_error::double precision, trouble "
    "FROM kdumpfence.listeners "
    # One that was set up anew has left its old self behind.
    "WHERE state = 'up' OR seen > now() - interval '30 days' ORDER BY name, seen DESC"
)
_EVENTS = (
    "SELECT number, timeline, kind, dump, node, "
    f"{_unix('at')}, {_unix('began')}, {_unix('last')}, messages, addresses, took, listeners, "
    f"merged_into, {_unix('recorded')} FROM kdumpfence.events WHERE number > %s "
    "ORDER BY number LIMIT %s"
)
# Of dumps that are over, the table has all; to look for their reports would take seconds for many,
# and so would arrays for psycopg where that is Python alone.
_PAST = (
    "SELECT * FROM ("
    f"(SELECT node, {_unix('began')} AS since, {_unix('last')}, {_unix('ended')}, messages, "
    "array_to_string(addresses, ' '), took, how FROM kdumpfence.dump "
    "WHERE ended IS NOT NULL AND {} ORDER BY began DESC LIMIT %s) UNION ALL "
    f"(SELECT node, {_unix('began')}, {_unix('last')}, NULL, messages, "
    "array_to_string(addresses, ' '), seconds, how "
    "FROM kdumpfence.dumping WHERE {} ORDER BY began DESC LIMIT %s)) p "
    "ORDER BY since DESC LIMIT %s"
)


class Reader:
    """A connection of somebody who reads. DatabaseError, also from each method."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._news = False
        self._connection = connect(url)
        try:
            with explaining(url):
                self._connection.execute("SET statement_timeout = '120s'")
                schema.need(self._connection)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        self._connection.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with explaining(self._url):
            return self._connection.execute(query.encode(), values).fetchall()

    def state(self, most: int) -> State:
        """What is so now, with `most` dumps at most."""
        ((when, dumping),) = self._rows(
            f"SELECT {_unix('clock_timestamp()')}, "
            "(SELECT count(*) FROM kdumpfence.dump WHERE ended IS NULL)"
        )
        listeners = [ListenerState(*row) for row in self._rows(_LISTENERS)]
        dumps = [
            one._replace(addresses=tuple(one.addresses or ()), listeners=tuple(one.listeners or ()))
            for one in (Seen(*row) for row in self._rows(_SEEN, most))
        ]
        return State(when, listeners, dumping, dumps)

    def past(
        self, node: str | None = None, since: float | None = None, most: int = 1000
    ) -> list[tuple[Any, ...]]:
        """The dumps that began last, those first, over or not: the fields of the history's Past."""
        conditions, values = ["true"], []  # type: list[str], list[Any]
        if node is not None:
            conditions.append("node = %s")
            values.append(node)
        if since is not None:
            conditions.append("began >= to_timestamp(%s)")
            values.append(since)
        where = " AND ".join(conditions)
        query = _PAST.format(where, where)
        return [
            (*row[:5], tuple((row[5] or "").split()), row[6] or 0.0, row[7])
            for row in self._rows(query, *values, most, *values, most, most)
        ]

    def last_event(self) -> Cursor:
        """Of the event that happened last; number 0 if none did."""
        rows = self._rows(
            "SELECT number, timeline FROM kdumpfence.event ORDER BY number DESC LIMIT 1"
        )
        if rows:
            return Cursor(*rows[0])
        ((number,),) = self._rows("SELECT last_event FROM kdumpfence.meta")
        return Cursor(number)

    def events(self, after: int, most: int = PAGE) -> list[Event]:
        """What happened after the event of that number, in order."""
        return [
            one._replace(addresses=tuple(one.addresses), listeners=tuple(one.listeners))
            for one in (Event(*row) for row in self._rows(_EVENTS, after, most))
        ]

    def place(self, after: Cursor) -> tuple[int, int]:
        """After which number to go on, and how many events are gone before that.

        After a failover that lost events their numbers were given again: then it goes on where the
        new primary began, and what was lost and handed on anew is told again.
        """
        ((last, first),) = self._rows(
            "SELECT last_event, (SELECT min(number) FROM kdumpfence.event) FROM kdumpfence.meta"
        )
        oldest = last + 1 if first is None else first
        number = min(after.number, last)
        if after.timeline and after.number >= oldest:
            rows = self._rows(
                "SELECT timeline FROM kdumpfence.event WHERE number = %s", after.number
            )
            if not rows or rows[0][0] != after.timeline:
                rows = self._rows(
                    "SELECT coalesce(max(number), 0) FROM kdumpfence.event "
                    "WHERE timeline <= %s AND number < %s",
                    *(after.timeline, after.number),
                )
                number = max(rows[0][0], oldest - 1)
        missed = max(0, oldest - 1 - number)
        return max(number, oldest - 1), missed

    def follow(self, after: Cursor) -> Iterator[Event | Missed | None]:
        """What happened after that, and what happens, for ever; None: nothing for a while."""
        ((replica,),) = self._rows("SELECT pg_is_in_recovery()")
        if not replica:
            with explaining(self._url):
                self._connection.add_notify_handler(self._heard)
                self._connection.execute("LISTEN kdumpfence")
        number, missed = self.place(after)
        if missed:
            yield Missed(missed)
        while True:
            self._news = False
            found = self.events(number)
            yield from found
            if found:
                number = found[-1].number
            if len(found) < PAGE:
                yield None
                self._wait(QUIET_REPLICA if replica else QUIET)

    def _heard(self, _: object) -> None:
        """Something happened while a question was answered, which may not have had it yet."""
        self._news = True

    def _wait(self, seconds: float) -> None:
        """Until somebody says that there is something new, or for so long."""
        if self._news:
            return
        waits = self._connection.pgconn
        end = time.monotonic() + seconds
        with explaining(self._url):
            while waits.notifies() is None:
                left = end - time.monotonic()
                if left <= 0 or not select.select([waits.socket], [], [], left)[0]:
                    return
                waits.consume_input()
            while waits.notifies() is not None:
                pass


def following(url: str, after: Cursor | None, once: bool = False) -> Iterator[Any]:
    """Events, `Missed` and None as `Reader.follow`, over any number of connections.

    A connection that fails is made anew after a while: its DatabaseError is among what is told.
    `after` None: from now on. `once`: only what there is already; then a DatabaseError is raised.
    """
    delay = 1.0
    while True:
        try:
            with Reader(url) as reader:
                if after is None:
                    after = reader.last_event()
                for event in reader.follow(after):
                    delay = 1.0
                    if isinstance(event, Event):
                        after = Cursor(event.number, event.timeline)
                    if event is None and once:
                        return
                    yield event
        except DatabaseError as error:
            if once:
                raise
            yield error
            time.sleep(delay)
            delay = min(2 * delay, 15.0)


__all__ = [
    "Cursor", "Event", "ListenerState", "Missed", "Reader", "Seen", "State", "following"
]  # fmt: skip

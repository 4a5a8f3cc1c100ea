# SPDX-License-Identifier: LGPL-2.1-or-later
"""What status, watch and history say of a database that several listeners share.

What may not be in this file: what is said of one kdumpfenced (status, changes).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kdumpfence.cli import CommandError
from kdumpfence.cli.tables import joined, make_console, plural, print_table, stamp
from kdumpfence.daemon.timeout_advice import duration
from kdumpfence.database.connection import RULE, DatabaseError, is_url, shown
from kdumpfence.text import one_line

if TYPE_CHECKING:
    from kdumpfence.database.reader import Event, ListenerState, Seen, State

#: libpq's own settings say which one.
ANY = "postgresql://"

_LISTENERS = ("LISTENER", "STATE", "SEEN", "DUMPING", "WAITING", "CLOCK")
_DUMPS = ("NODE", "SINCE", "LASTS", "LAST MESSAGE", "MESSAGES", "HEARD BY", "FROM")

#: Seconds that a listener's clock may differ before it is said.
_CLOCK = 1.0

#: Seconds between two looks at the listeners, for those who watch.
_LOOK_EVERY = 5.0

_KINDS = {
    "finished": "finished its dump",
    "failed": "failed to dump",
    "silent": "fell silent",
    "resumed": "is dumping after all",
    "unobserved": "may be dumping still: all listeners that heard it are gone",
    "observed": "is dumping: a listener that heard it is back",
}


def url(text: str) -> str:
    """A database's URL on the command line, as argparse's `type`."""
    if is_url(text):
        return text
    raise argparse.ArgumentTypeError(RULE)


def add_database(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """The option of those who can ask a database."""
    parser.add_argument(
        "--database",
        metavar="URL",
        type=url,
        default=default,
        help="the database of several listeners, postgresql://user@host/database; what it leaves "
        "open, libpq's settings say (PGSERVICE, PGPASSFILE)",
    )


def failure(where: str, error: DatabaseError) -> CommandError:
    """One line for people."""
    return CommandError(f"database {shown(where)}: {error}")


def print_status(where: str, most: int, as_json: bool) -> int:
    """Kdumpfence status --database."""
    from kdumpfence.database.reader import Reader

    try:
        with Reader(where) as reader:
            found = reader.state(most)
    except DatabaseError as error:
        raise failure(where, error) from None
    if as_json:
        import json

        print(json.dumps(_as_object(found)))
        return 0
    console = make_console()
    print_table(console, _LISTENERS, [_listener_row(one) for one in found.listeners])
    for one in found.listeners:
        if one.trouble and one.state == "up":
            print(f"trouble: {one_line(one.name)}: {one_line(one.trouble)}")
    up = sum(one.state == "up" for one in found.listeners)
    verb = "is" if found.dumping == 1 else "are"
    what = (
        f"{plural(found.dumping, 'node')} {verb} dumping" if found.dumping else "no node is dumping"
    )
    print(f"{plural(up, 'listener')} up; {what}")
    if found.dumps:
        print_table(console, _DUMPS, [_dump_row(one, found.when) for one in found.dumps])
    if found.dumping > len(found.dumps):
        print(f"and {found.dumping - len(found.dumps):,} more")
    if not up:
        print("nobody listens: what is under way may be over, and what begins is not seen")
    return 0


def _as_object(found: State) -> dict[str, Any]:
    return {
        "when": found.when,
        "dumping": found.dumping,
        "listeners": [one._asdict() for one in found.listeners],
        "dumps": [one._asdict() for one in found.dumps],
    }


def _listener_row(one: ListenerState) -> tuple[str, ...]:
    clock = ""
    if abs(one.clock_behind) >= _CLOCK:
        late = "behind" if one.clock_behind > 0 else "ahead"
        clock = f"{duration(abs(one.clock_behind))} {late}"
    ago = f"{duration(max(0.0, one.age))} ago"
    return (one_line(one.name), one.state, ago, f"{one.dumping:,}", f"{one.waiting:,}", clock)


def _dump_row(one: Seen, now: float) -> tuple[str, ...]:
    return (
        one_line(one.node),
        stamp(one.since),
        duration(max(0.0, now - one.since)),
        f"{duration(max(0.0, now - one.last))} ago",
        f"{one.messages:,}",
        joined(one.listeners) + ("" if one.observed else " (all gone)"),
        joined(one.addresses),
    )


def past(where: str, node: str | None, since: float | None, most: int) -> list[tuple[Any, ...]]:
    """The fields of the history's Past."""
    from kdumpfence.database.reader import Reader

    try:
        with Reader(where) as reader:
            return reader.past(node, since, most)
    except DatabaseError as error:
        raise failure(where, error) from None


def watch(where: str) -> int:
    """A line for each change, until a signal ends it."""
    for line in _watched(where):
        print(f"{stamp(time.time())} {line}")
        sys.stdout.flush()
    return 0


def _watched(where: str) -> Iterator[str]:
    from kdumpfence.database.reader import Event, Missed, Reader, following

    try:
        with Reader(where) as reader:
            after = reader.last_event()
            state = reader.state(1_000_000)
    except DatabaseError as error:
        raise failure(where, error) from None
    known: dict[tuple[str, int], tuple[str, str]] = {}
    yield from _listeners_changed(known, state)
    for one in state.dumps:
        yield (
            f"{one_line(one.node)} has been dumping since {stamp(one.since)}, "
            f"heard by {joined(one.listeners)}" + ("" if one.observed else ", all of them gone")
        )
    next_look = time.monotonic() + _LOOK_EVERY
    trouble = ""
    for event in following(where, after):
        if isinstance(event, DatabaseError):
            if str(event) != trouble:
                trouble = str(event)
                yield f"database {shown(where)}: {trouble}"
            continue
        if trouble:
            trouble = ""
            yield "the database answers again"
        if isinstance(event, Missed):
            yield f"{event.number:,} events are too old to be shown"
        elif isinstance(event, Event):
            yield _happened(event)
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + _LOOK_EVERY
            try:
                with Reader(where) as reader:
                    yield from _listeners_changed(known, reader.state(0))
            except DatabaseError:
                pass  # it is told by the other connection


def _listeners_changed(
    known: dict[tuple[str, int], tuple[str, str]], state: State
) -> Iterator[str]:
    names: Counter[str] = Counter()
    for one in state.listeners:  # of one name, who was seen last comes first
        names[one.name] += 1
        if names[one.name] > 1 and one.state != "up":
            continue  # what it was before it was set up anew
        key = (one.name, names[one.name])
        now = (one.state, one.trouble if one.state == "up" else "")
        if known.get(key) != now:
            known[key] = now
            trouble = f": {one_line(now[1])}" if now[1] else ""
            yield f"listener {one_line(one.name)} is {one.state}{trouble}"


def _happened(event: Event) -> str:
    node = one_line(event.node)
    if event.kind == "began":
        return (
            f"{node} has been dumping since {stamp(event.began)}, from {joined(event.addresses)}, "
            f"heard by {joined(event.listeners)}"
        )
    if event.kind == "merged":
        return f"{node}: two dumps since {stamp(event.began)} turned out to be one"
    what = _KINDS.get(event.kind, one_line(event.kind))
    took = duration(max(0.0, event.took))
    return f"{node} {what}, {took} after its first message; heard by {joined(event.listeners)}"

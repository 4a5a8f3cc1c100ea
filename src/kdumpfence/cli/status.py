# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence status: what kdumpfenced knows now. What is said of a status is here for watch too."""

from __future__ import annotations

import argparse
import json
from collections import deque
from collections.abc import Mapping

from kdumpfence.cli import CommandError
from kdumpfence.cli.memory import add_database, print_status
from kdumpfence.cli.numbers import whole
from kdumpfence.cli.tables import SHOWN, joined, make_console, plural, print_table, stamp
from kdumpfence.client import MOST, PATH, Client, ClientError, Refused, Status
from kdumpfence.client.connection import parsed_place
from kdumpfence.daemon.status import as_object
from kdumpfence.daemon.timeout_advice import duration
from kdumpfence.listener.dumps import Dump, Event, length
from kdumpfence.text import one_line

HELP = "nodes that are dumping now"

#: Headings of the table of who is dumping.
HEADS = ("NODE", "SINCE", "LASTS", "LAST MESSAGE", "MESSAGES", "FROM")

#: Seconds; figures of the daemon that are older than that are said to be.
_STALE = 10.0

#: Seconds since the end of a dump for which it is told of, and how many such dumps are.
_RECENT = 3600.0
_MOST_RECENT = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_socket(parser)
    add_database(parser)
    add_limits(parser)


def add_socket(parser: argparse.ArgumentParser) -> None:
    """The option of those who ask the daemon."""
    parser.add_argument(
        "--socket",
        metavar="PATH",
        type=_place,
        help=f"kdumpfenced's control socket ({PATH})",
    )


def asks_database(given: argparse.Namespace) -> bool:
    """Whether the database is asked, and not a daemon."""
    if given.database is not None and given.socket is not None:
        raise CommandError("--socket and --database: give one of them")
    return given.database is not None


def _place(text: str) -> str:
    """A path as a Client wants it, also one from here; whatever else a Client takes will do."""
    told = not text or text.startswith(("/", "unix:", "http://", "https://"))
    where = text if told else f"unix:{text}"
    try:
        parsed_place(where or PATH)
    except ValueError as error:
        raise argparse.ArgumentTypeError(one_line(str(error))) from None
    return where


def add_limits(parser: argparse.ArgumentParser) -> None:
    """The options of those who show dumps once."""
    parser.add_argument(
        "--most",
        metavar="NUMBER",
        type=whole("a number of dumps", 1, 1_000_000),
        default=SHOWN,
        help=f"show at most this many dumps, the newest first ({SHOWN})",
    )
    parser.add_argument("--json", action="store_true", help="JSON output")


def run(given: argparse.Namespace) -> int:
    """Print what the daemon says, or what all say that share a database."""
    if asks_database(given):
        return print_status(given.database, given.most, given.json)
    try:
        with Client(given.socket or PATH) as client:
            found = client.status(min(given.most, MOST))
            if given.most > len(found.dumps) < found.dumping:
                found = found._replace(dumps=_newest(client, given.most) or found.dumps)
    except ClientError as error:
        raise CommandError(str(error)) from None
    if given.json:
        print(json.dumps({**as_object(found, given.most), "age": found.age}))
        return 0
    console = make_console()
    for line in headings(found):
        print(line)
    if found.dumps:
        print_table(console, HEADS, [row(dump, found) for dump in found.dumps])
    left = found.dumping - len(found.dumps)
    if left > 0:
        print(f"and {left:,} more")
    for line in endings(found):
        print(line)
    in_kernel = "; repeated messages are counted in the kernel"
    print(f"datagrams: {counts(found.counts)}{in_kernel if found.counting == 'kernel' else ''}")
    return 0


def _newest(client: Client, most: int) -> list[Dump]:
    """More dumps than an answer holds; [] if the daemon is of a version that has no pages."""
    dumps: deque[Dump] = deque(maxlen=most)
    try:
        dumps.extend(client.dumps())
    except Refused:
        return []
    return list(reversed(dumps))


def headings(found: Status) -> list[str]:
    """What stands above the table of who is dumping."""
    lines = [
        f"kdumpfenced {one_line(found.version)}, up for {duration(found.up)}; "
        f"knows {plural(found.nodes, 'node')}"
    ]
    if found.unresolved:
        names = ", ".join(one_line(name) for name in found.unresolved[:5])
        number = max(found.unresolved_nodes, len(found.unresolved))
        rest = f" and {number - 5:,} more" if number > 5 else ""
        lines.append(f"unresolved names, so these nodes may not be heard: {names}{rest}")
    lines += [f"trouble: {one_line(text)}" for text in found.troubles]
    if found.age > _STALE:
        lines.append(f"these figures are {duration(found.age)} old: the daemon is stuck")
    if found.dumping:
        verb = "is" if found.dumping == 1 else "are"
        lines.append(f"{plural(found.dumping, 'node')} {verb} dumping")
    else:
        lines.append("no node is dumping")
    return lines


def endings(found: Status) -> list[str]:
    """The dumps that ended within the last hour, the newest first; a few lines."""
    now = found.when + found.age
    recent = [event for event in found.ended if now - event.when < _RECENT]
    lines = [
        f"{one_line(event.node)} {how_it_ended(event)}, {duration(max(0.0, now - event.when))} ago"
        for event in recent[:_MOST_RECENT]
    ]
    if len(recent) > _MOST_RECENT:
        lines.append(f"and {len(recent) - _MOST_RECENT:,} more ended within the last hour")
    return lines


def how_it_ended(event: Event) -> str:
    """What a node did whose dump is over."""
    how = {"finished": "finished its dump", "failed": "failed to dump"}
    took = duration(length(event))
    return f"{how.get(event.kind, 'fell silent')}, {took} after its first message"


def row(dump: Dump, found: Status) -> tuple[str, ...]:
    """The cells of a dump below HEADS."""
    now = found.when + found.age
    silent = max(0.0, now - dump.last)
    return (
        one_line(dump.node),
        stamp(dump.since),
        duration(length(dump) + silent),
        f"{duration(silent)} ago",
        f"{dump.messages:,}",
        joined(dump.addresses),
    )


def counts(numbers: Mapping[str, int], rates: Mapping[str, float] | None = None) -> str:
    """Datagrams by what became of them, with those of each second."""
    parts = []
    for name in sorted(numbers, key=lambda name: (name != "accepted", name)):
        part = f"{numbers[name]:,} {one_line(name)}"
        if rates is not None and rates.get(name):
            part += f" (+{rates[name]:,.0f}/s)"
        if numbers[name] or name == "accepted":
            parts.append(part)
    return ", ".join(parts) or "none"

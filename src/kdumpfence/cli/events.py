# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence events: what happens, from a given event on, for programs: a fencing service that was
restarted goes on after the last event that it dealt with, and misses none.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from kdumpfence import signals
from kdumpfence.cli import CommandError
from kdumpfence.cli.memory import ANY, add_database, failure
from kdumpfence.database.connection import DatabaseError, shown
from kdumpfence.text import one_line

HELP = "follow what happens in the database of several listeners, for programs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_database(parser, ANY)
    parser.add_argument(
        "--after",
        metavar="CURSOR",
        help="begin after this event, by its cursor or number; 0: with the oldest there is "
        "(default: what happens from now on)",
    )
    parser.add_argument(
        "--once", action="store_true", help="end when all that there is has been printed"
    )
    parser.add_argument("--json", action="store_true", help="JSON, an object a line")


def run(given: argparse.Namespace) -> int:
    """Print events until a signal ends it."""
    from kdumpfence.database.reader import Cursor, Missed, following

    try:
        after = None if given.after is None else Cursor.of(given.after)
    except ValueError as error:
        raise CommandError(f"--after {error}") from None
    signals.install()
    trouble = ""
    try:
        for event in following(given.database, after, given.once):
            if isinstance(event, DatabaseError):
                if event.lasting:
                    raise event
                if str(event) != trouble:
                    trouble = str(event)
                    print(
                        f"kdumpfence: database {shown(given.database)}: {one_line(trouble)}; "
                        "trying again",
                        file=sys.stderr,
                        flush=True,
                    )
                continue
            if event is None:
                trouble = ""
                continue
            if isinstance(event, Missed):
                told: dict[str, Any] = {"kind": "missed", "number": event.number}
                line = f"{event.number} events are too old: they were removed"
            else:
                told = {**event._asdict(), "cursor": event.cursor}
                line = (
                    f"{event.cursor} {event.kind} {one_line(event.node)} "
                    f"({', '.join(one_line(one) for one in event.listeners)})"
                )
            print(json.dumps(told) if given.json else line, flush=True)
    except DatabaseError as error:
        raise failure(given.database, error) from None
    except signals.Ended as ended:
        return 0 if str(ended) == "SIGINT" else 128 + ended.number
    return 0

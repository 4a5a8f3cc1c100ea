# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence database: set up the database of several listeners, and look after it."""

from __future__ import annotations

import argparse

from kdumpfence.cli import CommandError
from kdumpfence.cli.memory import ANY, add_database, failure
from kdumpfence.cli.numbers import decimal, whole
from kdumpfence.cli.tables import plural
from kdumpfence.database import schema
from kdumpfence.database.connection import DatabaseError
from kdumpfence.text import one_line, shown

HELP = "make, upgrade and check the database of several listeners"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of all actions."""
    parser.add_argument("action", nargs="?", metavar="ACTION", help=", ".join(_ACTIONS))
    add_database(parser, ANY)
    parser.add_argument(
        "--days",
        type=decimal("a number of days", 36500),
        help="keep: dumps, for so many days after they began",
    )
    parser.add_argument(
        "--event-days",
        type=decimal("a number of days", 36500),
        help="keep: events, for so many days",
    )
    parser.add_argument(
        "--most", type=whole("a number of dumps", 1, 10**12), help="keep: at most so many dumps"
    )
    parser.add_argument("--listener", metavar="NAME", help="forget: which one")


def run(given: argparse.Namespace) -> int:
    """Do it."""
    if given.action not in _ACTIONS:
        what = "no action" if given.action is None else shown(given.action)
        names = ", ".join(_ACTIONS)
        raise CommandError(f"{what}: not one of {names}; see kdumpfence database --help")
    for option, action in _OPTIONS.items():
        if getattr(given, option) is not None and given.action != action:
            name = option.replace("_", "-")
            raise CommandError(f"--{name}: not an option of {given.action}")
    try:
        _ACTIONS[given.action](given)
    except DatabaseError as error:
        raise failure(given.database, error) from None
    return 0


def _init(given: argparse.Namespace) -> None:
    before, now = schema.make(given.database, new=True)
    if before:
        print(f"schema kdumpfence is there already; it is of version {now} now")
        return
    print(f"made schema kdumpfence, version {now}")
    print(f"next: GRANT {schema.WRITER} TO the listeners' user, {schema.READER} to those who read")


def _upgrade(given: argparse.Namespace) -> None:
    before, now = schema.make(given.database, new=False)
    print(
        f"schema kdumpfence is of version {now} already; functions and rights are as they should be"
        if before == now
        else f"schema kdumpfence: version {before} became {now}"
    )


def _check(given: argparse.Namespace) -> None:
    for line in schema.check(given.database):
        print(one_line(line))


def _keep(given: argparse.Namespace) -> None:
    days, event_days, most = schema.keep(
        given.database,
        None if given.days is None else float(given.days),
        None if given.event_days is None else float(given.event_days),
        given.most,
    )
    print(f"keeps dumps for {days:g} days, at most {most:,}, and events for {event_days:g} days")


def _forget(given: argparse.Namespace) -> None:
    if not given.listener:
        raise CommandError("forget: which one? give --listener NAME")
    number = schema.forget(given.database, given.listener)
    if not number:
        raise CommandError(f"no listener {given.listener!r} that is gone")
    print(f"forgot {plural(number, 'listener')}: what only it heard is over")


_ACTIONS = {
    "init": _init,
    "upgrade": _upgrade,
    "check": _check,
    "keep": _keep,
    "forget": _forget,
}

#: Which of them an option is for.
_OPTIONS = {"days": "keep", "event_days": "keep", "most": "keep", "listener": "forget"}

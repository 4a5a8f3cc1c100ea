# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence history: past dumps, and what they say about time-outs.

The figures come from timeout_advice.py. The daemon's history needs SQLite, which is imported only
here and only when it runs: the commands that install programs must do without it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kdumpfence.cli import CommandError, memory
from kdumpfence.cli.memory import add_database
from kdumpfence.cli.numbers import decimal
from kdumpfence.cli.status import add_limits
from kdumpfence.cli.tables import BARS, cells, joined, make_console, plural, print_table, stamp
from kdumpfence.daemon import timeout_advice
from kdumpfence.daemon.timeout_advice import PAUSE, duration, rounded_up
from kdumpfence.listener.dumps import length
from kdumpfence.text import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from kdumpfence.daemon.history_reading import Past

HELP = "past dumps, their length, and what that means for time-outs"

#: Nodes in the table that has one line a node.
_NODES = 20

#: Dumps that the figures are made of, at most.
_FIGURES = 100_000

#: Columns of the longest bar, and of a line of prose.
_BAR = 30
_PROSE = 78

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
#: Days ago, at most: no history is older, and PostgreSQL has no times that are much older.
_MOST_AGO = 36500
_FORMS = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--file", metavar="PATH", help="kdumpfenced's history file")
    add_database(parser)
    parser.add_argument("--node", metavar="NAME", help="only this node")
    parser.add_argument(
        "--since",
        metavar="TIME",
        help="only dumps that began since then: 2026-11-20, '2026-11-20 03:00', or 90m, 24h, 7d "
        "ago",
    )
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=decimal("a number of seconds", 86400),
        default=PAUSE,
        help=f"the senders' interval in seconds ({PAUSE:.0f})",
    )
    add_limits(parser)


def run(given: argparse.Namespace) -> int:
    """Print past dumps, and what they say about time-outs."""
    from kdumpfence.daemon.history import PATH, History, HistoryError
    from kdumpfence.daemon.history_reading import Past

    most, pause = given.most, float(given.interval)
    start = None if given.since is None else moment(given.since, time.time())
    wanted = max(most, _FIGURES) + 1
    try:
        if given.database is not None:
            if given.file is not None:
                raise CommandError("--file and --database: give one of them")
            rows = memory.past(given.database, given.node, start, wanted)
            found = [Past(*row) for row in rows]
        else:
            with History(given.file or PATH, writable=False) as opened:
                # One more, to know whether there are others; and closed before the first line is
                # printed: a pager that stands still must not hold the daemon's file.
                found = opened.past(given.node, start, wanted)
    except HistoryError as error:
        raise CommandError(str(error)) from None
    more = len(found) > max(most, _FIGURES)
    found = found[: max(most, _FIGURES)]
    if given.json:
        print(json.dumps(_as_object(found, most, more, pause)))
    elif not found:
        node = "" if given.node is None else f" of {one_line(given.node)}"
        print(f"no dump{node}{'' if start is None else f' since {stamp(start)}'}")
    else:
        _print(found, most, more, pause)
    return 0


def moment(text: str, now: float) -> float:
    """A time as people write it, as Unix time: a date, a date with a time, or how long ago."""
    ago = re.fullmatch(r"([0-9]{1,18})([smhdw])", text)
    if ago is not None:
        seconds = int(ago[1]) * _UNITS[ago[2]]
        if seconds > _MOST_AGO * _UNITS["d"]:
            raise CommandError(f"--since {text!r}: too long ago (at most {_MOST_AGO}d)")
        return now - seconds
    for form in _FORMS:
        with contextlib.suppress(ValueError, OverflowError):
            return time.mktime(time.strptime(text, form))
    raise CommandError(
        f"--since {text!r}: neither a time (2026-11-20, '2026-11-20 03:00') nor how long ago "
        "(90m, 24h, 7d)"
    )


def _print(found: Sequence[Past], most: int, more: bool, pause: float) -> None:
    console = make_console()
    _print_dumps(console, found[:most])
    if len(found) > most:
        print(f"and {len(found) - most:,}{' or more' if more else ''} older ones (--most)")
    print()
    _print_figures(console, found, more, pause)
    width = max(40, shutil.get_terminal_size((_PROSE, 24)).columns - 1)
    for paragraph in timeout_advice.lesson(found, pause):
        print()
        print(textwrap.fill(paragraph, min(_PROSE, width)))


def _print_dumps(console: Console | None, dumps: Sequence[Past]) -> None:
    """One line a dump, with a bar as long as it took."""
    longest = max(length(dump) for dump in dumps) or 1.0
    rows = [
        (
            one_line(dump.node),
            stamp(dump.since),
            ("" if dump.ended is not None else "> ") + duration(length(dump)),
            dump.end,
            f"{dump.messages:,}",
            joined(dump.addresses),
        )
        for dump in dumps
    ]
    heads = ("NODE", "BEGAN", "TOOK", "END", "MESSAGES", "FROM")
    # The bars get what the others leave, but for an address of IPv4.
    others = sum(len(cell) + 2 for cell in cells(heads[:-1], [row[:-1] for row in rows])[0])
    size = _BAR if console is None else min(_BAR, max(10, console.width - others - 18))
    full = "\u2588" if _can_print("\u2588") else "#"
    bars = [full * max(1, round(size * length(dump) / longest)) for dump in dumps]
    print_table(
        console,
        (*heads[:-1], f"{BARS}{duration(longest)}", heads[-1]),
        [(*row[:-1], bar, row[-1]) for row, bar in zip(rows, bars)],
    )


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True


def _print_figures(
    console: Console | None, found: Sequence[Past], more: bool, pause: float
) -> None:
    figures = timeout_advice.by_node(found, pause)
    rows = [_figure_row(one, one_line(one.node or "")) for one in figures[:_NODES]]
    if len(figures) > _NODES:
        rows.append((f"and {len(figures) - _NODES:,} more nodes", *5 * ("",)))
    rows.append(_figure_row(timeout_advice.lengths(found, pause), "all"))
    which = f"the newest {len(found):,} dumps" if more else plural(len(found), "dump")
    print(f"From the first message to the last ({which}), and how long power has")
    print("to stay on after the first message, at least:")
    print_table(console, ("NODE", "DUMPS", "FAILED", "LONGEST", "95 OF 100", "POWER"), rows)


def _figure_row(one: timeout_advice.Lengths, name: str) -> tuple[str, ...]:
    seconds = (one.longest, one.percentile, one.power)
    lengths = ("-" if found is None else rounded_up(found) for found in seconds)
    return (name, f"{one.dumps:,}", f"{one.failed:,}", *lengths)


def _as_object(found: Sequence[Past], most: int, more: bool, pause: float) -> dict[str, Any]:
    """The history for programs. Times are Unix time, lengths seconds."""
    return {
        "dumps": [_dump_object(dump) for dump in found[:most]],
        "considered": len(found),
        "older": more,
        "pause": pause,
        "nodes": [_figures_object(one) for one in timeout_advice.by_node(found, pause)],
        "all": _figures_object(timeout_advice.lengths(found, pause)) if found else None,
        "quick": timeout_advice.quick(found),
    }


def _dump_object(dump: Past) -> dict[str, Any]:
    told = {**dump._asdict(), "addresses": list(dump.addresses), "took": round(length(dump), 3)}
    del told["sessions"]
    return told


def _figures_object(one: timeout_advice.Lengths) -> dict[str, Any]:
    return {
        "node": one.node,
        "dumps": one.dumps,
        "failed": one.failed,
        "longest": _rounded(one.longest),
        "percentile95": _rounded(one.percentile),
        "power": _rounded(one.power),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)

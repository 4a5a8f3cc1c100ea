# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence doctor: what would make kdump fencing fail on this node, and what to do."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdumpfence.cli import CommandError
from kdumpfence.cli.install_options import open_root
from kdumpfence.cli.numbers import whole
from kdumpfence.cli.tables import make_console, print_table
from kdumpfence.doctor import checks, metrics
from kdumpfence.doctor.finding import FAILS, OK, STATES, UNKNOWN, WARNING, Finding, worst
from kdumpfence.doctor.machine import Machine
from kdumpfence.doctor.textfile import Textfile, TextfileError
from kdumpfence.text import one_line

if TYPE_CHECKING:
    from rich.console import Console

HELP = "find what would make kdump fencing fail, before the crash"

#: Exit status by the worst finding. What could not be checked is not fine.
EXIT_STATUS = {OK: 0, WARNING: 1, FAILS: 2}
#: The one of --watch if its file cannot be written.
NOT_WRITTEN = 3
#: Seconds that --drill watches unless it is said otherwise: large machines dump for long.
DRILL_TIMEOUT = 3600
_HEADS = ("STATE", "PART", "CHECK", "FOUND")
_STYLES = {OK: "green", UNKNOWN: "cyan", WARNING: "yellow", FAILS: "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "part",
        nargs="*",
        metavar="PART",
        help=f"look at these parts alone: {', '.join(checks.PARTS)}",
    )
    parser.add_argument(
        "--root", default="/", metavar="DIR", help="judge the files of this root directory"
    )
    parser.add_argument(
        "--image", default="", metavar="PATH", help="the crash kernel's image, if it is your own"
    )
    parser.add_argument("--json", action="store_true", help="JSON output")
    parser.add_argument(
        "--drill", metavar="NODE", help="how to crash that node on purpose; watch what happens then"
    )
    parser.add_argument(
        "--timeout",
        type=whole("a number of seconds", 1, 1_000_000),
        metavar="SECONDS",
        help=f"--drill: watch for so long at most (default: {DRILL_TIMEOUT})",
    )
    parser.add_argument(
        "--watch",
        metavar="FILE",
        help="look once, print what is not ok, and write metrics for node_exporter's textfile "
        "collector into FILE, which ends in .prom",
    )


def run(given: argparse.Namespace) -> int:
    """Print what all checks find; 0 if all is well, 1 with warnings, 2 if fencing would fail."""
    if given.drill is not None:
        if given.part or given.watch is not None:
            raise CommandError("--drill: without PART and --watch")
        from kdumpfence.cli import drill  # every command imports this module, few want that one

        return drill.run(given, given.timeout or DRILL_TIMEOUT)
    if given.timeout is not None:
        raise CommandError("--timeout: for --drill alone")
    for part in given.part:
        if part not in checks.PARTS:
            raise CommandError(f"{one_line(part)!r}: not one of {', '.join(checks.PARTS)}")
    found = _examine(given) if given.watch is None else _written(given)
    findings = [one for some in found.values() for one in some]
    if given.json:
        print(json.dumps(as_object(found)))
    else:
        _show(found, given.watch is not None)
    return EXIT_STATUS.get(worst(findings), 1)


def _examine(given: argparse.Namespace) -> dict[str, list[Finding]]:
    with open_root(given) as root:
        return checks.examine(Machine(root, given.image), given.part or checks.PARTS)


def _written(given: argparse.Namespace) -> dict[str, list[Finding]]:
    """The same, after its metrics have been written."""
    try:
        with Textfile(given.watch) as file:
            when, began = time.time(), time.monotonic()
            found = _examine(given)
            file.write(metrics.page(found, when, time.monotonic() - began))
    except TextfileError as error:
        raise CommandError(str(error), NOT_WRITTEN) from None
    return found


def as_object(found: dict[str, list[Finding]]) -> dict[str, object]:
    """For programs: the worst state, and all findings."""
    findings = [{"part": part, **one._asdict()} for part, some in found.items() for one in some]
    return {"state": worst([one for some in found.values() for one in some]), "findings": findings}


def _show(found: dict[str, list[Finding]], faults: bool = False) -> None:
    """The table, the remedies below it, whole lines that can be copied, and how many of which.

    With `faults` only what is not ok has a row.
    """
    findings = [(part, one) for part, some in found.items() for one in some]
    rows = [
        (one.state, part, one.check, one_line(one.text))
        for part, one in findings
        if one.state != OK or not faults
    ]
    console = make_console()
    if rows and console is None:
        print_table(None, _HEADS, rows)
    elif rows and console is not None:
        _draw(console, rows)
    remedies = dict.fromkeys(
        f"{part}: {one.check}: {one_line(one.remedy)}" for part, one in findings if one.remedy
    )
    if remedies:
        print("\nWhat to do:", *remedies, sep="\n")
    states = [one.state for _, one in findings]
    print("\n" + ", ".join(f"{states.count(one)} {one}" for one in STATES if one in states))


def _draw(console: Console, rows: Sequence[tuple[str, ...]]) -> None:
    """The same with rich, which breaks what is too long for the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*_HEADS, box=None, pad_edge=False, header_style="bold")
    for number in range(len(_HEADS) - 1):
        table.columns[number].no_wrap = True
    table.columns[-1].overflow = "fold"
    for state, *cells in rows:
        table.add_row(Text(state, _STYLES[state]), *map(Text, cells))
    console.print(table)

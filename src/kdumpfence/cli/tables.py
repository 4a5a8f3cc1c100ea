# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tables and words for people: rich's on a terminal, where it is installed, and plain text else.

Whatever is printed, names above all, may hold anything: pass it through `one_line`, which escapes
it for the terminal. It is never taken for rich's markup.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdumpfence.text import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

#: Dumps that a table shows if nothing else is asked for.
SHOWN = 100

#: Columns of numbers, by their heading.
_RIGHT = {
    "LASTS",
    "LAST MESSAGE",
    "MESSAGES",
    "TOOK",
    "DUMPS",
    "FAILED",
    "LONGEST",
    "95 OF 100",
    "POWER",
}

#: How the heading of a column of bars begins.
BARS = "UP TO "


def make_console() -> Console | None:
    """A console of rich's if stdout is a terminal and rich is there."""
    if not sys.stdout.isatty():
        return None
    if sys.flags.no_site:  # packages of distributions run this without site-packages
        import site

        sys.path += [path for path in site.getsitepackages() if path not in sys.path]
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=False)


def print_table(
    console: Console | None, heads: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Print the rows below their headings; cut at the terminal's right edge, if there is one."""
    if console is None:
        for line in cells(heads, rows):
            print("  ".join(line).rstrip())
        return
    for text in rich_lines(heads, rows):
        console.print(text, no_wrap=True, overflow="ellipsis")


def rich_lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Text]:
    """The headings and each row as a line of rich's."""
    from rich.text import Text

    styles = [
        "cyan" if head == "NODE" else "magenta" if head.startswith(BARS) else "" for head in heads
    ]
    lines: list[Text] = []
    for row in cells(heads, rows):
        line = Text(no_wrap=True, overflow="ellipsis")
        for cell, style in zip(row, styles):
            line.append(cell, style if lines else "bold")
            line.append("  ")
        line.rstrip()
        lines.append(line)
    return lines


def cells(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Heads and rows with their cells as wide as their column is."""
    lines = [heads, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    return [
        [
            cell.rjust(width) if head in _RIGHT else cell.ljust(width)
            for cell, width, head in zip(line, widths, heads)
        ]
        for line in lines
    ]


def plural(number: int, what: str) -> str:
    """That many of something: "1 node", "2,000 nodes"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def joined(addresses: Sequence[str]) -> str:
    """Addresses in one cell."""
    return " ".join(one_line(address) for address in addresses)


def stamp(when: float) -> str:
    """Local time of a Unix time; one that no calendar has stands as its number."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    except (ValueError, OverflowError, OSError):
        return f"{when:.0f}"

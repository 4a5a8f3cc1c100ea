# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tables that a program writes into a page of the documentation, each between two marks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def parser(about: str | None) -> argparse.ArgumentParser:
    """The options of a program that makes such tables."""
    made = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--print", action="store_true", help="to stdout, and not into the page")
    return made


def show(options: argparse.Namespace, page: Path, tables: dict[str, str]) -> int:
    """Put tables between their marks, or print them if that was asked for; the exit status."""
    if options.print:
        print("\n\n".join(tables.values()))
        return 0
    return max(put(page, name, text) for name, text in tables.items())


def get(page: Path, name: str) -> str:
    """What is between the page's marks of that name."""
    _, _, rest = page.read_text().partition(f"<!-- {name}: begin -->\n")
    return rest.partition(f"\n<!-- {name}: end -->")[0]


def put(page: Path, name: str, text: str) -> int:
    """Put the table between the page's marks of that name; 0, or 1 if they are missing."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found_begin, rest = page.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        print(f"{page}: no lines {begin} and {end}; the table is:\n{text}", file=sys.stderr)
        return 1
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")
    return 0

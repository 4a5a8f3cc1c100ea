# SPDX-License-Identifier: GPL-2.0-or-later
"""A table that a program writes into a page of the documentation, between two marks."""

from __future__ import annotations

import sys
from pathlib import Path


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

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The words of a page: whatever was sent or configured becomes text here, and nothing else.

Every string that is not ours passes `text`, or what is built on it. What may not be in this file:
what a page consists of.
"""

from __future__ import annotations

import contextlib
import html
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone

from kdumpfence.text import one_line

#: Characters of a name or an address that are shown, and of a line of prose.
MOST_NAME = 72
MOST_LINE = 400

#: Marks on one letter that stay marks.
_MARKS = 3


def text(value: str, most: int = MOST_NAME) -> str:
    """`value` as text of a page: no markup, no control characters, not longer than that.

    What turns the direction of writing is a control character too, and so are marks that would be
    piled up on one letter until they cover what stands above it.
    """
    shown = one_line(value[: most + 1])
    if not shown.isascii():
        shown = _unpiled(shown)
    if len(shown) > most:
        shown = shown[: most - 1] + "…"
    return html.escape(shown)


def _unpiled(value: str) -> str:
    """With only as many marks on a letter as a language would put there."""
    marks, letters = 0, []
    for letter in value:
        marks = marks + 1 if unicodedata.category(letter) in ("Mn", "Me") else 0
        plain = letter.encode("unicode_escape").decode()
        letters.append(letter if marks <= _MARKS else plain)
    return "".join(letters)


def name(value: str, most: int = MOST_NAME) -> str:
    """The same for names and addresses: letters that run to the left move nothing beside them."""
    return f"<bdi>{text(value, most)}</bdi>"


def number(value: int, unit: str = "") -> str:
    """A whole number with its thousands apart."""
    return f"{value:,}{unit}"


def utc(when: float) -> str:
    """A Unix time as date and time, without its zone; "" if no calendar has it."""
    with contextlib.suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(int(when), timezone.utc).isoformat(" ")[:19]
    return ""


def moment(when: float, zone: str = "") -> str:
    """A Unix time for readers and for the script, which adds what clocks show where it is read.

    `zone`: " UTC" where no heading says so.
    """
    shown = utc(when)
    if not shown:
        return f"{when:.0f} s after 1970"
    return f'<time datetime="{shown.replace(" ", "T")}Z">{shown}{zone}</time>'


def fresh(identity: str, content: str, attributes: str = "") -> str:
    """A part of the page that the script replaces when it has changed."""
    return f'<div id="{identity}" data-fresh{attributes}>{content}</div>\n'


def table(
    identity: str,
    caption: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    figures: Sequence[int] = (),
) -> str:
    """A table of cells that are markup already; the first of each row is its heading.

    `figures`: the columns with numbers. Without rows there is nothing but its place.
    """
    rows = list(rows)
    if not rows:
        return fresh(identity, "")
    lines = [f'<table><caption class="unseen">{caption}</caption><thead><tr>']
    for column, head in enumerate(heads):
        lines.append(f'<th scope="col"{_aligned(column, figures)}>{head}</th>')
    lines.append("</tr></thead>\n<tbody>\n")
    for first, *others in rows:
        lines.append(f'<tr><th scope="row">{first}</th>')
        for column, cell in enumerate(others, 1):
            lines.append(f"<td{_aligned(column, figures)}>{cell}</td>")
        lines.append("</tr>\n")
    lines.append("</tbody></table>")
    # On a small screen it is moved to and fro, so the keyboard must reach it.
    scrolled = f' class="wide" tabindex="0" role="region" aria-label="{caption}"'
    return fresh(identity, "".join(lines), scrolled)


def _aligned(column: int, figures: Sequence[int]) -> str:
    return ' class="figure"' if column in figures else ""

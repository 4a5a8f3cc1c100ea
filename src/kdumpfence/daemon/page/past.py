# SPDX-License-Identifier: LGPL-2.1-or-later
"""The part of the page about dumps that are over: figures, chart, advice, table.

What may not be in this file: how a figure comes about (`timeout_advice`).
"""

from __future__ import annotations

from collections.abc import Sequence

from kdumpfence.daemon import timeout_advice
from kdumpfence.daemon.formats import many
from kdumpfence.daemon.history_reading import Past
from kdumpfence.daemon.page.chart import chart, needed
from kdumpfence.daemon.page.markup import fresh, moment, name, number, table, text
from kdumpfence.daemon.page.view import MOST_PAST, PAST_ROWS
from kdumpfence.daemon.timeout_advice import PAUSE, Lengths, duration, rounded_up
from kdumpfence.listener.events import MOST_ADDRESSES, Dump, length

#: How a dump ended, in words.
ENDS = {
    "finished": "complete, as the node said",
    "failed": "failed, as the node said",
    "silent": "silence: complete, or the node died",
}
_SHORT = {"finished": "complete", "failed": "failed", "silent": "silence"}

#: Addresses of a dump that are shown.
ADDRESSES = 4


def lengths(dumps: Sequence[Past], oldest: Dump | None) -> str:
    """The section about how long these dumps took, newest first.

    `oldest`: one that is under way, and counts with what it took so far.
    """
    known = [*dumps, *([] if oldest is None else [_so_far(oldest)])]
    figures = timeout_advice.lengths(known)
    drawn = f'<div class="drawing">{chart(dumps, figures.power)}</div>{_LEGEND}' if dumps else ""
    lesson = "".join(f"<p>{text(line, 2000)}</p>" for line in timeout_advice.lesson(known))
    return (
        '<section id="lengths"><h2>How long dumps took</h2>\n'
        + fresh("figures", _figures(dumps, figures))
        + fresh("chart", drawn)
        + "<details><summary>What this means for time-outs</summary>"
        + fresh("lesson", lesson)
        + "</details>\n</section>\n"
    )


_LEGEND = f"""
<p class="legend"><span><b class="key finished"></b> complete</span>
<span><b class="key failed"></b> ✕ failed</span>
<span><b class="key silent"></b> ended in silence</span>
<span><b class="key unheard"></b> the sender may have worked for {duration(PAUSE)} more</span></p>
"""


def _so_far(dump: Dump) -> Past:
    what = (dump.messages, dump.addresses, length(dump))
    return Past(dump.node, dump.since, dump.last, None, *what)


def _figures(dumps: Sequence[Past], figures: Lengths) -> str:
    if not dumps and figures.longest is None:
        return "<p>No dump is on record.</p>"
    shown = [
        (
            "Past dumps",
            ("the last " if len(dumps) == MOST_PAST else "")
            + number(len(dumps))
            + (f", {number(figures.failed)} failed" if figures.failed else ""),
        )
    ]
    if figures.longest is not None and figures.power is not None:
        shown.append(("Longest", rounded_up(figures.longest)))
        if figures.percentile is not None:
            shown.append(("95 of 100 took at most", rounded_up(figures.percentile)))
        shown.append(("Power has to stay on for at least", rounded_up(figures.power)))
    facts = "".join(f"<div><dt>{term}</dt><dd>{what}</dd></div>" for term, what in shown)
    return f'<dl class="facts">{facts}</dl>'


def one_by_one(dumps: Sequence[Past]) -> str:
    """The section with a table of the newest of these dumps."""
    rows = []
    for dump in dumps[:PAST_ROWS]:
        power = needed(dump)
        end = dump.end if dump.end in ENDS else "silent"
        rows.append(
            (
                name(dump.node),
                moment(dump.since),
                rounded_up(length(dump)),
                f'<b class="key {end}"></b> {_SHORT[end]}',
                "not saved" if power is None else rounded_up(power),
                number(dump.messages),
                addresses(dump.addresses),
            )
        )
    heads = ("Node", "Began (UTC)", "Took", "End", "Power needed for", "Messages", "From")
    return (
        '<section id="past"><h2>Past dumps</h2>\n'
        + table("past-table", "Past dumps, newest first", heads, rows, (2, 4, 5))
        + fresh("past-more", _more(len(dumps)))
        + "</section>\n"
    )


def _more(dumps: int) -> str:
    if not dumps:
        return ""
    shown = min(dumps, PAST_ROWS)
    what = f"The newest {number(shown)}. " if dumps > shown else ""
    return f'<p class="note">{what}<code>kdumpfence history</code> has all of them.</p>'


def addresses(given: Sequence[str]) -> str:
    """Where messages came from."""
    shown = ", ".join(name(one, 48) for one in given[:ADDRESSES])
    left = len(given) - ADDRESSES
    if left <= 0:
        return shown
    more = " or more" if len(given) >= MOST_ADDRESSES else ""
    return f"{shown} and {many(left, 'other', 'others')}{more}"

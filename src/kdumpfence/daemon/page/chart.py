# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long dumps took, as an SVG picture in the page: a bar a dump, and how long power was needed.

A plain function of past dumps. It has no style of its own: classes are coloured by the page's style
sheet, so that it is dark in the dark. What may not be in this file: figures and advice
(`timeout_advice`).
"""

from __future__ import annotations

from collections.abc import Sequence

from kdumpfence.daemon.history_reading import Past
from kdumpfence.daemon.page.markup import text, utc
from kdumpfence.daemon.timeout_advice import PAUSE, rounded_up
from kdumpfence.listener.events import length

#: Bars of the chart at most.
BARS = 60

#: Its size, and the room for what stands left of, above, below and right of the bars; in its units.
WIDTH, HEIGHT = 960, 210
LEFT, TOP, BOTTOM, RIGHT = 74, 22, 22, 6
_HIGH = HEIGHT - TOP - BOTTOM

#: Seconds between two lines of its scale.
_STEPS = (
    *(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 4 * 3600, 6 * 3600, 12 * 3600, 86400, 2 * 86400, 7 * 86400),
)
_LINES = 4


def needed(dump: Past) -> float | None:
    """Seconds for which power had to stay on after the first message; None: it failed anyway."""
    if dump.end == "failed":
        return None
    return length(dump) + (0.0 if dump.end == "finished" else PAUSE)


def chart(dumps: Sequence[Past], power: float | None) -> str:
    """The picture of the last BARS of these dumps (newest first, at least one).

    `power`: seconds for which power has to stay on, a line across; None: not known.
    """
    shown = list(reversed(dumps[:BARS]))
    top = max([1.0, power or 0.0, *(length(dump) for dump in shown)])
    step = next((one for one in _STEPS if top / one <= _LINES), top / _LINES)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Lengths of the last {len(shown)} dumps, the oldest on the left; '
        'the table has the same figures">'
    ]
    for line in range(int(top / step) + 1):
        y = _y(line * step, top)
        parts.append(
            f'<line class="scale" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
            f'<text class="end" x="{LEFT - 8}" y="{y + 4:.1f}">{_short(line * step)}</text>'
        )
    slot = (WIDTH - LEFT - RIGHT) / max(len(shown), 12)
    for place, dump in enumerate(shown):
        parts.append(_bar(dump, LEFT + place * slot, slot, top))
    if power is not None:
        y = _y(power, top)
        parts.append(
            f'<line class="power" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
            f'<text class="power end" x="{WIDTH - RIGHT}" y="{y - 6:.1f}">'
            f"power on for at least {rounded_up(power)}</text>"
        )
    dates = [utc(dump.since)[:10] for dump in shown]
    y = HEIGHT - 4
    parts.append(f'<text x="{LEFT}" y="{y}">{dates[0]}</text>')
    if dates[0] != dates[-1] and len(shown) > 2:
        right = LEFT + len(shown) * slot
        parts.append(f'<text class="end" x="{right:.1f}" y="{y}">{dates[-1]}</text>')
    parts.append("</svg>")
    return "\n".join(parts)


def _bar(dump: Past, left: float, slot: float, top: float) -> str:
    """One dump: what was heard of it, above that what may have gone on unheard, and a name."""
    end = dump.end if dump.end in ("finished", "failed") else "silent"
    took, power = length(dump), needed(dump)
    x, wide = f"{left + slot * 0.12:.1f}", f"{min(slot * 0.76, 28):.1f}"
    y = _y(took, top)
    lines = [
        f"<g><title>{text(dump.node)}, {utc(dump.since)} UTC: {rounded_up(took)}, {end}</title>"
        f'<rect class="{end}" x="{x}" y="{y}" width="{wide}" height="{_y(0, top) - y:.1f}"/>'
    ]
    if power is not None and power > took:
        above = _y(power, top)
        lines.append(
            f'<rect class="unheard" x="{x}" y="{above}" width="{wide}" height="{y - above:.1f}"/>'
        )
    if end == "failed":  # not by its colour alone
        middle = left + slot * 0.12 + min(slot * 0.76, 28) / 2
        lines.append(f'<text class="middle failed" x="{middle:.1f}" y="{y - 3:.1f}">✕</text>')
    lines.append("</g>")
    return "".join(lines)


def _y(seconds: float, top: float) -> float:
    """Where that is; never less than a line above the ground, or a short dump would be none."""
    high = seconds / top * _HIGH
    return round(TOP + _HIGH - (max(high, 1.5) if seconds else 0.0), 1)


def _short(seconds: float) -> str:
    """A line of the scale: "30 s", "2 min", "1 h"."""
    for unit, word in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {word}"
    return f"{seconds:.3g} s"

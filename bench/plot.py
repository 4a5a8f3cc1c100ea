# SPDX-License-Identifier: LGPL-2.1-or-later
"""The picture of the rates, with a ground of its own: legible on light and dark pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

from bench.paired import Figure

mpl.use("Agg")

from matplotlib import pyplot

INK, PAPER, GRID = "#24292f", "#ffffff", "#d0d7de"
#: Colour and title of each bar of a group, in their order.
BARS = (
    ("#57606a", "bare C recvmmsg, which looks at nothing"),
    ("#0969da", "kdumpfence, compiled core"),
    ("#2da44e", "kdumpfence, pure Python core"),
    ("#bf8700", "plain Python recvfrom loop"),
)
COUNTS = (1, 10, 1_000, 100_000)


def rates(figures: list[Figure], path: Path) -> None:
    """A group of bars for each number of known nodes; none was measured: no picture."""
    found = {one.key: one for one in figures}
    counts = [count for count in COUNTS if f"receive-{count}" in found]
    if not counts:
        return
    colours: dict[Any, Any] = {
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), PAPER),
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
        **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    }
    mpl.rcParams.update({**colours, "font.size": 11})
    figure, axes = pyplot.subplots(figsize=(9.5, 4.2), dpi=110)
    ticks, at, titled = [], 0.0, 0
    for count in counts:
        row = [found[f"receive-{count}"].peer, found[f"receive-{count}"].ours]
        if f"pure-{count}" in found:
            row += [found[f"pure-{count}"].ours, found[f"pure-{count}"].peer]
        ticks.append(at + (len(row) - 1) / 2)
        for number, (rate, (colour, title)) in enumerate(zip(row, BARS)):
            label = title if number >= titled else None
            titled = max(titled, number + 1)
            axes.bar(at, rate.median / 1e6, 0.9, color=colour, label=label)
            axes.plot([at, at], [rate.lower / 1e6, rate.upper / 1e6], color=INK, linewidth=1.4)
            at += 1
        at += 0.8
    axes.set_xticks(ticks)
    axes.set_xticklabels([f"{count:,}" for count in counts])
    axes.set_xlabel("known nodes")
    axes.set_ylabel("million datagrams a second, one core")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
    axes.legend(loc="upper right", fontsize=9, framealpha=1, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)

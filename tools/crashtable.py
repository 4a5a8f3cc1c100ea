# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measure what the senders cost a crash kernel, and write the table of docs/crash-kernel.md.

    python -m tools.crashtable [--runs 3] [--print]

Real panics, one after the other, as tests/system/crash has them; ten minutes on a machine that has
nothing else to do. With --print the table goes to stdout and the page stays as it is.
"""

from __future__ import annotations

import gzip
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.debian import NotAvailable
from tests.system.crash import panics, small_images
from tests.system.crash.harness import Crash, Outcome, run
from tools import markedtable

PAGE = markedtable.ROOT / "docs" / "crash-kernel.md"

#: The senders that can sign; what is timed has a key, and signs.
_OURS = ("native", "static")

#: Panics at least for each figure of the late network; what is promised is a median of so many.
_LATE_RUNS = 5

STEP = 8  # MB, between two sizes of crashkernel=
LARGEST = 128

#: Of one sender, by its name: a cell of its column.
Measure = Callable[[str], str]


def main() -> int:
    parser = markedtable.parser(__doc__)
    parser.add_argument("--runs", type=int, default=3, help="panics for each figure, 3 or more")
    options = parser.parse_args()
    if options.runs < 3:
        parser.error(f"--runs {options.runs}: 3 or more, for a median and a spread")
    try:
        senders = {
            "stock": panics.stock_sender(),
            "native": panics.native_sender(),
            "static": panics.native_sender(static=True),
        }
        with tempfile.TemporaryDirectory(prefix="crashtable-") as scratch:
            table = _Table(Path(scratch), senders, options.runs).text()
    except NotAvailable as reason:
        print(reason, file=sys.stderr)
        return 1
    return markedtable.show(options, PAGE, {"crashtable": table})


class _Table:
    def __init__(self, scratch: Path, senders: Mapping[str, Path], runs: int) -> None:
        self._image = scratch / "image"
        self._senders = senders
        self._runs = runs
        self._agent = panics.our_agent()

    def text(self) -> str:
        rows = [
            ["", "stock sender", "native sender", "native, static"],
            ["---", "---:", "---:", "---:"],
            self._row("program, bytes", lambda name: f"{os.path.getsize(self._senders[name]):,}"),
            self._row("program, gzip, bytes", lambda name: f"{_packed(self._senders[name]):,}"),
            self._sizes(),
            *self._beside(),
            *self._timed(),
            self._row("smallest `crashkernel=` that works", self._smallest),
        ]
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)

    def _row(self, title: str, measure: Measure) -> list[str]:
        _tell(title)
        return [title, *(measure(name) for name in self._senders)]

    def _sizes(self) -> list[str]:
        """What it adds to an image without a C library, libraries and all."""
        small_images.save_crash(self._image, "", {}, packed=True)
        bare = self._image.stat().st_size

        def added(name: str) -> str:
            programs = {"fence_kdump_send": self._senders[name]}
            small_images.save_crash(self._image, "", programs, packed=True)
            return f"{self._image.stat().st_size - bare:,}"

        return self._row("added to an image that has no libc, gzip, bytes", added)

    def _beside(self) -> list[list[str]]:
        """All senders in turn, in the same crash kernels."""
        titles = (
            "memory, Rss, kB",
            "of it anonymous, kB",
            "start to first message, network there",
        )
        keyed = {f"{name}_keyed": self._senders[name] for name in _OURS}
        senders = {**self._senders, **keyed}
        figures: dict[str, list[list[float]]] = {name: [[], [], []] for name in senders}
        for _ in range(self._runs):
            _tell("side by side")
            outcome = run(panics.beside(self._image, senders, signing_ones=keyed))
            for number, name in enumerate(senders):
                for turn in range(panics.ROUNDS):
                    start = f"{name}_{turn}"
                    for place, kind in enumerate(("Rss", "Anonymous")):
                        said = outcome.line(f"memory of {start}: {kind}").text
                        figures[name][place].append(int(said.split()[-3]))
                    sent = outcome.messages(panics.destination(turn, number))
                    began = outcome.line(f"{start} starts").at
                    figures[name][2].append(sent[0].at - began)
        write = (_kilobytes, _kilobytes, _seconds)
        rows = []
        for place, title in enumerate(titles):
            for kind, more in (("", ""), ("_keyed", ", with a key")):
                cells = (figures.get(name + kind) for name in self._senders)
                told = [write[place](each[place]) if each else "" for each in cells]
                rows.append([title + more, *told])
        return rows

    def _timed(self) -> list[list[str]]:
        """Runs with one sender each, from its crash kernel's init or network on."""
        at_once = self._row(
            "crash init to first message, network there at once",
            lambda name: _seconds(
                [
                    _first_message(outcome) - outcome.line("crash init").at
                    for outcome in self._outcomes(panics.NETWORK_FIRST, name, self._runs)
                ]
            ),
        )
        moments = ("first message", "the agent's yes", "the agent's yes, auth=sha256")
        rows = [[f"network {panics.LATE} s late: network up to {moment}"] for moment in moments]
        for name in self._senders:
            _tell(rows[1][0])
            outcomes = self._outcomes(panics.LATE_NETWORK, name, max(self._runs, _LATE_RUNS))
            since = [outcome.line("network comes").at for outcome in outcomes]
            figures = (
                [_first_message(outcome) for outcome in outcomes],
                [outcome.beside.get("none", outcome.agent).ended or 0.0 for outcome in outcomes],
                [outcome.agent.ended or 0.0 for outcome in outcomes if outcome.beside],
            )
            for row, reached in zip(rows, figures):
                row.append(_seconds([at - start for at, start in zip(reached, since)]))
        return [at_once, *rows]

    def _prepared(self, scenario: panics.Scenario, name: str, **how: Any) -> Crash:
        sender, signs = self._senders[name], name in _OURS
        return panics.prepare(
            scenario, self._image, sender=sender, agent=self._agent, signs=signs, **how
        )

    def _outcomes(self, scenario: panics.Scenario, name: str, runs: int) -> list[Outcome]:
        crash = self._prepared(scenario, name)
        outcomes = [run(crash) for _ in range(runs)]
        for outcome in outcomes:
            outcome.check_yes(*scenario.node)
        return outcomes

    def _smallest(self, name: str) -> str:
        crash = self._prepared(panics.NETWORK_FIRST, name, timeout=20, packed=True)
        # A kernel that has too little memory panics or hangs; the agent need not be waited for.
        crash = replace(crash, until="", seconds=30)
        works = 0
        for size in range(LARGEST, 0, -STEP):
            _tell(f"crashkernel={size}M")
            smaller = replace(crash, crashkernel=f"{size}M")
            if not all(run(smaller).agent.status == 0 for _ in range(self._runs)):
                break
            works = size
        return f"{works} MB" if works else f"more than {LARGEST} MB"


def _packed(program: Path) -> int:
    return len(gzip.compress(program.read_bytes(), mtime=0))


def _first_message(outcome: Outcome) -> float:
    return outcome.messages()[0].at


def _kilobytes(figures: Sequence[float]) -> str:
    low, high = min(figures), max(figures)
    return f"{statistics.median(figures):,.0f} ({low:,.0f} to {high:,.0f})"


def _seconds(figures: Sequence[float]) -> str:
    if not figures:
        return ""
    return f"{statistics.median(figures):.2f} s ({min(figures):.2f} to {max(figures):.2f})"


def _tell(what: str) -> None:
    print(f"measuring: {re.sub('`', '', what)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

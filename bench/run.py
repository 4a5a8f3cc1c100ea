# SPDX-License-Identifier: GPL-2.0-or-later
"""All figures, one after the other: their table, their plots, and their samples as JSON.

    python -m bench.run [--quick] [--only CASE ...] [--write]

Each case (`bench/cases/`) runs in a process of its own, so that none inherits another's memory. The
samples and the machine's description go to build/bench/results.json, table and plots beside it.
With --write they also go into the pages that show them: docs/bench/, docs/throughput.md, README.md.

May be here: how results are told and shown. May not: what is measured, and how.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import pkgutil
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import cases, paired, programs
from bench.paired import Figure
from tools import markedtable

ROOT = Path(__file__).resolve().parents[1]

PAGE = ROOT / "docs" / "throughput.md"
README = ROOT / "README.md"
SHOWN = ROOT / "docs" / "bench"

#: What is demanded, by group, and the figures that each group must have to be complete.
DEMANDED = {
    "1 receive": (
        "Receiving",
        {"receive-1", "receive-1000", "receive-100000", "receive-cost"},
    ),
    "2 flood": ("The agent in a flood", {"flood-most", "flood-50000", "flood-10000"}),
    "3 validate": ("Validating", {"validate-valid"}),
    "4 send": ("Sending", {"send-10000", "send-sockets-native", "send-sockets-python"}),
    "5 latency": ("Start and answer of the agent", {"answer", "start"}),
    "6 memory": ("Memory", {"memory-100000", "memory-worst", "peak-waiting", "peak-flooded"}),
    "7 pure": (
        "Without the compiled core",
        {"compiled-1", "pure-1", "compiled-1000", "pure-1000"},
    ),
}


def names() -> list[str]:
    """The cases that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(cases.__path__))


def missing(figures: list[Figure]) -> list[str]:
    """What is demanded and not among these."""
    groups = {one.group for one in figures if one.wanted}
    keys = {one.key for one in figures}
    found = [f"group {group!r}" for group in DEMANDED if group not in groups]
    for _, wanted in DEMANDED.values():
        found += sorted(wanted - keys)
    return found


# ------------------------------------------------------------------- running


def run_case(name: str, quick: bool, told: str, began: float) -> dict[str, Any]:
    """Run one case in a process of its own: its figures and tables, or why there are none."""
    target = paired.WORK / f"{name}.json"
    target.unlink(missing_ok=True)
    command = [sys.executable, "-m", "bench.run", "--case", name, "--told", told]
    command += ["--began", str(began), *(["--quick"] if quick else [])]
    done = subprocess.run(command, cwd=ROOT, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode or not target.exists():
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        print(done.stderr, file=sys.stderr)
        return {"figures": [], "tables": {}, "failed": lines[-1]}
    result: dict[str, Any] = json.loads(target.read_text())
    return result


def child(name: str, quick: bool, told: str, began: float) -> None:
    """What that process does."""

    def progress(text: str) -> None:
        past = time.time() - began
        print(f"[{told} {past // 60:2.0f}:{past % 60:02.0f}] {name}: {text}", flush=True)

    case = importlib.import_module(f"bench.cases.{name}")
    progress("begins")
    figures = case.figures(quick, progress)
    tables = case.tables(quick) if hasattr(case, "tables") else {}
    paired.WORK.mkdir(parents=True, exist_ok=True)
    (paired.WORK / f"{name}.json").write_text(
        json.dumps({"figures": [dataclasses.asdict(one) for one in figures], "tables": tables})
    )


# ------------------------------------------------------------------- telling


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 0
    while abs(value) < 100 and digits < 4:
        value *= 10
        digits += 1
    return f"{round(value) / 10**digits:,.{digits}f}"


def quantity(value: float, unit: str) -> str:
    if unit.endswith("/s") and value >= 1e6:
        return f"{number(value / 1e6)} M"
    return number(value)


def target(one: Figure) -> str:
    """What is wanted of it, in words."""
    if not one.wanted:
        return ""
    if one.of == "ratio":
        return f"{one.wanted} {number(one.bound)}"
    more = " more" if one.of == "difference" else ""
    return f"{one.wanted} {number(one.bound)} {one.unit}{more}"


def verdict(one: Figure) -> str:
    """Whether it holds, and if not, by how much it falls short."""
    if one.holds is None:
        return ""
    if one.holds:
        return "holds"
    instead = f"{one.judged:.3g}" if one.of != "ratio" else f"{one.judged:.3f}"
    return f"**falls short**: {instead} instead of {number(one.bound)}"


def last_word(figures: list[Figure]) -> str:
    """Which fall short, a line each, and how many hold."""
    judged = [one for one in figures if one.holds is not None]
    short = [one for one in judged if not one.holds]
    lines = [f"{one.title}: {verdict(one).replace('*', '')}" for one in short]
    return "\n".join([*lines, f"{len(judged) - len(short)} of {len(judged)} hold"])


def in_order(figures: list[Figure]) -> list[Figure]:
    return sorted(figures, key=lambda one: one.group)


def table(figures: list[Figure]) -> str:
    """All of them, with their notes below."""
    lines = [
        "| | ours | its peer | ratio (quartiles) | wanted | |",
        "|---|---:|---:|---|---|---|",
    ]
    notes: list[str] = []
    group = ""
    for one in in_order(figures):
        if one.group != group:
            group = one.group
            lines.append(f"| **{group[0]}. {DEMANDED.get(group, (group, set()))[0]}** | | | | | |")
        mark = ""
        if one.note:
            notes.append(one.note)
            mark = f" <sup>{len(notes)}</sup>"
        low, high = one.spread
        lines.append(
            f"| {one.title}{mark} "
            f"| {quantity(one.median_ours, one.unit)} {one.unit} "
            f"| {quantity(one.median_peer, one.unit)}: {one.peer_name} "
            f"| {one.ratio:.3f} ({low:.3f} to {high:.3f}) "
            f"| {target(one)} | {verdict(one)} |"
        )
    lines += [""] * bool(notes)
    lines += [f"{at}. {note}" for at, note in enumerate(notes, 1)]
    return "\n".join(lines)


def summary(figures: list[Figure]) -> str:
    """What the README shows: those of which something is demanded."""
    lines = ["| | measured | wanted | |", "|---|---|---|---|"]
    for one in in_order(figures):
        if not one.wanted:
            continue
        if one.of == "ratio":
            measured = f"{one.ratio:.2f} of {one.peer_name}"
        elif one.of == "ours":
            measured = f"{number(one.median_ours)} {one.unit}"
        else:
            word = "less" if one.judged < 0 else "more"
            measured = f"{number(abs(one.judged))} {one.unit} {word} than {one.peer_name}"
        lines.append(f"| {one.title} | {measured} | {target(one)} | {verdict(one)} |")
    return "\n".join(lines)


def described(machine: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {machine[key]} |" for key in machine)])


# -------------------------------------------------------------------- showing

INK, PAPER, GRID = "#24292f", "#ffffff", "#d0d7de"
COLOURS = {"bare C": "#57606a", "compiled": "#0969da", "pure": "#2da44e", "plain": "#bf8700"}
GOOD, BAD = "#0969da", "#cf222e"


def plots(figures: list[Figure], folder: Path) -> None:
    """Two pictures with a ground of their own, legible on light and dark pages."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update(
        {
            "figure.facecolor": PAPER,
            "axes.facecolor": PAPER,
            "savefig.facecolor": PAPER,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "font.size": 11,
            "svg.hashsalt": "kdumpfence",
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    _plot_bounds([one for one in in_order(figures) if one.wanted], folder / "bounds.png")
    _plot_rates({one.key: one for one in figures}, folder / "receive.png")


#: As far as the picture of the bounds goes; what is better is an arrow at its edge.
FAR = 4.0


def margin(one: Figure) -> float:
    """How many times better than its bound, FAR at most; 1 is just kept."""
    if one.wanted == "at least":
        return min(FAR, one.judged / one.bound)
    return min(FAR, one.bound / one.judged) if one.judged > 0 else FAR


def _plot_bounds(figures: list[Figure], path: Path) -> None:
    from matplotlib import pyplot

    if not figures:
        return
    rows = list(reversed(figures))
    figure, axes = pyplot.subplots(figsize=(9.5, 0.9 + 0.32 * len(rows)), dpi=110)
    for at, one in enumerate(rows):
        colour = GOOD if one.holds else BAD
        axes.plot([1, margin(one)], [at, at], color=colour, linewidth=3, alpha=0.45)
        axes.plot(
            [margin(one)], [at], ">" if margin(one) == FAR else "o", color=colour, markersize=7
        )
    axes.axvline(1, color=INK, linewidth=1.2)
    axes.set_xscale("log")
    ticks = [0.1, 0.25, 0.5, 0.8, 1, 1.25, 1.6, 2, 3, FAR]
    left = min([0.75, *(max(margin(one), 0.08) * 0.9 for one in rows)])
    right = FAR * 1.08
    axes.set_xlim(left, right)
    axes.set_xticks([tick for tick in ticks if left <= tick <= right])
    axes.set_xticklabels([f"{tick:g}" for tick in ticks if left <= tick <= right])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)))
    axes.set_yticklabels([f"{one.group[0]}  {one.title}" for one in rows], fontsize=9)
    axes.set_xlabel("times better than wanted; left of 1 falls short", fontsize=9)
    axes.tick_params(axis="x", labelsize=9)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)


def _plot_rates(found: dict[str, Figure], path: Path) -> None:
    from matplotlib import pyplot

    bars: list[tuple[str, list[tuple[str, tuple[float, ...]]]]] = []
    for count in (1, 10, 1_000, 100_000):
        one = found.get(f"receive-{count}")
        if one is None:
            continue
        row = [("bare C", one.peer), ("compiled", one.ours)]
        other = found.get(f"pure-{count}")
        if other is not None:
            row += [("pure", other.ours), ("plain", other.peer)]
        bars.append((f"{count:,}", row))
    if not bars:
        return
    titles = {
        "bare C": "bare C recvmmsg, which looks at nothing",
        "compiled": "kdumpfence, compiled core",
        "pure": "kdumpfence, pure Python core",
        "plain": "plain Python recvfrom loop",
    }
    figure, axes = pyplot.subplots(figsize=(9.5, 4.2), dpi=110)
    ticks, at = [], 0.0
    for _, row in bars:
        ticks.append(at + (len(row) - 1) / 2)
        for who, samples in row:
            middle = sorted(samples)[len(samples) // 2] / 1e6
            low, high = (value / 1e6 for value in paired.quartiles(samples))
            axes.bar(at, middle, 0.9, color=COLOURS[who], label=titles.pop(who, None))
            axes.plot([at, at], [low, high], color=INK, linewidth=1.4)
            at += 1
        at += 0.8
    axes.set_xticks(ticks)
    axes.set_xticklabels([name for name, _ in bars])
    axes.set_xlabel("known nodes")
    axes.set_ylabel("million datagrams a second, one core")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
    axes.legend(loc="upper right", fontsize=9, framealpha=1, ncols=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)


# ------------------------------------------------------------------- all of it


def write(figures: list[Figure], results: dict[str, Any]) -> int:
    """Put table and plots into the pages that show them."""
    SHOWN.mkdir(parents=True, exist_ok=True)
    for name in ("bounds.png", "receive.png", "results.json", "table.md"):
        shutil.copy(paired.WORK / name, SHOWN / name)
    return max(
        markedtable.put(page, name, text)
        for page, name, text in (
            (PAGE, "bench", table(figures)),
            (PAGE, "benchtables", titled(results["tables"])),
            (PAGE, "benchmachine", described(results["machine"])),
            (README, "bench", summary(figures)),
        )
    )


def titled(tables: dict[str, str]) -> str:
    return "\n\n".join(f"{title}:\n\n{body.strip()}" for title, body in tables.items())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rounds: whether it runs at all")
    parser.add_argument("--only", nargs="+", choices=names(), metavar="CASE", help="these cases")
    parser.add_argument("--write", action="store_true", help="into the pages that show them")
    parser.add_argument("--case", choices=names(), help=argparse.SUPPRESS)
    parser.add_argument("--told", default="", help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        child(options.case, options.quick, options.told, options.began)
        return 0
    if options.write and (options.quick or options.only):
        parser.error("--write wants all of it: neither --quick nor --only")

    began = time.time()
    machine = {**paired.machine(), **programs.described()}
    stolen, spent = paired.stolen()
    figures: list[Figure] = []
    tables: dict[str, str] = {}
    failed: dict[str, str] = {}
    chosen = options.only or names()
    for at, name in enumerate(chosen, 1):
        result = run_case(name, options.quick, f"{at}/{len(chosen)}", began)
        if "failed" in result:
            failed[name] = result["failed"]
        figures += [_figure(one) for one in result["figures"]]
        tables.update(result["tables"])
    stolen, spent = (after - before for after, before in zip(paired.stolen(), (stolen, spent)))
    machine["taken by the host"] = f"{100 * stolen / max(spent, 0.01):.1f} % of processor time"
    machine["time it took"] = f"{time.time() - began:.0f} s"

    results: dict[str, Any] = {
        "machine": machine,
        "figures": [
            {
                **dataclasses.asdict(one),
                "ratio": one.ratio,
                "quartiles": one.spread,
                "holds": one.holds,
                "verdict": verdict(one),
            }
            for one in in_order(figures)
        ],
        "tables": tables,
        "failed": failed,
    }
    paired.WORK.mkdir(parents=True, exist_ok=True)
    (paired.WORK / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    text = [table(figures), titled(tables), f"The machine:\n\n{described(machine)}"]
    (paired.WORK / "table.md").write_text("\n\n".join(text) + "\n")
    try:
        plots(figures, paired.WORK)
    except ImportError as error:
        print(f"no plots: {error}; the extra 'bench' has what they need", file=sys.stderr)
        failed["plots"] = str(error)
    print(f"\n{text[0]}\n\n{paired.WORK}: results.json, table.md, bounds.png, receive.png")

    print(f"{last_word(figures)}; {machine['time it took']}")
    for name, why in failed.items():
        print(f"{name}: not measured: {why}", file=sys.stderr)
    if failed:
        return 1
    if not options.only:
        absent = missing(figures)
        if absent:
            print(f"not measured: {', '.join(absent)}", file=sys.stderr)
            return 1
    return write(figures, results) if options.write else 0


def _figure(values: dict[str, Any]) -> Figure:
    values = {**values, "ours": tuple(values["ours"]), "peer": tuple(values["peer"])}
    return Figure(**values)


if __name__ == "__main__":
    sys.exit(main())

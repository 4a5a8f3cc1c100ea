# SPDX-License-Identifier: LGPL-2.1-or-later
"""All figures, one after the other: their table, the picture, and the results as JSON.

    python -m bench.run [--quick] [--only CASE ...] [--write]

Each case (`bench/cases/`) runs in a process of its own, so that none inherits another's memory,
and in a network of its own if that is allowed. Everything goes into build/bench; the samples of a
case are in CASE.json there. With --write the pages that show the figures are written anew.

May be here: what runs, and where its results go. May not: how it is measured, how it is told.
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
from typing import Any

from bench import cases, machine, paired, programs, tables
from bench.paired import ROOT, SAMPLES, WORK, Figure, Spread, say
from tools import markedtable
from tools.ownnetwork import own_network

PAGE = ROOT / "docs" / "throughput.md"
SHOWN = ROOT / "docs" / "bench"
SPREADS = ("ours", "peer", "ratio", "difference")


def names() -> list[str]:
    """The cases that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(cases.__path__))


def run_case(name: str, quick: bool) -> dict[str, Any]:
    """Run one case in a process of its own: its figures and tables, or why there are none."""
    target = WORK / f"{name}.json"
    target.unlink(missing_ok=True)
    command = [*own_network(), sys.executable, "-m", "bench.run", "--case", name]
    command += ["--quick"] * quick
    done = subprocess.run(command, cwd=ROOT, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode or not target.exists():
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        print(done.stderr, file=sys.stderr)
        return {"figures": [], "tables": {}, "failed": lines[-1]}
    result: dict[str, Any] = json.loads(target.read_text())
    return result


def child(name: str, quick: bool) -> None:
    """What that process does."""
    case = importlib.import_module(f"bench.cases.{name}")
    figures = case.figures(quick)
    result = {
        "figures": [dataclasses.asdict(one) for one in figures],
        "tables": case.tables(quick) if hasattr(case, "tables") else {},
        "samples": SAMPLES,
    }
    (WORK / f"{name}.json").write_text(json.dumps(result))


def figure(told: dict[str, Any]) -> Figure:
    """A figure as JSON has it."""
    return Figure(**{**told, **{name: Spread(*told[name]) for name in SPREADS}})


def written(results: dict[str, Any]) -> str:
    """The results as JSON, a line for each figure."""
    figures = ",\n".join(json.dumps(dataclasses.asdict(one)) for one in results["figures"])
    rest = {name: value for name, value in results.items() if name != "figures"}
    return f'{{"figures": [\n{figures}\n],\n{json.dumps(rest, indent=1)[2:]}\n'


def shown(results: dict[str, Any]) -> dict[str, str]:
    """What the page about the figures shows, by the names of its marks."""
    return {
        "bench": tables.table(results["figures"]),
        "benchtables": tables.titled(results["tables"]),
        "benchmachine": tables.described(results["machine"]),
    }


def measure(chosen: list[str], quick: bool) -> dict[str, Any]:
    """Run these cases and describe where; what could not be measured is among the results."""
    began = time.time()
    # Whatever has to be fetched for it is: the cases have no network.
    about = {**machine.machine(), **programs.described()}
    stolen, spent = machine.stolen()
    figures: list[Figure] = []
    further: dict[str, str] = {}
    failed: dict[str, str] = {}
    for at, name in enumerate(chosen, 1):
        past = time.time() - began
        say(f"[{at}/{len(chosen)} {past // 60:.0f}:{past % 60:02.0f}] {name}")
        result = run_case(name, quick)
        if "failed" in result:
            failed[name] = result["failed"]
        figures += map(figure, result["figures"])
        further.update(result["tables"])
    stolen, spent = (after - before for after, before in zip(machine.stolen(), (stolen, spent)))
    about["taken by the host"] = f"{100 * stolen / max(spent, 0.01):.1f} % of processor time"
    about["time it took"] = f"{time.time() - began:.0f} s"
    figures.sort(key=lambda one: one.group)
    return {"figures": figures, "machine": about, "tables": further, "failed": failed}


def write(results: dict[str, Any]) -> int:
    """Put tables and picture where they are shown."""
    for name in ("receive.png", "results.json"):
        shutil.copy(WORK / name, SHOWN / name)
    return max(markedtable.put(PAGE, name, text) for name, text in shown(results).items())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rounds: whether it runs at all")
    parser.add_argument("--only", nargs="+", choices=names(), metavar="CASE", help="these cases")
    parser.add_argument("--write", action="store_true", help="into the pages that show them")
    parser.add_argument("--case", choices=names(), help=argparse.SUPPRESS)
    options = parser.parse_args()
    paired.WORK.mkdir(parents=True, exist_ok=True)
    if options.case:
        child(options.case, options.quick)
        return 0
    if options.write and (options.quick or options.only):
        parser.error("--write wants all of it: neither --quick nor --only")

    results = measure(options.only or names(), options.quick)
    figures, failed = results["figures"], results["failed"]
    try:
        from bench import plot

        plot.rates(figures, WORK / "receive.png")
    except ImportError as error:
        failed["receive.png"] = f"{error}; the extra 'bench' has what it needs"
    (WORK / "results.json").write_text(written(results))
    print("", *shown(results).values(), sep="\n\n")
    print(f"\n{WORK}: results.json, receive.png\n{tables.last_word(figures)}")
    for name, why in failed.items():
        print(f"{name}: not measured: {why}", file=sys.stderr)
    absent = [] if options.only else tables.missing(figures)
    if absent:
        print(f"not measured: {', '.join(absent)}", file=sys.stderr)
    if failed or absent:
        return 1
    return write(results) if options.write else 0


if __name__ == "__main__":
    sys.exit(main())

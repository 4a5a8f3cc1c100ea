# SPDX-License-Identifier: LGPL-2.1-or-later
"""Memory: what a known node takes in the core, as the growth of a fresh process."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.paired import ROOT, Figure, figure, say

NODES = 100_000
#: The worst case is looked for among numbers of nodes from here on; what few nodes take is
#: lost in the pages that a process has anyway.
LEAST = 10_000
STEP = 250
BOUND = 128


def resident() -> int:
    """Bytes of memory that this process has, shared pages left out."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean", "Private_Dirty")):
            total = int(line.split()[1])
            if line.startswith("Private_Dirty"):
                return total * 1024
    raise RuntimeError("/proc/self/smaps_rollup has no Private_Dirty")


def packed(count: int) -> Iterator[bytes]:
    return (number.to_bytes(4, "big") for number in range(0x7F010000, 0x7F010000 + count))


def measure(name: str) -> dict[str, float]:
    """Bytes a node; runs in a process of its own. "core" may also be a plain dict."""
    for _ in packed(1000):  # what the loop itself takes is there before
        pass
    if name == "dict":
        known: dict[bytes, int] = {}
        before = resident()
        for number, address in enumerate(packed(NODES)):
            known[address] = number
        return {"all": (resident() - before) / NODES, "worst": 0, "at": 0}
    sources = importlib.import_module(f"kdumpfence.{name}").Sources()
    before = resident()
    worst, at = 0.0, 0
    for number, address in enumerate(packed(NODES), 1):
        sources.add(address, 0, number)
        if number >= LEAST and number % STEP == 1:
            taken = (resident() - before) / number
            if taken > worst:
                worst, at = taken, number
    return {"all": (resident() - before) / NODES, "worst": worst, "at": at}


def measured(name: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.cases.memory", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def figures(quick: bool) -> list[Figure]:
    """The first half of figure 6; the agent's is in another case."""
    say("memory: the core's nodes")
    turns = [
        [measured(name) for name in ("_kdumpwire", "_purewire", "dict")]
        for _ in range(1 if quick else 3)
    ]
    core, pure, plain = zip(*turns)

    def taken(one: tuple[dict[str, float], ...], what: str = "all") -> tuple[float, ...]:
        return tuple(turn[what] for turn in one)

    group, unit, title = "6 memory", "bytes a node", "memory of the core, 100,000 known nodes"
    return [
        figure(
            "memory-100000", group, title, unit, taken(core), taken(pure), "the pure core",
            "at most", BOUND, of="ours",
        ),
        figure(
            "memory-worst", group,
            f"the same at the worst number of nodes from {LEAST:,} to {NODES:,}", unit,
            taken(core, "worst"), taken(pure, "worst"), "the pure core", "at most", BOUND,
            f"just after the table has grown, at {core[0]['at']:,.0f} nodes", of="ours",
        ),
        figure(
            "memory-dict", group, f"{title}, beside a bare dictionary", unit,
            taken(core), taken(plain), "a Python `dict` from address to number",
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))

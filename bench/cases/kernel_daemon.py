# SPDX-License-Identifier: LGPL-2.1-or-later
"""Counting in the kernel: the processor time of kdumpfenced while very many nodes repeat.

A whole kdumpfenced, with the settings of `tests/system/scale`, on a processor of its own. A hundred
thousand nodes panic within a second and repeat each second. When all have been told of, the
processor time of all its threads is taken over ten seconds, three times: as long as `repeat` is, so
that in each of these every node goes on once. First while the kernel counts, then while each
message is read.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.paired import MEASURED_CPU, OTHER_CPU, Figure, Samples, figure, say
from tests.daemon.running import until
from tests.support.storms import Storm
from tests.system.scale.play import Plan, Stage

GROUP = "9 kernel"
NODES = 100_000
BOUND = 1.0  # percent of a core
#: Seconds after the first message, when all have been told of, and of each look, which are as long
#: as `repeat` is by default.
SETTLED, LOOK = 15.0, 10.0
PATIENCE = 60.0


def processor(pid: int) -> int:
    """Nanoseconds of processor time that all threads of this process have had so far."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((one / "schedstat").read_text().split()[0]) for one in threads)


def measure(counting: str, nodes: int, looks: int, settled: float) -> Samples:
    """Percent of a core."""
    say(f"{nodes:,} nodes and kdumpfenced: counting = {counting}")
    rounds = int(settled + looks * LOOK + PATIENCE)
    plan = Plan(nodes, rounds, counting=counting, silence=30.0)
    with tempfile.TemporaryDirectory() as folder:
        daemon = Stage(Path(folder), plan)
        try:
            daemon.start(("taskset", "-c", str(MEASURED_CPU)))
            if daemon.status().counting != counting:
                raise RuntimeError(daemon.said().strip())
            with Storm(
                daemon.port, "--nodes", str(nodes), "--rounds", str(rounds), "--interval", "1",
                wrapper=("taskset", "-c", str(OTHER_CPU)),
            ) as storm:  # fmt: skip
                until(lambda: daemon.status().dumping == nodes)
                time.sleep(settled)
                taken = [_share(daemon.pid) for _ in range(looks)]
                if storm.over or daemon.status().dumping != nodes:
                    raise RuntimeError("the nodes did not repeat to the end")
            return tuple(taken)
        finally:
            daemon.close()


def _share(pid: int) -> float:
    began, before = time.monotonic(), processor(pid)
    time.sleep(LOOK)
    return 1e-9 * 100 * (processor(pid) - before) / (time.monotonic() - began)


def figures(quick: bool) -> list[Figure]:
    """The daemon's part of figure 9."""
    looks, settled = (1, 1.0) if quick else (3, SETTLED)
    kernel, user = (measure(way, NODES, looks, settled) for way in ("kernel", "user"))
    return [
        figure(
            "kernel-daemon", GROUP,
            f"kdumpfenced while {NODES:,} nodes repeat each second", "% of a core",
            kernel, user, "with each message read", "at most", BOUND, of="ours",
        )
    ]  # fmt: skip

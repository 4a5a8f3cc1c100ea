# SPDX-License-Identifier: LGPL-2.1-or-later
"""The frame of all figures: two things measured in turns, in one run, on one core.

A rate alone says little on a machine that others share: it may halve from one minute to the
next. So each figure is measured beside a peer, in turns, and what counts is the ratio within
each round. May be here: how to measure in turns, pin, and compile a peer written in C. May not:
what is measured (`bench/cases/`), how it is told (`bench/tables.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import os
import shlex
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "bench"

#: The processors that this process was given when it started.
CPUS = sorted(os.sched_getaffinity(0))
#: What is measured runs on the last of them, since interrupts prefer the first...
MEASURED_CPU = CPUS[-1]
#: ...and what feeds it at the same time runs on the first. With one processor it is the same.
OTHER_CPU = CPUS[0]


#: What one side was measured at, a round each.
Samples = tuple[float, ...]
#: Those of ours and of its peer, for each figure that this process made.
SAMPLES: dict[str, tuple[Samples, Samples]] = {}


class Spread(NamedTuple):
    """What is left of one value a round; seven digits are more than any of them is worth."""

    median: float
    lower: float  # quartile
    upper: float  # quartile

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Median and quartiles; all three are within the values."""
        cuts = [*values] * 3
        if len(values) > 1:
            cuts = statistics.quantiles(values, n=4, method="inclusive")
        return cls(*(float(f"{cuts[at]:.7g}") for at in (1, 0, 2)))


@dataclasses.dataclass(frozen=True)
class Figure:
    """One line of the table: ours and its peer, measured in the same rounds; see `figure`."""

    key: str  # unique, "receive-100000"
    group: str  # which of the demanded figures it belongs to, "1 receive"
    title: str
    unit: str  # "datagrams/s", "µs a datagram", "ms", "bytes a node"
    ours: Spread
    peer: Spread
    #: Of ours by peer, round by round: a slow minute hits both sides of one round.
    ratio: Spread
    #: Of ours less peer, round by round.
    difference: Spread
    peer_name: str  # "bare C recvmmsg, same batch"
    wanted: str = ""  # "at least", "at most", or "" if it is only shown
    bound: float = 0.0
    note: str = ""  # why it falls short, what else a reader must know
    #: What the bound is of: the "ratio" ours/peer, the "difference" ours - peer, or "ours" alone;
    #: the latter two in the figure's unit.
    of: str = "ratio"

    def __post_init__(self) -> None:
        if self.wanted not in ("", "at least", "at most"):
            raise ValueError(f"{self.key}: wanted {self.wanted!r}")
        if self.of not in ("ratio", "difference", "ours"):
            raise ValueError(f"{self.key}: a bound of {self.of!r}")

    @property
    def judged(self) -> float:
        """What the bound is compared with."""
        spread: Spread = getattr(self, self.of)
        return spread.median

    @property
    def holds(self) -> bool | None:
        """Whether the bound is kept; None if there is none."""
        if not self.wanted:
            return None
        return self.judged >= self.bound if self.wanted == "at least" else self.judged <= self.bound


def figure(
    key: str,
    group: str,
    title: str,
    unit: str,
    ours: Samples,
    peer: Samples,
    peer_name: str,
    wanted: str = "",
    bound: float = 0.0,
    note: str = "",
    of: str = "ratio",
) -> Figure:
    """The figure that samples of the same rounds come to. Raises ValueError."""
    if not ours or len(ours) != len(peer):
        raise ValueError(f"{key}: {len(ours)} samples beside {len(peer)}")
    SAMPLES[key] = ours, peer
    rounds = list(zip(ours, peer))
    return Figure(
        key, group, title, unit, Spread.of(ours), Spread.of(peer),
        Spread.of([one / other for one, other in rounds]),
        Spread.of([one - other for one, other in rounds]),
        peer_name, wanted, bound, note, of,
    )  # fmt: skip


def alternate(rounds: int, **calls: Callable[[], float]) -> dict[str, Samples]:
    """Samples of each call, one a round, after one round that warms up and is thrown away.

    Each call returns its own sample, so that what it prepares need not count. They run in
    turns, in the order given and in the opposite one, round by round. The garbage collector
    rests meanwhile.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    gc.collect()
    gc.disable()
    try:
        for name in names:
            calls[name]()
        for number in range(rounds):
            for name in names if number % 2 == 0 else reversed(names):
                samples[name].append(calls[name]())
    finally:
        gc.enable()
    return {name: tuple(values) for name, values in samples.items()}


def say(text: str) -> None:
    """What is being measured now, for who waits for it."""
    print(text, flush=True)


@contextlib.contextmanager
def pinned(cpu: int = MEASURED_CPU) -> Iterator[None]:
    """Keep this thread, and what it starts, on one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def compiler() -> list[str]:
    """The C compiler's command, from CC or `cc`."""
    return shlex.split(os.environ.get("CC") or "cc")


def c_library(name: str, *more: str, libraries: Sequence[str] = ()) -> ctypes.CDLL:
    """Compile bench/c/NAME.c with -O2, and with what more it needs, into build/bench and load it.

    Its calls release the GIL and keep errno.
    """
    source = ROOT / "bench" / "c" / f"{name}.c"
    target = WORK / f"{name}.so"
    WORK.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        fresh = target.with_name(f"{target.name}.{os.getpid()}")
        flags = ["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        command = [*compiler(), *flags, *more, "-o", str(fresh), str(source), *libraries]
        subprocess.run(command, check=True)
        fresh.replace(target)
    return ctypes.CDLL(str(target), use_errno=True)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The frame of all figures: two things measured in turns, in one run, on one core.

A rate alone says little on a machine that others share: it may halve from one minute to the
next. So each figure is measured beside a peer, in turns, and what counts is the ratio within
each round. May be here: how to measure in turns, pin, compile a peer written in C, and describe
the machine. May not: what is measured (`bench/cases/`), tables and plots (`bench/run.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "bench"

_Closing = TypeVar("_Closing", bound="Closing")

_CACHE = ("level", "type", "size")

#: The processors that this process was given when it started.
CPUS = sorted(os.sched_getaffinity(0))
#: What is measured runs on the last of them, since interrupts prefer the first...
MEASURED_CPU = CPUS[-1]
#: ...and what feeds it at the same time runs on the first. With one processor it is the same.
OTHER_CPU = CPUS[0]


@dataclasses.dataclass(frozen=True)
class Figure:
    """One line of the table: samples of ours and of its peer, taken in the same rounds."""

    key: str  # unique, "receive-100000"
    group: str  # which of the demanded figures it belongs to, "1 receive"
    title: str
    unit: str  # "datagrams/s", "µs a datagram", "ms", "bytes a node"
    ours: tuple[float, ...]  # one a round
    peer: tuple[float, ...]  # of the same rounds
    peer_name: str  # "bare C recvmmsg, same batch"
    wanted: str = ""  # "at least", "at most", or "" if it is only shown
    bound: float = 0.0
    note: str = ""  # why it falls short, what else a reader must know
    #: What the bound is of: the "ratio" ours/peer, the "difference" ours - peer, or "ours" alone;
    #: the latter two in the figure's unit.
    of: str = "ratio"

    def __post_init__(self) -> None:
        if not self.ours or len(self.ours) != len(self.peer):
            raise ValueError(f"{self.key}: {len(self.ours)} samples beside {len(self.peer)}")
        if self.wanted not in ("", "at least", "at most"):
            raise ValueError(f"{self.key}: wanted {self.wanted!r}")
        if self.of not in ("ratio", "difference", "ours"):
            raise ValueError(f"{self.key}: a bound of {self.of!r}")

    @property
    def median_ours(self) -> float:
        return statistics.median(self.ours)

    @property
    def median_peer(self) -> float:
        return statistics.median(self.peer)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours by peer, round by round."""
        return tuple(ours / peer for ours, peer in zip(self.ours, self.peer))

    @property
    def ratio(self) -> float:
        """Median of the rounds' ratios: a slow minute hits both sides of one round."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """Lower and upper quartile of the rounds' ratios."""
        return quartiles(self.ratios)

    @property
    def judged(self) -> float:
        """What the bound is compared with."""
        if self.of == "ratio":
            return self.ratio
        if self.of == "ours":
            return self.median_ours
        return statistics.median(ours - peer for ours, peer in zip(self.ours, self.peer))

    @property
    def holds(self) -> bool | None:
        """Whether the bound is kept; None if there is none."""
        if not self.wanted:
            return None
        return self.judged >= self.bound if self.wanted == "at least" else self.judged <= self.bound


def quartiles(values: tuple[float, ...]) -> tuple[float, float]:
    """Lower and upper quartile, both within the values."""
    if len(values) < 2:
        return values[0], values[0]
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, upper


def alternate(rounds: int, **calls: Callable[[], float]) -> dict[str, tuple[float, ...]]:
    """Samples of each call, one a round, after one round that warms up and is thrown away.

    Each call returns its own sample, so that what it prepares need not count. They run in
    turns, in the order given and in the opposite one, round by round. The garbage collector
    rests meanwhile.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    with _no_collection():
        for name in names:
            calls[name]()
        for number in range(rounds):
            for name in names if number % 2 == 0 else reversed(names):
                samples[name].append(calls[name]())
    return {name: tuple(values) for name, values in samples.items()}


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def pinned(cpu: int = MEASURED_CPU) -> Iterator[None]:
    """Keep this thread, and what it starts, on one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def on_cpu(cpu: int) -> Callable[[], None]:
    """What `subprocess.Popen` takes as `preexec_fn` to pin the child."""
    return lambda: os.sched_setaffinity(0, {cpu})


class Closing:
    """What is closed at the end of its `with`."""

    def close(self) -> None:
        """Give back what it holds."""
        raise NotImplementedError

    def __enter__(self: _Closing) -> _Closing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def compiler() -> list[str]:
    """The C compiler's command, from CC or `cc`."""
    return shlex.split(os.environ.get("CC") or "cc")


def c_program(name: str, shared: bool = False) -> Path:
    """Compile bench/c/NAME.c with -O2 into build/bench; the path of what came out.

    A program, or with `shared` a library for `ctypes`.
    """
    source = ROOT / "bench" / "c" / f"{name}.c"
    target = WORK / (f"{name}.so" if shared else name)
    WORK.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        fresh = target.with_name(f"{target.name}.{os.getpid()}")
        flags = ["-O2", "-g", "-Wall", "-Wextra", "-Werror"]
        flags += ["-shared", "-fPIC"] if shared else ["-pthread"]
        subprocess.run([*compiler(), *flags, "-o", str(fresh), str(source)], check=True)
        fresh.replace(target)
    return target


def c_library(name: str) -> ctypes.CDLL:
    """The same as a loaded library; its calls release the GIL and keep errno."""
    return ctypes.CDLL(str(c_program(name, shared=True)), use_errno=True)


def machine() -> dict[str, str]:
    """What a reader must know of this machine to judge the figures."""
    said = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=False)
    memory = _field("/proc/meminfo", "MemTotal")
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "its caches": _caches(MEASURED_CPU),
        "processors used": f"{len(CPUS)} of {os.cpu_count()}",
        "memory": f"{int(memory.split()[0]) / 1024**2:.1f} GiB" if memory else "unknown",
        "virtual machine": "yes" if "hypervisor" in _field("/proc/cpuinfo", "flags") else "no",
        "kernel": f"{platform.release()} {platform.machine()}",
        "system": _system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": said.stdout.splitlines()[0] if said.stdout else "none",
        "kdumpfence": _version(),
        "load when it began": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def stolen() -> tuple[float, float]:
    """Processor seconds since boot, of all: (taken by the host for others, all in all)."""
    with open("/proc/stat") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    second = os.sysconf("SC_CLK_TCK")
    return ticks[7] / second, sum(ticks) / second


def _field(path: str, name: str) -> str:
    with contextlib.suppress(OSError), open(path) as file:
        for line in file:
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return ""


def _caches(cpu: int) -> str:
    """Size and level of each that holds data, as that processor sees them."""
    found = []
    for folder in sorted(Path(f"/sys/devices/system/cpu/cpu{cpu}/cache").glob("index*")):
        with contextlib.suppress(OSError):
            level, kind, size = ((folder / name).read_text().strip() for name in _CACHE)
            if kind != "Instruction":
                found.append(f"{size} level {level}")
    return ", ".join(found) or "unknown"


def _system() -> str:
    with contextlib.suppress(OSError), open("/etc/os-release") as file:
        for line in file:
            if line.startswith("PRETTY_NAME="):
                return line.partition("=")[2].strip().strip('"')
    return "unknown"


def _version() -> str:
    from kdumpfence import _version, wire

    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return f"{_version.__version__}, {wire.IMPLEMENTATION} core" + (f", {commit}" if commit else "")


def show(figures: list[Figure]) -> None:
    """Figures as plain lines on stdout, for a case that is run alone."""
    for one in figures:
        low, high = one.spread
        verdict = {None: "", True: "holds", False: "FALLS SHORT"}[one.holds]
        print(
            f"{one.group:12} {one.title:58} {one.median_ours:14,.1f} {one.median_peer:14,.1f} "
            f"{one.unit:16} x{one.ratio:.3f} ({low:.3f} to {high:.3f}) "
            f"{one.wanted} {one.bound if one.wanted else ''} {verdict}"
        )


def run_alone(figures: Callable[[bool, Callable[[str], None]], list[Figure]]) -> None:
    """The main program of a case: ``python -m bench.cases.NAME [quick]``."""
    show(figures("quick" in sys.argv[1:], lambda text: print(text, file=sys.stderr, flush=True)))

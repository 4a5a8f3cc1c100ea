# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the limit itself can be moved: what the kernel offers beside one socket and recvmmsg.

    python -m bench.limits [--quick] [--rounds N] [--only TRIAL] [--write]

Each trial has a way that is its measure (the first) and others beside it, all run in turns,
round by round, as programs of their own (bench/c/limits_*.c) with one thread to a core. With
rights to do so (root) they run at real-time priority, so that other programs of the machine
take no core away in the middle; where that is refused they run as they are.

The samples go to build/bench/limits.json; with --write the tables go into docs/bench/limits.md.
May be here: what is tried and how it is told. May not: a verdict; these are in the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import paired  # noqa: E402
from tools import markedtable  # noqa: E402

PAGE = ROOT / "docs" / "bench" / "limits.md"
RESULTS = paired.WORK / "limits.json"
PROGRAMS = ("limits_drain", "limits_live", "limits_flood")

#: Seconds left to the machine's other programs after each sample. The kernel would otherwise
#: take a twentieth of each second from real-time ones, in the middle of a sample.
GAP = 0.015

Sample = dict[str, float]


class Refused(Exception):
    """The kernel would not do it: what, and its reason."""


@dataclasses.dataclass(frozen=True)
class Way:
    """One way of doing it: options of the program."""

    key: str
    title: str
    options: str = ""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One question, with the ways that are compared; the first is the measure."""

    key: str
    title: str
    program: str  # "drain", "python" (bench/limits_python.py) or "live"
    columns: tuple[str, ...]  # keys of COLUMNS
    compare: str  # the column of which the ratio is told
    ways: tuple[Way, ...]
    common: str = ""  # options of all ways


#: Key: (heading, what a sample's value is multiplied by, its format).
COLUMNS = {
    "reader": ("reader, ns a datagram", 1.0, ",.0f"),
    "sender": ("sender, ns a datagram", 1.0, ",.0f"),
    "both": ("both, ns a datagram", 1.0, ",.0f"),
    "longest": ("busiest thread, ns a datagram", 1.0, ",.0f"),
    "rate": ("arrive, thousands/s", 1e-3, ",.0f"),
    "dropped": ("dropped, %", 100.0, ".1f"),
    "batch": ("datagrams a call", 1.0, ",.1f"),
    "together": ("messages a datagram", 1.0, ",.1f"),
}

BATCHES = (256, 1, 8, 32, 64, 128, 512, 1024)
QUEUES = (
    (0, "default"),
    (1 << 20, "1 MiB"),
    (4 << 20, "4 MiB"),
    (16 << 20, "16 MiB"),
    (64 << 20, "64 MiB"),
)
PAUSES = (1, 5, 20, 100)
BURST = 100_000
LIVE = ("reader", "sender", "rate", "dropped", "batch")

TRIALS = (
    Trial(
        "batch",
        "recvmmsg's batch, from a full queue",
        "drain",
        ("reader",),
        "reader",
        tuple(Way(f"{n}", f"recvmmsg, batch {n}", f"batch={n}") for n in BATCHES)
        + (
            Way("recvmsg", "recvmsg, one by one", "how=1"),
            Way("recvfrom", "recvfrom, one by one", "how=2"),
            Way("poll", "recvmmsg, batch 256, poll before each", "poll=1"),
        ),
    ),
    Trial(
        "asked",
        "what recvmmsg is asked for, batch 256, from a full queue",
        "drain",
        ("reader",),
        "reader",
        (
            Way("names", "source addresses, 64-byte buffers side by side"),
            Way("bare", "no source addresses", "names=0"),
            Way("room", "room for control data, none asked for", "control=96"),
            Way("overflow", "SO_RXQ_OVFL", "control=96 overflow=1"),
            Way("pktinfo", "IP_PKTINFO", "control=96 pktinfo=1"),
            Way("stamps", "SO_TIMESTAMPNS", "control=96 stamps=1"),
            Way("page", "a buffer to a page", "stride=4096"),
            Way("far", "buffers of 65,535 bytes", "size=65535 stride=65600"),
            Way("one", "one source only", "sources=1"),
            Way("connected", "one source only, connect()ed socket", "sources=1 connected=1"),
            Way("raw", "a raw socket's copies, filtered by port", "raw=1"),
        ),
    ),
    Trial(
        "uring",
        "io_uring, from a full queue",
        "drain",
        ("reader",),
        "reader",
        (
            Way("recvmmsg", "recvmmsg, batch 256"),
            Way("deferred", "recvmsg multishot, 4,096 buffers, DEFER_TASKRUN", "uring=4096"),
            Way("few", "the same with 256 buffers", "uring=256"),
            Way("plain", "the same with 4,096, without DEFER_TASKRUN", "uring=4096 deferred=0"),
        ),
    ),
    Trial(
        "threads",
        "two queues or two threads, from full queues",
        "drain",
        ("reader", "longest"),
        "longest",
        (
            Way("one", "one socket, one thread", "filler=0"),
            Way("two-one", "two sockets, one thread", "filler=0 sockets=2"),
            Way("two-two", "two sockets, two threads", "filler=0 sockets=2 threads=2"),
            Way("one-two", "one socket, two threads", "filler=0 threads=2"),
        ),
    ),
    Trial(
        "python",
        "the same with Python threads in Receiver.count, 1,000 known nodes",
        "python",
        ("reader", "longest"),
        "longest",
        (
            Way("one", "one socket, one thread"),
            Way("two-one", "two sockets, one thread", "sockets=2"),
            Way("two-two", "two sockets, two threads", "sockets=2 threads=2"),
        ),
    ),
    Trial(
        "waiting",
        "how the reader waits, live",
        "live",
        LIVE,
        "both",
        (
            Way("short", "poll after a batch that was not full"),
            Way("always", "poll before every batch", "wait=1"),
            Way("block", "no poll: recvmmsg blocks (MSG_WAITFORONE)", "wait=3"),
            Way("spin", "no wait at all", "wait=2"),
            Way("batch-1", "poll after a short batch, batch 1", "batch=1"),
            Way("batch-32", "poll after a short batch, batch 32", "batch=32"),
            Way("batch-1024", "poll after a short batch, batch 1,024", "batch=1024"),
            Way("uring", "io_uring, multishot", "uring=4096"),
            Way("busy", "SO_BUSY_POLL 50 µs, poll", "busy=50"),
            Way("busy-block", "SO_BUSY_POLL 50 µs, recvmmsg blocks", "busy=50 wait=3"),
            Way("prefer", "the same and SO_PREFER_BUSY_POLL", "busy=50 prefer=1 wait=3"),
            *(
                Way(f"rest-{us}", f"rest {us / 1000:g} ms after a short batch, poll", f"rest={us}")
                for us in (20, 50, 100, 200, 500, 1000, 5000, 20000)
            ),
        ),
        "queue=16777216",
    ),
    Trial(
        "overload",
        "the fastest flood that one core can make: trains of 128 datagrams, live",
        "live",
        LIVE,
        "rate",
        tuple(Way(f"{n}", f"recvmmsg, batch {n}", f"batch={n}") for n in BATCHES)
        + (Way("uring", "io_uring, multishot", "uring=4096"),),
        "segments=128 rest=200",
    ),
    Trial(
        "reuseport",
        "SO_REUSEPORT, live, the sender on one of the two cores",
        "live",
        LIVE,
        "both",
        (
            Way("one", "one socket, one thread"),
            Way("two-one", "two sockets, one thread", "sockets=2"),
            Way("two-two", "two sockets, two threads on the other core", "sockets=2 threads=2"),
            Way("free", "two sockets, two threads on any core", "sockets=2 threads=2 core=-1"),
            Way("one-two", "one socket, two threads on the other core", "threads=2"),
        ),
        "queue=16777216 rest=200",
    ),
    Trial(
        "gro",
        "UDP GRO and GSO, live",
        "live",
        ("reader", "sender", "rate", "dropped", "together"),
        "reader",
        (
            Way("plain", "1,000 sources"),
            Way("plain-gro", "1,000 sources, UDP_GRO", "gro=1 size=1024 control=64"),
            Way("one", "one source", "sources=1"),
            Way("one-gro", "one source, UDP_GRO", "sources=1 gro=1 size=1024 control=64"),
            Way("train", "trains of 128 of one source (UDP_SEGMENT)", "segments=128"),
            Way("train-gro", "the same, UDP_GRO", "segments=128 gro=1 size=1024 control=64"),
        ),
        "queue=16777216 rest=200",
    ),
    Trial(
        "veth",
        "a device with NAPI (veth between two namespaces), live",
        "live",
        ("reader", "sender", "both", "rate", "dropped", "together"),
        "both",
        (
            Way("rest", "1,000 sources, rest 0.2 ms", "rest=200"),
            Way("eager", "1,000 sources, recvmmsg blocks", "wait=3"),
            Way("busy", "the same, SO_BUSY_POLL 50 µs", "wait=3 busy=50"),
            Way(
                "prefer",
                "the same, SO_PREFER_BUSY_POLL, interrupts put off 0.2 ms",
                "wait=3 busy=50 prefer=1 gather=200",
            ),
            Way("held", "1,000 sources, rest 0.2 ms, interrupts put off", "rest=200 gather=200"),
            *(
                Way(
                    f"gro-{sources}",
                    f"{sources:,} source{'s'[: sources > 1]}, the same, UDP_GRO",
                    f"rest=200 gather=200 sources={sources} gro=1 size=65536 control=64",
                )
                for sources in (1000, 32, 8, 1)
            ),
        ),
        "veth=1 queue=16777216",
    ),
    Trial(
        "filter",
        "a socket filter against rubbish, live",
        "live",
        ("reader", "sender", "both", "rate", "dropped"),
        "both",
        (
            Way("read", "rubbish, read and rejected", "rubbish=1 check=1 rest=200"),
            Way("eager", "the same, no rest", "rubbish=1 check=1"),
            Way("filter", "rubbish, dropped by the filter", "rubbish=1 filter=1 rest=200"),
            Way("full", "rubbish, dropped by a full queue", "rubbish=1 reading=0 queue=2048"),
            Way("valid", "messages, read", "check=1 rest=200"),
            Way("valid-filter", "messages, read, filter", "filter=1 check=1 rest=200"),
        ),
        "queue=16777216",
    ),
)


# ------------------------------------------------------------------------- running the programs


def compiled() -> None:
    """Compile the programs; each time, since their headers may have changed."""
    paired.WORK.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        subprocess.run(
            [
                *paired.compiler(),
                *("-O2", "-Wall", "-Wextra", "-Werror", "-pthread"),
                *("-o", str(paired.WORK / name), str(ROOT / "bench" / "c" / f"{name}.c")),
            ],
            check=True,
        )


def real_time() -> None:
    """Put this process in front of all ordinary ones; in the child before exec."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def may_be_real_time() -> bool:
    """Whether this process may; leaves it as it is."""
    try:
        real_time()
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except OSError:
        return False
    return True


#: What each program does before it begins.
prepare: Callable[[], None] | None = None


def run(program: str, options: str) -> dict[str, float]:
    """One run of a program; Refused if the kernel would not have it."""
    command = [str(paired.WORK / f"limits_{program}")]
    options += f" first={paired.OTHER_CPU} second={paired.MEASURED_CPU}"
    if program == "python":
        command = [sys.executable, "-m", "bench.limits_python"]
    done = subprocess.run(
        [*command, *options.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=prepare,
        check=False,
    )
    if done.returncode == 3:
        raise Refused(done.stdout.strip().removeprefix("refused: "))
    if done.returncode:
        raise RuntimeError(f"limits_{program} {options}: {done.stderr.strip()}")
    time.sleep(GAP)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def drained(program: str, options: str, count: int) -> Sample:
    told = run(program, f"core=1 count={count} {options}")
    read = told["read"]
    return {"reader": told["readers"] / read, "longest": told["longest"] / read}


def lived(options: str, milliseconds: int) -> Sample:
    told = run("live", f"ms={milliseconds} {options}")
    sent, read, datagrams = told["sent"], told["read"], told["datagrams"]
    return {
        "reader": told["readers"] / (read or sent),
        "sender": told["flood"] / sent,
        "both": (told["flood"] + told["readers"]) / sent,
        "rate": read / max(1.0, told["read_wall"]) * 1e9,
        "dropped": told["dropped"] / sent,
        "batch": datagrams / max(1.0, told["calls"]),
        "together": read / datagrams if datagrams else 0.0,
    }


def sample(trial: Trial, way: Way, milliseconds: int) -> Sample:
    options = f"{trial.common} {way.options}"
    if trial.program != "live":
        return drained(trial.program, options, 200 * milliseconds)
    return lived(options, milliseconds)


def played(
    trial: Trial, rounds: int, milliseconds: int
) -> tuple[dict[str, list[Sample]], dict[str, str]]:
    """The samples of each way, one a round after a warm-up; and what was refused, and why."""
    samples: dict[str, list[Sample]] = {way.key: [] for way in trial.ways}
    refused: dict[str, str] = {}
    for number in range(-1, rounds):
        for way in trial.ways if number % 2 == 0 else reversed(trial.ways):
            if way.key in refused:
                continue
            try:
                found = sample(trial, way, milliseconds)
            except Refused as reason:
                refused[way.key] = str(reason)
                continue
            if number >= 0:
                samples[way.key].append(found)
    return samples, refused


def bursts(rounds: int) -> dict[str, dict[str, list[float]]]:
    """By queue and pause: which part of a burst of 100,000 was kept; "fit": what fits at all."""
    kept: dict[str, dict[str, list[float]]] = {
        title: {str(pause): [] for pause in PAUSES} for _, title in QUEUES
    }
    for size, title in QUEUES:
        told = run("live", f"count={2 * BURST} reading=0 queue={size}")
        kept[title]["fit"] = [told["sent"] - told["dropped"]]
    turns = [(size, title, pause) for size, title in QUEUES for pause in PAUSES]
    for number in range(rounds):
        for size, title, pause in turns if number % 2 == 0 else reversed(turns):
            told = run("live", f"count={BURST} pause={pause} queue={size} rest=200")
            kept[title][str(pause)].append(told["read"] / told["sent"])
    return kept


# -------------------------------------------------------------------------------------- telling


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    low, high = paired.quartiles(tuple(values))
    return statistics.median(values), low, high


def told(trial: Trial, samples: dict[str, list[Sample]], refused: dict[str, str]) -> dict[str, Any]:
    """A trial's part of the JSON."""
    first = samples[trial.ways[0].key]
    ways: list[dict[str, Any]] = []
    for way in trial.ways:
        if way.key in refused:
            ways.append({"key": way.key, "title": way.title, "refused": refused[way.key]})
            continue
        own = samples[way.key]
        ratios = [mine[trial.compare] / base[trial.compare] for mine, base in zip(own, first)]
        ways.append(
            {
                "key": way.key,
                "title": way.title,
                "options": f"{trial.common} {way.options}".strip(),
                "samples": {name: [one[name] for one in own] for name in own[0]},
                "spread": {name: spread([one[name] for one in own]) for name in own[0]},
                "ratio": spread(ratios) if ratios else None,  # None: no measure to go by
            }
        )
    return {"key": trial.key, "title": trial.title, "compare": trial.compare, "ways": ways}


def table(trial: Trial, found: dict[str, Any]) -> str:
    """A trial as Markdown: medians, quartiles of what is compared, and the ratio."""
    heads = [COLUMNS[name][0] for name in trial.columns]
    what = COLUMNS[trial.compare][0].split(",")[0]
    lines = [
        f"| {trial.title} | " + " | ".join(heads) + f" | ratio ({what}) |",
        "| --- |" + " ---: |" * (len(heads) + 1),
    ]
    for way in found["ways"]:
        if "refused" in way:
            lines.append(f"| {way['title']} | refused: {way['refused']} |" + " |" * len(heads))
            continue
        cells = []
        for name in trial.columns:
            _, factor, form = COLUMNS[name]
            middle, low, high = (value * factor for value in way["spread"][name])
            cells.append(f"{middle:{form}}")
            if name == trial.columns[0]:
                cells[-1] += f" ({low:{form}} to {high:{form}})"
        if way["ratio"] is None:
            cells.append("")
        else:
            cells.append("{:.2f} ({:.2f} to {:.2f})".format(*way["ratio"]))
        lines.append(f"| {way['title']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def burst_table(kept: dict[str, dict[str, list[float]]]) -> str:
    """Bursts as Markdown: median, and the worst of all rounds."""
    lines = [
        "| queue asked for | datagrams that fit | "
        + " | ".join(f"pause of {pause} ms" for pause in PAUSES)
        + " |",
        "| --- |" + " ---: |" * (len(PAUSES) + 1),
    ]
    for title, row in kept.items():
        cells = [f"{row['fit'][0]:,.0f}"]
        for pause in PAUSES:
            values = row[str(pause)]
            cells.append(f"{statistics.median(values):.1%} ({min(values):.1%})")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two rounds, and short samples")
    parser.add_argument("--rounds", type=int, default=10)
    keys = [trial.key for trial in TRIALS] + ["bursts"]
    parser.add_argument("--only", action="append", choices=keys, help="this trial; may be repeated")
    parser.add_argument("--ordinary", action="store_true", help="not at real-time priority")
    parser.add_argument("--write", action="store_true", help="the tables into docs/bench/limits.md")
    options = parser.parse_args()
    rounds, milliseconds = (2, 15) if options.quick else (options.rounds, 70)
    if len(paired.CPUS) < 2:
        print("these trials need two processors: a sender's and a reader's", file=sys.stderr)
        return 1
    global prepare  # noqa: PLW0603
    if not options.ordinary and may_be_real_time():
        prepare = real_time
    began = time.monotonic()
    compiled()
    results: dict[str, Any] = {
        "machine": paired.machine(),
        "rounds": rounds,
        "priority": "real-time" if prepare else "ordinary",
    }
    tables = {}
    trials = []
    for trial in TRIALS:
        if options.only and trial.key not in options.only:
            continue
        print(f"{time.monotonic() - began:5.1f} s  {trial.title}", file=sys.stderr, flush=True)
        found = told(trial, *played(trial, rounds, milliseconds))
        trials.append(found)
        tables[trial.key] = table(trial, found)
        print(tables[trial.key], end="\n\n", flush=True)
    results["trials"] = trials
    if not options.only or "bursts" in options.only:
        print(f"{time.monotonic() - began:5.1f} s  bursts", file=sys.stderr, flush=True)
        kept = bursts(1 if options.quick else rounds)
        results["bursts"] = kept
        tables["bursts"] = burst_table(kept)
        print(tables["bursts"], flush=True)
    results["seconds"] = time.monotonic() - began
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{results['seconds']:5.1f} s  written to {RESULTS}", file=sys.stderr)
    if not options.write:
        return 0
    return max([markedtable.put(PAGE, f"limits-{key}", text) for key, text in tables.items()])


if __name__ == "__main__":
    sys.exit(main())

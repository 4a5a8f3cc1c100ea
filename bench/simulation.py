#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""So many nodes panic within a second, and one listener hears them all: really run.

    python -m bench.simulation [--nodes 100000] [--within 1] [--seconds 12] [--interval 1] ...

Without options it is what docs/throughput.md shows: both cores, each with the queue that Linux
gives by default and with a deep one. A minute and a half; root, for the deep queue.

A child process plays the nodes, each from an address of its own in 127/8: the first message at
a random moment within the given time, the others an interval apart, which is what this
project's sender does in its first ten seconds (the stock one sends a tenth of that). This
process listens as a service would: a thread that reads, and Python that asks who was heard.
Both run on one processor each. It reports whom it did not hear, how long after the sending a
node was known, and what it cost; `--page` writes the table into docs/throughput.md.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import dataclasses
import importlib
import json
import mmap
import os
import random
import resource
import select
import signal
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from bench.paired import MEASURED_CPU, OTHER_CPU, ROOT, WORK, machine
from kdumpfence.wire import OWN_MESSAGE
from tools import markedtable

SO_RCVBUFFORCE = 33
HERE = socket.inet_aton("127.0.0.1")
#: Bytes of queue that Linux gives who asks for none.
DEFAULT_QUEUE = 212_992
#: Nanoseconds between two looks of the playing child at what is due.
TICK = 1_000_000
#: Python asks who was heard at most so often, in seconds.
REST = 0.02


def address(node: int) -> bytes:
    """127.1.0.0 and what follows."""
    return (0x7F010000 + node).to_bytes(4, "big")


@dataclasses.dataclass
class Outcome:
    """What one run came to. Times in seconds."""

    core: str
    nodes: int
    queue: int  # bytes that the kernel granted
    sent: int
    counted: int
    unheard_nodes: int
    dropped: int  # by the kernel, for want of room in the queue
    behind: float  # how late the player was at worst
    read_median: float  # from a node's first message to its being read
    read_99: float
    read_worst: float
    known_median: float  # from a node's first message to Python's knowing it
    known_99: float
    known_worst: float
    processor: float  # of the listening process, seconds
    processor_busiest: float  # in its busiest second
    memory: float  # MiB by which the listening process grew, table of nodes included


def play(options: argparse.Namespace, port: int, shared: mmap.mmap) -> None:
    """The nodes: runs in the child, and ends it."""
    os.sched_setaffinity(0, {OTHER_CPU})
    from kdumpfence import wire

    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    transmitter = wire.Transmitter(sender, OWN_MESSAGE)
    dice = random.Random(options.seed)
    interval = round(options.interval * 1e9)
    # Every node's moment within a second, in the order of these moments.
    offsets = sorted(
        (round(dice.uniform(0, options.within) * 1e9), node) for node in range(options.nodes)
    )
    for _, node in offsets:
        transmitter.add(HERE, port, source=address(node))
    moments = memoryview(shared).cast("q")
    begin = time.monotonic_ns() + 500_000_000
    end = begin + round(options.seconds * 1e9)
    at = rounds = sent = refused = behind = 0
    while True:
        due = begin + rounds * interval + offsets[at][0]
        if due >= end:
            break
        now = time.monotonic_ns()
        if due > now:
            time.sleep(max(TICK, due - now) / 1e9)
            continue
        behind = max(behind, now - due)
        first = at
        while at < options.nodes and at - first < 1024:
            if begin + rounds * interval + offsets[at][0] > now:
                break
            at += 1
        outcomes = transmitter.send(range(first, at), patience_ns=1_000_000_000)
        refused += sum(code != 0 for code in outcomes)
        sent += at - first
        if rounds == 0:
            # The moment before the sending, so that no delay looks shorter than it was.
            for place in range(first, at):
                moments[2 + offsets[place][1]] = now
        if at == options.nodes:
            at, rounds = 0, rounds + 1
    moments[0], moments[1] = sent - refused, behind
    sys.stdout.flush()
    os._exit(0)


def listen(options: argparse.Namespace) -> Outcome:
    """One run."""
    core: Any = importlib.import_module(f"kdumpfence.{options.core}")
    os.sched_setaffinity(0, {MEASURED_CPU})
    before = resident()
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))
    with contextlib.suppress(PermissionError):
        listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, options.queue // 2)
    queue = listener.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    # A rest that the queue may be too small for is none; see docs/bench/limits.md.
    rest = 1_000_000 if queue >= 2 << 20 else 0
    sources = core.Sources()
    for node in range(options.nodes):
        sources.add(address(node), node=node)
    receiver = core.Receiver(sources, batch=256, size=512)
    receiver.add_socket(listener)
    shared = mmap.mmap(-1, 8 * (options.nodes + 2))
    child = os.fork()
    if child == 0:
        try:
            play(options, listener.getsockname()[1], shared)
        finally:
            os._exit(1)
    bell, rope = os.pipe()
    wake, woken = os.pipe()
    os.set_blocking(rope, False)
    counted: list[int] = []

    def count() -> None:
        counted.append(receiver.count(None, (wake,), rope, rest))

    thread = threading.Thread(target=count)
    thread.start()
    read = array.array("q", bytes(8 * options.nodes))
    known = array.array("q", bytes(8 * options.nodes))
    used = seconds_used()
    busiest, second, second_used = 0.0, time.monotonic(), used
    ended = 0.0
    try:
        while not ended or time.monotonic() < ended + 1:
            if select.select([bell], [], [], 0.1)[0]:
                os.read(bell, 4096)
                while True:
                    heard = sources.heard(4096)
                    now = time.monotonic_ns()
                    for node, _, _, _, first, _, _ in heard:
                        if not known[node]:
                            read[node], known[node] = first, now
                    if len(heard) < 4096:
                        break
                time.sleep(REST)
            if time.monotonic() >= second + 1:
                busiest = max(busiest, (seconds_used() - second_used) / (time.monotonic() - second))
                second, second_used = time.monotonic(), seconds_used()
            if not ended:
                gone, status = os.waitpid(child, os.WNOHANG)
                if gone:
                    ended = time.monotonic()
                    if status:
                        raise RuntimeError("the process that plays the nodes failed")
    except BaseException:
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        raise
    finally:
        os.write(woken, b"!")
        thread.join()
    moments = memoryview(shared).cast("q")
    reads = sorted((read[n] - moments[2 + n]) / 1e9 for n in range(options.nodes) if known[n]) or [
        float("nan")
    ]
    knowns = sorted(
        (known[n] - moments[2 + n]) / 1e9 for n in range(options.nodes) if known[n]
    ) or [float("nan")]
    outcome = Outcome(
        core=core.IMPLEMENTATION,
        nodes=options.nodes,
        queue=queue,
        sent=moments[0],
        counted=counted[0],
        unheard_nodes=sum(not moment for moment in known),
        dropped=receiver.dropped,
        behind=moments[1] / 1e9,
        read_median=statistics.median(reads),
        read_99=reads[len(reads) * 99 // 100],
        read_worst=reads[-1],
        known_median=statistics.median(knowns),
        known_99=knowns[len(knowns) * 99 // 100],
        known_worst=knowns[-1],
        processor=seconds_used() - used,
        processor_busiest=busiest,
        memory=(resident() - before) / 2**20,
    )
    for fd in (bell, rope, wake, woken):
        os.close(fd)
    listener.close()
    moments.release()
    shared.close()
    return outcome


def seconds_used() -> float:
    """Processor time of this process, without its children."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident() -> int:
    """Bytes of memory that this process has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


def in_a_child(options: argparse.Namespace) -> Outcome:
    """One run in a process of its own, so that none inherits another's memory."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            with os.fdopen(write, "w") as pipe:
                json.dump(dataclasses.asdict(listen(options)), pipe)
            os._exit(0)
        except RuntimeError as error:
            print(f"simulation: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    if os.waitpid(child, 0)[1]:
        sys.exit("simulation: the run failed")
    return Outcome(**json.loads(said))


def table(outcomes: list[Outcome]) -> str:
    """The outcomes as a table in Markdown."""
    columns: dict[str, Callable[[Outcome], str]] = {
        "nodes": lambda o: f"{o.nodes:,}",
        "core": lambda o: o.core,
        "queue granted": lambda o: f"{o.queue / 2**20:.1f} MiB",
        "messages sent": lambda o: f"{o.sent:,}",
        "lost": lambda o: f"{o.sent - o.counted:,}",
        "nodes not heard": lambda o: f"{o.unheard_nodes:,}",
        "read after (median, 99 %, worst)": lambda o: (
            " / ".join(f"{1e3 * s:.1f}" for s in (o.read_median, o.read_99, o.read_worst)) + " ms"
        ),
        "known after (median, 99 %, worst)": lambda o: (
            " / ".join(f"{1e3 * s:.0f}" for s in (o.known_median, o.known_99, o.known_worst))
            + " ms"
        ),
        "processor, busiest second": lambda o: f"{100 * o.processor_busiest:.0f} %",
        "memory": lambda o: f"{o.memory:.0f} MiB",
    }
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for outcome in outcomes:
        lines.append("| " + " | ".join(show(outcome) for show in columns.values()) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[100_000])
    parser.add_argument("--within", type=float, default=1.0, help="seconds for all first messages")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between messages")
    parser.add_argument("--seconds", type=float, default=12.0, help="how long they send")
    parser.add_argument("--queue", type=int, nargs="+", default=[DEFAULT_QUEUE, 64 << 20],
                        help="bytes granted, twice what the kernel is asked for")  # fmt: skip
    parser.add_argument("--core", nargs="+", default=["_kdumpwire", "_purewire"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page", action="store_true", help="write it into docs/throughput.md")
    wanted = parser.parse_args()
    outcomes = []
    for nodes in wanted.nodes:
        for core in wanted.core:
            for queue in wanted.queue:
                options = argparse.Namespace(**vars(wanted))
                options.nodes, options.core, options.queue = nodes, core, queue
                outcomes.append(in_a_child(options))
                print(table(outcomes[-1:]).splitlines()[-1], flush=True)
    WORK.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine(), "runs": [dataclasses.asdict(one) for one in outcomes]}
    (WORK / "simulation.json").write_text(json.dumps(result, indent=1))
    print(table(outcomes))
    if wanted.page:
        sys.exit(markedtable.put(ROOT / "docs" / "throughput.md", "simulation", table(outcomes)))


if __name__ == "__main__":
    main()

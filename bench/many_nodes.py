# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a Listener costs while thousands of nodes panic at once: the figures of docs/listener.md.

    python -m bench.many_nodes [--nodes 100000] [--rounds 7] [--gap 10] [--networks] [--rubbish]

A storm plays the nodes, each from a 127/8 address of its own, and lets all of them send a message
every `--gap` seconds; `--networks` admits them instead of telling of them before; `--rubbish` is
another storm, of what is no message, as fast as it goes, all the time. Time
is processor time of the listening process, its reading thread included, since the machine has
other things to do. The exit status is 1 if a node was not told of, or twice.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ipaddress
import resource
import statistics
import sys
import time
from pathlib import Path

from kdumpfence import wire
from kdumpfence.listener.listener import Listener
from tests.support.storms import Storm

NETWORK = "127.0.0.0/8"
FIRST = ipaddress.ip_address("127.0.0.1")
PATIENCE = 300.0
SILENCE = 30.0


def resident() -> int:
    """Bytes of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(options: argparse.Namespace) -> bool:
    before = resident()
    started = time.monotonic()
    told = 0 if options.networks else options.nodes
    names = {f"node{number:06}": [str(FIRST + number)] for number in range(told)}
    networks = [NETWORK] if options.networks else []
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(Listener(names, networks, port=0, silence_timeout=SILENCE))
        took = time.monotonic() - started
        print(f"{wire.IMPLEMENTATION} core; ready after {took:.2f} s", end="")
        print(f", {(resident() - before) / max(1, told):.0f} bytes a node" * bool(told))
        crowd = ["--from", NETWORK, "--nodes", str(options.nodes)]
        if options.rubbish:
            rubbish = Storm(listener.port, *crowd, "--mix", "random", "--duration", "3600")
            stack.enter_context(rubbish)
        pace = ["--rounds", str(options.rounds), "--interval", str(options.gap)]
        nodes = Storm(listener.port, *crowd, *pace, "--panic-within", "0")
        stack.enter_context(nodes)
        well = follow(options, listener)
        told_of = nodes.told()
        print(f"{told_of['sent']} messages sent, at most {told_of['late']:.2f} s late")
        return well


def follow(options: argparse.Namespace, listener: Listener) -> bool:
    started, used = time.monotonic(), time.process_time()
    began: collections.Counter[str] = collections.Counter()
    events = silent = lost = 0
    first = last = 0.0
    snapshots = []
    while silent < options.nodes and time.monotonic() - started < PATIENCE:
        for event in listener.events(0.5):
            events += 1
            silent += event.kind == "silent"
            lost += event.messages if event.kind == "overflow" else 0
            if event.kind == "began":
                began[event.node] += 1
                last = time.monotonic()
                first = first or last
        at = time.monotonic()
        listener.snapshot(fresh=False)
        snapshots.append(time.monotonic() - at)
    used = time.process_time() - used
    counts = listener.snapshot().counts
    print(
        f"{len(began)} began, the last one told of {last - first:.2f} s after the first; "
        f"{silent} fell silent"
    )
    print(f"{used / max(1, events) * 1e6:.1f} µs of processor time an event ({events} events)")
    print(f"{ {name: number for name, number in counts.items() if number} }, {lost} lost")
    print(
        f"a snapshot takes {statistics.median(snapshots) * 1e3:.1f} ms, "
        f"at most {max(snapshots) * 1e3:.1f} ms"
    )
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    return len(began) == silent == options.nodes and set(began.values()) == {1}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--gap", type=float, default=10.0)
    parser.add_argument("--networks", action="store_true")
    parser.add_argument("--rubbish", action="store_true")
    return 0 if measure(parser.parse_args()) else 1


if __name__ == "__main__":
    sys.exit(main())

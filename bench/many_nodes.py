#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a Listener costs while thousands of nodes panic at once: the figures of docs/listener.md.

    .venv/bin/python bench/many_nodes.py [--nodes 100000] [--rounds 7] [--gap 10] [--networks]
                                         [--rubbish]

One process plays the nodes, each from a 127/8 address of its own, and lets all of them send a
message every `--gap` seconds; `--networks` admits them instead of telling of them before;
`--rubbish` lets another process send what is no message as fast as it can, all the time. Time
is processor time of the listening process, its reading thread included, since the machine has
other things to do. The exit status is 1 if a node was not told of, or twice.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import resource
import socket
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from kdumpfence import wire
from kdumpfence.listener.listener import Listener

TARGET = b"\x7f\0\0\1"
PATIENCE = 300.0
SILENCE = 30.0


def host(number: int) -> bytes:
    return bytes((127, 10 + (number >> 16), number >> 8 & 255, number & 255))


def resident() -> int:
    """Bytes of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def play_nodes(options: argparse.Namespace, port: int, connection: Connection) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        nodes = wire.Transmitter(sock, wire.OWN_MESSAGE)
        for number in range(options.nodes):
            nodes.add(TARGET, port, 0, host(number))
        connection.send("ready")
        connection.recv()
        for _ in range(options.rounds):
            started = time.monotonic()
            failed = sum(map(bool, nodes.send(None, 10**10)))
            took = time.monotonic() - started
            print(f"{options.nodes} messages sent in {took:.2f} s, {failed} failed", flush=True)
            time.sleep(max(0.0, options.gap - took))


def play_rubbish(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        rubbish = wire.Transmitter(sock, b"rubbish!")
        for _ in range(10000):
            rubbish.add(TARGET, port)
        while True:
            rubbish.send(None, 10**10)


def measure(options: argparse.Namespace) -> bool:
    before = resident()
    started = time.monotonic()
    names = {
        f"node{number:06}": [socket.inet_ntoa(host(number))]
        for number in range(0 if options.networks else options.nodes)
    }
    networks = ["127.0.0.0/8"] if options.networks else []
    with Listener(names, networks, port=0, silence=SILENCE) as listener:
        took = time.monotonic() - started
        print(f"{wire.IMPLEMENTATION} core; ready after {took:.2f} s", end="")
        print(f", {(resident() - before) / max(1, len(names)):.0f} bytes a node" * bool(names))
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        players = [context.Process(target=play_nodes, args=(options, listener.port, theirs))]
        if options.rubbish:
            players.append(context.Process(target=play_rubbish, args=(listener.port,)))
        for player in players:
            player.start()
        try:
            ours.recv()
            ours.send("go")
            return follow(options, listener)
        finally:
            for player in players:
                player.kill()
                player.join()


def follow(options: argparse.Namespace, listener: Listener) -> bool:
    started, used = time.monotonic(), time.process_time()
    began: collections.Counter[str] = collections.Counter()
    events = silent = lost = 0
    all_began = 0.0
    snapshots = []
    while silent < options.nodes and time.monotonic() - started < PATIENCE:
        for event in listener.events(0.5):
            events += 1
            silent += event.kind == "silent"
            lost += event.messages if event.kind == "overflow" else 0
            if event.kind == "began":
                began[event.node] += 1
                all_began = time.monotonic() - started
        at = time.monotonic()
        listener.snapshot()
        snapshots.append(time.monotonic() - at)
    used = time.process_time() - used
    counts = listener.snapshot().counts
    print(f"{len(began)} began, the last one told of after {all_began:.2f} s; {silent} fell silent")
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

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Counting in the kernel: what a node takes, in this process and in the kernel, as `memory` does.

A fresh process knows so many nodes, loads the program, and reads a message of each; the kernel says
itself what its maps and programs take. Beside it, the same without any of that: the core alone.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from bench.cases.memory import resident
from bench.paired import ROOT, Figure, figure, say
from kdumpfence import wire
from kdumpfence.listener.kernel.counting import MOST_PLACES, load
from kdumpfence.listener.reader import BATCH, SIZE
from kdumpfence.sockets import deepen, udp_program
from tests.support.storms import Storm

GROUP = "9 kernel"
#: Of the second the core's own table has just grown; see `memory`.
NODES = {"": 100_000, "-worst": 43_751}
BOUND = 192
ROUNDS = 2
#: Bytes of queue, in which a message of each of them fits.
ROOM = 1 << 27
#: Sources that are heard of at a time: what that takes is to be lost among what there is anyway.
PIECE = 256


def mapped() -> int:
    """Bytes that this process has of the kernel's maps, where they count."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-", line):
            inside = "bpf-map" in line
        elif inside and line.startswith(("Private_Clean", "Private_Dirty")):
            total += int(line.split()[1]) * 1024
    return total


def of_the_kernel() -> int:
    """Bytes that the maps and programs take which this process has open."""
    taken: dict[str, int] = {}
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that listed them
            told = Path(f"/proc/self/fdinfo/{fd}").read_text()
            # By its number, for what is mapped has two descriptors.
            found = re.search(r"^memlock:\s+(\d+)\n((?:map|prog)_id:\s+\d+)$", told, re.M)
            if found is not None:
                taken[found[2]] = int(found[1])
    return sum(taken.values())


def measure(nodes: int, counting: bool) -> float:
    """Bytes a node; to be called once in a process."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    deepen(sock, ROOM)
    sock.bind(("127.0.0.1", 0))
    sources = wire.Sources()
    receiver = wire.Receiver(sources, batch=BATCH, size=SIZE)
    receiver.add_socket(sock)
    with Storm(
        sock.getsockname()[1],
        *("--nodes", str(nodes), "--rounds", "1", "--interval", "3", "--panic-within", "3"),
    ) as storm:
        before = resident()
        for number in range(nodes):
            sources.add((0x7F000001 + number).to_bytes(4, "big"), 0, number)
        if counting:
            made = load([sock], min(nodes, MOST_PLACES), 30.0, 10.0)
            made.share(sources)
            made.attach(sock, udp_program(sock))
        while not storm.over:
            receiver.count(0)
            while sources.heard(PIECE):
                pass
        receiver.count(0)
        taken = resident() - before - mapped() + of_the_kernel()
    if receiver.counts["accepted"] != nodes:
        raise RuntimeError(f"{receiver.counts['accepted']:,} of {nodes:,} messages were read")
    if counting and sources.shared < 0.99 * nodes:
        raise RuntimeError(f"the table holds {sources.shared:,} of {nodes:,} nodes")
    return taken / nodes


def measured(nodes: int, counting: bool) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "bench.cases.kernel_memory", str(nodes), str(int(counting))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    result: float = json.loads(done.stdout)
    return result


def figures(quick: bool) -> list[Figure]:
    """The memory of figure 9."""
    say("memory: nodes whose messages the kernel counts")
    found = []
    for key, nodes in NODES.items():
        ours, core = zip(
            *(
                (measured(nodes, True), measured(nodes, False))
                for _ in range(1 if quick else ROUNDS)
            )
        )
        found.append(
            figure(
                f"kernel-memory{key}", GROUP,
                f"memory of {nodes:,} known nodes, all heard, the kernel's table included",
                "bytes a node", ours, core, "the core alone", "at most", BOUND, of="ours",
                note="Just after the core's table has grown." if key else "",
            )
        )  # fmt: skip
    return found


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), sys.argv[2] == "1")))

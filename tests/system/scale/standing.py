# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a daemon costs while many nodes dump and nothing else happens.

    python -m tests.system.scale.standing NODES SECONDS [kernel|user [CORE]]

So many nodes, all in the settings, repeat their message every second, played by a process of its
own. Once all are told of, and a further interval of `repeat` is over, the daemon's processor time
(user and system, of all its threads, from /proc) is read every ten seconds. Then how old what the
history has of these dumps is at worst, and by how many messages it is off; and how long it takes
until the end of one node's dump is told, beyond `silence`. Told as JSON.

What may not be in this file: what a figure ought to be.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from kdumpfence import wire
from tests.daemon.running import Kdumpfenced, until

#: Of the settings, seconds.
SILENCE, REPEAT = 30, 10
#: Seconds between two readings.
LOOK_EVERY = 10.0
#: Nodes whose messages are sent at a time.
PIECE = 100
FIRST = 0x7F010000
HZ = os.sysconf("SC_CLK_TCK")


def play(port: int, nodes: int, end: Event, quiet: Event) -> None:
    """Each node sends once a second, spread over it; the first one not when it is to be `quiet`."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    crowd = wire.Transmitter(sock, wire.encode("little"))
    for number in range(nodes):
        crowd.add(b"\x7f\0\0\1", port, source=(FIRST + number).to_bytes(4, "big"))
    began = time.monotonic()
    turn = 0
    while not end.is_set():
        for first in range(0, nodes, PIECE):
            at = began + turn + first / nodes
            time.sleep(max(0.0, at - time.monotonic()))
            skip = 1 if quiet.is_set() and first == 0 else 0
            crowd.send(range(first + skip, min(first + PIECE, nodes)), patience_ns=10**9)
        turn += 1


def processor(pid: int) -> float:
    """Seconds that this process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / HZ


def private(pid: int) -> int:
    """Bytes of memory that nobody shares with this process."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if line.startswith(("Private_Clean", "Private_Dirty")):
            total += int(line.split()[1]) * 1024
    return total


class Daemon(Kdumpfenced):
    """One with these nodes."""

    nodes = 0

    def configure(self, *_: Any, **__: Any) -> None:
        lines = "\n".join(
            f'node-{n:06} = ["{socket.inet_ntoa((FIRST + n).to_bytes(4, "big"))}"]'
            for n in range(self.nodes)
        )
        self.settings.write_text(
            f'port = {self.port}\nqueue = "64M"\nsilence = {SILENCE}\nrepeat = {REPEAT}\n'
            f'answer = false\n[listen]\ncounting = "{self.counting}"\n[history]\n'
            f'path = "{self.history}"\n[control]\npath = "{self.control}"\n[nodes]\n{lines}\n'
        )


def measure(nodes: int, seconds: float, counting: str, core: str) -> dict[str, Any]:
    """The figures."""
    Daemon.nodes = nodes
    end, quiet = multiprocessing.Event(), multiprocessing.Event()
    with tempfile.TemporaryDirectory() as name:
        daemon = Daemon(Path(name), core=core, counting=counting)
        daemon.start()
        used = processor(daemon.pid)
        time.sleep(LOOK_EVERY)
        idle = (processor(daemon.pid) - used) / LOOK_EVERY
        before = private(daemon.pid)
        player = multiprocessing.Process(target=play, args=(daemon.port, nodes, end, quiet))
        player.start()
        try:
            until(lambda: daemon.status().dumping == nodes, 120)
            time.sleep(REPEAT + 5)
            shares = []
            counts = daemon.status().counts
            began, used = time.monotonic(), processor(daemon.pid)
            whole = began, used
            while time.monotonic() < whole[0] + seconds:
                time.sleep(LOOK_EVERY)
                now, by_now = time.monotonic(), processor(daemon.pid)
                shares.append(round((by_now - used) / (now - began) * 100, 2))
                began, used = now, by_now
            more = {key: n - counts.get(key, 0) for key, n in daemon.status().counts.items()}
            result = {
                "nodes": nodes,
                "counting": daemon.status().counting,
                "idle_percent": round(idle * 100, 2),
                "percent": round((used - whole[1]) / (began - whole[0]) * 100, 2),
                "percent_each": shares,
                "messages_a_second": round(more["accepted"] / (began - whole[0])),
                "unread": more["unread"],
                "private_bytes_a_node": round((private(daemon.pid) - before) / nodes),
            }
            found, now = daemon.past(), time.time()
            result["history_age"] = round(now - min(dump.last for dump in found), 3)
            # Each node has sent one message a second since its first.
            off = [abs(dump.messages - 1 - dump.took) for dump in found]
            result["history_messages_off"] = round(max(off), 1)
            quiet.set()
            node = "node-000000"
            line = daemon.says(f"node '{node}' fell silent")
            (dump,) = daemon.past(node)
            assert dump.ended is not None
            result["silent_late"] = round(dump.ended - dump.last - SILENCE, 3)
            result["silent_messages"] = dump.messages
            assert "not in the history" not in line
            return result
        finally:
            end.set()
            player.join()
            with contextlib.suppress(AssertionError):
                daemon.end()
            daemon.close()


if __name__ == "__main__":
    given = sys.argv[3:]
    print(
        json.dumps(
            measure(
                int(sys.argv[1]),
                float(sys.argv[2]),
                given[0] if given else "kernel",
                given[1] if len(given) > 1 else "compiled",
            )
        )
    )

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A day of kdumpfenced in virtual time.

    python -m tests.system.scale.day FOLDER NODES [HOURS [LEAK]]

So many nodes crash again and again, each every ten minutes for two; strangers come besides, of
whom each is heard once. The daemon is the real one, with its history, log, metrics and control
socket, but for the clock, and for the Listener: Dumps decides here too, and no socket is read.
What it keeps is counted every hour, at the same moment of the nodes' rhythm, and told as JSON,
a line an hour. With LEAK every so many-th dump is kept for ever, which has to be found out.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kdumpfence.client import Client
from kdumpfence.daemon import log, metrics, published, restart, systemd, teller
from kdumpfence.daemon import loop as daemon
from kdumpfence.daemon.settings import Settings
from kdumpfence.daemon.told import Told
from kdumpfence.listener.dumps import Dump, Dumps, Event
from kdumpfence.listener.listener import Snapshot

#: Virtual seconds: between two rounds, two crashes of a node, and from its first message to
#: its last one. A round is also how often it sends.
ROUND = 10
PERIOD = 600
DUMP = 120
#: Strangers in a round.
NEW = 10
#: Dumps that the history may keep, and beginnings and ends that can be asked for.
MOST = 5000


class Played:
    """In place of a Listener: who is heard at a moment, and what Dumps makes of it."""

    def __init__(self, nodes: int, leak: int) -> None:
        self.now = 1.7e9
        self._leak = leak
        self.nodes = nodes
        self.decided = Dumps(silence=30, repeat=60)
        self.strangers = 0
        self._ready: list[Event] = []
        self._kept: set[Event] = set()
        self.port = 7410
        self._bell = os.pipe()

    def step(self) -> None:
        """The next round."""
        self.now += ROUND
        for number in range(self.nodes):
            # Every node has a place of its own in the ten minutes.
            if (self.now + number * PERIOD // self.nodes) % PERIOD <= DUMP:
                self._hear(f"node-{number}", f"192.0.2.{number % 250}")
        for _ in range(NEW):
            self.strangers += 1
            self._hear(f"2001:db8::{self.strangers:x}", f"2001:db8::{self.strangers:x}")
        self._ready += self.decided.tick(self.now)

    def _hear(self, node: str, address: str) -> None:
        event = self.decided.heard(node, address, self.now)
        if event is not None:
            self._ready.append(event)
            if self._leak and event.kind == "began" and hash(event) % self._leak == 0:
                self._kept.add(event)

    def events(self, timeout: float | None = None) -> list[Event]:
        """As a Listener has it."""
        events, self._ready = self._ready, []
        return events

    def snapshot(self, fresh: bool = True, dumps: bool = True) -> Snapshot:
        """As a Listener has it."""
        counts = {"accepted": int(self.now), "unread": 0}
        return Snapshot(self.now, self.decided.snapshot(), self.nodes, [], counts, [], [])

    def figures(self) -> bytes:
        """The kernel counts nothing."""
        return b""

    def listens_for(self, node: str) -> bool:
        """As a Listener has it."""
        return True

    def dumps(self, nodes: Iterable[str], fresh: bool = True) -> list[Dump | None]:
        """As a Listener has it."""
        return [self.decided.get(node) for node in nodes]

    def restore(self, dumps: list[Any], ended: list[Any]) -> None:
        """Nothing was under way."""
        assert not dumps
        assert not ended

    def fileno(self) -> int:
        """As a Listener has it."""
        return self._bell[0]

    def close(self) -> None:
        """As a Listener has it."""
        for fd in self._bell:
            os.close(fd)


def lengths(root: object) -> dict[str, int]:
    """The length of everything that the daemon keeps, by the way that leads there."""
    found: dict[str, int] = {}
    seen: set[int] = set()
    todo: list[tuple[str, object]] = [("", root)]
    while todo:
        way, one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, (dict, list, set, tuple)) or type(one).__name__ == "deque":
            found[way] = len(one)  # type: ignore[arg-type]
        slots = [name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())]
        inside = {**getattr(one, "__dict__", {}), **{s: getattr(one, s, None) for s in slots}}
        if type(one).__module__.startswith(("kdumpfence.", "tests.system.scale", "__main__")):
            todo += [(f"{way}.{name}", value) for name, value in inside.items()]
    return found


def grown(hours: list[dict[str, Any]], since: int = 6) -> list[str]:
    """What the daemon has more of at the end than at that hour."""
    first, last = hours[since - 1], hours[-1]
    found = [
        f"{way}: {first['lengths'].get(way, 0)} to {length}"
        for way, length in last["lengths"].items()
        if length > first["lengths"].get(way, 0) + 1  # a client that has not hung up yet
    ]
    allowed = {"blocks": 300, "resident": 2 << 20, "descriptors": 2, "disk": first["disk"] // 8}
    for what, more in allowed.items():
        if last[what] > first[what] + more:
            found.append(f"{what}: {first[what]} to {last[what]}")
    garbage = sum(hour["garbage"] for hour in hours[since:])
    if garbage > len(hours):
        found.append(f"garbage that refers to itself: {garbage} objects")
    return found


def settings(folder: Path, nodes: int) -> Settings:
    """Those of this daemon, with everything in that folder."""
    # Not with what other tests use for it: pytest would count among the memory in use.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    return Settings(
        nodes={f"node-{number}": ("192.0.2.1",) for number in range(nodes)},
        port=port,
        family="ipv4",
        history_path=str(folder / "history.sqlite"),
        history_most=MOST,
        control_path=str(folder / "control"),
    )


def main(folder: Path, nodes: int, hours: int = 24, leak: int = 0) -> None:
    played = Played(nodes, leak)
    clock = SimpleNamespace(time=lambda: played.now, monotonic=lambda: played.now)
    everything: Any = daemon  # these are modules' own names, which a type checker holds fixed
    modules: tuple[Any, ...] = (daemon, log, published, restart, teller)
    for module in modules:
        module.time = clock
    everything.Listener = lambda *_, **__: played
    everything.Told = lambda: Told(MOST)
    everything.privileges = SimpleNamespace(drop=lambda: None)
    # Garbage that refers to itself is collected here, and counted.
    everything.gc = SimpleNamespace(collect=lambda: None)
    chosen = settings(folder, nodes)
    quiet = os.open(os.devnull, os.O_WRONLY)
    works = daemon.Daemon(chosen, systemd.Notify({}), log.Journal(fd=quiet))
    works.published.metrics = metrics.Metrics(works.health.trouble)
    works.recorder._clock = clock.monotonic
    gc.collect()
    gc.freeze()
    gc.disable()
    began = time.monotonic()
    for hour in range(1, hours + 1):
        for _ in range(3600 // ROUND):
            played.step()
            works.round()
        works.published.metrics.page()
        with Client(chosen.control_path) as client:
            dumping = client.status(200).dumping
        garbage = gc.collect()  # which also empties the lists of blocks that Python has spare
        told = {
            "hour": hour,
            "dumps": works.published.dumps,
            "dumping": dumping,
            "lengths": lengths(works),
            "garbage": garbage,
            "blocks": sys.getallocatedblocks(),
            "resident": int(Path("/proc/self/statm").read_text().split()[1]) * 4096,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "disk": sum(one.stat().st_size for one in folder.glob("history.sqlite*")),
            "seconds": time.monotonic() - began,
        }
        print(json.dumps(told), flush=True)
    works.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs beside a daemon that ask about nodes and follow events, while very many nodes dump.

Each way is measured: lines of JSON and HTTP over the control socket, and HTTP over TCP. The daemon
has one processor, those who ask and who play the nodes share the others. What may not be in this
file: what a figure ought to be.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from kdumpfence.client import Client, Missed
from tests.daemon.running import Kdumpfenced, until
from tests.support.storms import Storm
from tests.system.scale.play import NETWORK, address, processors

ROOT = Path(__file__).resolve().parents[3]

#: Answers whatever ends with a newline with as many bytes as an answer about a node has, and does
#: nothing else: what this machine makes of so many questions.
PEER = """
import select, socket, sys
answer = b'{"dumping": true' + b" " * 300 + b"}\\n"
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(64)
poller = select.epoll()
poller.register(listener, select.EPOLLIN)
clients = {}
while True:
    for fd, _ in poller.poll():
        if fd == listener.fileno():
            one = listener.accept()[0]
            clients[one.fileno()] = one
            poller.register(one, select.EPOLLIN)
        elif clients[fd].recv(4096):
            clients[fd].send(answer)
        else:
            clients.pop(fd).close()
"""


@dataclasses.dataclass
class Asked:
    """Questions about one node each. Times in seconds."""

    number: int
    #: Answered that the node is dumping, as each of them is.
    dumping: int
    median: float
    most: float  # which 99 of 100 did not exceed
    worst: float
    took: float
    late: float  # of the asker: 99 of 100 questions were no later, of those with a free connection


@dataclasses.dataclass
class Seen:
    """Nodes that began to dump at once. Times in seconds, from a node's first message on."""

    nodes: int
    missing: int
    #: Things that the daemon said it could not tell.
    missed: int
    delays: list[float]


class Beside(Kdumpfenced):
    """A daemon with all its sockets."""

    def configure(self, *_: object, **__: object) -> None:
        self.settings.write_text(
            f'port = {self.port}\nnetworks = ["{NETWORK}"]\nqueue = "64M"\nsilence = 5\n'
            f'[listen]\ncounting = "{self.counting}"\n'
            f'[history]\npath = "{self.history}"\n[control]\npath = "{self.control}"\n'
            f"[http]\nport = {self.http_port}\n"
        )

    def ways(self) -> dict[str, str]:
        """Where it is asked, as `asker` has it, by the name of the way."""
        return {
            "control socket, lines": str(self.control),
            "control socket, HTTP": f"http:{self.control}",
            "TCP, HTTP": f"127.0.0.1:{self.http_port}",
        }

    def places(self) -> dict[str, str]:
        """The same for Client."""
        return {
            "control socket, lines": f"unix:{self.control}",
            "TCP, HTTP": f"http://127.0.0.1:{self.http_port}",
        }


@contextlib.contextmanager
def running(folder: Path, counting: str = "user") -> Iterator[Beside]:
    """One on a processor of its own; who counts repeated messages is `counting`."""
    daemon = Beside(folder, counting=counting)
    try:
        daemon.start(("taskset", "-c", processors()[0]))
        yield daemon
    finally:
        daemon.close()


def storm(daemon: Beside, nodes: int, within: float, rounds: int = 1, nice: int = 0) -> Storm:
    """So many nodes, all of which begin within so many seconds, and repeat each second."""
    return Storm(
        daemon.port, "--nodes", str(nodes), "--rounds", str(rounds), "--interval", "1",
        "--panic-within", str(within),
        wrapper=("taskset", "-c", processors()[1], "nice", "-n", str(nice)),
    )  # fmt: skip


def burst(daemon: Beside, place: str, nodes: int, within: float) -> Seen:
    """Follow the events while so many nodes begin."""
    seen = Seen(nodes, nodes, 0, [])
    with Client(place, timeout=60).events() as events, storm(daemon, nodes, within):
        while seen.missing:
            found = events.next(60)
            if found is None:
                break
            if isinstance(found, Missed):
                seen.missed += found.number
            elif found.kind == "began":
                seen.delays.append(time.time() - found.since)
                seen.missing -= 1
    return seen


def polled(daemon: Beside, place: str, nodes: int, within: float) -> Seen:
    """Ask for all of them again and again, in as few questions as can be, while they begin."""
    seen = Seen(nodes, nodes, 0, [])
    left = [address(number) for number in range(nodes)]
    end = time.monotonic() + 60
    with Client(place, timeout=60) as client, storm(daemon, nodes, within):
        while left and time.monotonic() < end:
            found = client.nodes(left)
            now = time.time()
            dumps = [one.dump for one in found.values() if one.dump is not None]
            seen.delays += [now - dump.since for dump in dumps]
            dumping = {dump.node for dump in dumps}
            left = [node for node in left if node not in dumping]
    seen.missing = len(left)
    return seen


def ask(where: str, names: Path, rate: float, seconds: float) -> Asked:
    """So many questions a second, from another process."""
    ran = subprocess.run(
        ["taskset", "-c", processors()[2], sys.executable, "-m", "tests.system.scale.asker"]
        + [where, "--names", str(names), "--rate", str(rate), "--seconds", str(seconds)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(ran.stdout)
    times = (told["0.5"], told["0.99"], told["1"], told["took"], told["late"])
    return Asked(told["asked"], told["dumping"], *times)


def questions(
    folder: Path, nodes: int, rate: float, seconds: float, counting: str = "user"
) -> dict[str, Asked]:
    """What each way makes of them while all these nodes repeat; and a process that only answers."""
    names = [address(number) for number in range(nodes)]
    random.Random(1).shuffle(names)
    listed = folder / "names"
    listed.write_text("\n".join(names[:20_000]))
    found = {}
    with running(folder, counting) as daemon:
        place = folder / "peer"
        peer = subprocess.Popen(
            ["taskset", "-c", processors()[0], sys.executable, "-c", PEER, str(place)]
        )
        try:
            until(place.exists)
            rounds = int(4 * seconds) + 20
            # After who asks: in the field each of the nodes has a processor of its own.
            with storm(daemon, nodes, 1.0, rounds, nice=19) as player:
                until(lambda: daemon.status().dumping == nodes)
                for way, where in {
                    **daemon.ways(),
                    "a process that only answers": str(place),
                }.items():
                    found[way] = ask(where, listed, rate, seconds)
                    assert not player.over, "the nodes did not repeat long enough"
                player.stop()
        finally:
            peer.kill()
            peer.wait()
    return found

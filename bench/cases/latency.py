# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two moments in which a cluster waits for the agent: its start, and its answer.

The answer: from just before the message is sent to the return of waitpid(2) for the agent, which
exits with its yes. Both agents wait on one processor, in a network of their own, and are sent the
message from another processor.

The start: from just before the agent is started to the sight of its line "waiting for message",
which it writes when all its sockets hear. Beside it, the whole life of the same interpreter with
nothing to do, without site-packages either. Agent, interpreter and this program share one
processor meanwhile. The line comes a little after the sockets, so the start is not longer than
that. The third line needs no word of the agent: messages come all the time, and what counts is
when it is gone with its yes, so it can be said of the stock agent as well.
"""

from __future__ import annotations

import functools
import os
import re
import socket
import statistics
import subprocess
import time

from bench.paired import MEASURED_CPU, OTHER_CPU, Figure, alternate, figure, pinned, say
from bench.programs import (
    NODE,
    PORT,
    Agent,
    Waiting,
    installed,
    need_own_network,
    run,
    signing,
    stock_agent,
)
from kdumpfence.wire import OWN_MESSAGE

GROUP = "5 latency"
#: Seconds until an agent that says that it waits does nothing else any more.
SETTLING = 0.05
#: Seconds between messages that come all the time.
OFTEN = 0.0002


def _node() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((NODE, 0))
    return sock


def answer(agent: Agent, node: socket.socket) -> float:
    """Milliseconds from the message to the end of an agent that waits."""
    with Waiting(agent) as waiting:
        time.sleep(SETTLING)
        began = time.monotonic_ns()
        node.sendto(OWN_MESSAGE, ("127.0.0.1", PORT))
        status = waiting.wait()
        took = time.monotonic_ns() - began
    if status != 0:
        raise RuntimeError(f"{agent.path}: exit status {status}, though the message was sent")
    return took / 1e6


def until_listening(agent: Agent) -> float:
    """Milliseconds from the start of an agent to its word that it waits."""
    with Waiting(agent) as waiting:
        return waiting.until_listening / 1e6


def until_yes(agent: Agent, node: socket.socket) -> float:
    """Milliseconds from the start of an agent to its end, when messages come all the time."""
    argv = [agent.path, "-n", NODE, "-p", str(PORT), "-t", "60"]
    null = os.open(os.devnull, os.O_RDWR)
    streams = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in range(3)]
    try:
        with pinned(MEASURED_CPU):
            began = time.monotonic_ns()
            pid = os.posix_spawn(argv[0], argv, {}, file_actions=streams)
        while True:
            node.sendto(OWN_MESSAGE, ("127.0.0.1", PORT))
            next_one = time.monotonic() + OFTEN
            while time.monotonic() < next_one:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    took = time.monotonic_ns() - began
                    if status:
                        raise RuntimeError(f"{agent.path}: status {status}")
                    return took / 1e6
    finally:
        os.close(null)


@functools.cache
def imports(agent: Agent, rounds: int) -> dict[str, float]:
    """Milliseconds that each module takes at the agent's start without what it imports itself.

    In the order of the imports; those that the bare interpreter needs too are left out. Measured
    once: the note beside a figure and the table are of the same runs.
    """
    bare = _imported([agent.python, "-ISB", "-X", "importtime", "-c", "pass"])
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        argv = [agent.python, "-ISB", "-X", "importtime", agent.path, "-V"]
        for name, took in _imported(argv).items():
            if name not in bare:
                found.setdefault(name, []).append(took)
    return {name: statistics.median(times) for name, times in found.items()}


def _imported(argv: list[str]) -> dict[str, float]:
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    lines = re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", done.stderr, re.M)
    return {name: int(took) / 1000 for took, name in lines}


def tables(quick: bool) -> dict[str, str]:
    """Markdown tables for the page about the figures, by their titles."""
    agent = installed()
    with pinned():
        times = imports(agent, 3 if quick else 15)
    lines = ["| module | ms |", "|---|---:|"]
    for name, took in sorted(times.items(), key=lambda item: -item[1]):
        lines.append(f"| {name} | {took:.2f} |")
    lines.append(f"| **all** | {sum(times.values()):.2f} |")
    return {"What the agent imports, by time": "\n".join(lines) + "\n"}


def figures(quick: bool) -> list[Figure]:
    """The start and the answer of both agents."""
    need_own_network()
    ours, theirs = installed(), stock_agent()
    rounds = 5 if quick else 41
    bare = [ours.python, "-I", "-S", "-c", "pass"]
    with _node() as node:
        with pinned(OTHER_CPU):
            say("from the message to the agent's exit")
            answers = alternate(
                rounds, ours=lambda: answer(ours, node), peer=lambda: answer(theirs, node)
            )
        with pinned():
            say("from the agent's start to its listening")
            signer = signing()
            starts = alternate(
                rounds,
                ours=lambda: until_listening(ours),
                signed=lambda: until_listening(signer),
                peer=lambda: run(bare),
            )
            times = imports(ours, 3 if quick else 15)
        with pinned(OTHER_CPU):
            say("from the agent's start to its yes")
            yeses = alternate(
                rounds, ours=lambda: until_yes(ours, node), peer=lambda: until_yes(theirs, node)
            )
    slowest = sorted(times, key=lambda name: -times[name])[:5]
    return [
        figure(
            "answer", GROUP, "from the message to the agent's exit", "ms",
            answers["ours"], answers["peer"], "stock fence_kdump", "at most", 2.0, of="difference",
        ),
        figure(
            "start", GROUP, "from the agent's start to its listening", "ms",
            starts["ours"], starts["peer"], "python3 -I -S -c pass, to its end", "at most", 2.0,
            f"Of it {sum(times.values()):.1f} ms are imports of {len(times)} modules: "
            + ", ".join(f"{name} {times[name]:.1f}" for name in slowest) + " and so on.",
        ),
        figure(
            "start-signed", GROUP, "the same with auth=sha256", "ms",
            starts["signed"], starts["peer"], "python3 -I -S -c pass, to its end", "at most", 1.5,
        ),
        figure(
            "start-yes", GROUP, "from its start to its exit, messages every 0.2 ms", "ms",
            yeses["ours"], yeses["peer"], "stock fence_kdump",
            note="What a program in C is quicker by. A message comes every ten seconds.",
        ),
    ]  # fmt: skip

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The most memory that the agent ever has in use, beside the bare interpreter's.

The agent is asked while it waits, and again after a flood in which more strangers sent valid
messages than it remembers; the interpreter in the last moment of its life, which it does nothing
with. Both run without site-packages. The figure is the kernel's own of one process (VmHWM of
/proc/PID/status), so what both share with other programs, as libc, counts in both.
"""

from __future__ import annotations

from bench.flooding import flood
from bench.paired import OTHER_CPU, Figure, alternate, figure, pinned, say
from bench.programs import (
    NODE,
    Agent,
    Waiting,
    installed,
    need_own_network,
    peak_of,
    stock_agent,
)

GROUP = "6 memory"
BOUND = 1.3
#: Four times as many as the agent remembers.
STRANGERS = 4096
#: A name that every machine can look up: the agent starts a thread for it.
NAMED = "localhost"


def waiting(agent: Agent) -> float:
    """KiB of an agent that waits."""
    with Waiting(agent) as one:
        return one.peak()


def flooded(agent: Agent, seconds: float, node: str = NODE) -> float:
    """KiB of an agent that has stood in a flood."""
    with Waiting(agent, node) as one:
        flood(seconds, strangers=STRANGERS)
        return one.peak()


def figures(quick: bool) -> list[Figure]:
    """The agent's peak, before and after a flood."""
    need_own_network()
    ours, theirs = installed(), stock_agent()
    bare = [ours.python, "-I", "-S", "-c", "pass"]
    rounds, seconds = (3, 0.3) if quick else (11, 1.0)
    with pinned(OTHER_CPU):
        say("memory of the agents")
        samples = alternate(
            rounds,
            waits=lambda: waiting(ours),
            bare=lambda: peak_of(bare),
            flooded=lambda: flooded(ours, seconds),
            named=lambda: flooded(ours, seconds, NAMED),
            stock=lambda: flooded(theirs, seconds),
        )
    name = "python3 -I -S -c pass"
    return [
        figure("peak-waiting", GROUP, "the agent's peak while it waits", "KiB", samples["waits"],
               samples["bare"], name, "at most", BOUND),
        figure("peak-flooded", GROUP, f"the same after a flood from {STRANGERS:,} addresses",
               "KiB", samples["flooded"], samples["bare"], name, "at most", BOUND),
        figure("peak-named", GROUP, "the same of one that had to look the node's name up",
               "KiB", samples["named"], samples["bare"], name, "at most", BOUND),
        figure("peak-stock", GROUP, "the flooded agent beside the stock one", "KiB",
               samples["flooded"], samples["stock"], "stock fence_kdump",
               note="A program in C, without a Python."),
    ]  # fmt: skip

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What past dumps say about time-outs, and what they do not.

Figures and the words for them: no files, no terminal. Known of a dump are its first and its
last message, as this machine heard them. Not known are when the node panicked and when a fencing
began; and when the dump was complete, if the node did not say so. So such a dump took at least the
time between the two messages, and after the last one the sender may have been at work for one more
pause. A dump that failed is no example: whatever it took, it was not saved by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kdumpfence.listener.dumps import TOLD_ENDS, length

if TYPE_CHECKING:
    from kdumpfence.daemon.history_reading import Past

#: Seconds between two messages of a sender that was told nothing else.
PAUSE = 10.0

#: Seconds from the panic until a cluster with corosync's defaults has started the agent; 7 to
#: 11 were seen.
NOTICED = 11.0

#: Seconds that a kernel with crashkernel=SIZE,cma waits between its panic and its crash kernel.
CMA_WAIT = 10.0

#: From so many dumps on a percentile means something.
ENOUGH = 20


class Lengths(NamedTuple):
    """How long dumps took, of one node or (node None) of all. In seconds."""

    node: str | None
    dumps: int  # that did not fail; those under way are counted with what they took so far
    longest: float | None  # from the first message to the last; None: there are none
    percentile: float | None  # 95 of 100 dumps took no longer; None: too few to say
    power: float | None  # for how long power has to stay on after the first message, at least
    failed: int = 0  # of which the node said so; they are in no other figure


def by_node(dumps: Iterable[Past], pause: float = PAUSE) -> list[Lengths]:
    """The figures of each node, that with the longest dump first."""
    nodes: dict[str, list[Past]] = {}
    for dump in dumps:
        nodes.setdefault(dump.node, []).append(dump)
    figures = [lengths(its, pause, node) for node, its in nodes.items()]
    return sorted(figures, key=lambda one: (-(one.longest or 0.0), one.node or ""))


def lengths(dumps: Sequence[Past], pause: float = PAUSE, node: str | None = None) -> Lengths:
    """The figures of these dumps."""
    good = [dump for dump in dumps if dump.end != "failed"]
    failed = len(dumps) - len(good)
    if not good:
        return Lengths(node, 0, None, None, None, failed)
    longest = max(length(dump) for dump in good)
    over = sorted(length(dump) for dump in good if dump.ended is not None)
    percentile = over[math.ceil(0.95 * len(over)) - 1] if len(over) >= ENOUGH else None
    power = max(length(dump) + (0.0 if dump.end == "finished" else pause) for dump in good)
    return Lengths(node, len(good), longest, percentile, power, failed)


def quick(dumps: Iterable[Past], noticed: float = NOTICED) -> int:
    """How many of them were over so soon that an agent may have been started too late."""
    return sum(dump.ended is not None and length(dump) < noticed for dump in dumps)


def duration(seconds: float) -> str:
    """A length of time for people: "42 s", "4 min 02 s", "3 h 05 min", "2 d 04 h"."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def rounded_up(seconds: float) -> str:
    """The same, but never less: for what has to be waited for."""
    unit = 1 if seconds <= 3600 else 60 if seconds <= 86400 else 3600
    return duration(math.ceil(seconds / unit) * unit)


def lesson(dumps: Sequence[Past], pause: float = PAUSE) -> list[str]:
    """What follows from these dumps for time-outs, in paragraphs."""
    everything = lengths(dumps, pause)
    paragraphs = []
    if everything.longest is not None and everything.power is not None:
        longest, power = rounded_up(everything.longest), rounded_up(everything.power)
        why = f"the longest of these dumps took {longest} from first to last message"
        if everything.power > everything.longest:
            why += (
                ", and where a node does not say that its dump is complete, its sender may have "
                f"worked for one more interval ({duration(pause)}) after the last message"
            )
        paragraphs.append(
            f"Power has to stay on for at least {power} after a node's first message: {why}. "
            "This holds for everything that cuts power or resets without asking fence_kdump: a "
            "watchdog, sbd, a cloud that restarts dead machines, a service that waits for the end "
            "of a dump. If its clock starts at the panic, add the time from the panic to the "
            "first message, which is not known here."
        )
    paragraphs.append(
        "The agent's timeout, and pcmk_off_timeout above it, is a different matter: it runs from "
        "the start of the fencing to the first message only. A longer dump needs no longer "
        "timeout. How long it has to be cannot be learnt from this history: TIMING in "
        "fence_kdump(8) says how to measure it. With crashkernel=SIZE,cma the "
        f"crash kernel starts {duration(CMA_WAIT)} later after the panic: add that."
    )
    early = quick(dumps)
    if early:
        paragraphs.append(
            f"{early} of these dumps ended less than {duration(NOTICED)} after the first message. "
            "A cluster may need that long to start its agent, and an agent that starts after the "
            "last message hears nothing."
        )
    if everything.failed:
        paragraphs.append(
            f"{everything.failed} of these dumps failed, as their nodes said. They are not in the "
            "figures: power that stays on does not mend what they failed of. Look for the reason "
            "on the nodes."
        )
    silent = sum(dump.ended is not None and dump.end not in TOLD_ENDS for dump in dumps)
    if silent:
        paragraphs.append(
            f"{silent} of these dumps ended in silence, which does not mean that a dump is "
            "complete: the node may have died while dumping, or lost its network. Check the dump "
            "itself."
        )
    return paragraphs

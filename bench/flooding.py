# SPDX-License-Identifier: LGPL-2.1-or-later
"""A flood of foreign and malformed datagrams on loopback, for the agents to stand in.

Half are whole messages from nodes that nobody waits for, half are no messages, and none comes
from the node that is waited for: no agent, ours or stock, has anything to believe.
"""

from __future__ import annotations

from typing import NamedTuple

from bench.programs import PORT
from tests.support.storms import Storm

MIX = "foreign=4,empty,short,random,version"


class Sent(NamedTuple):
    """What a flood was."""

    datagrams: int
    seconds: float
    processor: float  #: seconds that sending took


def flood(seconds: float, rate: int = 0, strangers: int = 32) -> Sent:
    """Flood for so long, at so many datagrams a second, evenly; 0: as fast as it goes.

    Those that the kernel refuses do not count. It has this thread's processor.
    """
    options = ["--mix", MIX, "--duration", str(seconds), *(["--rate", str(rate)] if rate else [])]
    options += ["--foreign-from", "127.8.0.0/16", "--foreigners", str(strangers)]
    options += ["--from", "127.136.0.0/16", "--nodes", "32"]
    with Storm(PORT, *options) as storm:
        told = storm.told(seconds + 30)
    return Sent(told["sent"], told["seconds"], told["worked"])

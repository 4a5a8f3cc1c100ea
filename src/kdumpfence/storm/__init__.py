# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plays any number of dumping nodes, to try what listens to them.

    with Storm(Plan(port=7411, nodes=1000, rounds=3)) as storm:
        storm.run()
        print(storm.figures())

plan.py says what is to be sent, pacing.py when, payloads.py with which bytes; player.py sends.
`kdumpfence storm` (cli/storm.py) is the same as a program. Every source address is one that this
machine has: the kernel refuses others, and nothing here keeps it from that.
"""

from kdumpfence.storm.plan import Plan
from kdumpfence.storm.player import Storm

__all__ = ["Plan", "Storm"]

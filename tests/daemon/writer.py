# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that writes a history until it is killed, and says what is on the disk.

    python -m tests.daemon.writer FILE FIRST SEED

Node FIRST, FIRST+1, ... begin to dump, go on and fall silent, some in each call. After each
call a line for each of its events goes to stdout: kind, node, since, last, messages.
"""

from __future__ import annotations

import os
import random
import sys

from kdumpfence.daemon.history import History
from kdumpfence.listener.dumps import Event


def main() -> None:
    path, first, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    dice = random.Random(seed)
    dumping: list[Event] = []
    number = first
    with History(path) as history:
        while True:
            events = []
            for _ in range(dice.choice((1, 3, 40))):
                step = dice.random()
                if step < 0.5 or not dumping:
                    since = 1e9 + number / 7
                    event = Event("began", f"node{number}", since, since, since, 1, ("192.0.2.1",))
                    number += 1
                    dumping.append(event)
                else:
                    at = dice.randrange(len(dumping))
                    old = dumping[at]
                    kind = "dumping" if step < 0.8 else "silent"
                    last = old.last + 10 / 3
                    event = old._replace(
                        kind=kind, when=last + 30, last=last, messages=old.messages + 1
                    )
                    dumping[at] = event
                    if kind == "silent":
                        dumping.pop(at)
                events.append(event)
            history.record(events)
            lines = [
                f"{one.kind} {one.node} {one.since!r} {one.last!r} {one.messages}\n"
                for one in events
            ]
            os.write(1, "".join(lines).encode())


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A cloud's fencing service: keeps its hands off a host that is saving its dump.

    examples/cloud_fencing.py PROGRAM NAME=ADDRESS[,ADDRESS...]...

PROGRAM stands for the fencing service's own interface. It is run as `PROGRAM hold NAME 60` when
a host begins to dump, and again every ten seconds as long as it goes on: do not switch NAME off
for the next 60 seconds, and take it for down, since nothing but its crash kernel runs there. When
the dump is over it is run as `PROGRAM release NAME`: what was kept back may happen now.

The hold has an end of its own, so that nothing is held for ever if this program dies; a call
that fails is made up for by the next one. KDUMP_PORT in the environment is another UDP port.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from kdumpfence import Listener

HOLD = 60  # seconds; several times as long as the ten between two calls


def call(*arguments: str) -> None:
    """Tell the fencing service; what is heard meanwhile is not lost."""
    try:
        subprocess.run(arguments, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{' '.join(arguments)}: {error}", file=sys.stderr, flush=True)


def main() -> None:
    """Tell PROGRAM of each host's dump until SIGTERM."""
    program, *hosts = sys.argv[1:]
    nodes = {host.partition("=")[0]: host.partition("=")[2].split(",") for host in hosts}
    with Listener(nodes, port=int(os.environ.get("KDUMP_PORT", "7410")), repeat=9) as listener:
        signal.signal(signal.SIGTERM, lambda *_: listener.close())
        for event in listener:
            if event.kind == "overflow":
                print(f"{event.messages} datagrams were lost", file=sys.stderr, flush=True)
            elif event.kind == "silent":
                call(program, "release", event.node)
            else:
                call(program, "hold", event.node, str(HOLD))


if __name__ == "__main__":
    main()

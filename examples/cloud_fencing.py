#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A cloud's fencing service that spares hosts while they save their dumps.

    examples/cloud_fencing.py PROGRAM NAME=ADDRESS[,ADDRESS...]...

PROGRAM stands for the fencing service's own interface. `PROGRAM hold NAME 60` is run when a host
begins to dump, and again every ten seconds while it continues: do not switch NAME off for the next
60 seconds, and treat it as down, since only its crash kernel is running. `PROGRAM release NAME` is
run when the dump is over: what was held back may happen now.

A hold expires on its own, so nothing is held for ever if this program dies; the next call makes up
for one that failed. KDUMP_PORT in the environment sets another UDP port.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from kdumpfence import Listener

HOLD = 60  # seconds; several times the ten between two calls


def call(*arguments: str) -> None:
    """Call the fencing service; what is heard meanwhile is not lost."""
    try:
        subprocess.run(arguments, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{' '.join(arguments)}: {error}", file=sys.stderr, flush=True)


def main() -> None:
    """Tell PROGRAM of each host's dump until SIGTERM."""
    program, *hosts = sys.argv[1:]
    nodes = {host.partition("=")[0]: host.partition("=")[2].split(",") for host in hosts}
    port = int(os.environ.get("KDUMP_PORT", "7410"))
    with Listener(nodes, port=port, repeat_interval=9) as listener:
        signal.signal(signal.SIGTERM, lambda *_: listener.close())
        for event in listener:
            if event.kind == "overflow":
                print(f"{event.messages} datagrams were lost", file=sys.stderr, flush=True)
            elif event.kind in ("finished", "failed", "silent"):
                call(program, "release", event.node)
            else:
                call(program, "hold", event.node, str(HOLD))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Prints the events of some networks, in a program that does other work as well.

    examples/async_watch.py NETWORK...

Anyone who sends a message from there is a node, named by its address. The other work is a line
about the state every few seconds. KDUMP_PORT in the environment sets another UDP port.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

from kdumpfence import Listener


async def watch(listener: Listener) -> None:
    """Print a line for each event, until the listener is closed."""
    async for event in listener:
        clock = time.strftime("%H:%M:%S", time.localtime(event.when))
        print(f"{clock}  {event.node}  {event.kind}  {event.messages} messages", flush=True)


async def tell(listener: Listener) -> None:
    """The other work, which goes on while nothing is heard."""
    while True:
        seen = listener.snapshot()
        rejected = sum(seen.counts.values()) - seen.counts["accepted"]
        print(f"{len(seen.dumps)} dumping, {rejected} datagrams rejected", flush=True)
        await asyncio.sleep(5)


async def main() -> None:
    """Do both until SIGINT or SIGTERM."""
    port = int(os.environ.get("KDUMP_PORT", "7410"))
    with Listener(networks=sys.argv[1:], port=port, silence_timeout=25) as listener:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, listener.close)
        other = asyncio.create_task(tell(listener))
        await watch(listener)
        other.cancel()


if __name__ == "__main__":
    asyncio.run(main())

# SPDX-License-Identifier: GPL-2.0-or-later
"""Plays a crowd of nodes on loopback, in a process of its own: python crowd.py PORT

Some are steady and send all the time; of the others some new ones begin every 20 ms, send three
messages and are never heard again. A line on stdin ends these; its end ends everything. Then it
tells the longest pause between two rounds, in seconds.
"""

from __future__ import annotations

import itertools
import select
import socket
import sys
import time

from kdumpfence import wire

STEADY = [f"127.20.0.{host}" for host in range(1, 51)]
TICK = 0.02
NEW = 2


def passing(number: int) -> str:
    """The address of that one of those who come and go."""
    return f"127.21.{number // 250}.{number % 250 + 1}"


def main(port: int) -> None:
    """Send until stdin ends."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    crowd = wire.Transmitter(sock, wire.encode("little"))
    where = socket.inet_aton("127.0.0.1")

    def add(address: str) -> int:
        return crowd.add(where, port, source=socket.inet_aton(address))

    steady = [add(address) for address in STEADY]
    numbers = itertools.count()
    sending: dict[int, int] = {}
    coming, longest, before = True, 0.0, time.monotonic()
    while True:
        if select.select([0], [], [], TICK)[0]:
            if not sys.stdin.readline():
                break
            coming = False
        now = time.monotonic()
        longest, before = max(longest, now - before), now
        if coming:
            sending.update({add(passing(next(numbers))): 3 for _ in range(NEW)})
        crowd.send([*steady, *sending])
        sending = {one: left - 1 for one, left in sending.items() if left > 1}
    print(longest, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))

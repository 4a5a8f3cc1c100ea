# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hosts that all panic at once: a program that sends their messages and tells when each began.

    python -m bench.clouds.hosts PORT HOSTS ROUNDS SECONDS FILE

All begin within SECONDS and repeat a second later. FILE gets, for each host, the time of its first
message (CLOCK_MONOTONIC, a double). What may not be in this file: who listens.
"""

from __future__ import annotations

import array
import socket
import struct
import sys
import time
from pathlib import Path

#: That of the first host; the others follow.
FIRST = (127 << 24) + (1 << 16) + 1
#: Of linux/in.h; Python 3.9 has no name for it.
IP_PKTINFO = 8
#: Messages between two looks at the clock.
BATCH = 32


def address(number: int) -> str:
    """Of that host."""
    return socket.inet_ntoa(struct.pack("!I", FIRST + number))


def number(address: str) -> int:
    """Of the host that has this address."""
    found: int = struct.unpack("!I", socket.inet_aton(address))[0]
    return found - FIRST


def play(port: int, hosts: int, rounds: int, seconds: float) -> array.array[float]:
    """Send all messages; when each host began."""
    message = [struct.pack("=II", 0x1B302A40, 1)]
    to = ("127.0.0.1", port)
    sources = [
        [(socket.IPPROTO_IP, IP_PKTINFO, struct.pack("!II", 0, FIRST + one) + bytes(4))]
        for one in range(hosts)
    ]
    began = array.array("d")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        start = time.monotonic()
        for turn in range(rounds):
            for one, source in enumerate(sources):
                if one % BATCH == 0:
                    wait = start + turn + seconds * one / hosts - time.monotonic()
                    if wait > 0:
                        time.sleep(wait)
                if turn == 0:
                    began.append(time.monotonic())
                sock.sendmsg(message, source, 0, to)
    return began


def main() -> None:
    port, hosts, rounds, seconds, path = sys.argv[1:]
    began = play(int(port), int(hosts), int(rounds), float(seconds))
    Path(path).write_bytes(began.tobytes())


if __name__ == "__main__":
    main()

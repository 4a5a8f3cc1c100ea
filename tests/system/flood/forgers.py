# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sends one datagram to a port of this machine, over and over, as fast as it goes.

Run as `python forgers.py SOURCE PORT DATA SECONDS`, DATA in hexadecimal. It says "sends", and at
its end how many datagrams a second there were.
"""

from __future__ import annotations

import socket
import sys
import time

from kdumpfence.wire import Transmitter

#: Datagrams of one system call.
BATCH = 64


def main(source: str, port: str, data: str, seconds: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        transmitter = Transmitter(sock, bytes.fromhex(data))
        for _ in range(BATCH):
            transmitter.add(socket.inet_aton("127.0.0.1"), int(port))
        began = time.monotonic()
        sent = len(transmitter.send())
        print("sends", flush=True)
        while time.monotonic() < began + float(seconds):
            sent += len(transmitter.send())
        print(round(sent / (time.monotonic() - began)))


if __name__ == "__main__":
    main(*sys.argv[1:])

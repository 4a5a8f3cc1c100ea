# SPDX-License-Identifier: GPL-2.0-or-later
"""Sends rubbish and strangers' valid messages as fast as the machine can, on loopback.

Run as a process: ``flooder.py PORT SECONDS``. It ends after that time or at SIGTERM and
prints how many datagrams it sent in how many seconds.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys
import time

from kdumpfence.wire import OWN_MESSAGE, Transmitter

SOURCES = 32


def main(port: int, seconds: float) -> None:
    payloads = [
        OWN_MESSAGE,
        b"",
        OWN_MESSAGE[:7],
        b"rubbish!" * 20,
        OWN_MESSAGE[:4] + b"\2\0\0\0",
        OWN_MESSAGE + b"trailer",
    ]
    transmitters = []
    sockets = []
    for number in range(SOURCES):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((f"127.8.0.{number + 1}", 0))
        sock.setblocking(False)
        sockets.append(sock)
        transmitter = Transmitter(sock, payloads[number % len(payloads)])
        for _ in range(64):
            transmitter.add(struct.pack(">BBBB", 127, 0, 0, 1), port)
        transmitters.append(transmitter)
    sent, began = 0, time.monotonic()
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    while (now := time.monotonic()) - began < seconds and not ended:
        for transmitter in transmitters:
            sent += transmitter.send().count(0)
    print(sent, now - began, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))

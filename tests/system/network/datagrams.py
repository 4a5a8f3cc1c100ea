"""Plain sockets and plain bytes: what the tests send and count without any help of ours."""

from __future__ import annotations

import socket
import struct
import time

from tests.support.netlab import Host

PORT = 7410
MESSAGE = struct.pack("=II", 0x1B302A40, 1)

RUBBISH = (
    b"",
    MESSAGE[:1],
    MESSAGE[:4],
    MESSAGE[:7],
    MESSAGE[:4] + b"\x02\x00\x00\x00",
    MESSAGE[:4] + bytes(4),
    bytes(8),
    bytes(1) + MESSAGE,
    MESSAGE[:4] + MESSAGE[:3:-1],  # each half in another byte order
    b"?" * 1400,
)


def receiver(host: Host, family: int = socket.AF_INET) -> socket.socket:
    """Open a socket on the port that messages go to."""
    made = host.open_socket(family)
    made.bind(("", PORT))
    return made


def arrives(at: socket.socket, within: float) -> bool:
    """Whether a valid message comes within so many seconds."""
    return bool(arrivals(at, 1, within))


def arrivals(at: socket.socket, number: int, within: float) -> list[float]:
    """When (in seconds from now) each of the next so many valid messages comes."""
    began = time.monotonic()
    times: list[float] = []
    while len(times) < number:
        left = began + within - time.monotonic()
        if left <= 0:
            break
        at.settimeout(left)
        try:
            datagram = at.recv(2048)
        except socket.timeout:
            break
        assert datagram == MESSAGE
        times.append(time.monotonic() - began)
    return times

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plain sockets on a lab's hosts: what the tests send and count without any help of ours."""

from __future__ import annotations

import socket
import struct
import sys
import time
from pathlib import Path

from tests.support.messages import MESSAGE, PORT, family, udp_datagram
from tests.support.netlab import Host, joined

_FORGER = Path(__file__).with_name("forger.py")


def receiver(host: Host, family: int = socket.AF_INET) -> socket.socket:
    """Open a socket on the port that messages go to."""
    made = host.open_socket(family)
    made.bind(("", PORT))
    return made


def say(host: Host, source: str, target: str, *, interface: str = "", times: int = 1) -> None:
    """Send the message from an address of this host; link-local ones need its interface."""
    scope: tuple[int, ...] = ()
    if interface:
        with joined(host.pid, "net"):
            scope = (0, socket.if_nametoindex(interface))
    with host.open_socket(family(source)) as sock:
        sock.bind((source, 0, *scope))
        for _ in range(times):
            sock.sendto(MESSAGE, (target, PORT, *scope))


def forge(
    host: Host,
    source: str,
    target: str,
    device: str = "",
    port: int = PORT,
    data: bytes = MESSAGE,
) -> bool:
    """Whether a user of that host can send this from an address that may not be its."""
    argv = [sys.executable, "-I", "-S", str(_FORGER), source, target, device, str(port), data.hex()]
    return host.run(argv).returncode == 0


def say_from_anywhere(host: Host, source: str, target: str, data: bytes = MESSAGE) -> None:
    """Send this with whatever source address in the IPv6 header, which takes root."""
    ends = b"".join(socket.inet_pton(socket.AF_INET6, address) for address in (source, target))
    datagram = udp_datagram(source, target, data)
    with host.open_socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        header = struct.pack(">IHBB", 6 << 28, len(datagram), socket.IPPROTO_UDP, 64)
        sock.sendto(header + ends + datagram, (target, 0))


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

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the cores share: messages, addresses, a receiver and hosts that send to it."""

from __future__ import annotations

import socket
import struct
import time
from types import ModuleType
from typing import Any

from tests.conftest import udp

LITTLE = b"\x40\x2a\x30\x1b\x01\x00\x00\x00"
BIG = b"\x1b\x30\x2a\x40\x00\x00\x00\x01"
#: What is no message, and why.
NO_MESSAGES = [
    (b"", "short"),
    (LITTLE[:7], "short"),
    (b"\0" * 7, "short"),
    (b"\0" * 8, "magic"),
    (BIG[:4] + b"\xff" * 4, "version"),
    (b"\x41" + LITTLE[1:], "magic"),
    (LITTLE[:4] + struct.pack("<I", 2), "version"),
    (LITTLE[:4] + struct.pack("<I", 0), "version"),
    (LITTLE[:4] + struct.pack(">I", 1), "version"),
    (BIG[:4] + struct.pack(">I", 2), "version"),
    (BIG[:4] + struct.pack("<I", 1), "version"),
    (b"x" + LITTLE, "magic"),
    (b"junk" * 400, "magic"),
]
NODE, OTHER = "127.0.0.11", "127.0.0.12"
IP_RECVERR, IPV6_RECVERR = 11, 25


def pack(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


def numbered(number: int) -> str:
    """One of many hosts."""
    return f"127.1.{number >> 8}.{number & 255}"


def soon(seconds: float = 5.0) -> int:
    """The time in so many seconds, as the cores count it."""
    return time.monotonic_ns() + round(seconds * 1e9)


def status(core: Any, session: int, state: str, byteorder: str = "little") -> bytes:
    """An unsigned status."""
    packet = core.Packet("status", "node1", state=state, session=session, sequence=1)
    return core.encode_packet(packet, byteorder=byteorder)  # type: ignore[no-any-return]


def closed_port(host: str = "127.0.0.1") -> int:
    """A port of that host where nobody listens."""
    with udp(host) as sock:
        port: int = sock.getsockname()[1]
    return port


class Scene:
    """A receiver on loopback, and hosts that send to it."""

    def __init__(
        self,
        core: ModuleType,
        sockets: list[socket.socket],
        at: str = "127.0.0.1",
        room: int = 4,
        **options: Any,
    ) -> None:
        self.core: Any = core
        self._sockets = sockets
        self.sources, self.strangers = core.Sources(room=room), core.Sources()
        self.receiver = core.Receiver(self.sources, self.strangers, **options)
        self.listen(at)

    def listen(self, at: str = "127.0.0.1") -> None:
        """With one more socket, which is then the one that is sent to."""
        self.listener = self.keep(udp(at))
        self.port: int = self.listener.getsockname()[1]
        self.receiver.add_socket(self.listener)

    def keep(self, sock: socket.socket) -> socket.socket:
        self._sockets.append(sock)
        return sock

    def send(self, *hosts: str | int, data: bytes = LITTLE, times: int = 1) -> None:
        """From these hosts in this order, without any from NODE."""
        for host in hosts or (NODE,):
            name = numbered(host) if isinstance(host, int) else host
            with udp(name) as sock:
                for _ in range(times):
                    sock.sendto(data, ("::1" if ":" in name else "127.0.0.1", self.port))

    def counts(self) -> dict[str, int]:
        """How many datagrams had which verdict."""
        return {name: number for name, number in self.receiver.counts.items() if number}

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Somebody who asks a sender on loopback, at the port that its messages leave from."""

from __future__ import annotations

import itertools
import socket
import time

from kdumpfence.wire import PACKET_BYTES, Packet, encode_packet
from tests.conftest import udp
from tests.sender.conftest import KEY_ID, packet_of
from tests.support.programs import sender, start

nonces = (number.to_bytes(16, "big") for number in itertools.count(1))


def question(nonce: bytes, key: bytes = b"", name: str = "node1") -> bytes:
    return encode_packet(Packet("question", name, key_id=KEY_ID if key else 0, nonce=nonce), key)


class Asker:
    """Somebody who was told, and asks back."""

    def __init__(self, form: str, host: str, *argv: str, port: int = 0) -> None:
        self.sock = udp(host, port)
        self.sock.settimeout(20)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.port = self.sock.getsockname()[1]
        self.process = start([sender(form), "-p", str(self.port), *argv, host], form)
        #: What it said unasked, and where it said it from.
        self.message, self.lane = self.sock.recvfrom(1000)

    def asks(self, *datagrams: bytes) -> None:
        for data in datagrams:
            self.sock.sendto(data, self.lane)

    def hears(self, seconds: float = 0.3) -> list[bytes]:
        """The answers that come, until there is none for so long."""
        heard = []
        self.sock.settimeout(seconds)
        try:
            while True:
                data = self.sock.recv(1000)
                if len(data) == PACKET_BYTES and any(packet_of(data).nonce):
                    heard.append(data)
        except socket.timeout:
            return heard

    def is_answered(self, key: bytes = b"", within: float = 20) -> Packet:
        """Ask, and be answered."""
        nonce = next(nonces)
        self.asks(question(nonce, key))
        ends = time.monotonic() + within
        while time.monotonic() < ends:
            for data in self.hears(0.05):
                if packet_of(data).nonce == nonce:
                    return packet_of(data)
        raise AssertionError(f"no answer within {within} s")

    def end(self) -> str:
        """Let it end; what it said on stdout."""
        self.process.terminate()
        out, _ = self.process.communicate(timeout=20)
        return out

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self.sock.close()


def answered(heard: list[bytes], asked: list[bytes]) -> int:
    """How many of these questions there is an answer to."""
    return len({data[40:56] for data in heard} & {data[40:56] for data in asked})


def burst(count: int, key: bytes = b"") -> list[bytes]:
    return [question(next(nonces), key) for _ in range(count)]

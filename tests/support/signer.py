# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nodes that sign what they say, and answer questions, for tests of who believes them."""

from __future__ import annotations

import itertools
import random
import select
import socket
import threading
from types import TracebackType
from typing import Any

from kdumpfence import keys
from kdumpfence.wire import PACKET_BYTES, Packet, decode_packet, encode_packet, packet_fits
from tests.conftest import udp

#: Keys of a cluster: the current one, the one before, and one of another cluster.
KEY, OLD_KEY, FOREIGN_KEY = (bytes([number]) * 32 for number in (1, 2, 3))


def slot(key: bytes) -> tuple[int, bytes]:
    """A key with its id."""
    return keys.key_id(key), key


def key_text(key: bytes = KEY, accepts: bytes | None = None) -> str:
    """A cluster's key file."""
    return keys.Keys(slot(key), slot(accepts) if accepts else None).text()


class Signer:
    """One start of a node's sender: a session with rising sequences, on a socket of its own.

    Used as a context manager it answers questions meanwhile, in a thread.
    """

    def __init__(
        self,
        to: Any,
        name: str = "node1",
        key: bytes = KEY,
        host: str = "127.0.0.1",
        session: int | None = None,
        state: str = "dumping",
    ) -> None:
        self.to = to
        self.name = name
        self.state = state
        self.cluster_key = key
        self.session = random.getrandbits(64) if session is None else session
        self.sock: socket.socket = udp(host)
        self.answered = 0
        self._sequence = itertools.count(1)
        self._ends = threading.Event()

    def packet(self, **other: Any) -> bytes:
        """The next packet, or, with other values in its fields, another one."""
        values: dict[str, Any] = {
            "name": self.name,
            "state": self.state,
            "interval": 10_000,
            "session": self.session,
            "key_id": keys.key_id(self.cluster_key),
            "key": keys.node_key(self.cluster_key, self.name),
            **other,
        }
        if "sequence" not in values:
            values["sequence"] = next(self._sequence)
        key = values.pop("key")
        return encode_packet(Packet("status", **values), key)

    def send(self, data: bytes | None = None, **other: Any) -> bytes:
        """Send this, without it the next packet; what was sent."""
        data = data or self.packet(**other)
        self.sock.sendto(data, self.to)
        return data

    def question(self, seconds: float = 5.0) -> Packet | None:
        """The question that comes within so many seconds; it is signed with the node's key."""
        if not select.select([self.sock], [], [], seconds)[0]:
            return None
        data, came_from = self.sock.recvfrom(1024)
        question = decode_packet(data)
        assert question is not None
        assert (question.kind, question.name) == ("question", self.name)
        assert len(data) == PACKET_BYTES
        assert packet_fits(data, keys.node_key(self.cluster_key, self.name))
        assert question.key_id == keys.key_id(self.cluster_key)
        assert came_from[1] == self.to[1]
        return question

    def answer(self, seconds: float = 5.0, **other: Any) -> bytes:
        """Wait for a question and answer it; what was sent."""
        question = self.question(seconds)
        assert question is not None, "nobody asks"
        self.answered += 1
        return self.send(nonce=question.nonce, **other)

    def __enter__(self) -> Signer:
        self._thread = threading.Thread(target=self._answer_all)
        self._thread.start()
        return self

    def _answer_all(self) -> None:
        while not self._ends.is_set():
            if select.select([self.sock], [], [], 0.02)[0]:
                self.answer()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.set()
        self._thread.join(10)
        self.sock.close()

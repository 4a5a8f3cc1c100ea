# SPDX-License-Identifier: LGPL-2.1-or-later
"""Passes fence agents' signed questions on to nodes that dump, and the nodes' answers back.

So an agent that the node cannot reach has its own proof: the answer has the nonce of its own wait
and the node's signature, and neither this daemon nor the network in between can make one up. Only
questions that the cluster's key signed are passed on, and only to where signed messages of the node
came from: nobody else can have anything sent by this, nor keep others from it. What may not be in
this file: what an agent believes.

No thread: answers wait in the sockets' queues until the agent asks again, which is soon. The filter
of these sockets lets in nothing but packets with a nonce that is being asked with.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from kdumpfence import filters, sockets
from kdumpfence.addresses import Address, LookUpError, literal
from kdumpfence.keys import Keys
from kdumpfence.links import hears_vrfs
from kdumpfence.own_addresses import is_own
from kdumpfence.wire import PACKET_BYTES, Packet, decode_packet, packet_fits

#: Nonces that are asked with at a time; for one more, that is forgotten which was idle longest.
MOST = 64

#: Seconds after which a nonce is forgotten that nobody asks with any more.
IDLE = 15.0

#: Seconds between two rounds of questions with a nonce, at least.
INTERVAL = 0.1

#: Addresses of the node that are asked: those heard first.
MOST_ADDRESSES = 8

#: Answers that are kept for a nonce, and datagrams that are read of a socket at a time.
MOST_ANSWERS = 8
_READS = 256


class _Asked:
    """A nonce that is asked with."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.used = 0.0
        self.due = 0.0
        #: Address and packet, each once.
        self.answers: dict[tuple[str, bytes], None] = {}


class Relay:
    """`port`: that nodes hear questions at. `keys`: the cluster's, now; None if there are none.

    For one thread.
    """

    def __init__(self, port: int, keys: Callable[[], Keys | None]) -> None:
        self._port = port
        self._keys = keys
        self._asked: OrderedDict[bytes, _Asked] = OrderedDict()
        self._sockets: dict[int, socket.socket] = {}
        self._filtered: set[bytes] = set()

    def ask(
        self, node: str, data: bytes, addresses: Iterable[str], port: int
    ) -> tuple[int, list[tuple[str, bytes]]]:
        """Pass this question on to these addresses of the node; how many were sent, and what came.

        `port`: where the node's last message came from, 0 if that is not known. Answers are those
        with the question's nonce that the node signed: address and packet. ValueError if it is no
        question that may be passed on.
        """
        packet = self._checked(data)
        if packet.name != node:  # by another of its names: the agent learns this one
            return 0, []
        now = time.monotonic()
        asked = self._remember(packet.nonce, node, now)
        self._take()
        if now < asked.due:
            return 0, list(asked.answers)
        asked.due = now + INTERVAL
        sent = 0
        for address in list(addresses)[:MOST_ADDRESSES]:
            for to in {self._port, port} - {0}:
                sent += self._send(data, address, to)
        return sent, list(asked.answers)

    def close(self) -> None:
        """Ask nobody any more."""
        for sock in self._sockets.values():
            sock.close()

    def _checked(self, data: bytes) -> Packet:
        keys = self._keys()
        if keys is None:
            raise ValueError('the daemon checks no signatures: give it auth = "sha256"')
        packet = decode_packet(data)
        if packet is None or packet.kind != "question" or not any(packet.nonce):
            raise ValueError('"packet": not a question')
        if not _is_signed(data, packet, keys):
            raise ValueError('"packet": not signed with a key that the daemon has')
        return packet

    def _remember(self, nonce: bytes, node: str, now: float) -> _Asked:
        asked = self._asked.pop(nonce, None)
        while self._asked:
            oldest = next(iter(self._asked.values()))
            if len(self._asked) < MOST and now - oldest.used < IDLE:
                break
            self._asked.popitem(last=False)
        if asked is None or asked.node != node:
            asked = _Asked(node)
        asked.used = now
        self._asked[nonce] = asked
        return asked

    def _take(self) -> None:
        """Read what came, and keep what the node signed."""
        keys = self._keys()
        for sock in self._sockets.values():
            with contextlib.suppress(OSError):  # there is nothing more
                for _ in range(_READS):
                    data, peer = sock.recvfrom(PACKET_BYTES + 1, socket.MSG_DONTWAIT)
                    asked = self._asked.get(data[40:56])
                    packet = decode_packet(data) if asked is not None else None
                    if asked is None or packet is None or keys is None:
                        continue
                    if packet.kind == "question" or packet.name != asked.node:
                        continue
                    if len(asked.answers) < MOST_ANSWERS and _is_signed(data, packet, keys):
                        asked.answers[str(peer[0]), data] = None

    def _send(self, data: bytes, host: str, port: int) -> int:
        """How many questions were sent: 1 or 0."""
        try:
            found = literal(host, socket.AF_UNSPEC)
        except LookUpError:
            return 0
        if not found or (not found[0].loopback and is_own(found[0])):
            return 0
        with contextlib.suppress(OSError):  # no way to there, no room, a firewall
            sock = self._socket(found[0])
            sock.sendto(data, socket.MSG_DONTWAIT, sockets.peer(found[0], port))
            return 1
        return 0

    def _socket(self, address: Address) -> socket.socket:
        """That of the address's family, which hears what is asked with now. Raises OSError."""
        wanted = set(self._asked)
        sock = self._sockets.get(address.family)
        if sock is None:
            sock = socket.socket(address.family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            try:
                _filter(sock, wanted)
                if address.family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(("", 0))
            except BaseException:
                sock.close()
                raise
            self._sockets[address.family] = sock
        if wanted != self._filtered:
            for one in self._sockets.values():
                _filter(one, wanted)
            self._filtered = wanted
        return sock


def _is_signed(data: bytes, packet: Packet, keys: Keys) -> bool:
    its = keys.of(packet.name)
    key = None if its is None else its.by_id(packet.key_id)
    return key is not None and packet_fits(data, key)


def _filter(sock: socket.socket, nonces: Iterable[bytes]) -> None:
    packets = [{8: b"kdf1", 40: nonce} for nonce in sorted(nonces)]
    sockets.attach(sock, filters.program("udp", 0, packets=packets, inside=hears_vrfs(sock)))

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Answers questions: "are you in your crash kernel?", with a status, to whoever asks.

Questions come to the agents' port and to the lanes, the ports that messages leave from. Whoever
floods may not slow what is due, and may not take the answers from whoever has the key: only so
many questions are read at a time, and the two have a share of the answers each. When the share of
the strangers is used up, the kernel drops what else they send until there is a new one.

What may not be in this file: what a status says, and messages that nobody asked for.
"""

from __future__ import annotations

import _socket
import os
import struct
import time

from kdumpfence import filters, sockets
from kdumpfence.addresses import Address, why_unusable
from kdumpfence.own_addresses import is_own
from kdumpfence.wire import PACKET_BYTES, decode_packet, packet_fits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kdumpfence.log import Report
    from kdumpfence.sender.delivery import Delivery
    from kdumpfence.sender.sockets import Lane
    from kdumpfence.sender.status import Status

    Control = list[tuple[int, int, bytes]]
    Peer = tuple[str, int]

_IP_PKTINFO = 8
_IPV6_PKTINFO = 50
_SO_DETACH_FILTER = 27

_FAMILIES = {_socket.AF_INET: "ipv4", _socket.AF_INET6: "ipv6"}

#: Answers in a window at most: to questions that have our key's MAC, and as many to all others.
SHARE = 50
WINDOW_NS = 1_000_000_000

#: Datagrams that are read from one socket at a time.
AT_A_TIME = 64

#: Bytes that may wait for neighbours in a lane that answers: the room there is for messages. For
#: the same reason a lane answers strangers only at addresses that messages go to: who knows
#: whether there is somebody at others.
LANE_HOLDS = 16_384

#: Nanoseconds until a port that another program has is tried again.
RETRY_NS = 1_000_000_000


class Answers:
    """The sockets of the agents' port, and what comes there and to the lanes."""

    def __init__(self, port: int, status: Status, report: Report) -> None:
        self._port = port
        self._status = status
        self._report = report
        self._sockets: dict[int, _socket.socket] = {}
        self._tried: int | None = None
        self._complained: set[int] = set()
        self._ends = 0
        #: Of our key, as it stands in packets; b"" without one.
        self._key_id = status.key_id.to_bytes(4, "big") if status.key else b""
        #: Answers left in this window: to strangers, and to those who have our key.
        self._left = [0, 0]
        self._narrowed: list[_socket.socket] = []
        self._widens = 0  # when

    def close(self) -> None:
        """Give the port back."""
        for sock in self._sockets.values():
            sock.close()

    def sockets(self) -> Iterable[_socket.socket]:
        """Those of the port."""
        return self._sockets.values()

    @property
    def next_due(self) -> int | None:
        """When there is something to do even if nobody asks (CLOCK_MONOTONIC, nanoseconds)."""
        return self._widens if self._narrowed else None

    def open(self) -> None:
        """Take the port, as far as it is to be had, which may be later."""
        now = time.monotonic_ns()
        if self._tried is not None and now - self._tried < RETRY_NS:
            return
        self._tried = now
        for family, name in _FAMILIES.items():
            if family in self._sockets:
                continue
            try:
                self._sockets[family] = _open(family, self._port)
            except OSError as error:
                if family not in self._complained:
                    self._complained.add(family)
                    why = os.strerror(error.errno or 0)
                    self._report.debug(
                        f"port {self._port}/udp ({name}): {why}; no questions are heard there",
                        level=1,
                    )

    def answer(self, delivery: Delivery) -> None:
        """Answer what has come, or the beginning of it."""
        if self._narrowed and time.monotonic_ns() >= self._widens:
            self._widen()
        for sock in self._sockets.values():
            self._hear(sock, None)
        for lane in delivery.lanes():
            self._hear(lane.sock, lane, delivery.knows)

    def _hear(
        self,
        sock: _socket.socket,
        lane: Lane | None,
        knows: Callable[[Address], bool] = lambda _: True,
    ) -> None:
        for _ in range(AT_A_TIME):
            try:
                data, control, _, peer = sock.recvmsg(PACKET_BYTES + 1, 128, _socket.MSG_DONTWAIT)
            except OSError:  # be it what the lane was told of: the rest is for the next turn
                return
            # What a flood is made of goes no further than this.
            share = self._share(sock, data)
            if share is None or (lane is not None and lane.transmitter.pending > LANE_HOLDS):
                continue
            source = _source(sock, peer)
            back = _way_back(source, control)
            question = decode_packet(data)
            if source is None or not back or question is None or question.kind != "question":
                continue
            self._left[share] -= 1
            if not (share or knows(source)):
                continue
            if peer[1] == sock.getsockname()[1] and is_own(source):
                continue
            code = _send(sock, self._status.packet(question.nonce), back, peer)
            if self._report.verbose > 1:
                outcome = os.strerror(code) if code else "answered"
                self._report.debug(f"question from {source} port {peer[1]}: {outcome}")

    def _share(self, sock: _socket.socket, data: bytes) -> bool | None:
        """Whether this has our key's MAC; None if there is no answer left for it."""
        now = time.monotonic_ns()
        if now >= self._ends:
            self._ends = now + WINDOW_NS
            self._left = [SHARE, SHARE]
        fits = False
        if self._key_id and data[16:20] == self._key_id:
            if not self._left[True]:
                return None
            fits = packet_fits(data, self._status.key)
        if not self._left[fits]:
            self._narrow(sock)
            return None
        return fits

    def _narrow(self, sock: _socket.socket) -> None:
        """Until the window ends, hear nothing that may not be answered."""
        if sock in self._narrowed:  # once is enough for all that lie in its queue
            return
        key_id = self._status.key_id
        try:
            filters.attach(sock, filters.questions(key_id) if key_id else filters.NOTHING)
        except OSError:  # it would spare work, and no more than that
            return
        self._widens = self._ends
        self._narrowed.append(sock)

    def _widen(self) -> None:
        for sock in self._narrowed:
            try:
                filters.attach(sock, filters.questions())
            except OSError:
                sock.setsockopt(_socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        self._narrowed.clear()


def _open(family: int, port: int) -> _socket.socket:
    """A socket for questions that come to the port, which is not shared. Raises OSError."""
    sock = _socket.socket(
        family,
        _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK,
        _socket.IPPROTO_UDP,
    )
    try:
        filters.attach(sock, filters.questions())
        if family == _socket.AF_INET6:
            sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        sockets.tell_destination(sock)
        sock.bind(("0.0.0.0" if family == _socket.AF_INET else "::", port))
    except BaseException:
        sock.close()
        raise
    return sock


def _source(sock: _socket.socket, peer: Peer) -> Address | None:
    """Where an answer would go, if it can."""
    packed = _socket.inet_pton(sock.family, peer[0])
    address = Address(packed, peer[3] if len(peer) == 4 else 0)
    # An IPv6 header may have an IPv4-mapped source.
    usable = peer[1] and len(packed) == len(address.packed) and not why_unusable(address)
    return address if usable else None


def _way_back(source: Address | None, control: Control) -> Control:
    """Control data with which an answer comes from where the question was sent to.

    Empty for one that was sent to many.
    """
    for level, kind, value in control:
        if level == _socket.IPPROTO_IP and kind == _IP_PKTINFO:
            _, local, to = struct.unpack("=i4s4s", value)
            if local == to:
                return [(level, kind, struct.pack("=i4s4x", 0, local))]
        elif level == _socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO and source is not None:
            to, interface = struct.unpack("=16sI", value)
            if to[0] != 0xFF:
                # Where an interface is named some kernels look for no other way.
                near = source.link_local or Address(to).link_local
                return [(level, kind, struct.pack("=16sI", to, interface if near else 0))]
    return []


def _send(sock: _socket.socket, data: bytes, control: Control, peer: Peer) -> int:
    """0, or the errno of what kept it from being sent."""
    code = 0
    for _ in range(3):  # an older datagram's error may be reported on this occasion
        try:
            sock.sendmsg((data,), control, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL, peer)
            return 0
        except OSError as error:
            code = error.errno or 0
    return code

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Asks the node's addresses whether it is in its crash kernel, and reads what is answered.

A UDP socket for each family, at a port that the kernel chooses. Its filter lets in nothing but
packets that echo the nonce of this wait: who did not see a question cannot even fill the queue.
Nothing here waits, and a question that cannot be sent is passed over, for the next round comes
soon. What may not be in this file: what an answer means.
"""

from __future__ import annotations

import _socket
import errno
import sys
import time

from kdumpfence import filters, sockets
from kdumpfence.addresses import Address
from kdumpfence.links import hears_vrfs
from kdumpfence.own_addresses import is_own
from kdumpfence.wire import PACKET_BYTES, Packet, encode_packet, is_packet_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kdumpfence.agent.decision import Signatures

#: Seconds between rounds of questions.
INTERVAL = 0.2

#: Questions that are sent before what came meanwhile is heard.
AT_ONCE = 64

#: Answers that are read of each socket before the rest of the wait has its turn.
READS = 512

#: Names of the node that it is asked by, in turns: each has a key of its own.
MOST_NAMES = 8

#: Beside the node's own addresses so many senders of its packets are asked, the latest ones.
MOST_SENDERS = 16

#: Bytes; the kernel doubles it. A question to a neighbour that does not answer stays in the queue
#: for three seconds, and must not keep the others from being asked; each takes about a kilobyte.
_SEND_QUEUE = 1 << 20
_RECEIVE_QUEUE = 1 << 21

_SO_SNDBUFFORCE = 32
_SO_TIMESTAMPING = 37
_STAMPS = 1 << 3 | 1 << 4  # SOF_TIMESTAMPING_RX_SOFTWARE, SOF_TIMESTAMPING_SOFTWARE
_IPV6_RECVPKTINFO, _IPV6_PKTINFO = 49, 50
_CONTROL_BYTES = 128

_Control = list[tuple[int, int, bytes]]


def questions(
    nonce: bytes, names: Iterable[str], signatures: Signatures | None = None
) -> list[bytes]:
    """What the node is asked with this nonce: once for each of its names that has a key.

    Without signatures once, by the first of `names` that a packet can carry.
    """
    if signatures is None:
        name = next(filter(is_packet_name, names), "node")
        return [encode_packet(Packet("question", name, nonce=nonce))]
    asked = []
    for name in signatures.names[:MOST_NAMES]:
        number, key = signatures.of(name).signs
        asked.append(encode_packet(Packet("question", name, key_id=number, nonce=nonce), key))
    return asked


def _open(family: int, nonce: bytes) -> _socket.socket:
    """A socket for questions that hears nothing but packets with this nonce. Raises OSError."""
    sock = _socket.socket(family, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, _socket.IPPROTO_UDP)
    try:
        answers = [{8: b"kdf1", 40: nonce}]
        sockets.attach(sock, filters.program("udp", 0, packets=answers, inside=hears_vrfs(sock)))
        # Without stamps it could not be told what came too late.
        sock.setsockopt(_socket.SOL_SOCKET, _SO_TIMESTAMPING, _STAMPS)
        if family == _socket.AF_INET6:
            sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
            sock.setsockopt(_socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        sockets.set_queue(sock, _RECEIVE_QUEUE)
        for option in (_SO_SNDBUFFORCE, _socket.SO_SNDBUF):
            try:
                sock.setsockopt(_socket.SOL_SOCKET, option, _SEND_QUEUE)
            except OSError:
                continue
            break
        sock.bind(("", 0))
    except BaseException:
        sock.close()
        raise
    return sock


class Asking:
    """Questions of one wait.

    `questions` are asked in turns, a round each; they have `nonce` in them. `say` sends something
    to an address and port from the port that the node's messages come to, through a VRF or, with 0,
    none, and returns whether it could. `vrfs`: where the node may be beside. Sockets are opened
    when they are needed.
    """

    def __init__(
        self,
        port: int,
        nonce: bytes,
        questions: Sequence[bytes],
        say: Callable[[Address, int, bytes, int], bool],
        vrfs: Callable[[], Iterable[int]] = tuple,
    ) -> None:
        self._port = port
        self._nonce = nonce
        self._questions = questions
        self._say = say
        self._vrfs = vrfs
        self._sockets: dict[int, _socket.socket] = {}
        #: Who is still to be asked in this round, the first one last: address, port, and whether
        #: from the port that is heard.
        self._row: list[tuple[Address, int, bool]] = []
        self._rounds = 0
        self._due = 0.0
        self._anybody = False
        self._first: Address | None = None  # whom the next round begins with
        self._senders: dict[tuple[Address, int], None] = {}
        self._new_senders = 0  # in this round
        self._end: int | None = None
        self._ahead = 0  # by how much CLOCK_REALTIME was ahead when it was looked at last before
        #: Questions that were sent.
        self.sent = 0
        #: Why some could not be; "" if there was no reason but the network.
        self.obstacle = ""

    @property
    def fds(self) -> list[int]:
        """What can be read when answers came; for poll."""
        return [sock.fileno() for sock in self._sockets.values()]

    @property
    def next_due(self) -> float | None:
        """When `ask` wants to be called (time.monotonic); None: there is nobody to ask."""
        return 0.0 if self._row else self._due if self._anybody else None

    def add(self, addresses: Iterable[Address]) -> None:
        """These are the node's as well: ask them at once, whoever else is to be asked."""
        self._anybody = True
        if self._rounds:
            self._row += [(address, self._port, False) for address in addresses]

    def add_sender(self, address: Address, port: int) -> None:
        """Ask where a packet of the node came from too.

        It may have been let through by a router that translates addresses, and lets in nothing but
        answers. Whoever replays packets can have it ask at other places; so it is not many.
        """
        sender = (address, port)
        if sender in self._senders:
            return
        if len(self._senders) >= MOST_SENDERS:
            del self._senders[next(iter(self._senders))]
        self._senders[sender] = None
        self._anybody = True
        if self._rounds and self._new_senders < MOST_SENDERS:
            self._new_senders += 1
            self._row.append((address, port, True))

    def ask(self, addresses: Sequence[Address], now: float) -> None:
        """Ask whom it is time to ask, of the node's addresses and the senders."""
        if not self._row and now >= self._due:
            self._rounds += 1
            self._due = now + INTERVAL
            self._new_senders = 0
            self._row = [(*sender, True) for sender in self._senders]
            at = addresses.index(self._first) if self._first in addresses else 0
            row = [*addresses[at:], *addresses[:at]]
            self._row += [(address, self._port, False) for address in reversed(row)]
            self._anybody = bool(self._row)
        for _ in range(min(AT_ONCE, len(self._row))):
            if self._row:
                self._ask(*self._row.pop())

    def _ask(self, address: Address, port: int, from_the_port: bool) -> None:
        if not address.loopback and is_own(address):
            return
        question = self._questions[(self._rounds - 1) % len(self._questions)]
        for vrf in (0, *self._vrfs()):
            try:
                if not (from_the_port and self._say(address, port, question, vrf)):
                    sock = self._socket(address.family)
                    peer = sockets.peer(address, port)
                    through = sockets.through(address.family, vrf)
                    sock.sendmsg([question], through, _socket.MSG_DONTWAIT, peer)
                self.sent += 1
            except BlockingIOError:
                # The queue is full of what waits for neighbours. When some of that has gone, the
                # next round begins here.
                self._first = address
                self._row = [one for one in self._row if one[0].family != address.family]
            except OSError:
                pass  # no way to there, an interface that has just gone

    def _socket(self, family: int) -> _socket.socket:
        """That of the family. Raises OSError."""
        sock = self._sockets.get(family)
        if sock is None:
            try:
                sock = self._sockets[family] = _open(family, self._nonce)
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:
                    self.obstacle = f"cannot ask the node: {error.strerror}"
                raise
        return sock

    def end(self, moment: float) -> None:
        """Nothing that arrives after this moment (time.monotonic) counts."""
        self._end = round(moment * 1e9)
        self._latest_stamp()

    def _latest_stamp(self) -> int | None:
        """The CLOCK_REALTIME of the latest datagram before the end; None: all that was read is.

        As a `Receiver` has it: whoever sets the clock meanwhile does not make anything earlier.
        """
        # In this order: if something comes between the two, a datagram seems later than it was.
        ahead = time.time_ns()
        now = time.monotonic_ns()
        ahead -= now
        if self._end is None or now <= self._end:
            self._ahead = ahead
            return None
        return self._end + min(ahead, self._ahead)

    def take(self, most: int = READS) -> list[tuple[Address, bytes]]:
        """What came with the nonce, and from where; at most so much of each socket."""
        found = []
        for family, sock in self._sockets.items():
            read: list[tuple[bytes, _Control, int, tuple[str, int, int, int]]] = []
            while len(read) < most:
                try:
                    read.append(
                        sock.recvmsg(PACKET_BYTES + 1, _CONTROL_BYTES, _socket.MSG_DONTWAIT)
                    )
                except OSError:
                    break
            latest = self._latest_stamp()
            for data, control, _, peer in read:
                if latest is not None and not 0 < _stamp(control) <= latest:
                    continue
                scope = peer[3] if family == _socket.AF_INET6 else 0
                if scope:
                    scope = _interface(control) or scope  # inside a VRF the name has the VRF's
                found.append((Address(_socket.inet_pton(family, peer[0]), scope), data))
        return found

    def close(self) -> None:
        """Close all sockets."""
        for sock in self._sockets.values():
            sock.close()


def _stamp(control: _Control) -> int:
    """The CLOCK_REALTIME of the arrival in nanoseconds; 0: nobody knows."""
    for level, kind, value in control:
        if level == _socket.SOL_SOCKET and kind == _SO_TIMESTAMPING:
            size = len(value) // 6  # three times seconds and nanoseconds, long each
            seconds = int.from_bytes(value[:size], sys.byteorder)
            return seconds * 1_000_000_000 + int.from_bytes(value[size : 2 * size], sys.byteorder)
    return 0


def _interface(control: _Control) -> int:
    """The index of the interface that it came through."""
    for level, kind, value in control:
        if level == _socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO:
            return int.from_bytes(value[16:20], sys.byteorder)
    return 0

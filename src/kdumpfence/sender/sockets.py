# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sockets that messages leave by, a few for each IP family.

What may not be in this file: which message is due, and what is said of it.
"""

from __future__ import annotations

import _socket
import errno

from kdumpfence import filters, wire
from kdumpfence.addresses import Address
from kdumpfence.own_addresses import is_own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_IP_RECVERR = 11
_IPV6_RECVERR = 25

#: Nanoseconds that room in a full send buffer is waited for, before another socket is used;
#: and how many of them there may be.
PATIENCE_NS = 5_000_000
MOST_LANES = 8

#: An ICMP error with one of these, from this machine itself, means: it did not leave.
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH)


class Lane:
    """One socket of an IP family, and the messages that wait in it for their neighbours."""

    def __init__(self, family: int) -> None:
        self.sock = _socket.socket(
            family,
            _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK,
            _socket.IPPROTO_UDP,
        )
        # With this the kernel also tells what it could not deliver after all.
        if family == _socket.AF_INET:
            self.sock.setsockopt(_socket.IPPROTO_IP, _IP_RECVERR, 1)
        else:
            self.sock.setsockopt(_socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
            self.sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        try:
            filters.attach(self.sock, filters.questions())
        except OSError:
            pass
        self.transmitter = wire.Transmitter(self.sock, wire.OWN_MESSAGE)
        self.watched = self.transmitter.watch()
        self.indexes: dict[Address, int] = {}
        #: When messages left through it on trust, if it was not looked at since.
        self.trusting: int | None = None

    def send(
        self, addresses: Sequence[Address], port: int, message: bytes, told: bool
    ) -> list[int]:
        """An errno for each address, 0 = the kernel took the message."""
        self.transmitter.payload = message
        for address in addresses:
            if address not in self.indexes:
                self.indexes[address] = self.transmitter.add(address.packed, port, address.scope)
        which = [self.indexes[address] for address in addresses]
        return self.transmitter.send(which, 0 if told else PATIENCE_NS, told)

    def news(self) -> list[tuple[Address, int]]:
        """Of messages that the kernel had taken: 0 if it left this machine, the errno if not."""
        result = []
        for packed, scope, code, by in self.transmitter.news():
            # From another machine an error means that the message did leave this one.
            if code == 0 or (code in _UNREACHABLE and (by is None or is_own(Address(by)))):
                result.append((Address(packed, scope), code))
        self.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        return result


class Channel:
    """The sockets of one IP family.

    One, as long as no neighbour keeps the kernel waiting: what waits for one fills the send
    buffer, and must not be in the way of what is for the others.
    """

    def __init__(self, family: int) -> None:
        self.family = family
        self.lanes = [Lane(family)]
        #: Whether the kernel tells which messages left.
        self.told = self.lanes[0].watched

    def ways(self, told: bool) -> Iterator[Lane]:
        """The lanes in the order in which they are to be used.

        What may have to wait joins what waits; what is known to leave keeps away from it.
        """
        waiting = [lane for lane in self.lanes if lane.transmitter.pending]
        free = [lane for lane in self.lanes if lane not in waiting]
        yield from waiting + free if told else free
        while True:
            lane = self.another()
            if lane is None:
                break
            yield lane
        yield from [] if told else waiting

    def another(self) -> Lane | None:
        """One more, if there may be more."""
        if len(self.lanes) == MOST_LANES:
            return None
        try:
            lane = Lane(self.family)
        except OSError:
            return None
        self.lanes.append(lane)
        return lane

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which addresses are this machine's own: what comes from there proves nothing about a node.

The routing table knows. bind() does not: it takes any address with ip_nonlocal_bind. Who asks now
and then, as agent and sender do, asks the kernel about one address (`is_own`). Who asks about every
message keeps an `OwnAddresses`, which fetches all of them at once and is good for a second.

Loopback addresses are this machine's as well, but serve for trials: where they count as a node's,
it is said. Source: rtnetlink(7), RTM_GETROUTE.
"""

from __future__ import annotations

import _socket
import sys

from kdumpfence.addresses import Address, LookUpError, joined, literal, look_up
from kdumpfence.links import DUMP, ERROR, ask, attributes
from kdumpfence.wire import find_route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Seconds for which an answer about all of them is good.
LIFE = 1.0

_SO_BINDTOIFINDEX = 62
_NEWROUTE, _GETROUTE = 24, 26
_RTN_LOCAL = 2
_RTA_DST, _RTA_OIF = 1, 4


def is_own(address: Address) -> bool:
    """Whether it is this machine's."""
    try:
        return find_route(address.packed, address.scope or _device(address.family))[3]
    except OSError:
        return False


def _device(family: int) -> int:
    """The interface that this process's sockets are bound to by `ip vrf exec`, or 0.

    The addresses of a VRF are in its own routing table.
    """
    try:
        sock = _socket.socket(family, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    except OSError:
        return 0
    try:
        return sock.getsockopt(_socket.SOL_SOCKET, _SO_BINDTOIFINDEX)
    except OSError:  # a kernel before 5.0
        return 0
    finally:
        sock.close()


def why_own(found: Sequence[Address]) -> str:
    """Says that these addresses are this machine's."""
    are = "are addresses" if len(found) > 1 else "is an address"
    return f"{joined(found)} {are} of this machine"


def node_literal(text: str, family: int) -> list[Address] | None:
    """As `literal`, but no address of this machine except loopback ones."""
    found = literal(text, family)
    if found and not found[0].loopback and is_own(found[0]):
        raise LookUpError(why_own(found), True)
    return found


def look_up_node(name: str, family: int) -> list[Address]:
    """As `look_up`, but only what is another machine's; LookUpError if nothing is.

    A hosts file may well give a node's name to this machine, or to 127.0.1.1 as Debian's does.
    """
    found = look_up(name, family)
    others = [address for address in found if not address.loopback and not is_own(address)]
    if not others:
        raise LookUpError(why_own(found))
    return others


class OwnAddresses:
    """Holds keys, (packed, scope), of all but loopback addresses.

    Iteration leaves out what a route makes local by the network.
    """

    def __init__(self) -> None:
        self._until = float("-inf")
        self._keys: frozenset[tuple[bytes, int]] = frozenset()
        self._networks: tuple[tuple[int, int, int], ...] = ()

    def renew(self, now: float) -> None:
        """Ask the kernel again if the last answer is too old; `now` is CLOCK_MONOTONIC."""
        if now < self._until:
            return
        self._until = now + LIFE
        keys = set()
        networks = set()
        try:
            for family in (_socket.AF_INET, _socket.AF_INET6):
                for packed, length, interface in _local_routes(family):
                    if length == 8 * len(packed):
                        address = Address(packed, interface)
                        if not address.loopback:
                            keys.add((address.packed, address.scope))
                    elif packed[0] != 127 or len(packed) == 16:
                        host = 8 * len(packed) - length
                        networks.add((len(packed), int.from_bytes(packed, "big") >> host, host))
        except OSError:
            pass  # what else was known before is still the best guess
        else:
            self._keys, self._networks = frozenset(keys), tuple(networks)

    def __contains__(self, key: tuple[bytes, int]) -> bool:
        if key in self._keys:
            return True
        packed = key[0]
        return bool(self._networks) and any(
            size == len(packed) and int.from_bytes(packed, "big") >> host == network
            for size, network, host in self._networks
        )

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        return iter(self._keys)


def _local_routes(family: int) -> Iterator[tuple[bytes, int, int]]:
    """(destination, length of its prefix, index of the interface) of each route to this machine.

    From all tables, so that of a VRF is among them. Raises OSError.
    """
    size = 4 if family == _socket.AF_INET else 16
    # struct rtmsg: the length of the prefix at 1, the type of the route at 7.
    only_local = bytes((family, 0, 0, 0, 0, 0, 0, _RTN_LOCAL)) + bytes(4)
    for message, body in ask(_GETROUTE, DUMP, only_local, strict=True):
        if message == ERROR:
            code = -int.from_bytes(body[:4], sys.byteorder, signed=True)
            raise OSError(code, "RTM_GETROUTE")
        # A kernel before 4.20 sends all routes.
        if message != _NEWROUTE or body[7] != _RTN_LOCAL:
            continue
        found = dict(attributes(body[12:]))
        packed = found.get(_RTA_DST, b"")
        interface = int.from_bytes(found.get(_RTA_OIF, b""), sys.byteorder)
        yield packed if len(packed) == size else bytes(size), body[1], interface

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which addresses are this machine's own, for who asks that of every message.

`addresses.is_own` asks the kernel of one address, and is for the agent and the sender. Here all
are fetched at once, and looked up among for a second. Loopback addresses are left out: given as
such they serve for trials. Source: rtnetlink(7), RTM_GETROUTE.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Iterator

from kdumpfence.addresses import Address
from kdumpfence.listener.nodes import Key

#: Seconds for which an answer is good.
LIFE = 1.0

_SOL_NETLINK = 270
_NETLINK_GET_STRICT_CHK = 12
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_RTN_LOCAL = 2
_RTA_DST, _RTA_OIF = 1, 4


class OwnAddresses:
    """Holds keys: (packed, scope). Iteration leaves out what a route makes local by the network."""

    def __init__(self) -> None:
        self._until = float("-inf")
        self._keys: frozenset[Key] = frozenset()
        self._networks: tuple[tuple[int, int, int], ...] = ()

    def renew(self, now: float) -> None:
        """Ask the kernel again if the last answer is too old; `now` is CLOCK_MONOTONIC."""
        if now < self._until:
            return
        self._until = now + LIFE
        keys: set[Key] = set()
        networks = set()
        with contextlib.suppress(OSError):  # what was known before is still the best guess
            for family in (socket.AF_INET, socket.AF_INET6):
                for packed, length, interface in _local_routes(family):
                    if length == 8 * len(packed):
                        address = Address(packed, interface)
                        if not address.loopback:
                            keys.add((address.packed, address.scope))
                    elif packed[0] != 127 or len(packed) == 16:
                        host = 8 * len(packed) - length
                        networks.add((len(packed), int.from_bytes(packed, "big") >> host, host))
            self._keys, self._networks = frozenset(keys), tuple(networks)

    def __contains__(self, key: Key) -> bool:
        if key in self._keys:
            return True
        packed = key[0]
        return bool(self._networks) and any(
            size == len(packed) and int.from_bytes(packed, "big") >> host == network
            for size, network, host in self._networks
        )

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)


def _local_routes(family: int) -> Iterator[tuple[bytes, int, int]]:
    """(destination, length of its prefix, index of the interface) of each route to this machine.

    From all tables, so that of a VRF is among them. Raises OSError.
    """
    body = struct.pack("=8BI", family, 0, 0, 0, 0, 0, 0, _RTN_LOCAL, 0)
    head = struct.pack("=IHHII", 16 + len(body), _RTM_GETROUTE, _NLM_F_REQUEST | _NLM_F_DUMP, 0, 0)
    size = 4 if family == socket.AF_INET else 16
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE) as sock:
        with contextlib.suppress(OSError):  # a kernel before 4.20 sends all routes
            sock.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        sock.settimeout(1.0)
        sock.send(head + body)
        while True:
            data = sock.recv(1 << 16)
            at = 0
            while at + 16 <= len(data):
                length, kind, _, _, _ = struct.unpack_from("=IHHII", data, at)
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", data, at + 16)[0]
                    raise OSError(code, "RTM_GETROUTE")
                if kind == _RTM_NEWROUTE:
                    route = _local(data[at + 16 : at + length], size)
                    if route is not None:
                        yield route
                at += max(16, (length + 3) & ~3)


def _local(message: bytes, size: int) -> tuple[bytes, int, int] | None:
    """What an rtmsg with its attributes says, if it is of type RTN_LOCAL."""
    prefix, kind = message[1], message[7]
    if kind != _RTN_LOCAL:
        return None
    packed, interface = bytes(size), 0
    at = 12
    while at + 4 <= len(message):
        length, attribute = struct.unpack_from("=HH", message, at)
        value = message[at + 4 : at + length]
        if attribute == _RTA_DST and len(value) == size:
            packed = value
        elif attribute == _RTA_OIF and len(value) == 4:
            interface = int.from_bytes(value, sys.byteorder)
        at += max(4, (length + 3) & ~3)
    return packed, prefix, interface

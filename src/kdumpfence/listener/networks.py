# SPDX-License-Identifier: LGPL-2.1-or-later
"""The networks whose machines are nodes while they dump.

The core admits who speaks from there. What may not be in this file: nodes that were named.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Union

from kdumpfence.addresses import Address, why_unusable
from kdumpfence.listener.nodes import Key

IPNetwork = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

#: The first address, packed, and the length of the prefix in bits.
Network = tuple[bytes, int]


def parsed_network(given: str | IPNetwork, family: int) -> Network:
    """A network that nodes may be in: (its first address, the length of its prefix in bits).

    `family` is one of FAMILIES' values. ValueError if it is none, or not of that family.
    """
    text = str(given)
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"network {text!r}: {error}") from None
    if "%" in text:  # which ip_network drops without a word
        raise ValueError(f"network {text!r}: a network has no interface; write it without %")
    if is_nobodys(network):
        raise ValueError(f"network {text!r}: no node can have an address in it")
    packed, prefix = network.network_address.packed, network.prefixlen
    if prefix >= 96 and packed[:12] == b"\0" * 10 + b"\xff\xff":
        packed, prefix = packed[12:], prefix - 96  # IPv4-mapped: on the wire it is IPv4
    if family not in (socket.AF_UNSPEC, Address(packed).family):
        other = "ipv6" if family == socket.AF_INET6 else "ipv4"
        raise ValueError(f"network {text!r}: not an {other} network")
    return packed, prefix


def is_nobodys(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    """Whether no address in it can be a node's: it is all multicast, 0.0.0.0/8 or the like.

    Such networks are a sixteenth of all addresses at most, and what is not is beside them.
    """
    ends = (Address(network[at].packed, scope=1) for at in (0, -1))
    return network.prefixlen >= 4 and all(map(why_unusable, ends))


def is_in(key: Key, networks: Iterable[Network]) -> bool:
    """Whether messages from this address are admitted, as the core decides.

    No IPv6 network contains IPv4 addresses, and loopback addresses are only in networks of them.
    """
    address = Address(*key)
    for first, prefix in networks:
        if len(first) != len(address.packed):
            continue
        beyond = 8 * len(first) - prefix
        number, start = int.from_bytes(address.packed, "big"), int.from_bytes(first, "big")
        if number >> beyond != start >> beyond:
            continue
        if not address.loopback or (prefix >= 8 if len(first) == 4 else prefix == 128):
            return True
    return False

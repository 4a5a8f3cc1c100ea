# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a value in a settings file may be: each reader returns it checked, or raises ValueError
with what is allowed.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from typing import Any, Union

from kdumpfence.addresses import cleaned, is_address
from kdumpfence.database.connection import RULE, is_url
from kdumpfence.listener.networks import is_nobodys
from kdumpfence.text import one_line
from kdumpfence.wire import is_packet_name

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

#: What a value is allowed to be is the text of the ValueError.
Check = Callable[[Any], Any]


def whole(least: int, most: int) -> Check:
    """A whole number in this range."""

    def check(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise ValueError(f"not a whole number from {least} to {most}")

    return check


def number(least: float, most: float, unit: str) -> Check:
    """A number in this range, whole or not; infinity and NaN, which TOML has, are in none."""

    def check(value: object) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and least <= value <= most:  # type: ignore[operator]
            return float(value)  # type: ignore[arg-type]
        raise ValueError(f"not a number of {unit} from {least:g} to {most:g}")

    return check


def choice(allowed: tuple[str, ...]) -> Check:
    """One of these words."""

    def check(value: object) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        raise ValueError(f"not one of {', '.join(allowed)}")

    return check


def yes_or_no(value: object) -> bool:
    """A boolean."""
    if isinstance(value, bool):
        return value
    raise ValueError("not true or false")


def packet_name(value: object) -> str:
    """The name of a node, as a packet can carry it."""
    if isinstance(value, str) and is_packet_name(value):
        return value
    raise ValueError("not a node's name: 1 to 64 ASCII characters without blanks")


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size(value: object) -> int:
    """Bytes: a number, or one with a unit."""
    found: object = value
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,12})([KMG]?)", value)
        found = int(match[1]) * _UNITS[match[2]] if match else None
    if isinstance(found, int) and not isinstance(found, bool) and 4096 <= found < 1 << 30:
        return found
    raise ValueError('not a size from 4096 bytes to below 1G, as in 67108864 or "64M"')


def database_url(value: object) -> str:
    """Where a database is, "" for none; what libpq makes of it comes out when it connects."""
    if isinstance(value, str) and (not value or is_url(value)):
        return value
    raise ValueError(RULE)


def path(value: object) -> str:
    """An absolute path."""
    if isinstance(value, str) and value.startswith("/") and value.isprintable():
        return value
    raise ValueError("not an absolute path")


def socket_path(value: object) -> str:
    """An absolute path that a Unix socket can have."""
    found = path(value)
    if len(os.fsencode(found)) > 107:
        raise ValueError("too long for a socket: its path may have 107 bytes")
    return found


def socket_mode(value: object) -> int:
    """Who may ask, as of chmod: "0660", or its number."""
    mode: object = value
    if isinstance(value, str):
        mode = int(value, 8) if re.fullmatch(r"(0o?)?[0-7]{3}", value) else None
    if isinstance(mode, int) and not isinstance(mode, bool) and mode & ~0o666 == 0 and mode > 0:
        return mode
    raise ValueError('not a socket mode such as "0660"')


def file_mode(value: object) -> int:
    """The daemon's alone, or to be read by a group: what others may read, they may lock."""
    modes = {"0600": 0o600, "0640": 0o640}
    mode = modes.get(value.replace("o", "")) if isinstance(value, str) else value
    if mode in modes.values() and not isinstance(mode, bool):
        return int(mode)  # type: ignore[call-overload, no-any-return]
    raise ValueError('not "0600", or "0640" for a group that may read it')


def address(value: object) -> str:
    """An IP address, as ipaddress writes it."""
    if isinstance(value, str) and is_address(cleaned(value)):
        return str(ipaddress.ip_address(cleaned(value)))
    raise ValueError("not an IP address of this machine, as in 127.0.0.1 or ::")


def listening_addresses(value: object) -> tuple[str, ...]:
    """One IP address or a list of them, as ipaddress writes them, each once."""
    given = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(address(one) for one in given))


def networks(value: object) -> tuple[str, ...]:
    """A list of networks, as ipaddress writes them, each once."""
    if not isinstance(value, list):
        raise ValueError('not a list of networks, as in ["192.0.2.0/24", "2001:db8::/64"]')
    found: dict[Network, None] = {}
    for one in value:
        if not isinstance(one, str):
            raise ValueError(f"{shown(one)} is not a network such as 192.0.2.0/24")
        if "%" in one:
            raise ValueError(f"{shown(one)}: a network has no interface; write fe80::/64")
        try:
            network = ipaddress.ip_network(one, strict=False)
        except ValueError:
            raise ValueError(f"{shown(one)} is not a network such as 192.0.2.0/24") from None
        mapped = getattr(network.network_address, "ipv4_mapped", None)
        if mapped is not None and network.prefixlen >= 96:
            raise ValueError(f"{shown(one)} is IPv4: write {mapped}/{network.prefixlen - 96}")
        if "/" in one and str(network) != _normal(one):
            raise ValueError(f"{shown(one)} has host bits set; did you mean {network}?")
        if is_nobodys(network):
            raise ValueError(f"{shown(one)} holds no address that a node can have")
        found[network] = None
    return tuple(str(network) for network in found)


def _normal(text: str) -> str:
    """A network as ipaddress writes it, with its bits behind the prefix."""
    interface = ipaddress.ip_interface(text)
    return f"{interface.ip}/{interface.network.prefixlen}"


def shown(value: object) -> str:
    """What was given, short, as one writes it in TOML."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str):
        text = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    elif isinstance(value, dict):
        text = "a table"
    elif isinstance(value, list):
        text = "[" + ", ".join(shown(one) for one in value[:4]) + (", ..." * (len(value) > 4))
        text += "]"
    else:
        text = str(value) if not isinstance(value, int) or abs(value) < 1 << 80 else "a huge number"
    text = one_line(text)
    return text if len(text) <= 80 else text[:77] + "..."

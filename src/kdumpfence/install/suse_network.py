# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which network SUSE's kdump sets up in the image, by its functions: versions 1.0.3 to 2.1.9.

It is one interface, that of KDUMP_NETCONFIG or, for auto, that of the default route that there is
when the image is made. So this looks the same way, on the machine itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kdumpfence import addresses
from kdumpfence.install.asking import ip


def trouble(netconfig: str, nodes: Sequence[str]) -> str:
    """Why that leads to none of the addresses among the nodes; "" if it does, or nobody knows."""
    device = netconfig.partition(":")[0]
    if device in ("auto", "default"):
        device = _default_device()
        if not device:
            return (
                "no default route, and auto takes its interface only: "
                "the image has no network unless you write DEVICE:static:force"
            )
    ways = [way for node in nodes for way in _ways(node)]
    if not ways or device in ways:
        return ""
    return (
        f"the image only has {device}, and the addresses given are reached through {ways[0]}: "
        f"write {ways[0]}:static:force"
    )


def _default_device() -> str:
    """Of the default routes the interface of the one that is preferred."""
    for route in (("-4", "route", "show", "0/0"), ("-6", "route", "show", "::/0")):
        found = re.findall(r" dev (\S+)(?:.* metric (\d+))?", ip(*route))
        if found:
            return str(min(found, key=lambda one: int(one[1] or 0))[0])
    return ""


def _ways(node: str) -> list[str]:
    """The interface through which this address is reached; none for a name, or this machine."""
    try:
        is_address = addresses.literal(node, addresses.FAMILIES["auto"])
    except addresses.LookUpError:
        return []
    ways = re.findall(r" dev (\S+)", ip("route", "get", node)) if is_address else []
    return [way for way in ways if way != "lo"]

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What kdump-utils makes of a node when it makes the image: its module 99kdumpbase, version 1.0.61.

For each node of kdump.conf it looks for the route that there is at that moment, and takes the
network of that route into the image. So this looks the same way, on the machine itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kdumpfence.install.asking import ask
from kdumpfence.text import shown

_NO_IMAGE = "an image cannot be made now, and no crash kernel loaded"


def trouble(node: str) -> str:
    """What is wrong with the way to this node at this moment; "" if nothing is, or nobody knows."""
    address = node
    if ":" not in node and re.search("[A-Za-z]", node):
        address = _first_address(node)
        if not address:
            return f"{shown(node)} does not resolve: {_NO_IMAGE}"
    done = ask("ip", "-o", "route", "get", "to", address)
    if done is None:
        return ""
    if done.returncode:
        return f"no route to {shown(node)}: {_NO_IMAGE}"
    via = re.search(r"\bvia (?:inet6? )?(\S+) dev (\S+)", done.stdout)
    if via is None:
        return ""
    return (
        f"{shown(node)} is behind the gateway {via[1]} on {via[2]} at the moment: if this machine "
        "has a network of its own to it, that is down, and an image made now lacks it"
    )


def mistaken(hosts: str, own: Sequence[str]) -> dict[str, str]:
    """Names in /etc/hosts that it takes for this machine's, and the address that each has there.

    It looks for the machine's own addresses in each line as grep does: anywhere, and a dot is any
    character. So 10.0.0.1 is found in the line of 10.0.0.10.
    """
    found = {}
    for line in hosts.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if any(
            one != address and re.search(re.escape(one).replace(r"\.", "."), line) for one in own
        ):
            found.update(dict.fromkeys(names, address))
    return found


def _first_address(name: str) -> str:
    done = ask("getent", "ahosts", name)
    found = [line.split()[0] for line in done.stdout.splitlines() if line] if done else []
    return next((one for one in found if ":" not in one), found[0] if found else "")

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cluster's nodes and their addresses, as corosync.conf lists them."""

from __future__ import annotations

import re
from typing import NamedTuple

from kdumpfence import addresses
from kdumpfence.doctor.finding import Unknown
from kdumpfence.doctor.machine import Machine
from kdumpfence.install import node_name
from kdumpfence.install.node_name import COROSYNC

_RING = re.compile("ring([0-9]{1,3})_addr")

#: Milliseconds, of corosync.conf(5): without a token a node is lost after so many, more for each
#: node from the third on, and the others then agree for so many times as long.
_TOKEN, _COEFFICIENT, _CONSENSUS = 3000, 650, 1.2


class Node(NamedTuple):
    """A node of the cluster."""

    name: str
    rings: tuple[str, ...]  #: names or addresses, as they are written
    own: bool  #: whether it is this machine


def nodes(machine: Machine) -> list[Node]:
    """All nodes, in the order of the file. Raises Unknown."""
    text = machine.read(COROSYNC)
    if text is None:
        raise Unknown(f"no cluster here ({machine.root.outside(COROSYNC)})")
    own = node_name.of(machine.root)
    found = []
    for settings in node_name.listed(text):
        rings = {int(key[1]): settings[key[0]] for key in map(_RING.fullmatch, settings) if key}
        places = tuple(rings[ring] for ring in sorted(rings))
        name = settings.get("name") or (places[0] if places else "")
        if name:
            found.append(Node(name, places, name.lower() == own.lower()))
    if not found:
        raise Unknown(f"{machine.root.outside(COROSYNC)} has no nodelist")
    own_ones = sum(one.own for one in found)
    if own_ones != 1:
        has = "has more than once" if own_ones else "does not have"
        raise Unknown(f"{machine.root.outside(COROSYNC)} {has} this node ({own or 'no name'})")
    return found


def others(machine: Machine) -> list[Node]:
    """All nodes but this one. Raises Unknown."""
    return [one for one in nodes(machine) if not one.own]


def resolve(machine: Machine, name: str) -> list[str]:
    """The addresses of a name, or the address itself; nothing if it does not resolve.

    On the running system its name service is asked, else the root's /etc/hosts.
    """
    if addresses.is_address(name):
        return [name]
    if addresses.why_refused(name):
        return []
    if not machine.runs:
        return in_hosts(machine, name)
    said = machine.ask("getent", "ahosts", name).stdout.splitlines()
    return list(dict.fromkeys(line.split()[0] for line in said if line.strip()))


def in_hosts(machine: Machine, name: str) -> list[str]:
    """The addresses that /etc/hosts gives to a name."""
    found = []
    for line in (machine.read("/etc/hosts") or "").splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if name.lower() in map(str.lower, names):
            found.append(address)
    return found


def noticed(machine: Machine) -> float | None:
    """Seconds until a node that fell silent is out of the cluster; None without a corosync.conf.

    The token's time-out and the time to agree, as corosync.conf(5) has them since 3.1. Pacemaker
    needs a few seconds more.
    """
    text = machine.read(COROSYNC)
    if text is None:
        return None
    count = len(node_name.listed(text))
    token = _totem(text, "token", _TOKEN)
    if count > 2:
        token += (count - 2) * _totem(text, "token_coefficient", _COEFFICIENT)
    return (token + _totem(text, "consensus", _CONSENSUS * token)) / 1000


def _totem(text: str, name: str, default: float) -> float:
    """A number of the section totem, of which the last one counts."""
    sections: list[str] = []
    found = default
    for line in text.splitlines():
        opened = re.fullmatch(r"\s*(\w+)\s*\{\s*", line)
        pair = re.fullmatch(rf"\s*{name}\s*:\s*([0-9]{{1,9}})\s*", line)
        if opened:
            sections.append(opened[1])
        elif line.strip() == "}" and sections:
            sections.pop()
        elif pair and sections == ["totem"]:
            found = float(pair[1])
    return found

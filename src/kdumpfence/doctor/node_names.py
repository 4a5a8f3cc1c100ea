# SPDX-License-Identifier: LGPL-2.1-or-later
"""What names mean that stand for addresses: the nodes that are meant, without a name server too."""

from __future__ import annotations

from collections.abc import Iterator

from kdumpfence import addresses
from kdumpfence.doctor import cib, corosync
from kdumpfence.doctor.believed import asked_for
from kdumpfence.doctor.cluster import joined
from kdumpfence.doctor.corosync import Node
from kdumpfence.doctor.finding import Finding, Unknown, fails, ok, warning
from kdumpfence.doctor.machine import Machine
from kdumpfence.doctor.nodes import Told, same
from kdumpfence.text import shown


def names(machine: Machine) -> Iterator[Finding]:
    """Names mean the nodes that they are meant for, without a name server too."""
    all_nodes = corosync.nodes(machine)
    owners: dict[str, str] = {}
    for node in all_nodes:
        for ring in node.rings:
            if addresses.is_address(ring):
                owners[same(ring)] = node.name
    told, meant = Told(machine), _names_in_use(machine, all_nodes)
    fine = []
    for name, (its_node, where) in meant.items():
        found = [same(one) for one in corosync.resolve(machine, name)]
        loopback = [one for one in found if one.startswith("127.") or one == "::1"]
        foreign = [owners[one] for one in found if owners.get(one, its_node) != its_node]
        right = next((f": {name} is {one}" for one in owners if owners[one] == its_node), "")
        right = "" if where == "corosync.conf" else right  # that of another ring
        again = f"; then {told.again}" if where == told.path else ""
        text = f"{shown(name)} ({where})"
        if not found:
            yield fails(
                "names",
                f"{text} does not resolve here",
                f"write its address in /etc/hosts{right or f': {name}'}{again}",
            )
        elif loopback:
            yield fails(
                "names",
                f"{text} resolves to {joined(loopback)}, this machine itself",
                f"correct the line of {joined(loopback)} in /etc/hosts{right}{again}",
            )
        elif its_node and foreign:
            yield fails(
                "names",
                f"{text} resolves to {joined(found)}, which is {joined(foreign)}",
                f"correct {name} in /etc/hosts, or in the name service{right}{again}",
            )
        elif not corosync.in_hosts(machine, name):
            yield warning(
                "names",
                f"{text} is not in /etc/hosts: without a name server it means nothing",
                f"write its addresses in /etc/hosts: {' '.join(found)} {name}",
            )
        else:
            fine.append(name)
    if fine and len(fine) == len(meant):
        yield ok("names", joined(fine))


def _names_in_use(machine: Machine, all_nodes: list[Node]) -> dict[str, tuple[str, str]]:
    """Names that stand for addresses: the node that is meant, "" if that is not known, and where.

    Of other nodes only: this one's own name may well mean 127.0.1.1 here, as Debian has it.
    """
    found: dict[str, tuple[str, str]] = {}
    nodes = {node.name.lower(): node.name for node in all_nodes}
    own = next(node.name for node in all_nodes if node.own)
    for node in all_nodes:
        for ring in node.rings:
            if not addresses.is_address(ring) and not node.own:
                found[ring] = (node.name, "corosync.conf")
    told = Told(machine)
    for word in told.words:
        if not addresses.is_address(word) and not addresses.why_refused(word):
            found.setdefault(word, (nodes.get(word.partition(".")[0].lower(), ""), told.path))
    try:
        its = cib.read(machine)
    except Unknown:
        return found
    for device in its.kdump:
        for node in all_nodes:
            if not node.own:
                asked = asked_for(its, device, node.name)
                for name in asked.names if asked else ():
                    if not addresses.is_address(name):
                        found.setdefault(name, (node.name, f"the device {device.name}"))
    return {name: meant for name, meant in found.items() if meant[0] != own}


CHECKS = (names,)

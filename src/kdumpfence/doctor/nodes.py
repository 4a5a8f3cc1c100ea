# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who is told of a crash of this node: the sender's list against the addresses of corosync.conf."""

from __future__ import annotations

from collections.abc import Iterator

from kdumpfence import addresses
from kdumpfence.doctor import corosync, kdump
from kdumpfence.doctor.cluster import joined
from kdumpfence.doctor.corosync import Node
from kdumpfence.doctor.finding import Finding, fails, ok, warning
from kdumpfence.doctor.machine import Machine
from kdumpfence.install import layouts, sender_arguments


class Told:
    """The sender's list."""

    def __init__(self, machine: Machine) -> None:
        layout = layouts.recognise(machine.bytes_of("/etc/os-release") or b"")
        self.distribution = layout.name if layout else ""
        self.path, self.words = sender_arguments.nodes_told(machine.root, self.distribution)
        #: What makes the crash kernel have what was changed.
        self.again = kdump.REBUILD[self.distribution or "debian"]

    def remedy(self, wanted: list[str]) -> str:
        """How to tell these."""
        line = f'NODES="{" ".join(wanted)}"'
        if self.distribution == "rhel":
            line = f"fence_kdump_nodes {' '.join(wanted)}"
        return f"write {line} in {self.path}; then {self.again}"


def rings_of(machine: Machine, node: Node) -> dict[str, list[str]]:
    """What is written of each ring, and its addresses."""
    return {ring: corosync.resolve(machine, ring) for ring in node.rings}


def same(one: str) -> str:
    """An address as it is compared, whatever way it is written."""
    try:
        found = addresses.literal(addresses.cleaned(one), addresses.FAMILIES["auto"])
    except addresses.LookUpError:
        return one
    return str(found[0]) if found else one


def told(machine: Machine) -> Iterator[Finding]:
    """Every other node is told, on every ring."""
    others = corosync.others(machine)
    told = Told(machine)
    wanted = [ring for node in others for ring in node.rings]
    kept = [word for word in told.words if same(word) not in map(same, wanted)]
    if not told.words:
        text = f"nobody is told of a crash: {told.path} lists no node"
        if told.distribution == "rhel":
            text = (
                f"no fence_kdump_nodes in {told.path}: the image has the nodes, and the sender, "
                "only if the cluster ran when it was made"
            )
        state = warning if told.distribution == "rhel" else fails
        yield state("nodes told", text, told.remedy(wanted))
        return
    complaints = sender_arguments.complaints(told.words, to_be_continued=True)
    if complaints:
        yield fails(
            "nodes told",
            f"{told.path}: the sender refuses {joined(complaints)}",
            told.remedy(wanted),
        )
        return
    reached = {same(one) for word in told.words for one in corosync.resolve(machine, word)}
    missing: list[str] = []
    partly: list[str] = []
    for node in others:
        rings = rings_of(machine, node)
        deaf = [ring for ring, found in rings.items() if not reached & {*map(same, found)}]
        if len(deaf) == len(rings):
            missing.append(f"{node.name} ({joined(deaf)})")
        elif deaf:
            partly.append(f"{node.name} at {joined(deaf)}")
    if missing:
        yield fails("nodes told", f"not told: {joined(missing)}", told.remedy(kept + wanted))
    if partly:
        yield warning(
            "nodes told",
            f"not told on each ring: {joined(partly)}; if the others fail, nobody hears it",
            told.remedy(kept + wanted),
        )
    if not missing and not partly:
        yield ok("nodes told", f"{joined(node.name for node in others)}, on each ring")


def itself(machine: Machine) -> Iterator[Finding]:
    """A node in its own list: kdumpctl loads no crash kernel for it."""
    told = Told(machine)
    if told.distribution != "rhel" or not told.words:
        return
    (own,) = (node for node in corosync.nodes(machine) if node.own)
    mine = {own.name, *own.rings}
    mine.update(same(one) for ring in own.rings for one in corosync.resolve(machine, ring))
    found = [word for word in told.words if word in mine or same(word) in mine]
    if found:
        yield fails(
            "own address",
            f"{told.path} lists this node itself ({joined(found)}): kdumpctl loads no crash kernel",
            told.remedy([word for word in told.words if word not in found]),
        )
    else:
        yield ok("own address", "not in the list")


CHECKS = (told, itself)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is told of a crash of this node, and whom the devices would believe.

The sender's list against the addresses of corosync.conf, the devices of Pacemaker against the same,
and against the addresses that this node would send from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kdumpfence import addresses
from kdumpfence.agent.options import AgentOptions
from kdumpfence.cmdline import OptionError
from kdumpfence.doctor import cib, cluster, corosync, kdump
from kdumpfence.doctor.cib import Cib
from kdumpfence.doctor.cluster import joined
from kdumpfence.doctor.corosync import Node
from kdumpfence.doctor.device import NEW_NAMES, Device, host_map
from kdumpfence.doctor.finding import Finding, Unknown, fails, ok, warning
from kdumpfence.doctor.machine import Machine
from kdumpfence.install import layouts, native_sender, sender_arguments
from kdumpfence.text import shown


class _Told:
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


def _rings(machine: Machine, node: Node) -> dict[str, list[str]]:
    """What is written of each ring, and its addresses."""
    return {ring: corosync.resolve(machine, ring) for ring in node.rings}


def _same(one: str) -> str:
    """An address as it is compared, whatever way it is written."""
    try:
        found = addresses.literal(addresses.cleaned(one), addresses.FAMILIES["auto"])
    except addresses.LookUpError:
        return one
    return str(found[0]) if found else one


def told(machine: Machine) -> Iterator[Finding]:
    """Every other node is told, on every ring."""
    others = corosync.others(machine)
    told = _Told(machine)
    wanted = [ring for node in others for ring in node.rings]
    kept = [word for word in told.words if _same(word) not in map(_same, wanted)]
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
    reached = {_same(one) for word in told.words for one in corosync.resolve(machine, word)}
    missing: list[str] = []
    partly: list[str] = []
    for node in others:
        rings = _rings(machine, node)
        deaf = [ring for ring, found in rings.items() if not reached & {*map(_same, found)}]
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
    told = _Told(machine)
    if told.distribution != "rhel" or not told.words:
        return
    (own,) = (node for node in corosync.nodes(machine) if node.own)
    mine = {own.name, *own.rings}
    mine.update(_same(one) for ring in own.rings for one in corosync.resolve(machine, ring))
    found = [word for word in told.words if word in mine or _same(word) in mine]
    if found:
        yield fails(
            "own address",
            f"{told.path} lists this node itself ({joined(found)}): kdumpctl loads no crash kernel",
            told.remedy([word for word in told.words if word not in found]),
        )
    else:
        yield ok("own address", "not in the list")


def names(machine: Machine) -> Iterator[Finding]:
    """Names mean the nodes that they are meant for, without a name server too."""
    all_nodes = corosync.nodes(machine)
    owners: dict[str, str] = {}
    for node in all_nodes:
        for ring in node.rings:
            if addresses.is_address(ring):
                owners[_same(ring)] = node.name
    told, meant = _Told(machine), _names_in_use(machine, all_nodes)
    fine = []
    for name, (its_node, where) in meant.items():
        found = [_same(one) for one in corosync.resolve(machine, name)]
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
    told = _Told(machine)
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
                asked = _asked(its, device, node.name)
                for name in asked.names if asked else ():
                    if not addresses.is_address(name):
                        found.setdefault(name, (node.name, f"the device {device.name}"))
    return {name: meant for name, meant in found.items() if meant[0] != own}


def _asked(its: Cib, device: Device, node: str) -> AgentOptions | None:
    """What the agent is to do for the node; None if the device is not for it, or it refuses."""
    called = device.calls(node, its.version)
    try:
        return None if called is None else cluster.options(device, node, called)
    except OptionError:
        return None  # said of the cluster


def _known(machine: Machine, asked: AgentOptions) -> set[str]:
    """The addresses that the agent takes for the node's."""
    return {_same(one) for name in asked.names for one in corosync.resolve(machine, name)}


def _correct(its: Cib, device: Device, all_nodes: list[Node]) -> str:
    """Give a device all addresses of its nodes, in the form that this Pacemaker reads."""
    mine = [node for node in all_nodes if device.calls(node.name, its.version)] or all_nodes
    if "nodename" in device.parameters and len(mine) == 1:
        return its.shell.set(device.name, "nodename", ",".join(mine[0].rings))
    colon = ":" if its.version >= NEW_NAMES else "\\:"
    entries = (f"{node.name}:{','.join(node.rings).replace(':', colon)}" for node in mine)
    return its.shell.set(device.name, "pcmk_host_map", ";".join(entries))


def map_is_whole(machine: Machine) -> Iterator[Finding]:
    """No colon of an address cuts pcmk_host_map, as it does up to Pacemaker 3.0.1."""
    its = cib.read(machine)
    for device in its.kdump:
        text = device.parameters.get("pcmk_host_map", "")
        meant = host_map(text.replace("\\", ""), NEW_NAMES)
        if host_map(text, its.version) != meant and its.version < NEW_NAMES:
            lost = [name for name in meant if device.calls(name, its.version) is None]
            all_nodes = corosync.nodes(machine)
            whole = device._replace(parameters={})
            yield fails(
                "IPv6 in the map",
                f"{device.name}: Pacemaker {'.'.join(map(str, its.version))} cuts pcmk_host_map at "
                f"each colon, so {joined(lost) or 'a node'} has no device",
                _correct(its, whole, [one for one in all_nodes if one.name in meant]),
            )


def believed(machine: Machine) -> Iterator[Finding]:
    """The devices know each node, by each of its addresses."""
    its = cib.read(machine)
    if not its.kdump or any(map_is_whole(machine)):
        return
    all_nodes = corosync.nodes(machine)
    lost: list[str] = []
    partly: list[str] = []
    wrong = its.kdump[0]
    for node in all_nodes:
        devices = [one for one in its.kdump if one.calls(node.name, its.version) is not None]
        if not devices:
            lost.append(f"{node.name} (no device is for it)")
        for device in devices:
            asked = _asked(its, device, node.name)
            if asked is None:
                continue
            known = _known(machine, asked)
            rings = _rings(machine, node)
            strange = [ring for ring, found in rings.items() if not known & {*map(_same, found)}]
            wrong = device if strange else wrong
            if strange:
                text = f"{node.name} at {joined(strange)} ({device.name})"
                (lost if len(strange) == len(rings) else partly).append(text)
    if lost:
        yield fails(
            "addresses of nodes",
            f"not known to a device: {joined(lost)}",
            _correct(its, wrong, all_nodes),
        )
    if partly:
        yield warning(
            "addresses of nodes",
            f"not known to a device: {joined(partly)}; what comes from there is not believed",
            _correct(its, wrong, all_nodes),
        )
    if not lost and not partly:
        yield ok("addresses of nodes", "the devices have each ring of each node")


def sources(machine: Machine) -> Iterator[Finding]:
    """The addresses that this node sends from are among those by which the others know it."""
    if not machine.runs:
        return
    its = cib.read(machine)
    (own,) = (node for node in corosync.nodes(machine) if node.own)
    told = _Told(machine)
    if not told.words or sender_arguments.complaints(told.words, to_be_continued=True):
        return  # said by `told`
    try:
        sender = native_sender.find()
    except native_sender.NotBuilt as error:
        raise Unknown(str(error)) from None
    said = machine.ask(sender, "--check", "--", *told.words)
    ways = re.findall(r"^node '(.*)' \(.*\): by \S+, from ([^\s,]+)", said.stdout, re.MULTILINE)
    for line in said.stderr.splitlines():
        if line.startswith("[error]: node"):
            yield warning(
                "way to nodes",
                line.removeprefix("[error]: "),
                "see ip route, and that address in the sender's list",
            )
    used = {_same(source) for _, source in ways}
    strange = []
    for device in its.kdump:
        asked = _asked(its, device, own.name)
        if asked is not None and asked.auth == "none":  # else what counts is the signature
            unknown_ones = sorted(used - _known(machine, asked))
            strange += [f"{one} ({device.name})" for one in unknown_ones]
    if strange:
        yield warning(
            "source addresses",
            f"this node sends from {joined(strange)}, by which no other node knows it",
            "add it to this node's addresses in pcmk_host_map",
        )
    elif used:
        yield ok("source addresses", joined(sorted(used)))


CHECKS = (told, itself, names, map_is_whole, believed, sources)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whom the devices would believe: their addresses against those of corosync.conf.

And against the addresses that this node would send from.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from kdumpfence.agent.options import AgentOptions
from kdumpfence.cmdline import OptionError
from kdumpfence.doctor import cib, cluster, corosync
from kdumpfence.doctor.cib import Cib
from kdumpfence.doctor.cluster import joined
from kdumpfence.doctor.corosync import Node
from kdumpfence.doctor.device import NEW_NAMES, Device, host_map
from kdumpfence.doctor.finding import Finding, Unknown, fails, ok, warning
from kdumpfence.doctor.machine import Machine
from kdumpfence.doctor.nodes import Told, rings_of, same
from kdumpfence.install import native_sender, sender_arguments
from kdumpfence.text import shown


def asked_for(its: Cib, device: Device, node: str) -> AgentOptions | None:
    """What the agent is to do for the node; None if the device is not for it, or it refuses."""
    called = device.calls(node, its.version)
    try:
        return None if called is None else cluster.options(device, node, called)
    except OptionError:
        return None  # said of the cluster


def known_to(machine: Machine, asked: AgentOptions) -> set[str]:
    """The addresses that the agent takes for the node's."""
    return {same(one) for name in asked.names for one in corosync.resolve(machine, name)}


def _correct(
    its: Cib, device: Device, all_nodes: list[Node], homeless: Collection[Node] = ()
) -> str:
    """Give a device all addresses of its nodes, in the form that this Pacemaker reads.

    And of `homeless` ones, which it is to be for as well.
    """
    mine = [one for one in all_nodes if one in homeless or device.calls(one.name, its.version)]
    mine = mine or all_nodes
    if "nodename" in device.parameters and len(mine) == 1 and not homeless:
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
    homeless: list[Node] = []
    wrong = its.kdump[0]
    for node in all_nodes:
        devices = [one for one in its.kdump if one.calls(node.name, its.version) is not None]
        if not devices:
            homeless.append(node)
            lost.append(f"{node.name} (no device is for it)")
        for device in devices:
            asked = asked_for(its, device, node.name)
            if asked is None or asked.listener:  # which has addresses of its own: see `listeners`
                continue
            known = known_to(machine, asked)
            rings = rings_of(machine, node)
            strange = [ring for ring, found in rings.items() if not known & {*map(same, found)}]
            wrong = device if strange else wrong
            if strange:
                text = f"{node.name} at {joined(strange)} ({device.name})"
                (lost if len(strange) == len(rings) else partly).append(text)
    if lost:
        skipping = [one for one in its.kdump if one.skipped] if homeless else []
        words = [f"{joined(map(shown, one.skipped))} of {one.name}" for one in skipping]
        why = f"; Pacemaker skips {joined(words)} in pcmk_host_list" if words else ""
        wrong = next(iter(skipping), wrong)
        yield fails(
            "addresses of nodes",
            f"not known to a device: {joined(lost)}{why}",
            _correct(its, wrong, all_nodes, homeless),
        )
    if partly:
        yield warning(
            "addresses of nodes",
            f"not known to a device: {joined(partly)}; what comes from there is not believed",
            _correct(its, wrong, all_nodes, homeless),
        )
    if not lost and not partly:
        yield ok("addresses of nodes", "the devices have each ring of each node")


def sources(machine: Machine) -> Iterator[Finding]:
    """The addresses that this node sends from are among those by which the others know it."""
    if not machine.runs:
        return
    its = cib.read(machine)
    (own,) = (node for node in corosync.nodes(machine) if node.own)
    told = Told(machine)
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
    used = {same(source) for _, source in ways}
    strange = []
    for device in its.kdump:
        asked = asked_for(its, device, own.name)
        # Else what counts is the signature, or what the listener knows.
        if asked is not None and asked.auth == "none" and not asked.listener:
            unknown_ones = sorted(used - known_to(machine, asked))
            strange += [f"{one} ({device.name})" for one in unknown_ones]
    if strange:
        yield warning(
            "source addresses",
            f"this node sends from {joined(strange)}, by which no other node knows it",
            "add it to this node's addresses in pcmk_host_map",
        )
    elif used:
        yield ok("source addresses", joined(sorted(used)))


CHECKS = (map_is_whole, believed, sources)

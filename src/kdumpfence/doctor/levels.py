# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether Pacemaker asks kdump first, and cuts the power if that says no.

docs/operations.md, section 4.
"""

from __future__ import annotations

from collections.abc import Iterator

from kdumpfence.doctor.cib import Cib
from kdumpfence.doctor.cluster import configured, joined, names
from kdumpfence.doctor.finding import Finding, fails, ok
from kdumpfence.doctor.machine import Machine


def levels(machine: Machine) -> Iterator[Finding]:
    """Each node has kdump in its first level, alone, and power in a later one."""
    its, devices = configured(machine)
    if not devices:
        return
    nodes = names(machine, its)
    faults: dict[str, list[str]] = {}
    topology = {}
    for node in nodes:
        topology[node] = [level.devices for level in its.levels(node)]
        fault = fault_of(its, node)
        if fault:
            faults.setdefault(fault, []).append(node)
            topology[node] = [_device_for(its, node, True), _device_for(its, node, False)]
    for fault, wrong in faults.items():
        remedy = _level_remedy(its, wrong, topology)
        yield fails("fencing levels", f"{joined(wrong)}: {fault}", remedy)
    if nodes and not faults:
        yield ok("fencing levels", f"kdump first and power behind it: {joined(nodes)}")


def _device_for(its: Cib, node: str, kdump: bool) -> tuple[str, ...]:
    """The device for that node, of fence_kdump or one that cuts the power; none if none is."""
    devices = (one for one in its.devices.values() if one.is_kdump is kdump)
    return tuple(one.name for one in devices if one.calls(node, its.version))[:1]


def _level_remedy(its: Cib, nodes: list[str], topology: dict[str, list[tuple[str, ...]]]) -> str:
    """What makes the levels of these nodes what they are in that topology."""
    lacking = [node for node in nodes if () in topology[node]]
    if lacking:
        sort = "a device of fence_kdump" if not topology[lacking[0]][0] else "a power device"
        return f"make {sort} for {joined(lacking)}, then look here again"
    disabled = dict.fromkeys(name for node in nodes for name in _disabled_behind(its, node))
    if disabled:
        return "; ".join(map(its.shell.enable, disabled))
    whole = {node: levels for node, levels in topology.items() if () not in levels}
    return its.shell.levels({node: bool(its.levels(node)) for node in nodes}, whole)


def _disabled_behind(its: Cib, node: str) -> list[str]:
    """The power devices behind kdump, if none of them can be used."""
    names = [name for level in its.levels(node)[1:] for name in level.devices]
    power = [its.devices[name] for name in names if name in its.devices]
    power = [one for one in power if not one.is_kdump]
    return [one.name for one in power] if all(one.stopped for one in power) else []


def fault_of(its: Cib, node: str) -> str:
    """What is wrong with a node's levels, which costs a dump or a fencing; "" if nothing is."""
    levels = its.levels(node)
    if not levels:
        return "no fencing level: nothing makes Pacemaker ask kdump first"
    sorts = []
    for level in levels:
        for name in level.devices:
            if name not in its.devices:
                return f"level {level.number} names {name}, which is no device"
        sorts.append({its.devices[name].is_kdump for name in level.devices})
    first = next((at for at, sort in enumerate(sorts) if True in sort), None)
    if first is None:
        return "kdump is in no fencing level: power is cut while it dumps"
    if sorts[first] == {True, False}:
        return (
            f"kdump and power are both in level {levels[first].number}: power is cut after kdump "
            "says yes"
        )
    if first and any(False in sort for sort in sorts[:first]):
        return f"power in level {levels[0].number}, kdump only in {levels[first].number}"
    behind = [name for level in levels[first + 1 :] for name in level.devices]
    power = [its.devices[name] for name in behind if not its.devices[name].is_kdump]
    if not power:
        return "no power device behind kdump: a node that hangs is never fenced"
    if all(one.stopped for one in power):
        return f"behind kdump only {joined(one.name for one in power)}, which is disabled"
    return ""


CHECKS = (levels,)

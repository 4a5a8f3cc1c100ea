# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether Pacemaker asks kdump first, and cuts the power if that says no.

docs/operations.md, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from kdumpfence.doctor.cib import Cib
from kdumpfence.doctor.cluster import configured, joined, names
from kdumpfence.doctor.device import Device
from kdumpfence.doctor.finding import Finding, fails, ok, warning
from kdumpfence.doctor.machine import Machine
from kdumpfence.doctor.topology import LAST, Level
from kdumpfence.text import shown

State = Callable[[str, str, str], Finding]


def levels(machine: Machine) -> Iterator[Finding]:
    """Each node has kdump in its first level, alone, and power in a later one."""
    its, devices = configured(machine)
    if not devices:
        return
    nodes = names(machine, its)
    found: dict[tuple[State, str], list[str]] = {}
    topology = {}
    for node in nodes:
        topology[node] = [level.devices for level in its.levels(node)]
        fault, doubt = fault_of(its, node), _doubt(its, node)
        if fault or doubt:
            found.setdefault((fails, fault) if fault else (warning, doubt), []).append(node)
            topology[node] = _wanted(its, node)
    for (state, text), wrong in found.items():
        remedy = _level_remedy(its, wrong, topology)
        yield state("fencing levels", f"{joined(wrong)}: {text}", remedy)
    if nodes and not found:
        yield ok("fencing levels", f"kdump first and power behind it: {joined(nodes)}")


def _wanted(its: Cib, node: str) -> list[tuple[str, ...]]:
    """What a node's levels should be: all that match it together, or kdump and power."""
    merged: dict[int, tuple[str, ...]] = {}
    for target in (*its.topology.targets(node), *its.topology.passed_over(node)):
        for level in target.together:
            merged.setdefault(level.number, level.devices)
    merged.update(its.topology.beyond(node))
    if not _fault(its, node, [Level(number, merged[number]) for number in sorted(merged)]):
        return [merged[number] for number in sorted(merged)]
    return [_device_for(its, node, True), _device_for(its, node, False)]


def _device_for(its: Cib, node: str, kdump: bool) -> tuple[str, ...]:
    """The device for that node, of fence_kdump or one that cuts the power; none if none is."""
    devices = (one for one in its.devices.values() if one.is_kdump is kdump)
    return tuple(one.name for one in _for(its, node, devices))[:1]


def _for(its: Cib, node: str, devices: Iterable[Device]) -> list[Device]:
    """Those of these devices that are for that node."""
    return [one for one in devices if one.calls(node, its.version) is not None]


def _level_remedy(its: Cib, nodes: list[str], topology: dict[str, list[tuple[str, ...]]]) -> str:
    """What makes the levels of these nodes what they are in that topology."""
    lame = [one for node in nodes for one in _lame(its, node, its.levels(node))]
    skipping = {one.name: one for one in lame if one.skipped and not one.stopped}
    if skipping:
        return "; ".join(_mapped(its, one, nodes) for one in skipping.values())
    lacking = [node for node in nodes if () in topology[node]]
    if lacking:
        sort = "a device of fence_kdump" if not topology[lacking[0]][0] else "a power device"
        return f"make {sort} for {joined(lacking)}, then look here again"
    disabled = dict.fromkeys(one.name for one in lame if one.stopped)
    if disabled:
        return "; ".join(map(its.shell.enable, disabled))
    whole = {node: levels for node, levels in topology.items() if () not in levels}
    return its.shell.levels({node: _kinds(its, node) for node in nodes}, whole)


def _kinds(its: Cib, node: str) -> list[str]:
    """As what a node's name stands in levels."""
    own = its.topology.own(node)
    return own.kinds if own else ["name"] * bool(its.topology.beyond(node))


def _mapped(its: Cib, device: Device, nodes: list[str]) -> str:
    """Name these nodes to a device in its map, which takes every name."""
    given = device.parameters.get("pcmk_host_map", "").strip("; \t")
    entries = [given] * bool(given) + [f"{node}:{node}" for node in nodes]
    return its.shell.set(device.name, "pcmk_host_map", ";".join(entries))


def fault_of(its: Cib, node: str) -> str:
    """What is wrong with a node's levels, which costs a dump or a fencing; "" if nothing is."""
    targets = its.topology.targets(node)
    for found in [one.levels for one in targets] or [()]:
        fault = _fault(its, node, found)
        if fault:
            return "; ".join(filter(None, (fault, _choice(its, node))))
    return ""


def _doubt(its: Cib, node: str) -> str:
    """What may go wrong with levels in which no fault is; "" if nothing does."""
    targets = its.topology.targets(node)
    odd = its.topology.beyond(node) or any(one.twice for one in targets)
    if odd or not its.topology.certain(node):
        return _choice(its, node)
    used = its.levels(node)
    numbers = {level.number for level in used}
    devices = {name for level in used for name in level.devices}
    for target in its.topology.passed_over(node):
        for level in target.levels:
            # Else it is meant to be replaced.
            if level.number not in numbers and not devices.issuperset(level.devices):
                what = f"level {level.number} ({joined(level.devices)}) is not used"
                return f"{what}: {_choice(its, node)}"
    return ""


def _choice(its: Cib, node: str) -> str:
    """Which of the levels that match a node Pacemaker takes; "" if it takes all of them."""
    targets, others = its.topology.targets(node), its.topology.passed_over(node)
    if not its.topology.certain(node):
        both = " and ".join(map(str, targets))
        return f"Pacemaker takes the levels for one of {both}, and which one is chance"
    twice = next((number for one in targets for number in one.twice), None)
    if twice is not None:
        return f"level {twice} is configured twice, and Pacemaker takes the last one alone"
    beyond = its.topology.beyond(node)
    if beyond:
        return f"level {beyond[0].number} is ignored, since Pacemaker has levels 1 to {LAST}"
    if others:
        both = " and ".join(map(str, others))
        return f"the levels for {both} do not count beside those for its name"
    return ""


def _fault(its: Cib, node: str, levels: Sequence[Level]) -> str:
    """What is wrong with these levels of a node."""
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
    asked = [its.devices[name] for name in levels[first].devices]
    if not _for(its, node, asked) and _for(its, node, its.kdump):
        return (
            f"level {levels[first].number} has {joined(one.name for one in asked)}, which is not "
            "for it: power is cut while it dumps"
        )
    behind = [name for level in levels[first + 1 :] for name in level.devices]
    power = [its.devices[name] for name in behind if not its.devices[name].is_kdump]
    if not power:
        return "no power device behind kdump: a node that hangs is never fenced"
    if all(one.stopped for one in power):
        return f"behind kdump only {joined(one.name for one in power)}, which is disabled"
    lame = _lame(its, node, levels)
    if lame:
        why = {one.name: _why_lame(one) for one in lame}
        return f"no level behind kdump can cut its power: {'; '.join(why.values())}"
    return ""


def _lame(its: Cib, node: str, levels: Sequence[Level]) -> list[Device]:
    """If no level of power works: the devices because of which."""
    found = []
    for level in levels:
        devices = [its.devices[name] for name in level.devices if name in its.devices]
        if any(not one.is_kdump for one in devices):
            able = _for(its, node, devices)
            lame = [one for one in devices if one.stopped or one not in able]
            if not lame:
                return []
            found += lame
    return found


def _why_lame(device: Device) -> str:
    if device.stopped:
        return f"{device.name} is disabled"
    skipped = joined(map(shown, device.skipped))
    because = f": Pacemaker skips {skipped} in its pcmk_host_list" if skipped else ""
    return f"{device.name} is not for it{because}"


CHECKS = (levels,)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the cluster asks fence_kdump first, and cuts the power if that says no.

Pacemaker's side of docs/operations.md, sections 4, 5 and 10.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kdumpfence import keys
from kdumpfence.agent.options import AgentOptions, agent_from_stdin
from kdumpfence.cmdline import OptionError
from kdumpfence.doctor import cib, corosync
from kdumpfence.doctor.cib import Cib, Device
from kdumpfence.doctor.finding import Finding, Unknown, fails, ok, warning
from kdumpfence.doctor.machine import Machine
from kdumpfence.text import shown

#: Seconds that Pacemaker waits unless it is told otherwise.
_DEFAULT_WAIT = 60

#: Seconds by which the agent has to be earlier than that.
_MARGIN = 5

#: Nodes from which on two can crash together and be fenced by the others.
_SEVERAL = 3

#: Attempts that Pacemaker makes unless it is told otherwise.
_DEFAULT_RETRIES = "2"


def options(device: Device, node: str, its_name: str) -> AgentOptions:
    """What the agent makes of a device, asked for a node. Raises OptionError.

    As Pacemaker hands it over: the device's own parameters go before what it adds by itself.
    """
    given = {"action": "off", "nodename": node, "plug": its_name}
    given.update((k, v) for k, v in device.parameters.items() if not k.startswith("pcmk_"))
    lines = (f"{name}={' '.join(value.splitlines())}\n" for name, value in given.items())
    return agent_from_stdin("".join(lines).encode("utf-8", "surrogateescape"))


def names(machine: Machine, its: Cib) -> list[str]:
    """The nodes that can be fenced by kdump: those of corosync, else those that Pacemaker knows."""
    try:
        return [one.name for one in corosync.nodes(machine)]
    except Unknown:
        return its.nodes


def joined(found: Iterable[str]) -> str:
    """For a line: not more of them than can be read."""
    found = list(found)
    more = f" and {len(found) - 8} more" if len(found) > 9 else ""
    return ", ".join(found[:8] if more else found) + more


def _devices(machine: Machine) -> tuple[Cib, list[Device]]:
    """The configuration, and its devices of fence_kdump: with none, one finding says so."""
    its = cib.read(machine)
    return its, its.kdump


def device_exists(machine: Machine) -> Iterator[Finding]:
    """There is a device of fence_kdump, and nobody disabled it."""
    its, devices = _devices(machine)
    if not devices:
        rings = {
            one.name: [ring for ring in one.rings if ":" not in ring]
            for one in corosync.nodes(machine)
        }
        addresses = ";".join(f"{name}:{','.join(rings[name])}" for name in rings)
        yield fails(
            "kdump device",
            "no device of fence_kdump: power is cut at once, whatever a node dumps",
            its.shell.create(addresses),
        )
    for device in devices:
        if device.stopped:
            yield fails(
                "kdump device",
                f"{device.name} is disabled: Pacemaker does not ask it",
                its.shell.enable(device.name),
            )
    if devices and not any(device.stopped for device in devices):
        yield ok("kdump device", joined(device.name for device in devices))


def fencing_on(machine: Machine) -> Iterator[Finding]:
    """The cluster fences at all."""
    its = cib.read(machine)
    name = its.called("stonith-enabled")
    for newer in its.without_effect():
        older = newer.replace("fencing-", "stonith-")
        yield fails(
            "property names",
            f"{newer} has no effect in Pacemaker {'.'.join(map(str, its.version))}",
            its.shell.set_property(older, its.properties[newer]),
        )
    value = its.property_of("stonith-enabled")
    if value is not None and not cib.is_true(value):
        yield fails(
            "fencing on",
            f"{name}={value}: the cluster fences nobody",
            its.shell.set_property(name, "true"),
        )
    else:
        yield ok("fencing on", f"{name}={value or 'true'}")


def levels(machine: Machine) -> Iterator[Finding]:
    """Each node has kdump in its first level, alone, and power in a later one."""
    its, devices = _devices(machine)
    if not devices:
        return
    nodes = names(machine, its)
    faults: dict[str, list[str]] = {}
    topology = {}
    for node in nodes:
        topology[node] = [level.devices for level in its.levels(node)]
        fault = _level_fault(its, node)
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
    return its.shell.levels(nodes, {node: its for node, its in topology.items() if () not in its})


def _disabled_behind(its: Cib, node: str) -> list[str]:
    """The power devices behind kdump, if none of them can be used."""
    names = [name for level in its.levels(node)[1:] for name in level.devices]
    power = [its.devices[name] for name in names if name in its.devices]
    power = [one for one in power if not one.is_kdump]
    return [one.name for one in power] if all(one.stopped for one in power) else []


def _level_fault(its: Cib, node: str) -> str:
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


def waits(machine: Machine) -> Iterator[Finding]:
    """The agent says no before Pacemaker kills it, and is not asked again."""
    its, devices = _devices(machine)
    name = its.called("stonith-timeout")
    cluster_wide = cib.seconds(its.property_of("stonith-timeout") or "") or _DEFAULT_WAIT
    fine = []
    for device in devices:
        parameters = device.parameters
        given = parameters.get("pcmk_off_timeout")
        limit = cluster_wide if given is None else cib.seconds(given)
        where = f"pcmk_off_timeout={given}" if given else f"{name}={cluster_wide:g}"
        try:
            timeout = options(device, "node", "node").timeout
        except OptionError as error:
            yield fails(
                "agent options",
                f"{device.name}: the agent refuses {error}",
                f"{its.shell.set(device.name, 'NAME', 'VALUE')}, as fence_kdump(8) allows it",
            )
            continue
        faults = []
        if limit is None:
            faults.append(f"pcmk_off_timeout={given} is no time")
        elif timeout > limit - _MARGIN:
            why = f"timeout={timeout}, and after {limit:g} s ({where}) Pacemaker kills the agent"
            faults.append(f"{why}, which could not say no by itself")
        if faults:
            yield warning(
                "agent timeout",
                f"{device.name}: {faults[0]}",
                its.shell.set(device.name, "pcmk_off_timeout", f"{timeout + 10}s"),
            )
        retries = parameters.get("pcmk_off_retries", _DEFAULT_RETRIES)
        if retries.strip() != "1":
            yield warning(
                "agent retries",
                f"{device.name}: pcmk_off_retries={retries}: Pacemaker may run a failed agent "
                f"again, {timeout} s more until the power is cut",
                its.shell.set(device.name, "pcmk_off_retries", "1"),
            )
        elif not faults and limit is not None:
            fine.append(f"{device.name} {timeout} s of {limit:g} s")
    if fine:
        yield ok("agent timeout", joined(fine))


def at_once(machine: Machine) -> Iterator[Finding]:
    """Nodes that crash together are fenced together."""
    its, devices = _devices(machine)
    nodes = names(machine, its)
    if not devices or len(nodes) < _SEVERAL:
        return
    found = []
    value = its.property_of("concurrent-fencing")
    if its.version < (3,) and not cib.is_true(value or "false"):
        found.append(
            warning(
                "fencing at once",
                f"concurrent-fencing={value or 'false'}: nodes that crash together are fenced one "
                "after the other",
                its.shell.set_property("concurrent-fencing", "true"),
            )
        )
    elif value is not None and not cib.is_true(value):
        found.append(
            warning(
                "fencing at once",
                f"concurrent-fencing={value}: nodes that crash together are fenced one after the "
                "other",
                its.shell.set_property("concurrent-fencing", "") + " (its default is true)",
            )
        )
    for device in devices:
        several = [node for node in nodes if device.calls(node, its.version)]
        limit = device.parameters.get("pcmk_action_limit", "1")
        if len(several) > 1 and limit.strip() in ("0", "1"):
            found.append(
                warning(
                    "fencing at once",
                    f"{device.name}: pcmk_action_limit={limit}: it serves one of its "
                    f"{len(several)} nodes at a time",
                    its.shell.set(device.name, "pcmk_action_limit", "-1"),
                )
            )
    yield from found or [ok("fencing at once", "nodes that crash together do not wait")]


def authentication(machine: Machine) -> Iterator[Finding]:
    """All devices believe the same, and those that want signatures have the key."""
    its, devices = _devices(machine)
    ways: dict[tuple[str, str], list[str]] = {}
    for device in devices:
        try:
            asked = options(device, "node", "node")
        except OptionError:
            continue  # said by `waits`
        way = (asked.auth, asked.key_file if asked.auth != "none" else "")
        ways.setdefault(way, []).append(device.name)
    if len(ways) > 1:
        best = max(ways)
        texts = [f"{' '.join(way).strip()} ({joined(ways[way])})" for way in ways]
        way, (device_name, *_) = next((way, those) for way, those in ways.items() if way != best)
        at = 0 if way[0] != best[0] else 1
        yield fails(
            "authentication",
            f"devices differ: {joined(texts)}",
            its.shell.set(device_name, ("auth", "key_file")[at], best[at]),
        )
    unsound = False
    for auth, path in ways:
        why = _key_fault(machine, path) if auth != "none" else ""
        if why:
            unsound = True
            yield fails(
                "key file",
                f"{why}: with auth={auth} the agent fails at once here",
                "copy the file from a node where kdumpfence key show shows the cluster's key, with "
                "mode 0600; if none has it, kdumpfence key create on one",
            )
    if len(ways) == 1 and not unsound:
        ((auth, path),) = ways
        yield ok("authentication", f"auth={auth} {path}".strip())


def _key_fault(machine: Machine, path: str) -> str:
    """Why the agent cannot use this key file; "" if it can. Raises Unknown."""
    real = machine.root.real_path(path)
    if real is None:
        return f"no key file {shown(path)}"
    machine.bytes_of(path)  # Unknown, if this user may not read it
    try:
        found = keys.read(machine.root.outside(real))
    except keys.KeyFileError as error:
        return str(error)
    if found.node:
        return f"key file {shown(path)} is that of node {shown(found.node)}, not the cluster's"
    return ""


def without_effect(machine: Machine) -> Iterator[Finding]:
    """No settings that look as if they did something: a reboot is done as `off`."""
    its, devices = _devices(machine)
    for device in devices:
        idle = [
            name
            for name, value in device.parameters.items()
            if name.startswith("pcmk_reboot_") and (name, value) != ("pcmk_reboot_action", "off")
        ]
        for name in idle:
            yield warning(
                "idle settings",
                f"{device.name}: {name} has no effect, since the agent has no action reboot and "
                "Pacemaker takes off",
                f"{its.shell.unset(device.name, name)}; what counts is "
                f"{name.replace('reboot', 'off', 1)}",
            )


CHECKS = (
    device_exists,
    fencing_on,
    levels,
    waits,
    at_once,
    authentication,
    without_effect,
)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long a node that does not dump keeps its resources, and who cannot bear that.

The sum is Pacemaker's own (get_op_total_timeout of its fenced): the times of all devices of all
levels and their delays, and a fifth more. So no device takes the time of another one: what kdump
waits for, the power device has afterwards. Operations of resources that have to wait for the end of
a fencing are not started before, so their time-outs do not run; those of file systems that stand
still meanwhile do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from kdumpfence.cmdline import OptionError
from kdumpfence.daemon.timeout_advice import rounded_up
from kdumpfence.doctor import cib, corosync
from kdumpfence.doctor.cib import Cib
from kdumpfence.doctor.cluster import configured, joined, names, options
from kdumpfence.doctor.device import Device
from kdumpfence.doctor.finding import Finding, Unknown, fails, ok, warning
from kdumpfence.doctor.levels import fault_of
from kdumpfence.doctor.machine import Machine
from kdumpfence.doctor.resources import Resource, resources
from kdumpfence.doctor.waits import default_wait

#: By how much Pacemaker multiplies all times.
_FACTOR = 1.2

#: Seconds of a monitor that says nothing else (PCMK_DEFAULT_ACTION_TIMEOUT_MS).
_MONITOR = 20.0

_SHARED = ("gfs2", "ocfs2")
_LOCKING = ("ocf:pacemaker:controld", "ocf:heartbeat:lvmlockd", "ocf:heartbeat:clvm")


class Wait(NamedTuple):
    """Seconds of a node's fencing, if it does not dump."""

    power: float  #: from its start until the power device is asked
    most: float  #: until Pacemaker gives up


def device_limit(its: Cib, device: Device) -> tuple[str, float]:
    """The parameter that limits the time of a device, and the time that Pacemaker gives it."""
    action = "off" if device.is_kdump else its.property_of("stonith-action") or "reboot"
    name = f"pcmk_{action.replace('poweroff', 'off')}_timeout"
    return name, cib.seconds(device.parameters.get(name, "")) or default_wait(its)


def delay(device: Device, node: str) -> float:
    """Seconds that Pacemaker waits, at most, before it asks this device for that node."""
    most = cib.seconds(device.parameters.get("pcmk_delay_max", ""))
    base = device.parameters.get("pcmk_delay_base", "").strip()
    for entry in re.split(r"[; \t]", base) if ":" in base else ():
        name, _, value = entry.partition(":")
        if name.lower() == node.lower():
            base = value
            break
    return most or cib.seconds(base) or 0.0


def wait(its: Cib, node: str, nodes: int) -> Wait | None:
    """What is known of this node's; None if its levels, or the agent's options, are wrong."""
    try:
        if fault_of(its, node) or not its.topology.certain(node):
            return None
        levels = its.levels(node)
    except Unknown:
        return None
    power = most = 0.0
    if nodes == 2:  # with more of them the majority does not wait for it
        most = power = cib.seconds(its.property_of("priority-fencing-delay") or "") or 0.0
    asked = False
    for device in (its.devices[name] for level in levels for name in level.devices):
        asked = asked or not device.is_kdump
        _, limit = device_limit(its, device)
        most += delay(device, node) + limit
        if device.is_kdump and not asked:
            try:
                timeout = options(device, node, node).timeout
            except OptionError:
                return None
            power += delay(device, node) + min(timeout, limit)
    return Wait(power, _FACTOR * most)


def fencing_time(machine: Machine) -> Iterator[Finding]:
    """For how long the resources of a dead node are down."""
    its, devices = configured(machine)
    if not devices:
        return
    nodes = names(machine, its)
    noticed = corosync.noticed(machine) or 0.0
    alike: dict[Wait, list[str]] = {}
    for node in nodes:
        found = wait(its, node, len(nodes))
        if found:
            alike.setdefault(found, []).append(node)
    for found, those in alike.items():
        parts = f"corosync {rounded_up(noticed)}, kdump {rounded_up(found.power)}"
        text = (
            f"{joined(those)}: if it does not dump, its power is cut after "
            f"{rounded_up(noticed + found.power)} ({parts}); its resources are down for "
            f"{rounded_up(noticed + found.most)} at most"
        )
        if any(map(_locks, resources(its))):
            text += ", and shared file systems stand still on all nodes"
        yield ok("fencing time", text)


def _locks(resource: Resource) -> bool:
    return resource.kind in _LOCKING or _is_shared(resource)


def _is_shared(resource: Resource) -> bool:
    kind = resource.parameters.get("fstype", "").lower()
    return resource.kind == "ocf:heartbeat:Filesystem" and kind in _SHARED


def power_in_time(machine: Machine) -> Iterator[Finding]:
    """No power device waits by itself for longer than it may run."""
    its, devices = configured(machine)
    if not devices:
        return
    for device in its.devices.values():
        if device.is_kdump:
            continue
        name, limit = device_limit(its, device)
        # Of all agents of fence-agents: before it begins, and after each off and on.
        its_delay, pause = (
            cib.seconds(device.parameters.get(one, "")) or 0.0 for one in ("delay", "power_wait")
        )
        takes = its_delay + (2 if "reboot" in name else 1) * pause
        if takes >= limit:
            yield fails(
                "power in time",
                f"{device.name} waits {takes:g} s by itself (delay, power_wait), and after "
                f"{limit:g} s Pacemaker kills it: a node that does not dump is never fenced",
                its.shell.set(device.name, name, f"{math.ceil(takes + default_wait(its))}s"),
            )


def monitors(machine: Machine) -> Iterator[Finding]:
    """No monitor that writes to a shared file system gives up before the power is cut."""
    its, devices = configured(machine)
    nodes = names(machine, its) if devices else []
    found = [one for node in nodes for one in [wait(its, node, len(nodes))] if one]
    if not found:
        return
    stands_still = max(one.power for one in found)
    for resource in filter(_is_shared, resources(its)):
        for operation in resource.operations:
            # Level 20 writes a file; level 10 reads the device below the file system.
            writes = operation.get("OCF_CHECK_LEVEL") == "20"
            timeout = cib.seconds(operation.get("timeout", "")) or _MONITOR
            ignored = operation.get("on-fail") == "ignore"
            if operation.get("name") != "monitor" or not writes or ignored:
                continue
            if timeout <= stands_still:
                yield warning(
                    "shared file systems",
                    f"{resource.name}: its monitor writes, and fails after {timeout:g} s; but the "
                    f"file system stands still for {rounded_up(stands_still)} and more on all "
                    "nodes, until a node that does not dump is fenced",
                    its.shell.monitor_timeout(
                        resource.name, operation, math.ceil(max(one.most for one in found))
                    ),
                )


CHECKS = (fencing_time, power_in_time, monitors)

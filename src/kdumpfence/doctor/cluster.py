# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the cluster has devices of fence_kdump, and fences at all.

Pacemaker's side of docs/operations.md, section 4. Levels, waits and authentication have modules of
their own, which use what is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kdumpfence.agent.options import AgentOptions, agent_from_stdin
from kdumpfence.doctor import cib, corosync
from kdumpfence.doctor.cib import Cib
from kdumpfence.doctor.device import Device
from kdumpfence.doctor.finding import Finding, Unknown, fails, ok, warning
from kdumpfence.doctor.machine import Machine


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


def configured(machine: Machine) -> tuple[Cib, list[Device]]:
    """The configuration, and its devices of fence_kdump: with none, one finding says so."""
    its = cib.read(machine)
    return its, its.kdump


def device_exists(machine: Machine) -> Iterator[Finding]:
    """There is a device of fence_kdump, and nobody disabled it."""
    its, devices = configured(machine)
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


def without_effect(machine: Machine) -> Iterator[Finding]:
    """No settings that look as if they did something: a reboot is done as `off`."""
    its, devices = configured(machine)
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
                f"Pacemaker takes off; what counts is {name.replace('reboot', 'off', 1)}",
                its.shell.unset(device.name, name),
            )


CHECKS = (
    device_exists,
    fencing_on,
    without_effect,
)

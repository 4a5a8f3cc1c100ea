# SPDX-License-Identifier: LGPL-2.1-or-later
"""How to crash a node of this cluster on purpose, step by step, with the cluster's own names.

The steps are data; who prints them is elsewhere. Nothing is changed, and no node is crashed, here
or by whoever watches (`drill_watch`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kdumpfence.agent.options import AgentOptions
from kdumpfence.cmdline import OptionError
from kdumpfence.doctor import checks, cib, cluster, corosync, drill_pacemaker
from kdumpfence.doctor.cib import Cib
from kdumpfence.doctor.cluster import joined
from kdumpfence.doctor.device import Device
from kdumpfence.doctor.drill_pacemaker import Status
from kdumpfence.doctor.finding import FAILS, WARNING, Unknown
from kdumpfence.doctor.machine import Machine
from kdumpfence.doctor.topology import Level
from kdumpfence.text import shown

#: What the doctor can say here without asking the other nodes over the network.
_PARTS = ("nodes", "cluster", "agent")


class Refused(Exception):
    """The node cannot be watched from here; the text says why, and what can."""


class Step(NamedTuple):
    """Something to know or to do."""

    title: str
    lines: tuple[str, ...]
    commands: tuple[tuple[str, str], ...] = ()  #: on which node, and what


class Target(NamedTuple):
    """The node, and what the cluster would do if it crashed."""

    node: str
    own: str  #: the node that this machine is
    rings: tuple[str, ...]  #: its addresses, as corosync.conf has them
    its: Cib
    levels: tuple[Level, ...]
    kdump: Device | None  #: the device that is asked whether it dumps
    asked: AgentOptions | None  #: what that device's agent is told

    @property
    def device_names(self) -> list[tuple[str, ...]]:
        """The devices of each level."""
        return [level.devices for level in self.levels]


def target(machine: Machine, name: str) -> Target:
    """The node with this name. Raises Refused, or Unknown if there is no cluster."""
    nodes = corosync.nodes(machine)
    its = cib.read(machine)
    known = {one.name.lower(): one.name for one in nodes}
    known.update((one.lower(), one) for one in its.nodes if one.lower() not in known)
    node = known.get(name.lower())
    if node is None:
        raise Refused(
            f"{shown(name)} is no node of this cluster, which has {joined(known.values())}"
        )
    own = next(one.name for one in nodes if one.own)
    if node == own:
        others = [one for one in known.values() if one != own]
        raise Refused(
            f"{shown(name)} is this very machine, which cannot watch its own crash: run this on "
            f"{joined(others) or 'another node'}"
        )
    rings = next((one.rings for one in nodes if one.name == node), ())
    devices = [one for one in its.kdump if one.calls(node, its.version) is not None]
    named = [name for level in its.levels(node) for name in level.devices]
    devices.sort(key=lambda one: named.index(one.name) if one.name in named else len(named))
    kdump = devices[0] if devices else None
    asked = None
    if kdump is not None:
        try:
            asked = cluster.options(kdump, node, kdump.calls(node, its.version) or node)
        except OptionError:
            pass  # said by the doctor's look at the cluster
    return Target(node, own, rings, its, tuple(its.levels(node)), kdump, asked)


def plan(machine: Machine, its: Target) -> list[Step]:
    """What to do, and what will happen."""
    try:
        now = drill_pacemaker.ask_status() if machine.runs else None
    except Unknown:
        now = None
    return [
        _look(machine, its),
        _fencing(its),
        _resources(its, now),
        _loop(machine, its),
        _watching(its, now),
        _crash(its),
        _afterwards(machine, its),
    ]


def _look(machine: Machine, its: Target) -> Step:
    found = checks.examine(machine, _PARTS)
    bad = [one for some in found.values() for one in some if one.state in (FAILS, WARNING)]
    lines = [
        "The doctor has to find nothing on either node: a drill shows that all works together, and "
        "a dump that is lost shows little."
    ]
    lines += [f"Found here: {one.state}: {one.check}: {one.text}" for one in bad]
    doctor = "kdumpfence doctor"
    return Step("Look first", tuple(lines), ((its.node, doctor), (its.own, doctor)))


def _fencing(its: Target) -> Step:
    rings = f" ({joined(its.rings)})" if its.rings else ""
    lines = [f"When {its.node}{rings} falls silent, Pacemaker fences it:"]
    kdump = ""  # what was asked in an earlier level
    for level in its.levels:
        lines += [f"level {level.number}: {_device(its, one, kdump)}" for one in level.devices]
        kdump = next((one for one in level.devices if _is_kdump(its, one)), kdump)
    if not its.levels:
        lines.append("no fencing level is configured for it, so any device that knows it will do:")
        lines += [
            _device(its, one.name)
            for one in its.its.devices.values()
            if one.calls(its.node, its.its.version) is not None
        ]
    if not its.its.topology.certain(its.node):
        lines.append("or other levels, since several are configured: step 1, fencing levels")
    value = its.its.property_of("stonith-enabled")
    if value is not None and not cib.is_true(value):
        name = its.its.called("stonith-enabled")
        lines.append(f"but with {name}={value} nobody is fenced")
    return Step("What the cluster will do", tuple(lines))


def _is_kdump(its: Target, name: str) -> bool:
    return name in its.its.devices and its.its.devices[name].is_kdump


def _device(its: Target, name: str, kdump: str = "") -> str:
    """What a device does; `kdump`: the one that was asked before whether the node dumps."""
    device = its.its.devices.get(name)
    if device is None:
        return f"{name}, which is no device"
    text = f"{name} ({device.agent}{', disabled' if device.stopped else ''})"
    if not device.is_kdump:
        return f"{text} cuts the power{f', if {kdump} said no' if kdump else ''}"
    if its.kdump is None or its.asked is None or name != its.kdump.name:
        return f"{text} is asked whether it dumps"
    wanted = "a signed answer" if its.asked.auth != "none" else "a message"
    limit = its.its.property_of("stonith-timeout") or "60s"
    where = f"{its.its.called('stonith-timeout')}={limit}"
    if "pcmk_off_timeout" in device.parameters:
        where = f"pcmk_off_timeout={device.parameters['pcmk_off_timeout']}"
    return (
        f"{text} waits {its.asked.timeout} s for {wanted} from {joined(its.asked.names)}; "
        f"Pacemaker kills its agent after {where}"
    )


def _resources(its: Target, now: Status | None) -> Step:
    title = "What moves"
    if now is None:
        return Step(title, ("Whatever runs there starts on another node once it is fenced.",))
    running = sorted(name for name, on in now.runs.items() if its.node in on)
    others = [name for name, on in now.online.items() if on and name != its.node]
    what = joined(running) or "nothing: a drill with resources shows more"
    return Step(
        title,
        (
            f"Running on {its.node}: {what}. They start on another node once it is fenced, and "
            "lose what they have not written to a disk.",
            f"Nodes left: {joined(others) or 'none'}.",
        ),
    )


def _cluster(machine: Machine, its: Target, what: str) -> tuple[str, str]:
    """Start the cluster there now, or let it start at boot, or not."""
    tool = next((one for one in ("pcs", "crm") if machine.has_program(one)), "")
    if tool:
        return (its.own, f"{tool} cluster {what} {its.node}")
    return (its.node, f"systemctl {what} corosync pacemaker")


def _loop(machine: Machine, its: Target) -> Step:
    return Step(
        "No reboot loop",
        (
            f"{its.node} reboots after its dump. If the cluster does not start there by itself, "
            "nothing can fence it again before you have looked at the dump.",
        ),
        (_cluster(machine, its, "disable"),),
    )


def _watching(its: Target, now: Status | None) -> Step:
    lines = [
        f"This command watches on {its.own}. Leave it running until {its.node} is back in the "
        "cluster, or end it with Ctrl-C."
    ]
    if now is not None and now.dc and now.dc not in (its.own, its.node):
        lines.append(
            f"{now.dc} leads the cluster (the DC), and its log alone says which devices were "
            "asked: watch there, if it can be."
        )
    elif now is not None and now.dc == its.node and len(now.online) > 2:
        lines.append(
            f"{its.node} leads the cluster (the DC). Its successor's log alone says which devices "
            "were asked, which may be another node's than this."
        )
    return Step("Watch", tuple(lines))


def _crash(its: Target) -> Step:
    return Step(
        "Crash it",
        (
            "As root. kernel.sysrq need not be set for that; it has to allow 8 (or be 1) for "
            "Alt+SysRq+c on the console.",
            "Nearer to a machine that hangs: an NMI from its hypervisor or BMC (virsh inject-nmi, "
            "ipmitool chassis power diag), with kernel.unknown_nmi_panic=1.",
        ),
        ((its.node, "sync; echo c > /proc/sysrq-trigger"),),
    )


def _afterwards(machine: Machine, its: Target) -> Step:
    return Step(
        "Afterwards",
        (f"The dump on {its.node} has to be complete, and its doctor content again.",),
        (
            (its.node, "ls -l /var/crash; kdumpfence doctor"),
            _cluster(machine, its, "start"),
            _cluster(machine, its, "enable"),
        ),
    )


def as_text(steps: list[Step]) -> Iterator[str]:
    """The lines to be printed."""
    for number, step in enumerate(steps, 1):
        yield f"{number}. {step.title}"
        yield from (f"   {line}" for line in step.lines)
        yield from (f"       {node}# {command}" for node, command in step.commands)

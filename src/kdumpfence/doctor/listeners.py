# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kdumpfenced that devices with `listener` ask: it answers here, and knows the nodes.

What may not be in this file: what is wrong with agents that listen themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

from kdumpfence.agent.options import AgentOptions
from kdumpfence.client import Client, ClientError
from kdumpfence.cmdline import OptionError
from kdumpfence.doctor import cib
from kdumpfence.doctor.cib import Cib
from kdumpfence.doctor.cluster import configured, joined, names, options
from kdumpfence.doctor.device import Device
from kdumpfence.doctor.finding import Finding, Unknown, fails, ok, warning
from kdumpfence.doctor.machine import Machine

#: Seconds for an answer.
_PATIENCE = 2.0

_LOCAL = ("http://127.", "http://[::1]", "http://localhost:")


def place(device: Device) -> str:
    """Where the agent has another listen for it; "" if it does so itself."""
    return device.parameters.get("listener", "").strip()


def is_elsewhere(where: str) -> bool:
    """Whether that is a listener on another machine."""
    return where.startswith("http://") and not where.startswith(_LOCAL)


def only_elsewhere(machine: Machine) -> bool:
    """Whether no agent needs to hear anything on this machine, nor a kdumpfenced for it."""
    try:
        devices = cib.read(machine).kdump
    except Unknown:
        return False
    return bool(devices) and all(is_elsewhere(place(one)) for one in devices)


def none_listens(machine: Machine) -> bool:
    """Whether no agent listens itself."""
    try:
        devices = cib.read(machine).kdump
    except Unknown:
        return False
    return bool(devices) and all(map(place, devices))


def listeners(machine: Machine) -> Iterator[Finding]:
    """Each is there, and hears the nodes of its devices."""
    its, devices = configured(machine)
    for device in devices:
        if not place(device):
            continue
        try:
            options(device, "node", "node")
        except OptionError:
            continue  # said by `waits`
        auth = device.parameters.get("auth", "none").strip().lower()
        where = place(device)
        if auth != "sha256" and is_elsewhere(where):
            yield warning(
                "listener trusted",
                f"{device.name}: {where} without auth=sha256: whoever is on the way there can say "
                "that a node is fenced",
                its.shell.set(device.name, "auth", "sha256"),
            )
        if machine.runs:
            yield _asked(machine, its, device)


def _asked(machine: Machine, its: Cib, device: Device) -> Finding:
    """What the listener of a device answers."""
    where = place(device)
    lost = []
    try:
        with Client(where, timeout=_PATIENCE) as client:
            for node in names(machine, its):
                called = device.calls(node, its.version)
                if called is None:
                    continue
                asked: AgentOptions = options(device, node, called)
                its_names = list(dict.fromkeys((*asked.called, *asked.names)))
                answer = client.ask({"ask": "heard", "nodes": its_names, "wait": "doctor"})
                if asked.auth == "sha256" and answer.get("auth") == "none":
                    return fails(
                        "listener",
                        f"{device.name}: {where} checks no signatures, which the agent wants",
                        'there: auth = "sha256" in /etc/kdumpfence/kdumpfenced.toml',
                    )
                if answer.get("node") is None:
                    lost.append(f"{node} ({str(answer.get('why', 'unknown'))[:120]})")
    except (ClientError, ValueError, OptionError) as error:
        return fails(
            "listener",
            f"{device.name}: {error}",
            "there: systemctl enable --now kdumpfenced; or correct listener= of the device",
        )
    if lost:
        return fails(
            "listener",
            f"{device.name}: {where} does not hear {joined(lost)}",
            "there: add them under [nodes] in /etc/kdumpfence/kdumpfenced.toml, by the cluster's "
            "names",
        )
    return ok("listener", f"{device.name}: {where} hears its nodes")


CHECKS = (listeners,)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commands that change the cluster's configuration, for remedies."""

from __future__ import annotations

import shlex

from kdumpfence.doctor.machine import Machine


class Shell:
    """Commands that change the configuration, for the tool that is there: pcs, crm, or neither."""

    def __init__(self, machine: Machine) -> None:
        self._tool = next((one for one in ("pcs", "crm") if machine.has_program(one)), "")

    def set_property(self, name: str, value: str) -> str:
        """Set a cluster property."""
        return {
            "pcs": f"pcs property set {name}={value}",
            "crm": f"crm configure property {name}={value}",
        }.get(self._tool, f"crm_attribute --name {name} --update {value}")

    def set(self, device: str, name: str, value: str) -> str:
        """Set a parameter of a device."""
        device, value = shlex.quote(device), shlex.quote(value)
        return {
            "pcs": f"pcs stonith update {device} {name}={value}",
            "crm": f"crm resource param {device} set {name} {value}",
        }.get(
            self._tool,
            f"crm_resource --resource {device} --set-parameter {name} --parameter-value {value}",
        )

    def unset(self, device: str, name: str) -> str:
        """Remove a parameter of a device."""
        device, name = shlex.quote(device), shlex.quote(name)
        return {
            "pcs": f"pcs stonith update {device} {name}=",
            "crm": f"crm resource param {device} delete {name}",
        }.get(self._tool, f"crm_resource --resource {device} --delete-parameter {name}")

    def enable(self, device: str) -> str:
        """Let a disabled device be used again."""
        device = shlex.quote(device)
        return {
            "pcs": f"pcs stonith enable {device}",
            "crm": f"crm resource start {device}",
        }.get(self._tool, f"crm_resource --resource {device} --meta --delete-parameter target-role")

    def create(self, addresses: str) -> str:
        """Make a device of fence_kdump."""
        waits = "timeout=50 pcmk_off_timeout=60s pcmk_off_retries=1 pcmk_action_limit=-1"
        params = f"pcmk_host_map={shlex.quote(addresses)} {waits}"
        if self._tool == "crm":
            return f"crm configure primitive kdump stonith:fence_kdump params {params}"
        return f"pcs stonith create kdump fence_kdump {params}"

    def levels(
        self, nodes: dict[str, list[str]], topology: dict[str, list[tuple[str, ...]]]
    ) -> str:
        """Give nodes the levels that they have in this topology; crmsh takes only all of it.

        `nodes`: as what their names stand in levels now, "name" or "pattern"; nothing if nowhere.
        """
        if self._tool == "crm":
            all_nodes = (
                f"{name}: {' '.join(map(','.join, levels))}" for name, levels in topology.items()
            )
            line = shlex.quote(f"fencing_topology {' '.join(all_nodes)}")
            return f"echo {line} | crm configure load update -"
        commands = []
        for node, kinds in nodes.items():
            name = shlex.quote(node)
            for kind in kinds:
                target = shlex.quote(f"regexp%{node}") if kind == "pattern" else name
                commands.append(f"pcs stonith level clear target {target}")
            for index, devices in enumerate(topology[node], 1):
                its = " ".join(map(shlex.quote, devices))
                commands.append(f"pcs stonith level add {index} {name} {its}")
        return "; ".join(commands)

    def monitor_timeout(self, resource: str, operation: dict[str, str], seconds: int) -> str:
        """Give a resource's monitor another time-out."""
        level = f"OCF_CHECK_LEVEL={operation.get('OCF_CHECK_LEVEL', '0')}"
        if self._tool == "pcs":
            interval = shlex.quote(operation.get("interval", "0"))
            return (
                f"pcs resource update {shlex.quote(resource)} op monitor interval={interval} "
                f"{level} timeout={seconds}s"
            )
        return f"give the monitor of {resource} that has {level} timeout={seconds}s"

    def clean_up(self, resource: str) -> str:
        """Let the cluster forget what failed, and try again."""
        resource = shlex.quote(resource)
        return {
            "pcs": f"pcs resource cleanup {resource}",
            "crm": f"crm resource cleanup {resource}",
        }.get(self._tool, f"crm_resource --cleanup --resource {resource}")

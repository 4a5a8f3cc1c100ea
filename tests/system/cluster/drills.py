# SPDX-License-Identifier: LGPL-2.1-or-later
"""Crashes that `kdumpfence doctor --drill` watches on both survivors. Nothing is judged here.

An outcome's notes have what it printed, as objects, and its exit status: that of the node that
leads, and that of the other one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from tests.system.cluster.cluster import Cluster
from tests.system.cluster.machine import Machine
from tests.system.cluster.scenarios import Kit, Outcome, follower


class _Watcher:
    """A drill on a node, which goes on beside the test."""

    def __init__(self, cluster: Cluster, node: Machine, victim: Machine) -> None:
        self._cluster, self._node = cluster, node
        command = f"kdumpfence doctor --drill {victim.name} --json --timeout 120"
        files = ">/run/drill 2>/run/drill.errors"
        node.run("rm -f /run/drill*")
        cluster.run(f"({command} {files}; echo $? >/run/drill.status) >/dev/null 2>&1 &", node)
        self._wait(lambda: any("watching" in one for one in self.said()), "the drill watches")

    def _wait(self, ready: Any, what: str, seconds: float = 30) -> None:
        self._cluster.until(ready, f"{what} on {self._node.name}", seconds)

    def said(self) -> list[dict[str, Any]]:
        """What it has printed so far."""
        *whole, _ = self._node.run("cat /run/drill").stdout.split("\n")
        return [json.loads(line) for line in whole if line.startswith("{")]

    def wait_for(self, event: str) -> None:
        """Wait until it has seen this."""
        self._wait(lambda: any(one.get("event") == event for one in self.said()), event)

    def _status(self) -> str:
        return self._node.run("cat /run/drill.status").stdout.strip()

    def end(self) -> dict[str, Any]:
        """Its end, and all of it."""
        self._wait(lambda: self._status().isdigit(), "the end")
        return {
            "status": int(self._status()),
            "errors": self._node.run("cat /run/drill.errors").stdout,
            "said": self.said(),
        }


def _watched(cluster: Cluster, kit: Kit, name: str, sender: Sequence[str]) -> Outcome:
    victim, leader = follower(cluster), cluster.leader()
    (other,) = (node for node in cluster.nodes if node not in (victim, leader))
    outcome = Outcome(name, kit.agent)
    watchers = {
        "leader": _Watcher(cluster, leader, victim),
        "other": _Watcher(cluster, other, victim),
    }
    began = time.time()
    cluster.panic(victim, sender)
    cluster.wait_fenced(victim, since=began)
    outcome.power[victim.name] = cluster.power_calls(victim, since=began)
    if sender:
        time.sleep(1.5)  # what is sent sooner might have been on its way before
        cluster.dump(victim, [*sender, "--state=finished", "--count=2"])
        for watcher in watchers.values():
            watcher.wait_for("dump")
    cluster.bring_back(victim)
    outcome.notes["victim"] = victim
    outcome.notes.update((place, watcher.end()) for place, watcher in watchers.items())
    return outcome


def drill(cluster: Cluster, kit: Kit) -> Outcome:
    """A node panics, says so, says that its dump is finished, and comes back."""
    return _watched(cluster, kit, "drill", kit.sender)


def silent_drill(cluster: Cluster, kit: Kit) -> Outcome:
    """A node dies in silence, and comes back."""
    return _watched(cluster, kit, "silent drill", ())

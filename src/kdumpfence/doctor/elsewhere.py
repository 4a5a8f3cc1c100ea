# SPDX-License-Identifier: LGPL-2.1-or-later
"""The other nodes' agents, as far as the cluster itself knows them.

Neither Pacemaker nor the protocol tells which agent another node has, of which version and with
which core: there `agent` has to look. What Pacemaker does tell everyone is where a device's start
or monitor failed, with which exit status, and what its own version is on each node.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kdumpfence.doctor import cib
from kdumpfence.doctor.cib import Cib
from kdumpfence.doctor.cluster import joined
from kdumpfence.doctor.finding import Finding, Unknown, ok, warning
from kdumpfence.doctor.machine import Machine
from kdumpfence.text import one_line

#: OCF_NOT_INSTALLED: there is no such agent.
_NOT_INSTALLED = "5"


class _Failure(NamedTuple):
    """What the cluster remembers of an operation that failed on a node."""

    node: str
    resource: str
    operation: str
    code: str  #: the agent's exit status
    reason: str  #: "" if it gave none


def _failures(its: Cib) -> Iterator[_Failure]:
    """What failed and was not cleaned up. Only a running cluster knows it."""
    for node in its.root.iterfind("status/node_state"):
        for resource in node.iterfind("lrm/lrm_resources/lrm_resource"):
            for one in resource.iterfind("lrm_rsc_op"):
                if one.get("id", "").endswith("_last_failure_0"):
                    names = (node.get("uname", ""), resource.get("id", ""))
                    what = (one.get(key, "") for key in ("operation", "rc-code", "exit-reason"))
                    yield _Failure(*names, *what)


def _feature_sets(its: Cib) -> dict[str, str]:
    """By node, what its Pacemaker can do; those before 3.15.1 do not say it."""
    found = {
        one.get("uname", ""): its.pairs(one.findall("transient_attributes/instance_attributes"))
        for one in its.root.iterfind("status/node_state")
    }
    sets = {node: said.get("#feature-set", "") for node, said in found.items()}
    return {node: version for node, version in sets.items() if node and version}


def agents(machine: Machine) -> Iterator[Finding]:
    """No agent failed on any node."""
    try:
        its = cib.read(machine)
    except Unknown:
        return  # said of the cluster
    ours = {device.name for device in its.kdump}
    for one in _failures(its):
        if one.resource not in ours:
            continue
        missing = one.code == _NOT_INSTALLED
        reason = "there is no agent" if missing else one_line(one.reason) or f"exit {one.code}"
        mend = "kdumpfence install-agent" if missing else "kdumpfence doctor"
        yield warning(
            "agents elsewhere",
            f"{one.resource} failed on {one.node} ({one.operation}: {reason})",
            f"on {one.node}: {mend}; then {its.shell.clean_up(one.resource)}",
        )


def pacemakers(machine: Machine) -> Iterator[Finding]:
    """All nodes read the configuration in the same way."""
    versions: dict[str, list[str]] = {}
    for node, version in _feature_sets(cib.read(machine)).items():
        versions.setdefault(version, []).append(node)
    if len(versions) > 1:
        texts = (f"{joined(nodes)}: {version}" for version, nodes in versions.items())
        yield warning(
            "Pacemaker versions",
            f"nodes run different ones (feature sets {'; '.join(texts)}): names of properties and "
            "pcmk_host_map may mean something else there",
            "end the upgrade, then run this on each node",
        )
    elif versions:
        yield ok("Pacemaker versions", f"feature set {joined(versions)} on all nodes")


AGENT_CHECKS = (agents,)
CLUSTER_CHECKS = (pacemakers,)

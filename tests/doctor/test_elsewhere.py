# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a running cluster knows of the other nodes' agents, planted in its configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doctor.cluster_root import CIB, Fault, Root, judge, with_agent


@pytest.fixture
def healthy(tmp_path: Path) -> Root:
    """A node with this project's agent, of a cluster that runs."""
    return status(with_agent(tmp_path))


def status(root: Root, failed: str = "", features: str = "3.16.2", resource: str = "kdump") -> Root:
    """What the cluster says of its nodes: what node3 failed with, and its feature set."""
    states = ""
    for name, version in (("node1", "3.16.2"), ("node2", "3.16.2"), ("node3", features)):
        operation = f"""
            <lrm_rsc_op id="{resource}_last_0" operation="monitor" rc-code="0"/>
            {failed if name == "node3" else ""}"""
        states += f"""
    <node_state id="{name[4:]}" uname="{name}" in_ccm="true">
      <transient_attributes id="{name[4:]}">
        <instance_attributes id="status-{name[4:]}">
          <nvpair id="status-{name[4:]}-f" name="#feature-set" value="{version}"/>
        </instance_attributes>
      </transient_attributes>
      <lrm id="{name[4:]}"><lrm_resources>
        <lrm_resource id="{resource}" class="stonith" type="fence_kdump">{operation}
        </lrm_resource>
      </lrm_resources></lrm>
    </node_state>"""
    text = (root.folder / CIB).read_text()
    head = text.partition("  <status")[0]
    return root.write(CIB, f"{head}  <status>{states}\n  </status>\n</cib>\n")


def failure(operation: str, code: str, reason: str = "", resource: str = "kdump") -> str:
    """What node3 remembers of a failed operation."""
    return (
        f'<lrm_rsc_op id="{resource}_last_failure_0" operation="{operation}" rc-code="{code}" '
        f'exit-reason="{reason}"/>'
    )


FAULTS = [
    Fault(
        "no agent on one node",
        lambda root: status(root, failure("start", "5")),
        "warning",
        "agents elsewhere",
        (
            "kdump failed on node3 (start: there is no agent)",
            "on node3: kdumpfence install-agent; then pcs resource cleanup kdump",
        ),
    ),
    Fault(
        "no crash kernel on one node",
        lambda root: status(root, failure("monitor", "1", "no crash kernel&#10;is loaded")),
        "warning",
        "agents elsewhere",
        (
            "kdump failed on node3 (monitor: no crash kernel\\nis loaded)",
            "on node3: kdumpfence doctor; then pcs resource cleanup kdump",
        ),
    ),
    Fault(
        "a failure without a reason",
        lambda root: status(root, failure("monitor", "1")),
        "warning",
        "agents elsewhere",
        ("(monitor: exit 1)",),
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_is_found_alone(healthy: Root, fault: Fault) -> None:
    judge(healthy, "agent", fault)


def test_nodes_that_read_the_configuration_differently(healthy: Root) -> None:
    judge(
        healthy,
        "cluster",
        Fault(
            "an upgrade under way",
            lambda root: status(root, features="3.20.5"),
            "warning",
            "Pacemaker versions",
            ("node1, node2: 3.16.2; node3: 3.20.5", "end the upgrade"),
        ),
    )


FINE: dict[str, Callable[[Root], object]] = {
    "all is well": status,
    "another resource failed": lambda root: status(
        root, failure("start", "5", resource="web"), resource="web"
    ),
    "a node that is older than feature sets": lambda root: status(root, features=""),
}


@pytest.mark.parametrize("change", FINE.values(), ids=FINE)
def test_what_is_no_fault_is_not_complained_of(
    healthy: Root, change: Callable[[Root], object]
) -> None:
    change(healthy)
    found = healthy.find("agent") + healthy.find("cluster")
    assert {one.state for one in found} == {"ok"}, found
    assert "Pacemaker versions" in {one.check for one in found}

# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long a dead node's resources are down, and faults in those times, planted one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doctor.cluster_root import CIB, COROSYNC, Fault, Root, corosync, judge, level

TOTEM = "totem {\n"
IPMI = 'type="fence_ipmilan">\n        <instance_attributes id="power-node2-instance_attributes">\n'
PROPERTIES = '<cluster_property_set id="cib-bootstrap-options">\n'


@pytest.fixture
def healthy(tmp_path: Path) -> Root:
    return Root(tmp_path)


def set_power(root: Root, **parameters: str) -> Root:
    """Give the power device of node2 these parameters."""
    pairs = "".join(
        f'<nvpair id="p-{name}" name="{name}" value="{value}"/>\n'
        for name, value in parameters.items()
    )
    return root.change(CIB, IPMI, IPMI + pairs)


def set_property(root: Root, name: str, value: str) -> Root:
    """Give the cluster one more property."""
    pair = f'<nvpair id="x-{name}" name="{name}" value="{value}"/>\n'
    return root.change(CIB, PROPERTIES, PROPERTIES + pair)


def file_system(root: Root, kind: str = "gfs2", check: str = "20", **attributes: str) -> Root:
    """A file system on all nodes, with a monitor of this level."""
    given = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return root.change(
        CIB,
        "    <resources>\n",
        f"""    <resources>
      <clone id="data-clone">
      <primitive id="data" class="ocf" provider="heartbeat" type="Filesystem">
        <instance_attributes id="data-i">
          <nvpair id="data-t" name="fstype" value="{kind}"/>
        </instance_attributes>
        <operations>
          <op id="data-m" name="monitor" interval="10s"{given}>
            <instance_attributes id="data-mi">
              <nvpair id="data-mc" name="OCF_CHECK_LEVEL" value="{check}"/>
            </instance_attributes>
          </op>
        </operations>
      </primitive></clone>
""",
    )


FAULTS = [
    Fault(
        "a power device that waits as long as it may run",
        lambda root: set_power(root, delay="60"),
        "fails",
        "power in time",
        (
            "power-node2 waits 60 s by itself (delay, power_wait), and after 60 s",
            "pcs stonith update power-node2 pcmk_reboot_timeout=120s",
        ),
    ),
    Fault(
        "one that waits after off and after on",
        lambda root: set_power(root, power_wait="45", pcmk_reboot_timeout="90s"),
        "fails",
        "power in time",
        ("waits 90 s by itself", "pcmk_reboot_timeout=150s"),
    ),
    Fault(
        "one that switches off only",
        lambda root: set_property(
            set_power(root, power_wait="30", pcmk_off_timeout="30"), "stonith-action", "off"
        ),
        "fails",
        "power in time",
        ("waits 30 s by itself", "pcmk_off_timeout=90s"),
    ),
    Fault(
        "one that switches off only, in a newer version",
        lambda root: set_property(
            set_power(root.version("3.0.2-1"), power_wait="30", pcmk_off_timeout="30"),
            "fencing-action",
            "off",
        ),
        "fails",
        "power in time",
        ("waits 30 s by itself", "pcmk_off_timeout=90s"),
    ),
    Fault(
        "a file system that nobody can write to for so long",
        lambda root: file_system(root, timeout="40s"),
        "warning",
        "shared file systems",
        (
            "data: its monitor writes, and fails after 40 s; but",
            "stands still for 50 s and more",
            "pcs resource update data op monitor interval=10s OCF_CHECK_LEVEL=20 timeout=144s",
        ),
    ),
    Fault(
        "one whose monitor has the time that all have",
        file_system,
        "warning",
        "shared file systems",
        ("fails after 20 s",),
    ),
]

FINE: dict[str, Callable[[Root], object]] = {
    "a power device that waits a little": lambda root: set_power(root, delay="5", power_wait="4"),
    "one that has the time": lambda root: set_power(root, delay="60", pcmk_reboot_timeout="2min"),
    "a monitor that waits": lambda root: file_system(root, timeout="144s"),
    "a monitor that does not write": lambda root: file_system(root, check="10"),
    "a monitor that is ignored": lambda root: file_system(root, on_fail="ignore"),
    "a file system of one node": lambda root: file_system(root, kind="xfs"),
    "a time for all operations": lambda root: file_system(root).change(
        CIB,
        "    <fencing-topology>",
        '    <op_defaults><meta_attributes id="od"><nvpair id="odt" name="timeout" value="3min"/>'
        "</meta_attributes></op_defaults>\n    <fencing-topology>",
    ),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_is_found_alone(healthy: Root, fault: Fault) -> None:
    judge(healthy, "cluster", fault)


@pytest.mark.parametrize("change", FINE.values(), ids=FINE)
def test_what_is_no_fault_is_not_complained_of(
    healthy: Root, change: Callable[[Root], object]
) -> None:
    change(healthy)
    found = healthy.find("cluster")
    assert {one.state for one in found} == {"ok"}, found


def figures(root: Root) -> list[str]:
    """What is said of the nodes."""
    return [one.text for one in root.find("cluster") if one.check == "fencing time"]


def test_the_sum_is_that_of_pacemaker(healthy: Root) -> None:
    # 3 s and 0.65 s more for the third node, and 1.2 times as long to agree; kdump and power have
    # 60 s each, and a fifth more.
    assert figures(healthy) == [
        "node1, node2, node3: if it does not dump, its power is cut after 59 s (corosync 9 s, "
        "kdump 50 s); its resources are down for 2 min 33 s at most"
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda root: root.set("pcmk_delay_base", "10s"),
            ("1 min 09 s", "kdump 1 min 00 s", "2 min 45"),
        ),
        (
            lambda root: root.set("pcmk_delay_base", "node1:10s;node2:20s"),
            ("1 min 09 s", "1 min 19 s", "kdump 1 min 10 s", "node3: if it does not dump"),
        ),
        (
            lambda root: root.set("pcmk_delay_base", "5s").set("pcmk_delay_max", "10"),
            ("kdump 1 min 00 s", "2 min 45 s"),
        ),
        (lambda root: root.set("pcmk_off_timeout", "120s"), ("59 s", "3 min 45 s")),
        (lambda root: set_property(root, "stonith-timeout", "120s"), ("59 s", "3 min 45 s")),
        (
            lambda root: root.change(COROSYNC, TOTEM, TOTEM + "    token: 30000\n"),
            ("corosync 1 min 08 s", "1 min 58 s"),
        ),
        (
            lambda root: root.change(
                COROSYNC,
                TOTEM,
                TOTEM + "    token: 10000\n    token_coefficient: 0\n    consensus: 12500\n"
                "    interface {\n        token: 7\n    }\n",
            ),
            ("corosync 23 s",),
        ),
        (lambda root: root.remove(COROSYNC), ("50 s (corosync 0 s", "2 min 24 s")),
        (
            lambda root: (
                root.change(
                    CIB, '"pcmk_host_list" value="node3"', '"pcmk_host_list" value="node2 node3"'
                ),
                root.change(
                    CIB,
                    level(2, "node2", "power-node2"),
                    level(2, "node2", "power-node2,power-node3"),
                ),
            ),
            ("node2: if", "3 min 45 s"),
        ),
        (file_system, ("shared file systems stand still on all nodes",)),
    ],
)
def test_what_changes_the_sum(
    healthy: Root, change: Callable[[Root], object], words: tuple[str, ...]
) -> None:
    change(healthy)
    text = "\n".join(figures(healthy))
    assert [word for word in words if word not in text] == [], text


def test_only_one_of_two_nodes_waits_for_priority_fencing_delay(healthy: Root) -> None:
    set_property(healthy, "priority-fencing-delay", "30s")
    assert "kdump 50 s" in figures(healthy)[0]
    healthy.write(COROSYNC, corosync({name: (name,) for name in ("node1", "node2")}))
    assert "kdump 1 min 20 s" in figures(healthy)[0]
    assert "3 min 07 s" in figures(healthy)[0]

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Faults in the list of a sender, in names and in what devices know, planted one by one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdumpfence.doctor import checks
from kdumpfence.doctor.finding import Finding
from kdumpfence.doctor.machine import Machine
from kdumpfence.install.sysroot import Sysroot
from tests.doctor.cluster_root import (
    CIB,
    COROSYNC,
    HOSTS,
    LIST,
    MAP,
    OTHERS,
    Fault,
    Root,
    cib,
    corosync,
    judge,
)
from tests.support.labs import lab
from tests.support.netlab import Lab
from tests.support.programs import sender

CONF = "etc/kdump.conf"
V6_MAP = "node1:192.0.2.1,2001:db8::1;node2:192.0.2.2,2001:db8::2;node3:192.0.2.3,2001:db8::3"


@pytest.fixture
def healthy(tmp_path: Path) -> Root:
    return Root(tmp_path)


def _rhel(root: Root, nodes: str = OTHERS) -> Root:
    """The same node with RHEL."""
    root.remove(LIST)
    return root.write("etc/os-release", "ID=rhel\n").write(CONF, f"fence_kdump_nodes {nodes}\n")


def _ipv6(root: Root, host_map: str = V6_MAP) -> Root:
    """The second network has IPv6."""
    root.change(COROSYNC, "198.51.100.", "2001:db8::").change(LIST, "198.51.100.", "2001:db8::")
    return root.set("pcmk_host_map", host_map)


def _by_name(root: Root) -> Root:
    """The first network by names, everywhere."""
    root.change(COROSYNC, "ring0_addr: 192.0.2.", "ring0_addr: node")
    root.change(LIST, "192.0.2.", "node")
    return root.set("pcmk_host_map", MAP.replace("192.0.2.", "node"))


FAULTS = [
    Fault(
        "an empty list",
        lambda root: root.change(LIST, OTHERS, ""),
        "fails",
        "nodes told",
        ("/etc/kdumpfence/nodes lists no node", f'NODES="{OTHERS}"', "kdumpfence install-sender"),
    ),
    Fault(
        "no list",
        lambda root: root.remove(LIST),
        "fails",
        "nodes told",
        ("nobody is told",),
    ),
    Fault(
        "a node is missing",
        lambda root: root.change(LIST, " 192.0.2.3 198.51.100.3", ""),
        "fails",
        "nodes told",
        ("not told: node3 (192.0.2.3, 198.51.100.3)", f'NODES="{OTHERS}"'),
    ),
    Fault(
        "a ring is missing",
        lambda root: root.change(LIST, " 198.51.100.3", " 203.0.113.3"),
        "warning",
        "nodes told",
        ("node3 at 198.51.100.3", f'NODES="203.0.113.3 {OTHERS}"'),
    ),
    Fault(
        "what is no node",
        lambda root: root.change(LIST, "198.51.100.3", "198.51.100.03"),
        "fails",
        "nodes told",
        ("/etc/kdumpfence/nodes: the sender refuses", "198.51.100.03"),
    ),
    Fault(
        "SUSE's way",
        lambda root: root.change(LIST, OTHERS, "").write("etc/os-release", "ID=sles\n"),
        "fails",
        "nodes told",
        ("mkdumprd -f && systemctl restart kdump",),
    ),
    Fault(
        "no nodes in kdump.conf",
        lambda root: _rhel(root).write(CONF, "path /var/crash\n"),
        "warning",
        "nodes told",
        ("no fence_kdump_nodes in /etc/kdump.conf", f"fence_kdump_nodes {OTHERS}", "kdumpctl reb"),
    ),
    Fault(
        "itself in kdump.conf",
        lambda root: _rhel(root, f"{OTHERS} 198.51.100.1"),
        "fails",
        "own address",
        ("lists this node itself (198.51.100.1)", f"fence_kdump_nodes {OTHERS} in", "kdumpctl"),
    ),
    Fault(
        "its name in kdump.conf",
        lambda root: _rhel(root, f"node1 {OTHERS}"),
        "fails",
        "own address",
        ("lists this node itself (node1)",),
    ),
    Fault(
        "127.0.1.1",
        lambda root: _by_name(root).change(
            HOSTS, "192.0.2.2 node2", "127.0.1.1 node2\n192.0.2.2 node2"
        ),
        "fails",
        "names",
        ("'node2' (corosync.conf) resolves to 127.0.1.1", "correct the line of 127.0.1.1"),
    ),
    Fault(
        "another node's address",
        lambda root: root.change(LIST, "198.51.100.3", "node3 198.51.100.3").change(
            HOSTS, "192.0.2.3 node3", "192.0.2.2 node3"
        ),
        "fails",
        "names",
        (
            "'node3' (/etc/kdumpfence/nodes) resolves to 192.0.2.2, which is node2",
            "name service: node3 is 192.0.2.3; then kdumpfence install-sender",
        ),
    ),
    Fault(
        "a name that nobody knows",
        lambda root: root.change(LIST, OTHERS, f"{OTHERS} node9"),
        "fails",
        "names",
        ("'node9' (/etc/kdumpfence/nodes) does not resolve", "/etc/hosts"),
    ),
    Fault(
        "a node that no device is for",
        lambda root: root.set("pcmk_host_map", MAP.partition(";node3")[0]),
        "fails",
        "addresses of nodes",
        ("node3 (no device is for it)", f"pcs stonith update kdump pcmk_host_map='{MAP}'"),
    ),
    Fault(
        "a device that knows other addresses",
        lambda root: root.set(
            "pcmk_host_map", MAP.replace("192.0.2.2,198.51.100.2", "203.0.113.2")
        ),
        "fails",
        "addresses of nodes",
        ("node2 at 192.0.2.2, 198.51.100.2 (kdump)", f"pcmk_host_map='{MAP}'"),
    ),
    Fault(
        "a ring that a device does not know",
        lambda root: root.set("pcmk_host_map", MAP.replace(",198.51.100.2", "")),
        "warning",
        "addresses of nodes",
        ("node2 at 198.51.100.2 (kdump)", f"pcmk_host_map='{MAP}'"),
    ),
    Fault(
        "a ring that nodename does not have",
        lambda root: (
            root.unset("pcmk_host_map")
            .set("pcmk_host_list", "node2")
            .set("nodename", "192.0.2.2")
            .change(CIB, 'id="kdump"', 'id="kdump2"')
            .change(
                CIB,
                "    <resources>\n",
                '    <resources>\n      <primitive id="kdump" class="stonith" type="fence_kdump">'
                '<instance_attributes id="k"><nvpair id="l" name="pcmk_host_map" value="'
                + MAP.replace("node2:192.0.2.2,198.51.100.2;", "")
                + '"/></instance_attributes></primitive>\n',
            )
        ),
        "warning",
        "addresses of nodes",
        ("node2 at 198.51.100.2 (kdump2)", "update kdump2 nodename=192.0.2.2,198.51.100.2"),
    ),
    Fault(
        "a list by names, though the device has no addresses",
        lambda root: root.unset("pcmk_host_map").set("pcmk_host_list", "node1 node2 node3"),
        "warning",
        "addresses of nodes",
        ("node1 at 198.51.100.1 (kdump), node2 at 198.51.100.2", "pcmk_host_map="),
    ),
    Fault(
        "a list by names that Pacemaker skips",
        lambda root: root.unset("pcmk_host_map").set(
            "pcmk_host_list", "node1 node2 node3 variable4"
        ),
        "fails",
        "addresses of nodes",
        (
            "not known to a device: node1 (no device is for it), node2 (no device is for it), ",
            "; Pacemaker skips 'node1', 'node2', 'node3', 'variable4' of kdump in pcmk_host_list",
            f"pcs stonith update kdump pcmk_host_map='{MAP}'",
        ),
    ),
    Fault(
        "IPv6 in the map",
        _ipv6,
        "fails",
        "IPv6 in the map",
        ("Pacemaker 2.1.5 cuts", "node1, node2, node3 has no device", r"2001\:db8\:\:2;node3"),
    ),
]

FINE: dict[str, Callable[[Root], object]] = {
    "RHEL": _rhel,
    "IPv6 with backslashes": lambda root: _ipv6(
        root, V6_MAP.replace("2001:db8::", r"2001\:db8\:\:")
    ),
    "IPv6 in a newer version": lambda root: _ipv6(root).version("3.0.2"),
    "IPv6 with backslashes in a newer version": lambda root: _ipv6(
        root, V6_MAP.replace("2001:db8::", r"2001\:db8\:\:")
    ).version("3.0.2"),
    "names": _by_name,
    "its own name means 127.0.1.1": lambda root: _by_name(root).write(
        HOSTS, "127.0.1.1 node1\n192.0.2.1 node1\n192.0.2.2 node2\n192.0.2.3 node3\n"
    ),
    "the same list for all": lambda root: root.change(LIST, OTHERS, f"node1 192.0.2.1 {OTHERS}"),
    "IPv6 in another spelling": lambda root: (
        _ipv6(root).version("3.0.2").change(LIST, "2001:db8::", "2001:DB8:0::")
    ),
}


def test_a_healthy_node_has_no_faults(healthy: Root) -> None:
    found = healthy.find("nodes")
    assert {one.state for one in found} == {"ok"}, found
    assert [one.check for one in found] == ["nodes told", "addresses of nodes"]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_is_found_alone(healthy: Root, fault: Fault) -> None:
    judge(healthy, "nodes", fault)


@pytest.mark.parametrize("change", FINE.values(), ids=FINE)
def test_what_is_no_fault_is_not_complained_of(
    healthy: Root, change: Callable[[Root], object]
) -> None:
    change(healthy)
    found = healthy.find("nodes")
    assert {one.state for one in found} == {"ok"}, found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has no nodelist"),
        ("nodelist {\n node {\n ring0_addr: 192.0.2.9\n }\n}\n", "does not have this node (node1)"),
        (
            "nodelist {\n" + 2 * " node {\n  name: node1\n }\n" + "}\n",
            "has more than once this node (node1)",
        ),
        ("node { node { node {", "has no nodelist"),
        ("\0\xff", "has no nodelist"),
    ],
)
def test_a_corosync_conf_that_helps_nobody(healthy: Root, text: str, why: str) -> None:
    healthy.write(COROSYNC, text)
    found = healthy.find("nodes")
    assert {one.state for one in found} == {"unknown"}
    assert all(why in one.text for one in found), found


# ------------------------------------------------------------------ on a running system


NODES = {"node1": ("10.0.0.1", "fd00::1"), "node2": ("10.0.0.2", "fd00::2")}
LIVE_MAP = r"node1:10.0.0.1,fd00\:\:1;node2:10.0.0.2,fd00\:\:2"


class Live:
    """A node on a cable to another one, with the same configuration on a disk of its own."""

    def __init__(self, opened: Lab) -> None:
        self.host, other = opened.host("node1"), opened.host("node2")
        own, its = ([f"{a}/24", f"{b}/64"] for a, b in NODES.values())
        self.link = opened.link(self.host, other, own, its)
        self.host.run(["mount", "-t", "tmpfs", "tmpfs", "/var/lib"], check=True)
        for path in (CIB, COROSYNC, LIST):
            (self.host.root / path).parent.mkdir(parents=True, exist_ok=True)
        self.host.write_file(f"/{COROSYNC}", corosync(NODES))
        self.told("10.0.0.2 fd00::2")
        self.map(LIVE_MAP)

    def map(self, text: str) -> None:
        """Give the device this map."""
        self.host.write_file(f"/{CIB}", cib(NODES).replace(MAP, text))

    def told(self, nodes: str) -> None:
        """Give the sender this list."""
        self.host.write_file(f"/{LIST}", f'NODES="{nodes}"\n')

    def look(self) -> list[dict[str, str]]:
        """What is found there."""
        command = [sys.executable, "-m", "kdumpfence.cli", "doctor", "--json", "nodes"]
        said = self.host.run(command)
        assert said.stderr == ""
        found: list[dict[str, str]] = json.loads(said.stdout)["findings"]
        return found


@pytest.fixture
def live() -> Iterator[Live]:
    sender("native")  # or it cannot run
    with lab() as opened:
        yield Live(opened)


def test_the_addresses_that_it_sends_from_are_known(live: Live) -> None:
    found = live.look()
    assert {one["state"] for one in found} == {"ok"}, found
    assert found[-1]["text"] == "10.0.0.1, fd00::1"


def test_it_would_send_from_an_address_that_nobody_knows(live: Live) -> None:
    live.host.tool("ip", "address", "add", "10.0.0.77/24", "dev", live.link.interface(live.host))
    live.host.tool("ip", "route", "add", "10.0.0.2/32", "dev", "eth0", "src", "10.0.0.77")
    (found,) = (one for one in live.look() if one["state"] != "ok")
    assert (found["state"], found["check"]) == ("warning", "source addresses")
    assert "10.0.0.77 (kdump)" in found["text"]


def test_there_is_no_way_to_a_ring(live: Live) -> None:
    live.host.tool("ip", "route", "add", "prohibit", "10.0.0.2/32")
    (found,) = (one for one in live.look() if one["state"] != "ok")
    assert (found["state"], found["check"]) == ("warning", "way to nodes")
    assert found["text"].startswith("node '10.0.0.2' (10.0.0.2): ")


def test_a_name_that_loses_its_line_in_the_hosts_file(live: Live) -> None:
    live.host.add_name("node2", "10.0.0.2")
    live.told("node2 fd00::2")
    assert {one["state"] for one in live.look()} == {"ok"}
    live.host.write_file("/etc/hosts", "127.0.0.1 localhost\n")
    found = [one for one in live.look() if one["check"] == "names"]
    assert [one["state"] for one in found] == ["fails"]
    assert "'node2' (/etc/kdumpfence/nodes) does not resolve here" in found[0]["text"]


def test_a_fault_in_a_check_costs_no_other_check(
    healthy: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(machine: Machine) -> Iterator[Finding]:
        raise ValueError("two\nlines")
        yield

    monkeypatch.setitem(checks.PARTS, "nodes", (broken, *checks.PARTS["nodes"]))
    with Sysroot(str(healthy.folder)) as root:
        first, *others = checks.examine(Machine(root), ["nodes"])["nodes"]
    assert first.state == "unknown"
    assert first.text.startswith(f"not checked: {checks.FAULT}: ValueError: two")
    assert "\n" not in first.text
    assert {one.state for one in others} == {"ok"}

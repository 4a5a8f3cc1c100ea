# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real cluster that is configured as the healthy one of tests/doctor, for its faults.

A fault of tests/doctor changes the files of a root directory. Here the same root goes to the first
node, its Pacemaker configuration to the cluster, with the addresses that the nodes have; and what
is asked then is the doctor. kdumpfenced runs on all nodes. by_hand.py has the faults of what no
file of a root says.
"""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.doctor import test_cluster, test_nodes
from tests.doctor.cluster_root import CIB, COROSYNC, Fault, Root
from tests.system.cluster.cluster import Cluster
from tests.system.cluster.machine import Machine
from tests.system.cluster.scenarios import Kit, Outcome

#: What of tests/doctor is called otherwise here.
_HERE = {
    "192.0.2.": "10.0.0.",
    "198.51.100.": "10.1.0.",
    "fence_ipmilan": "fence_power",
}
#: Not to be replaced: a real pcs is there.
_THEIRS = ("usr/sbin/pcs",)
#: Properties of the cluster that stay: see cluster.py, and what Pacemaker writes itself.
_KEPT = ("dc-deadtime", "load-threshold", "dc-version", "cluster-infrastructure", "have-watchdog")

#: The parts that a node without a kdump of its own can be examined for.
PARTS = ("nodes", "way", "cluster", "agent")

_DAEMON = """\
networks = ["10.0.0.0/8"]
[history]
path = "/run/history.sqlite"
[control]
path = "/run/control"
"""
_START = """\
kdumpfenced --config /etc/kdumpfence/kdumpfenced.toml >/run/kdumpfenced.log 2>&1 &
echo $! >/run/kdumpfenced.pid
"""
_STOP = """\
kill $(cat /run/kdumpfenced.pid) 2>/dev/null || exit 0
while [ -d /proc/$(cat /run/kdumpfenced.pid) ]; do sleep 0.1; done
rm -f /run/control
"""

Finding = dict[str, str]
Files = dict[str, tuple[str, int]]


class Examined:
    """The cluster, the node that is examined (the first one), and what was planted there."""

    def __init__(self, cluster: Cluster) -> None:
        """Configure it as the healthy one, and wait until everything runs."""
        self.cluster = cluster
        self.node = cluster.nodes[0]
        self.took = 0.0  # seconds of the doctor's last look
        properties = ET.fromstring(cluster.run("cibadmin --query --scope crm_config"))
        self._kept = {
            pair.attrib["name"]: pair for pair in properties.iter("nvpair")
            if pair.get("name") in _KEPT
        }  # fmt: skip
        self._there: Files = {}
        self.restore()
        for node in cluster.nodes:
            self.listen(node)

    def listen(self, node: Machine, more: str = "") -> None:
        """Start kdumpfenced there anew, with more settings."""
        self.stop(node)
        node.write_file("/etc/kdumpfence/kdumpfenced.toml", f"{more}\n{_DAEMON}")
        self.cluster.run(_START, node)
        self.cluster.until(
            lambda: node.run("test -S /run/control").returncode == 0, "kdumpfenced runs", 20
        )

    @staticmethod
    def stop(node: Machine) -> None:
        """Stop kdumpfenced there, if it runs."""
        node.run(_STOP)

    def plant(self, fault: Fault) -> None:
        """Plant it; what was planted before is gone."""
        with TemporaryDirectory() as folder:
            root = Root(Path(folder))
            fault.plant(root)
            self._put(root)

    def restore(self) -> None:
        """Let it be healthy."""
        with TemporaryDirectory() as folder:
            self._put(Root(Path(folder)))

    def follow(self, remedy: str) -> None:
        """Do word for word what the doctor says, where that is a command. Raises Failed."""
        self.cluster.run(remedy, self.node)
        self._there.pop(CIB, None)
        self.cluster.run("crm_resource --wait --timeout=40s")

    def configure_again(self) -> None:
        """Configure the cluster once more, without a fault."""
        self._there.pop(CIB, None)
        self.restore()

    def _put(self, root: Root) -> None:
        files = _files(root.folder)
        for path in self._there.keys() - files.keys():
            self.node.run(f"rm -f /{path}")
        for path, (text, mode) in files.items():
            if self._there.get(path) != (text, mode):
                if path == CIB:
                    self._configure(text)
                elif path == COROSYNC:
                    self._list_nodes(text)
                else:
                    self.node.write_file(f"/{path}", text, mode=mode)
        self._there = files
        self.cluster.run("crm_resource --wait --timeout=40s")

    def _list_nodes(self, text: str) -> None:
        """Give corosync.conf of all nodes this list, which corosync does not read again."""
        for node in self.cluster.nodes:
            before = node.read_file(f"/{COROSYNC}").partition("nodelist {")[0]
            after = node.read_file(f"/{COROSYNC}").partition("\nquorum {")[2]
            nodes = "nodelist {" + text.partition("nodelist {")[2]
            node.write_file(f"/{COROSYNC}", f"{before}{nodes}\nquorum {{{after}")

    def _configure(self, text: str) -> None:
        """Give the cluster this configuration; Pacemaker's own settings stay."""
        configuration = ET.fromstring(text).find("configuration")
        assert configuration is not None
        its = configuration.find("crm_config/cluster_property_set")
        assert its is not None
        for pair in list(its):
            if pair.get("name") in self._kept:
                its.remove(pair)
        its.extend(self._kept.values())
        self.node.write_file("/root/cib.xml", ET.tostring(configuration, "unicode"))
        self.cluster.run("cibadmin --replace --scope configuration --xml-file /root/cib.xml")

    def look(self, *parts: str, node: Machine | None = None) -> list[Finding]:
        """What the doctor finds."""
        began = time.monotonic()
        words = " ".join(f"'{part}'" for part in parts or PARTS)
        said = self.cluster.attempt(f"kdumpfence doctor --json {words}", node or self.node)
        self.took = time.monotonic() - began
        found: list[Finding] = json.loads(said.stdout)["findings"]
        return found

    def wrong(self, *parts: str) -> list[Finding]:
        """What of it is not ok."""
        return [one for one in self.look(*parts) if one["state"] != "ok"]


def _files(folder: Path) -> dict[str, tuple[str, int]]:
    """The files of a root with what they are called here, and their modes."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_file() and name not in _THEIRS:
            found[name] = (here(path.read_text()), path.stat().st_mode & 0o777)
    return found


def here(text: str) -> str:
    """The text with the addresses and agents of this cluster."""
    for theirs, ours in _HERE.items():
        text = text.replace(theirs, ours)
    return text


def healthy_and_planted(cluster: Cluster, kit: Kit) -> Outcome:
    """What is found in the healthy cluster, with each of a handful of faults, and without again.

    Where the remedy is a command of pcs it is followed, and what is found then is noted as well.
    """
    outcome = Outcome("doctor", kit.agent)
    examined = Examined(cluster)
    outcome.notes["healthy"] = examined.look()
    outcome.notes["took"] = examined.took
    for fault in HANDFUL:
        examined.plant(fault)
        found = examined.wrong()
        outcome.notes[fault.name] = found
        if found and found[0]["remedy"].startswith("pcs "):
            examined.follow(found[0]["remedy"])
            outcome.notes[f"{fault.name}: remedy"] = examined.wrong()
    examined.restore()
    outcome.notes["restored"] = examined.wrong()
    return outcome


_IN_CI = (
    *("disabled", "no level", "both in one level", "power disabled", "asked again"),
    *("one at a time", "a setting for reboots", "a ring that a device does not know"),
    *("a node is missing", "another node's address"),
)
HANDFUL = [one for one in (*test_cluster.FAULTS, *test_nodes.FAULTS) if one.name in _IN_CI]

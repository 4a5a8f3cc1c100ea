# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Pacemaker cluster of several machines, and what it says about its own fencings."""

from __future__ import annotations

import calendar
import functools
import re
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.support.netlab import VMCORE, end
from tests.system.cluster.machine import Done, Machine, Site

T = TypeVar("T")
HACLUSTER = 900

# Milliseconds until corosync takes a node for lost; its own default is 1000 for two nodes, and
# 650 more for each further one. That suffices on a machine that has nothing else to do.
TOKEN = 3000

# Cluster properties as they are called from Pacemaker 3.0.2 on, and until then.
_OLDER_NAMES = {"fencing-enabled": "stonith-enabled", "fencing-timeout": "stonith-timeout"}

_COROSYNC = """\
totem {{
    version: 2
    cluster_name: site
    transport: knet
    token: {token}
    token_coefficient: 0
    crypto_cipher: none
    crypto_hash: none
}}
nodelist {{
{nodes}}}
quorum {{
    provider: corosync_votequorum
}}
logging {{
    to_syslog: no
    to_logfile: yes
    logfile: /var/log/corosync/corosync.log
}}
system {{
    sched_rr: no
    move_to_root_cgroup: no
}}
"""

# A cluster that starts would wait 20 seconds for somebody who might lead it already. And one whose
# machine is busy, as a machine with several clusters is, would do one thing at a time and fence
# two nodes one after the other, whatever concurrent-fencing says.
_CIB = """\
<cib crm_feature_set="3.4.0" validate-with="pacemaker-3.4" epoch="1" num_updates="0"
     admin_epoch="0">
  <configuration>
    <crm_config>
      <cluster_property_set id="cib-bootstrap-options">
        <nvpair id="opt-deadtime" name="dc-deadtime" value="4s"/>
        <nvpair id="opt-load" name="load-threshold" value="10000%"/>
      </cluster_property_set>
    </crm_config>
    <nodes/>
    <resources/>
    <constraints/>
  </configuration>
  <status/>
</cib>
"""

# pid 1 of a node. What systemd would do with the services, and no more.
_BOOT = """\
hostname "$1"
exec > /var/log/boot.log 2>&1
[ -L /etc/systemd/system/multi-user.target.wants/kdumpfenced.service ] && kdumpfenced &
corosync -f &
until corosync-cfgtool -s > /dev/null 2>&1; do sleep 0.1; done
pacemakerd -f &
while :; do wait; sleep 1; done
"""


# What crmsh asks of systemd, which is not here: whether the cluster runs.
_SYSTEMCTL = """\
#!/bin/sh
case "$*" in
    "is-active "*pacemaker*) exec pgrep -x pacemakerd ;;
    "is-active "*corosync*) exec pgrep -x corosync ;;
    *) exit 1 ;;
esac
"""


class Failed(Exception):
    """A command failed, or the cluster did not do in time what was expected."""


class Cluster:
    """Machines node1, node2, ... with corosync and pacemaker."""

    def __init__(self, site: Site, size: int = 3) -> None:
        """Assemble and configure them; `start` switches them on."""
        self.site = site
        self.nodes = [Machine(site, f"node{number}", number) for number in range(1, size + 1)]
        self.by_name = {node.name: node for node in self.nodes}
        self._senders: dict[str, list[subprocess.Popen[str]]] = {}
        listed = "".join(_node_section(node) for node in self.nodes)
        hosts = "127.0.0.1 localhost\n" + "".join(
            f"{node.addresses[0]} {node.name}\n" for node in self.nodes
        )
        for node in self.nodes:
            node.write_file("/etc/boot", _BOOT)
            node.write_file("/usr/bin/systemctl", _SYSTEMCTL, mode=0o755)
            node.write_file("/etc/hosts", hosts)
            node.write_file("/etc/hostname", node.name + "\n")
            node.write_file(
                "/etc/corosync/corosync.conf", _COROSYNC.format(nodes=listed, token=TOKEN)
            )
            node.write_file("/var/lib/pacemaker/cib/cib.xml", _CIB, HACLUSTER, 0o600)
            self.crash_kernel(node, loaded=True)

    def crash_kernel(self, node: Machine, loaded: bool) -> None:
        """Say in the machine's (made-up) /sys whether a crash kernel is loaded."""
        (node.disk / "sys/kernel/kexec_crash_size").write_text(f"{256 << 20}\n")
        (node.disk / "sys/kernel/kexec_crash_loaded").write_text(f"{int(loaded)}\n")

    # The nodes' life

    def start(self) -> None:
        """Switch all nodes on and wait until they are one cluster."""
        for node in self.nodes:
            node.boot()
        self.wait_online(self.nodes)

    def wait_online(self, nodes: Sequence[Machine]) -> None:
        """Wait until each of the running nodes says that these are online, and one leads."""

        def online() -> bool:
            for node in self.nodes:
                if node.runs:
                    status = self._status(node)
                    if status is None or status.find("summary/current_dc[@present='true']") is None:
                        return False
                    for other in nodes:
                        line = status.find(f"nodes/node[@name='{other.name}']")
                        if line is None or line.get("online") != "true":
                            return False
                        if line.get("pending") == "true" or line.get("unclean") == "true":
                            return False
            return True

        self.until(online, "the nodes are one cluster", 60)

    def _status(self, node: Machine) -> ET.Element | None:
        done = node.run("crm_mon --one-shot --output-as=xml 2>/dev/null")
        try:
            return ET.fromstring(done.stdout)
        except ET.ParseError:
            return None

    def status(self) -> ET.Element:
        """What crm_mon says on a node that runs."""
        found = self.until(lambda: self._status(self.survivor()), "crm_mon answers", 20)
        assert found is not None
        return found

    def survivor(self) -> Machine:
        """Return a node that runs."""
        return next(node for node in self.nodes if node.runs)

    def leader(self) -> Machine:
        """Return the designated controller."""
        found = self.status().find("summary/current_dc")
        assert found is not None
        return self.by_name[found.attrib["name"]]

    def panic(
        self, node: Machine, sender: Sequence[str] = (), rings: Sequence[int] | None = None
    ) -> None:
        """Let it panic, and its crash kernel send a second later, if there is a sender.

        Returns when it sends, or at once.
        """
        node.crash()
        moment = time.monotonic()
        if sender:
            time.sleep(max(0.0, moment + 1 - time.monotonic()))
            self.dump(node, sender, rings)

    def dump(
        self, node: Machine, sender: Sequence[str], rings: Sequence[int] | None = None
    ) -> None:
        """Be the crash kernel: network up, sender started, for every address of all others.

        And there is the memory of the kernel that crashed, which tells ours from a running node.
        """
        for ring in range(self.site.rings) if rings is None else rings:
            node.plug(ring)
        others = [a for other in self.nodes if other is not node for a in other.addresses]
        there = ("unshare", "--mount", "sh", "-ec", f'{VMCORE}exec "$0" "$@"')
        program = node.program([*there, *sender, *others])
        self._senders.setdefault(node.name, []).append(program)

    def switch_off(self, node: Machine) -> None:
        """End whatever runs on it, the crash kernel too."""
        for program in self._senders.pop(node.name, []):
            end(program)
        node.crash()

    def bring_back(self, *nodes: Machine) -> None:
        """Switch nodes on again and wait until they take part."""
        for node in nodes:
            self.switch_off(node)
            for ring in range(self.site.rings):
                node.plug(ring)
            node.boot()
        self.wait_online(self.nodes)

    # Commands

    def run(self, command: str, node: Machine | None = None) -> str:
        """Run a command on a node. Raises Failed with what it said."""
        done = self.attempt(command, node)
        if done.returncode != 0:
            raise Failed(f"`{command}` failed ({done.returncode}):\n{done.stdout}")
        return done.stdout

    def attempt(self, command: str, node: Machine | None = None) -> Done[str]:
        """Run a command that may fail."""
        return (node or self.survivor()).run(command)

    def until(self, ready: Callable[[], T], what: str, seconds: float, pause: float = 0.5) -> T:
        """Wait for something, asking every `pause` seconds; returns what it gives. Raises Failed.

        To ask costs a processor something, and there are other clusters.
        """
        end = time.monotonic() + seconds
        while True:
            found = ready()
            if isinstance(found, ET.Element) or found:
                return found
            if time.monotonic() > end:
                raise Failed(f"not in {seconds} s: {what}\n{self.attempt('crm_mon -1rf').stdout}")
            time.sleep(pause)

    @functools.cached_property
    def pacemaker(self) -> tuple[int, ...]:
        """Pacemaker's version."""
        said = self.run("pacemakerd --version")
        found = re.match(r"Pacemaker (\d+)\.(\d+)\.(\d+)", said)
        assert found is not None, said
        return tuple(int(number) for number in found.groups())

    def property(self, name: str) -> str:
        """What this Pacemaker calls a cluster property that is now called `name`."""
        return name if self.pacemaker >= (3, 0, 2) else _OLDER_NAMES.get(name, name)

    # Fencing

    def history(self, target: Machine, since: float) -> list[str]:
        """What Pacemaker itself says of each fencing of that node after time.time() `since`.

        As in "reboot: success" (or failed, or pending). It cannot be emptied for good: a node
        that comes back brings the old entries with it.
        """
        command = f"stonith_admin --history {target.name} --verbose --output-as=xml 2>/dev/null"
        try:
            events = ET.fromstring(self.attempt(command).stdout).iter("fence_event")
        except ET.ParseError:
            return []
        return [
            f"{event.get('action')}: {event.get('status')}"
            for event in events
            if not event.get("completed") or _seconds(event.attrib["completed"]) >= int(since)
        ]

    def wait_fenced(self, *targets: Machine, since: float, seconds: float = 60) -> dict[str, float]:
        """Wait until Pacemaker says that these were fenced after time.time() `since`.

        Returns the seconds from then until it said so.
        """
        took: dict[str, float] = {}

        def fenced() -> bool:
            for target in targets:
                if target.name not in took and any(
                    entry.endswith(": success") for entry in self.history(target, since)
                ):
                    took[target.name] = time.time() - since
            return len(took) == len(targets)

        self.until(fenced, f"fenced: {', '.join(t.name for t in targets)}", seconds)
        return took

    def power_calls(self, *targets: Machine, since: float) -> int:
        """How often the power device was told to switch one of these after time.time() `since`."""
        names = [target.name for target in targets]
        try:
            lines = (self.site.shared / "power.log").read_text().splitlines()
        except FileNotFoundError:
            return 0
        calls = [line.split() for line in lines]  # moment, caller, action, target
        return sum(target in names and float(moment) >= since for moment, _, _, target in calls)

    def log(self, node: Machine) -> str:
        """What Pacemaker wrote on that node, since ever."""
        return node.read_file("/var/log/pacemaker/pacemaker.log")

    def where(self, resource: str) -> str:
        """The node on which a resource runs, or nothing."""
        found = self.status().find(f"resources//resource[@id='{resource}'][@role='Started']/node")
        return "" if found is None else found.attrib["name"]


def _node_section(node: Machine) -> str:
    lines = [f"ring{ring}_addr: {address}" for ring, address in enumerate(node.addresses)]
    lines += [f"name: {node.name}", f"nodeid: {node.number}"]
    return "    node {\n" + "".join(f"        {line}\n" for line in lines) + "    }\n"


def _seconds(moment: str) -> float:
    """From Pacemaker's way to write a moment to time.time()'s whole seconds.

    As in 2026-11-22 16:05:22Z, or from 3.0 on 2026-11-22 16:05:22.123456Z.
    """
    return float(calendar.timegm(time.strptime(moment[:19], "%Y-%m-%d %H:%M:%S")))

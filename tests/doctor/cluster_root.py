# SPDX-License-Identifier: LGPL-2.1-or-later
"""A root directory of one node of a healthy cluster, and faults that are planted there.

Three nodes on two networks, configured by pcs as docs/operations.md says in section 4; this is
node1. A `Fault` changes files, and says what has to be found then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kdumpfence._version import __version__
from kdumpfence.doctor import checks
from kdumpfence.doctor.finding import Finding
from kdumpfence.doctor.machine import Machine
from kdumpfence.install import layouts
from kdumpfence.install.agent_files import TEMPLATE
from kdumpfence.install.sysroot import Sysroot

NODES = {f"node{number}": (f"192.0.2.{number}", f"198.51.100.{number}") for number in (1, 2, 3)}
OTHERS = " ".join(address for name, both in NODES.items() if name != "node1" for address in both)
MAP = ";".join(f"{name}:{','.join(both)}" for name, both in NODES.items())

CIB = "var/lib/pacemaker/cib/cib.xml"
COROSYNC = "etc/corosync/corosync.conf"
LIST = "etc/kdumpfence/nodes"
HOSTS = "etc/hosts"
AGENT, FOLDER = "usr/sbin/fence_kdump", "usr/lib/kdumpfence/modules/kdumpfence"

KDUMP = f"""\
      <primitive id="kdump" class="stonith" type="fence_kdump">
        <instance_attributes id="kdump-instance_attributes">
          <nvpair id="kdump-map" name="pcmk_host_map" value="{MAP}"/>
          <nvpair id="kdump-limit" name="pcmk_action_limit" value="-1"/>
          <nvpair id="kdump-retries" name="pcmk_off_retries" value="1"/>
          <nvpair id="kdump-off" name="pcmk_off_timeout" value="60s"/>
          <nvpair id="kdump-timeout" name="timeout" value="50"/>
        </instance_attributes>
        <operations>
          <op name="monitor" interval="60s" id="kdump-monitor-interval-60s"/>
        </operations>
      </primitive>
"""


def power(node: str) -> str:
    """A device that cuts the power of one node."""
    return f"""\
      <primitive id="power-{node}" class="stonith" type="fence_ipmilan">
        <instance_attributes id="power-{node}-instance_attributes">
          <nvpair id="power-{node}-ip" name="ip" value="203.0.113.{node[-1]}"/>
          <nvpair id="power-{node}-hosts" name="pcmk_host_list" value="{node}"/>
        </instance_attributes>
      </primitive>
"""


def level(number: int, node: str, devices: str) -> str:
    """A line of the fencing topology."""
    ident = f"fl-{node}-{number}"
    where = f'id="{ident}" target="{node}" index="{number}"'
    return f'      <fencing-level {where} devices="{devices}"/>\n'


def cib(nodes: Iterable[str] = NODES) -> str:
    """The configuration."""
    nodes = list(nodes)
    members = "".join(f'      <node id="{name[4:]}" uname="{name}"/>\n' for name in nodes)
    levels = "".join(level(1, name, "kdump") + level(2, name, f"power-{name}") for name in nodes)
    return f"""\
<cib crm_feature_set="3.16.2" validate-with="pacemaker-3.9" epoch="20" num_updates="0" \
admin_epoch="0">
  <configuration>
    <crm_config>
      <cluster_property_set id="cib-bootstrap-options">
        <nvpair id="cib-dc" name="dc-version" value="2.1.5-a3f44794f94"/>
        <nvpair id="cib-concurrent" name="concurrent-fencing" value="true"/>
        <nvpair id="cib-enabled" name="stonith-enabled" value="true"/>
      </cluster_property_set>
    </crm_config>
    <nodes>
{members}    </nodes>
    <resources>
{KDUMP}{"".join(map(power, nodes))}    </resources>
    <constraints/>
    <fencing-topology>
{levels}    </fencing-topology>
  </configuration>
  <status/>
</cib>
"""


def corosync(nodes: Mapping[str, Sequence[str]] = NODES) -> str:
    """corosync.conf."""
    blocks = ""
    for number, (name, addresses) in enumerate(nodes.items(), 1):
        rings = "".join(f"        ring{ring}_addr: {one}\n" for ring, one in enumerate(addresses))
        blocks += f"    node {{\n{rings}        name: {name}\n        nodeid: {number}\n    }}\n"
    return f"totem {{\n    version: 2\n    cluster_name: site\n}}\nnodelist {{\n{blocks}}}\n"


def files() -> dict[str, str]:
    """All files of the healthy root, by their paths in it."""
    hosts = "".join(f"{both[0]} {name}\n" for name, both in NODES.items())
    return {
        "etc/os-release": "ID=debian\n",
        "etc/hostname": "node1\n",
        HOSTS: "127.0.0.1 localhost\n" + hosts,
        COROSYNC: corosync(),
        CIB: cib(),
        LIST: f'NODES="{OTHERS}"\nARGS=""\n',
        "usr/sbin/pcs": "#!/bin/sh\n",
    }


class Root:
    """The root, to plant faults in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for path, text in files().items():
            self.write(path, text)

    def write(self, path: str, text: str) -> Root:
        """Put a file there."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)
        return self

    def remove(self, path: str) -> Root:
        """Remove a file."""
        (self.folder / path).unlink()
        return self

    def change(self, path: str, old: str, new: str) -> Root:
        """Replace a text wherever it stands in a file; it has to be there."""
        text = (self.folder / path).read_text()
        assert old in text
        return self.write(path, text.replace(old, new))

    def set(self, name: str, value: str) -> Root:
        """Give the kdump device another value of that parameter, or one more parameter."""
        text = (self.folder / CIB).read_text()
        text = re.sub(rf'\n *<nvpair id="kdump-[a-z]*" name="{name}" .*', "", text)
        pair = f'<nvpair id="kdump-x-{name}" name="{name}" value="{value}"/>'
        start = '<instance_attributes id="kdump-instance_attributes">'
        return self.write(CIB, text.replace(start, start + "\n          " + pair))

    def unset(self, name: str) -> Root:
        """Take a parameter of the kdump device away."""
        text = (self.folder / CIB).read_text()
        without = re.sub(rf'\n *<nvpair id="kdump-[a-z]*" name="{name}" .*', "", text)
        assert without != text
        return self.write(CIB, without)

    def version(self, version: str) -> Root:
        """Let another Pacemaker have written the configuration."""
        return self.change(CIB, "2.1.5-a3f44794f94", version)

    def find(self, part: str) -> list[Finding]:
        """What the checks of a part find here."""
        with Sysroot(str(self.folder)) as opened:
            found = checks.examine(Machine(opened), [part])[part]
        assert not [one for one in found if checks.FAULT in one.text]
        return found


def with_agent(folder: Path) -> Root:
    """A root with this project's agent, as its Debian package has it."""
    root = Root(folder)
    root.write(AGENT, layouts.data(TEMPLATE).decode())
    root.write(f"{FOLDER}/_version.py", f'__version__ = "{__version__}"\n')
    return root.write(f"{FOLDER}/_kdumpwire.cpython-313-x86_64-linux-gnu.so", "")


class Fault(NamedTuple):
    """Something that is wrong, and the finding that says so."""

    name: str
    plant: Callable[[Root], object]
    state: str
    check: str
    words: tuple[str, ...]  #: in its text or its remedy


def judge(root: Root, part: str, fault: Fault) -> None:
    """The fault is found, with the state and the words, and nothing else is complained of."""
    fault.plant(root)
    found = [one for one in root.find(part) if one.state != "ok"]
    assert [(one.state, one.check) for one in found] == [(fault.state, fault.check)], found
    (finding,) = found
    missing = [word for word in fault.words if word not in f"{finding.text}\n{finding.remedy}"]
    assert not missing, (missing, finding)
    assert finding.remedy or finding.state == "unknown"

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pacemaker's configuration, read once: from the running cluster, else from its file.

What is wrong with it is not said here. Element and attribute names are those of Pacemaker's schema
(xml/*.rng in its source), which have been the same since 1.1. Of what a rule makes depend on the
moment, nothing counts.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from weakref import WeakKeyDictionary

from kdumpfence.doctor.device import NEW_NAMES, Device
from kdumpfence.doctor.finding import Unknown
from kdumpfence.doctor.machine import Machine
from kdumpfence.doctor.shell import Shell
from kdumpfence.doctor.topology import Level, Topology

FILE = "/var/lib/pacemaker/cib/cib.xml"
_NEWER = {f"stonith-{one}": f"fencing-{one}" for one in ("action", "enabled", "timeout")}

_UNITS = {
    **dict.fromkeys(("ms", "msec"), 0.001),
    **dict.fromkeys(("us", "usec"), 0.000001),
    **dict.fromkeys(("", "s", "sec"), 1.0),
    **dict.fromkeys(("m", "min"), 60.0),
    **dict.fromkeys(("h", "hr"), 3600.0),
}
_TRUE = ("true", "on", "yes", "y", "1")

#: Bytes of a configuration at most.
_MOST = 1 << 26


def seconds(text: str) -> float | None:
    """A time as Pacemaker reads it, "60s" or "1min"; None if it is none."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _UNITS:
        return None
    return int(match[1]) * _UNITS[match[2]]


def is_true(text: str) -> bool:
    """A boolean as Pacemaker reads it."""
    return text.lower() in _TRUE


class Cib:
    """What of the configuration matters to fencing. `shell` writes commands that change it.

    `root` is the element as Pacemaker has it.
    """

    def __init__(self, root: ET.Element, version: tuple[int, ...], shell: Shell) -> None:
        self.version = version
        self.shell = shell
        self.root = root
        self._by_id = {one.get("id"): one for one in root.iter() if one.get("id")}
        self.properties = self.pairs(root.findall("configuration/crm_config/cluster_property_set"))
        self._defaults = self.pairs(root.findall("configuration/rsc_defaults/meta_attributes"))
        self.devices = {one.name: one for one in self._devices()}
        self.topology = Topology(root)
        nodes = root.iterfind("configuration/nodes/node")
        #: The nodes that Pacemaker knows.
        self.nodes = [name for one in nodes if (name := one.get("uname"))]

    @property
    def kdump(self) -> list[Device]:
        """The devices of fence_kdump."""
        return [one for one in self.devices.values() if one.is_kdump]

    def called(self, older: str) -> str:
        """What this Pacemaker calls the property that was called so before 3.0.2."""
        return _NEWER.get(older, older) if self.version >= NEW_NAMES else older

    def property_of(self, older: str) -> str | None:
        """The value that counts of a property, by the name that it had before 3.0.2."""
        return self.properties.get(self.called(older), self.properties.get(older))

    def without_effect(self) -> list[str]:
        """Properties by names that this Pacemaker does not have yet."""
        if self.version >= NEW_NAMES:
            return []
        return [name for name in _NEWER.values() if name in self.properties]

    def levels(self, node: str) -> tuple[Level, ...]:
        """The levels of this node's topology, the first one first.

        If those of several targets may count, of the first one. Raises Unknown.
        """
        return next((one.levels for one in self.topology.targets(node)), ())

    def pairs(self, sets: list[ET.Element]) -> dict[str, str]:
        """Names and values, of which the first one of a name counts."""
        found: dict[str, str] = {}
        for given in sets:
            one = self._by_id.get(given.get("id-ref"), given)
            if one.find("rule") is None:
                for pair in one.findall("nvpair"):
                    its = self._by_id.get(pair.get("id-ref"), pair)
                    found.setdefault(its.get("name", ""), its.get("value", ""))
        return found

    def _devices(self) -> Iterator[Device]:
        for one, sets in self.primitives():
            if sets[-1].get("class") == "stonith":
                meta = self.pairs([s for of in sets for s in of.findall("meta_attributes")])
                role = meta.get("target-role", self._defaults.get("target-role", ""))
                agent, parameters = sets[-1].get("type", ""), self.parameters(sets)
                yield Device(one.get("id", ""), agent, parameters, role.lower() == "stopped")

    def primitives(self) -> Iterator[tuple[ET.Element, list[ET.Element]]]:
        """Each resource, and where its settings are: itself, and its template if it has one."""
        templates = {
            one.get("id"): one for one in self.root.findall("configuration/resources/template")
        }
        for one in self.root.iterfind("configuration/resources//primitive"):
            template = templates.get(one.get("template", "\0"))
            yield one, [one] if template is None else [one, template]

    def parameters(self, sets: list[ET.Element]) -> dict[str, str]:
        """What the sets of parameters say that are in these elements."""
        return self.pairs([s for of in sets for s in of.findall("instance_attributes")])


_read: WeakKeyDictionary[Machine, Cib | Unknown] = WeakKeyDictionary()


def read(machine: Machine) -> Cib:
    """The configuration, read once a machine. Raises Unknown."""
    found = _read.get(machine)
    if found is None:
        try:
            found = _parse(machine, _text(machine))
        except Unknown as error:
            found = error
        _read[machine] = found
    if isinstance(found, Unknown):
        raise found
    return found


def _text(machine: Machine) -> str:
    if machine.runs:
        try:
            said = machine.ask("cibadmin", "--query")
        except Unknown:
            said = None
        if said is not None and said.returncode == 0:
            return said.stdout
    text = machine.read(FILE)
    if text is None:
        raise Unknown(f"no configuration of Pacemaker ({machine.root.outside(FILE)})")
    return text


def _parse(machine: Machine, text: str) -> Cib:
    # Entities could make a small file a large one; Pacemaker writes none.
    if len(text) > _MOST or "<!" in text:
        raise Unknown(f"{machine.root.outside(FILE)}: not what Pacemaker writes")
    try:
        root = ET.fromstring(text.encode(errors="replace"))  # noqa: S314
    except (ET.ParseError, ValueError) as error:
        raise Unknown(f"{machine.root.outside(FILE)}: {error}") from None
    if root.tag != "cib":
        raise Unknown(f"{machine.root.outside(FILE)}: not a configuration of Pacemaker")
    version = _running_version(machine) or _written_version(root)
    return Cib(root, version, Shell(machine))


def _running_version(machine: Machine) -> tuple[int, ...]:
    try:
        return _numbers(machine.ask("pacemakerd", "--version").stdout)
    except Unknown:
        return ()


def _written_version(root: ET.Element) -> tuple[int, ...]:
    """The version that wrote it: it says so, or what it writes that others do not."""
    for pair in root.iterfind("configuration/crm_config/cluster_property_set/nvpair"):
        if pair.get("name") == "dc-version" and _numbers(pair.get("value", "")):
            return _numbers(pair.get("value", ""))
    if any(pair.get("name") in _NEWER.values() for pair in root.iter("nvpair")):
        return NEW_NAMES
    features = _numbers(root.get("crm_feature_set", ""))
    return (3, 0, 0) if features >= (3, 20, 0) else (2, 1, 0)


def _numbers(text: str) -> tuple[int, ...]:
    found = re.search(r"\b([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})", text)
    return tuple(map(int, found.groups())) if found else ()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The fencing levels of a node, as Pacemaker's fencer finds them.

The fencer keeps levels in a hash table, by what they are for: a name, a pattern or NAME=VALUE of
an attribute. Of all entries that match a node it takes the levels of one: of that under the node's
very name; else of the first that its table happens to have. Seen in 2.1.5, 3.0.0 and 3.0.3; in
their source: find_topology_for_host, fencing_topology_init, node_has_attr.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import NamedTuple

from kdumpfence.doctor.finding import Unknown
from kdumpfence.text import shown

#: The last level; Pacemaker ignores those beyond.
LAST = 9

#: Quantifiers in a pattern for nodes, so that no pattern takes for ever.
_MOST_QUANTIFIERS = 4

#: What POSIX has in brackets and Python does not.
_CLASSES = {
    "[:digit:]": "0-9",
    "[:lower:]": "a-z",
    "[:upper:]": "A-Z",
    "[:alpha:]": "a-zA-Z",
    "[:alnum:]": "a-zA-Z0-9",
}


class Level(NamedTuple):
    """One level of a fencing topology."""

    number: int
    devices: tuple[str, ...]


class Target:
    """What levels are for, and these levels."""

    def __init__(self, key: str) -> None:
        self.key = key
        #: "name", "pattern" or "attribute". The first one counts, should the others read the same.
        self.kinds: list[str] = []
        self._given: list[Level] = []

    def __str__(self) -> str:
        return f"{self.kinds[0]} {shown(self.key)}"

    def add(self, kind: str, level: Level) -> None:
        """One more level; its number may have been given before."""
        if kind not in self.kinds:
            self.kinds.append(kind)
        self._given.append(level)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The first one first. Of those with the same number Pacemaker takes the last one alone."""
        last = {one.number: one for one in self._given}
        return tuple(last[number] for number in sorted(last))

    @property
    def together(self) -> tuple[Level, ...]:
        """The same, with all devices of a number that was given twice, as somebody meant it."""
        devices: dict[int, tuple[str, ...]] = {}
        for one in self._given:
            both = devices.get(one.number, ()) + one.devices
            devices[one.number] = tuple(dict.fromkeys(both))
        return tuple(Level(number, devices[number]) for number in sorted(devices))

    @property
    def twice(self) -> list[int]:
        """Numbers that were given more than once."""
        numbers = [one.number for one in self._given]
        return sorted({one for one in numbers if numbers.count(one) > 1})


class Topology:
    """All fencing levels of a configuration."""

    def __init__(self, root: ET.Element) -> None:
        self._targets: dict[str, Target] = {}
        self._beyond: dict[str, list[Level]] = {}
        for element in root.iterfind("configuration/fencing-topology/fencing-level"):
            self._add(element)
        # As the fencer looks for them: any of several values, and none that only id-ref names.
        self._attributes = {
            node.get("uname", ""): {
                f"{one.get('name')}={one.get('value')}"
                for one in node.iterfind("instance_attributes/nvpair")
            }
            for node in root.iterfind("configuration/nodes/node")
        }

    def _add(self, element: ET.Element) -> None:
        if "target" in element.attrib:
            kind, key = "name", element.get("target", "")
        elif "target-pattern" in element.attrib:
            kind, key = "pattern", element.get("target-pattern", "")
        elif {"target-attribute", "target-value"} <= element.attrib.keys():
            kind = "attribute"
            key = f"{element.get('target-attribute')}={element.get('target-value')}"
        else:
            return
        index = element.get("index", "")
        if not index.isascii() or not index.isdigit() or len(index) > 8:
            return
        level = Level(int(index), tuple(filter(None, element.get("devices", "").split(","))))
        if 0 < level.number <= LAST:
            self._targets.setdefault(key, Target(key)).add(kind, level)
        else:
            self._beyond.setdefault(key, []).append(level)

    def targets(self, node: str) -> list[Target]:
        """Those of which one has the levels that the node is fenced by. Raises Unknown."""
        its_own = self.own(node)
        if its_own is not None:
            return [its_own]
        return [one for one in self._targets.values() if self._matches(one, node)]

    def own(self, node: str) -> Target | None:
        """The levels under the node's very name: if there are some, no others count."""
        return self._targets.get(node)

    def beyond(self, node: str) -> list[Level]:
        """Levels under the node's very name that are ignored for their numbers."""
        return self._beyond.get(node, [])

    def passed_over(self, node: str) -> list[Target]:
        """Those that match the node too, and do not count beside those under its name."""
        found = []
        for one in self._targets.values():
            try:
                if node in self._targets and one.key != node and self._matches(one, node):
                    found.append(one)
            except Unknown:
                pass  # it does not count anyway
        return found

    def certain(self, node: str) -> bool:
        """Whether it is known which levels Pacemaker takes. Raises Unknown."""
        return len({one.levels for one in self.targets(node)}) < 2

    def _matches(self, target: Target, node: str) -> bool:
        if target.kinds[0] == "name":
            return target.key.lower() == node.lower()
        if target.kinds[0] == "pattern":
            return _matched(target.key, node)
        return target.key in self._attributes.get(node, ())


def _matched(pattern: str, node: str) -> bool:
    """Whether a name has a part that this extended regular expression of POSIX describes.

    Raises Unknown for what would take too long, or means something else to Python.
    """
    quantifiers = len(re.findall(r"[*+?{]", pattern))
    if len(pattern) > 1000 or quantifiers > _MOST_QUANTIFIERS or re.search(r"\)[*+?{]", pattern):
        raise Unknown(f"target-pattern {shown(pattern)} of a fencing level is too complicated")
    ours = pattern
    for name, characters in _CLASSES.items():
        ours = ours.replace(name, characters)
    foreign = r"\[[\[:.=]|\\[^].[{}()*+?^$|\\/-]|\[[^]]*\\|\(\?|[*+?}][*+?{]|--|&&|~~|\|\|"
    try:
        if re.search(foreign, ours) is None:
            return re.search(ours, node) is not None
    except re.error:
        pass
    raise Unknown(f"target-pattern {shown(pattern)} of a fencing level")

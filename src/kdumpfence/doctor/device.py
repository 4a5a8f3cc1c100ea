# SPDX-License-Identifier: LGPL-2.1-or-later
"""A fencing device as Pacemaker has it configured, and the nodes that it is for."""

from __future__ import annotations

import re
from typing import NamedTuple

KDUMP = "fence_kdump"

#: From here on properties are called fencing-*, and a colon in pcmk_host_map means one thing.
NEW_NAMES = (3, 0, 2)


class Device(NamedTuple):
    """A fencing device."""

    name: str
    agent: str
    parameters: dict[str, str]
    stopped: bool  #: whether somebody disabled it

    @property
    def is_kdump(self) -> bool:
        """Whether it switches nothing off, but asks whether a node dumps."""
        return self.agent == KDUMP

    def hosts(self, version: tuple[int, ...]) -> dict[str, str] | None:
        """The nodes that it knows, and what it calls each; None if it takes any."""
        listed = re.split(r"[ \t,;]+", self.parameters.get("pcmk_host_list", ""))
        found = {name: name for name in listed if name}
        found.update(host_map(self.parameters.get("pcmk_host_map", ""), version))
        anyone = self.parameters.get("pcmk_host_check", "").lower() == "none"
        return None if anyone or not found else found

    def calls(self, node: str, version: tuple[int, ...]) -> str | None:
        """What it calls this node; None if it does not know it."""
        hosts = self.hosts(version)
        if hosts is None:
            return node
        return next((its for name, its in hosts.items() if name.lower() == node.lower()), None)


def host_map(text: str, version: tuple[int, ...]) -> dict[str, str]:
    """pcmk_host_map as this Pacemaker takes it apart (build_port_aliases of its fenced).

    Before 3.0.2 each colon that no backslash protects begins another value.
    """
    found: dict[str, str] = {}
    if version >= NEW_NAMES:
        for entry in re.split(r"[ \t;]+", text):
            name, separator, value = re.match(r"([^=:]*)([=:]?)(.*)", entry, re.DOTALL).groups()  # type: ignore[union-attr]
            if name and separator and value:
                found[name] = value
        return found
    for entry in re.findall(r"(?:\\.|[^; \t\\]|\\$)+", text, re.DOTALL):
        *names, value = re.split(r"(?<!\\)[=:]", entry)
        name = next((one for one in reversed(names) if one), "")
        if name and value:
            found[name] = re.sub(r"\\(.)", r"\1", value)
    return found

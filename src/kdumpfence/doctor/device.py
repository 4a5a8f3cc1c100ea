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

    def aliases(self, version: tuple[int, ...]) -> dict[str, str]:
        """What it calls the nodes of its pcmk_host_map."""
        return host_map(self.parameters.get("pcmk_host_map", ""), version)

    @property
    def skipped(self) -> list[str]:
        """Words of its pcmk_host_list that are no node for Pacemaker, or another one."""
        given = self.parameters.get("pcmk_host_list", "")
        taken = host_list(given)
        return [word for word in _words(given) if word not in taken]

    def calls(self, node: str, version: tuple[int, ...]) -> str | None:
        """What it calls this node; None if it is not for it (can_fence_host_with_device)."""
        aliases = self.aliases(version)
        its = next((its for name, its in aliases.items() if name.lower() == node.lower()), None)
        listed = host_list(self.parameters.get("pcmk_host_list", ""))
        has_list = not {"pcmk_host_list", "pcmk_host_map"}.isdisjoint(self.parameters)
        check = self.parameters.get("pcmk_host_check", "static-list" if has_list else "none")
        if check.lower() != "static-list":
            return its or node  # any node, or the device itself is asked
        known = {name.lower() for name in (*listed, *aliases.values())}
        return its or (node if node.lower() in known else None)


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[ \t-\r,;]+|\\n", text) if word]


def host_list(text: str) -> list[str]:
    """The nodes of pcmk_host_list, as Pacemaker reads them (stonith__parse_targets).

    It has one reader for that and for what agents print for the action `list`, which leaves out
    their complaints.
    """
    found = []
    for line in re.split(r"\n|\\n", text):
        if "invalid" in line or "variable" in line:
            continue
        for word in _words(line):
            name = re.match(r"[a-zA-Z0-9_.-]*", word)[0]  # type: ignore[index]
            if name and name.lower() not in ("on", "off"):
                found.append(name)
    return found


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

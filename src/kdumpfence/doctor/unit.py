# SPDX-License-Identifier: LGPL-2.1-or-later
"""Settings of a systemd unit, out of its file and drop-ins, as systemd.unit(5) merges them."""

from __future__ import annotations

import re
from typing import NamedTuple

from kdumpfence.doctor.machine import Machine

#: Where units are, the most important folder first.
_FOLDERS = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


class Setting(NamedTuple):
    """One line of it."""

    name: str
    value: str
    path: str  #: of the file that has it


def settings(machine: Machine, unit: str) -> list[Setting]:
    """All lines of its section [Service], in the order in which they count; none without a unit."""
    path = next((f"{one}/{unit}" for one in _FOLDERS if machine.exists(f"{one}/{unit}")), "")
    if not path:
        return []
    found = _lines(machine, path)
    for drop_in in _drop_ins(machine, unit):
        found += _lines(machine, drop_in)
    return found


def _drop_ins(machine: Machine, unit: str) -> list[str]:
    """The drop-ins, in the order of their names; of one name the most important one."""
    found: dict[str, str] = {}
    kind = unit.rpartition(".")[2]
    for name in (f"{unit}.d", f"{kind}.d"):
        for folder in _FOLDERS:
            for one in machine.names(f"{folder}/{name}"):
                if one.endswith(".conf"):
                    found.setdefault(one, f"{folder}/{name}/{one}")
    return [found[one] for one in sorted(found)]


def _lines(machine: Machine, path: str) -> list[Setting]:
    found = []
    section = ""
    text = re.sub(r"\\\n(?:[ \t]*[#;].*\n)*", " ", machine.read(path) or "")
    for line in map(str.strip, text.split("\n")):
        if re.fullmatch(r"\[.*\]", line):
            section = line
        elif section == "[Service]" and line[:1] not in ("#", ";") and "=" in line:
            name, _, value = line.partition("=")
            found.append(Setting(name.strip(), value.strip(), path))
    return found

# SPDX-License-Identifier: GPL-2.0-or-later
"""What was run on which suite of Debian, and the table of it in docs/systems.md.

docs/systems.json keeps the last record of each suite; tools/suite.py adds to it.
"""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from tools import markedtable

PAGE = markedtable.ROOT / "docs" / "systems.md"
STORE = PAGE.with_suffix(".json")

#: Suites, as apt names them, and what people call them. The first are tried by CI.
SUITES = {
    "bookworm": "Debian 12",
    "trixie": "Debian 13",
    "testing": "testing",
    "unstable": "unstable",
}

#: What is tried, in folders of tests/.
PARTS = {
    "unit": ("core", "shared", "agent", "sender", "listener", "storm", "daemon", "cli"),
    "interop": ("interop",),
    "packages": ("packages", "building"),
    "install": ("install",),
    "crash": ("system/crash",),
    "cluster": ("system/cluster",),
}
TITLES = {
    "unit": "unit tests",
    "interop": "interoperation with the stock pair",
    "packages": "packages",
    "install": "installation of agent and sender",
    "crash": "real panics",
    "cluster": "real clusters",
}

#: Packages whose versions say what a suite is.
PACKAGES = (
    *("pacemaker", "corosync", "pcs", "crmsh", "fence-agents", "linux-image-cloud-amd64"),
    *("kdump-tools", "dracut-core", "initramfs-tools-core", "systemd", "libc6", "gcc", "python3"),
)


@dataclasses.dataclass
class Part:
    """How the tests of one part ended, and what they measured: name and text."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    measured: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        said = f"{self.passed} passed"
        said += f", **{self.failed} failed**" if self.failed else ""
        return said + (f", {self.skipped} skipped" if self.skipped else "")


@dataclasses.dataclass
class Record:
    """One run on a suite."""

    date: str
    versions: dict[str, str]
    parts: dict[str, Part]

    @property
    def good(self) -> bool:
        return all(not part.failed and part.passed for part in self.parts.values())

    def summary(self, suite: str) -> str:
        """What to say at the end of it."""
        lines = [f"{suite}: {name}: {part}" for name, part in self.parts.items()]
        return "\n".join(lines)


def read(report: Path, parts: dict[str, Part]) -> None:
    """Add what such a report of pytest (JUnit's XML) says to the parts."""
    for case in ET.parse(report).getroot().iter("testcase"):
        module = case.attrib["classname"].split(".")
        folder = "/".join(module[1 : 3 if module[1] == "system" else 2])
        name = next(name for name, folders in PARTS.items() if folder in folders)
        part = parts.setdefault(name, Part())
        part.seconds += float(case.attrib["time"])
        if case.find("failure") is not None or case.find("error") is not None:
            part.failed += 1
        elif case.find("skipped") is not None:
            part.skipped += 1
        else:
            part.passed += 1
        for told in case.iter("property"):
            part.measured[told.attrib["name"]] = told.attrib["value"]


def write(suite: str, record: Record) -> None:
    """Keep the record, and write the table anew."""
    known: dict[str, Any] = json.loads(STORE.read_text()) if STORE.exists() else {}
    known[suite] = dataclasses.asdict(record)
    STORE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    markedtable.put(PAGE, "systems", table({name: _record(known[name]) for name in known}))


def _record(stored: dict[str, Any]) -> Record:
    parts = {name: Part(**part) for name, part in stored["parts"].items()}
    return Record(stored["date"], stored["versions"], parts)


def table(records: dict[str, Record]) -> str:
    """A column a suite: versions, what was run, what it measured."""
    suites = [suite for suite in SUITES if suite in records]
    rows = [
        ["", *(SUITES[suite] for suite in suites)],
        ["---"] * (1 + len(suites)),
        ["run on", *(records[suite].date for suite in suites)],
    ]
    for package in PACKAGES:
        versions = (records[suite].versions.get(package, "") for suite in suites)
        rows.append([package, *versions])
    for name, title in TITLES.items():
        parts = [records[suite].parts.get(name, Part()) for suite in suites]
        rows.append([f"**{title}**", *map(str, parts)])
        measured = dict.fromkeys(key for part in parts for key in part.measured)
        rows += [[key, *(part.measured.get(key, "") for part in parts)] for key in measured]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)

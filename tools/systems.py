# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was run on which suite of Debian, and the table of it in docs/systems.md.

    python -m tools.systems       puts there what the last `make test` of this checkout found

on this machine's own suite, and on others. docs/systems.json keeps the last record of each suite.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

from tools import markedtable

PAGE = markedtable.ROOT / "docs" / "systems.md"
STORE = PAGE.with_suffix(".json")
#: The same of what was tried in this checkout.
FRESH = markedtable.ROOT / "build" / "systems.json"
#: What `make test` lets pytest write of this machine.
OWN_REPORTS = tuple(
    markedtable.ROOT / "build" / f"{turn}.xml" for turn in ("together", "cluster", "alone")
)

#: Suites, as apt names them, and what people call them. The first are tried by CI.
SUITES = {
    "bookworm": "Debian 12",
    "trixie": "Debian 13",
    "testing": "testing",
    "unstable": "unstable",
}

#: What is tried, in folders of tests/.
PARTS = {
    "unit": ("core", "shared", "agent", "sender", "listener", "storm", "daemon", "database", "cli"),
    "pythons": (),  # the unit tests once more, on each of the suite's Pythons
    "interop": ("interop",),
    "packages": ("packages",),
    "building": ("building",),
    "install": ("install",),
    "doctor": ("doctor",),
    "crash": ("system/crash",),
    "cluster": ("system/cluster",),
}
TITLES = {
    "unit": "unit tests",
    "pythons": "unit tests on each of its Pythons",
    "interop": "interoperation with the stock pair",
    "packages": "packages",
    "building": "wheels, sdist, switches of the build",
    "install": "installation of agent and sender",
    "doctor": "the doctor's planted faults",
    "crash": "real panics",
    "cluster": "real clusters",
}

#: Whose tests tell the table what they measured.
MEASURING = ("crash", "cluster")

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
    """Add what such a report of pytest (JUnit's XML) says to the parts.

    In a folder named for a Python (3.15.0) it is about that one.
    """
    python = re.fullmatch(r"(3\.\d+).*", report.parent.name)
    for case in ET.parse(report).getroot().iter("testcase"):
        module = case.attrib["classname"].split(".")
        folder = "/".join(module[1 : 3 if module[1] == "system" else 2])
        name = next((name for name, folders in PARTS.items() if folder in folders), "")
        name = "pythons" if python else name
        if not name:
            continue
        part = parts.setdefault(name, Part())
        part.seconds += float(case.attrib["time"])
        if case.find("failure") is not None or case.find("error") is not None:
            part.failed += 1
        elif case.find("skipped") is not None:
            part.skipped += 1
        else:
            part.passed += 1
        if python:
            part.measured[f"Python {python[1]}"] = python[0]
        for told in case.iter("property") if name in MEASURING else ():
            part.measured[told.attrib["name"]] = told.attrib["value"]


def record_of(reports: Iterable[Path], packages: str) -> Record:
    """Make a record of these reports, and of what `apt-cache show` says of PACKAGES."""
    parts: dict[str, Part] = {}
    for report in reports:
        read(report, parts)
    fields = re.findall(r"^(Package|Version): (.+)$", packages, re.M)
    versions = {package: version for (_, package), (_, version) in zip(fields[::2], fields[1::2])}
    ran = {name: parts[name] for name in PARTS if name in parts}
    return Record(datetime.date.today().isoformat(), versions, ran)


def load(store: Path) -> dict[str, Record]:
    """The records kept in a file, by suite."""
    stored = json.loads(store.read_text()) if store.exists() else {}
    return {
        suite: Record(
            fields["date"],
            fields["versions"],
            {name: Part(**part) for name, part in fields["parts"].items()},
        )
        for suite, fields in stored.items()
    }


def save(store: Path, records: dict[str, Record]) -> None:
    """Keep records in a file, beside those of other suites, and of other parts on the same day."""
    kept = load(store)
    for suite, record in records.items():
        older, kept[suite] = kept.get(suite), record
        if older and (older.date, older.versions) == (record.date, record.versions):
            parts = {**older.parts, **record.parts}
            kept[suite] = dataclasses.replace(record, parts=parts)
    store.parent.mkdir(parents=True, exist_ok=True)
    plain = {suite: dataclasses.asdict(record) for suite, record in kept.items()}
    store.write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n")


def write(records: dict[str, Record]) -> int:
    """Keep records for good, and write the table anew; the exit status."""
    save(STORE, records)
    return markedtable.put(PAGE, "systems", table(load(STORE)))


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
        if not any(name in records[suite].parts for suite in suites):
            continue  # a part that is newer than all records
        parts = [records[suite].parts.get(name) or Part() for suite in suites]
        rows.append([f"**{title}**", *(str(part) if part.passed else "" for part in parts)])
        measured = dict.fromkeys(key for part in parts for key in part.measured)
        rows += [[key, *(part.measured.get(key, "") for part in parts)] for key in measured]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def own_suite() -> str:
    """The code name of this machine's Debian, or nothing."""
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        return ""
    found = re.search(r"^VERSION_CODENAME=(\S+)", text, re.M)
    return found[1] if found and re.search(r"^ID=debian$", text, re.M) else ""


def main() -> int:
    records = load(FRESH)
    reports = [report for report in OWN_REPORTS if report.exists()]
    if len(reports) == len(OWN_REPORTS) and own_suite() in SUITES:
        show = ("apt-cache", "show", "--no-all-versions", *PACKAGES)
        shown = subprocess.run(show, check=True, text=True, stdout=subprocess.PIPE).stdout
        records[own_suite()] = record_of(reports, shown)
    if not records:
        print("nothing is known here: run `make test` or `make newest`", file=sys.stderr)
        return 1
    return write(records)


if __name__ == "__main__":
    sys.exit(main())

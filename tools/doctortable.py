# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plant the faults of tests/doctor, and see who finds them, for the tables of docs/doctor.md.

    python -m tools.doctortable [--print] [--roots] [FAULT...]

The faults of a cluster's configuration are planted in a real Pacemaker cluster, one after the
other. There the doctor is asked, and so are pcs, crm_verify and crmsh; of what these say only
that counts which they did not say of the healthy cluster. The others, which no cluster can see,
are planted in root directories, and only the doctor is asked. A quarter of an hour. If faults are
named, only their rows are printed.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import NamedTuple

from kdumpfence.doctor.finding import OK, STATES
from tests.doctor import (
    planted,
    test_agent,
    test_cluster,
    test_crash_kernel,
    test_image,
    test_levels,
    test_nodes,
)
from tests.doctor.cluster_root import Fault, with_agent
from tests.support import debroot
from tests.support.debian import NotAvailable
from tests.system.cluster import by_hand, debian_root, fence_agents, machine
from tests.system.cluster.by_hand import ByHand
from tests.system.cluster.cluster import Cluster, Failed
from tests.system.cluster.examined import Examined
from tests.system.cluster.machine import Site
from tools import markedtable
from tools.clusterwords import PROGRAMS, Words, with_ssh

PAGE = markedtable.ROOT / "docs" / "doctor.md"

#: Characters of a text in the table.
_LONG = 150

#: The faults that are planted in a real cluster, by the part of the doctor that finds them.
CLUSTER = {
    "cluster": [*test_cluster.FAULTS, *test_levels.FAULTS],
    "nodes": test_nodes.FAULTS,
}


class Row(NamedTuple):
    """One fault: who finds it, and what the others say."""

    fault: str
    part: str
    check: str
    state: str
    text: str
    remedy: str
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        cells = (self.fault, f"{self.part}: {self.check}", self.state, self.text, self.remedy)
        return "| " + " | ".join(map(_cell, (*cells, *self.others))) + " |"


def _cell(text: str) -> str:
    """As it stands in a table of Markdown, and not longer than can be read there."""
    if len(text) > _LONG:
        text = text[:_LONG].rpartition(" ")[0] + " ..."
    for special in "\\|*_<>[]`":
        text = text.replace(special, "\\" + special)
    return text


def _table(head: Iterable[str], rows: Iterable[Row]) -> str:
    heads = ("fault", "part: check", "state", "what the doctor finds", "its remedy", *head)
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return "\n".join([*lines, *map(str, rows)])


# ------------------------------------------------------------------ in a cluster


def in_cluster(names: Sequence[str] = ()) -> tuple[list[Row], list[str]]:
    """A row for each fault, or for those named; and those that this Pacemaker cannot have."""
    with Site(debian_root.get(), 2) as site:
        fence_agents.install(site, "ours")
        cluster = Cluster(site, 3)
        cluster.start()
        examined = Examined(cluster)
        with_ssh(cluster)
        words = Words(examined)
        rows, impossible = [], []
        for fault in _faults(names):
            print(f"{fault.part}: {fault.name}", file=sys.stderr)
            try:
                row = _planted(examined, words, fault)
            except (Failed, subprocess.TimeoutExpired) as failure:
                print(failure, file=sys.stderr)
                row = _row(fault.name, {"part": fault.part, **_NOT_PLAYED}, ("",) * len(PROGRAMS))
            if row is None:
                impossible.append(fault.name)
            else:
                print(row, file=sys.stderr)
                rows.append(row)
        if examined.wrong():
            print(f"not healthy any more: {examined.wrong()}", file=sys.stderr)
    return rows, impossible


_NOT_PLAYED = {"check": "", "state": "", "text": "could not be played", "remedy": ""}


def _faults(names: Sequence[str]) -> Iterator[ByHand]:
    """Those of files, each of which lasts until the next one, and those by hand."""
    listed = [
        ByHand(fault.name, functools.partial(_in_files, fault), part, fault.state, fault.check)
        for part, faults in CLUSTER.items()
        for fault in faults
    ]
    for fault in (*listed, *by_hand.BY_HAND):
        if not names or fault.name in names:
            yield fault


@contextlib.contextmanager
def _in_files(fault: Fault, examined: Examined) -> Iterator[None]:
    examined.plant(fault)
    try:
        yield
    finally:
        examined.restore()


def _planted(examined: Examined, words: Words, fault: ByHand) -> Row | None:
    """Plant it, hear everybody; None if nothing is wrong then. Raises Failed."""
    words.begin()
    with fault.plant(examined):
        wanted = (fault.state, fault.check)
        found = [one for one in examined.look(fault.part) if (one["state"], one["check"]) == wanted]
        return _row(fault.name, found[0], words.said()) if found else None


def _row(name: str, its: dict[str, str], said: tuple[str, ...]) -> Row:
    return Row(name, its["part"], its["check"], its["state"], its["text"], its["remedy"], said)


# ------------------------------------------------------------------ in root directories


def in_roots() -> list[Row]:
    """A row for each fault of what a cluster cannot see."""
    rows = []
    with TemporaryDirectory() as folder:
        for number, (name, part, root) in enumerate(_roots(Path(folder))):
            found = [one for one in planted.findings(root, part) if one.state != OK]
            worst = max(found, key=lambda one: STATES.index(one.state))
            text = worst.text.replace(str(root), "")
            rows.append(Row(name, part, worst.check, worst.state, text, worst.remedy))
            print(f"{number}: {name}", file=sys.stderr)
    return rows


def _roots(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Name of a fault, part of the doctor, and the root where it was planted."""
    healthy = {
        "debian": planted.debian(folder / "debian"),
        "rhel": planted.rhel(folder / "rhel"),
    }

    def fresh(system: str) -> Path:
        made = Path(mkdtemp(dir=folder))
        return Path(shutil.copytree(healthy[system], made / "root", symlinks=True))

    for part, system, faults in (
        ("crash kernel", "debian", test_crash_kernel.FAULTS),
        ("image", "debian", test_image.ROOT_FAULTS),
        ("image", "rhel", test_image.AROUND),
    ):
        for name, (plant, *_) in faults.items():
            root = fresh(system)
            plant(root)
            yield name, part, root
    for name, (change, *_) in test_image.IMAGE_FAULTS.items():
        root = planted.with_image(fresh("rhel"), change=change)
        yield f"in an image: {name}", "image", root
    for fault in test_agent.FAULTS:
        agent = with_agent(Path(mkdtemp(dir=folder)))
        fault.plant(agent)
        yield f"agent: {fault.name}", "agent", agent.folder


# ------------------------------------------------------------------


def main() -> int:
    parser = markedtable.parser(__doc__)
    parser.add_argument("--roots", action="store_true", help="the second table alone")
    parser.add_argument("faults", nargs="*", metavar="FAULT")
    options = parser.parse_args()
    if options.roots:
        return markedtable.show(options, PAGE, {"doctortable, roots": _table((), in_roots())})
    why = machine.why_not()
    if why is not None:
        print(why, file=sys.stderr)
        return 1
    try:
        debian_root.get()
        fence_agents.packages()
        rows, impossible = in_cluster(options.faults)
    except NotAvailable as reason:
        print(reason, file=sys.stderr)
        return 1
    if options.faults:
        print(*rows, sep="\n")
        return 0
    return markedtable.show(options, PAGE, tables(rows, impossible, in_roots()))


def tables(rows: list[Row], impossible: list[str], unseen: list[Row]) -> dict[str, str]:
    """The tables with what stands above them, by their marks."""
    silent = [sum(row.others[at] == "nothing" for row in rows) for at in range(len(PROGRAMS))]
    counted = ", ".join(
        f"`{program}` of {len(rows) - silent[at]}" for at, program in enumerate(PROGRAMS)
    )
    version = debroot.run("chroot", str(debian_root.get()), "pacemakerd", "--version").split()[1]
    text = f"{len(rows)} faults, planted with Pacemaker {version}. The doctor finds all of them; "
    text += f"something is said by {counted}."
    if impossible:
        text += f" This Pacemaker cannot have: {', '.join(impossible)}."
    heads = [f"`{program}`" for program in PROGRAMS]
    return {
        "doctortable, cluster": f"{text}\n\n{_table(heads, rows)}",
        "doctortable, roots": _table((), unseen),
    }


if __name__ == "__main__":
    sys.exit(main())

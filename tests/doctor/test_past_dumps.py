# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a history of kdumpfenced makes of the time-outs of a cluster that has no faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kdumpfence.daemon.history import PATH, History
from kdumpfence.listener.dumps import Event
from kdumpfence.listener.events import Kind
from tests.doctor import planted
from tests.doctor.cluster_root import COROSYNC, Fault, Root, judge
from tests.install import roots

START = 1_700_000_000.0


@pytest.fixture
def healthy(tmp_path: Path) -> Root:
    return Root(tmp_path)


def dumped(
    folder: Path,
    took: float,
    end: Kind = "finished",
    node: str = "node2",
    messages: int = 20,
    day: int = 0,
) -> None:
    """Record a dump, as kdumpfenced does."""
    path = folder / PATH[1:]
    path.parent.mkdir(parents=True, exist_ok=True)
    began = START + 86400 * day
    last = began + took
    with History(str(path)) as history:
        history.record(
            [
                Event("began", node, began, began, last, messages, ("192.0.2.2",), took, (7,)),
                Event(end, node, last + 30, began, last, messages, ("192.0.2.2",), took, (7,)),
            ]
        )


def record(took: float, end: Kind = "finished") -> Callable[[Root], object]:
    """Let node2 have dumped."""
    return lambda root: dumped(root.folder, took, end)


FAULTS = [
    Fault(
        "a dump that failed",
        record(300, "failed"),
        "warning",
        "past dumps",
        ("failed, as the node said: 'node2'", "crash it once more"),
    ),
    Fault(
        "one that was over before an agent may hear it",
        record(6.5),
        "warning",
        "short dumps",
        ("'node2' 7 s", "started only 11 s after a crash", "wait for 11 s before it reboots"),
    ),
    Fault(
        "one that fell silent as soon, on SUSE",
        lambda root: (record(6.5, "silent")(root), root.write("etc/os-release", "ID=sles\n")),
        "warning",
        "short dumps",
        ("KDUMP_POSTSCRIPT='sleep 11' in /etc/sysconfig/kdump; then mkdumprd -f",),
    ),
    Fault(
        "one that was shorter than the delay before kdump",
        lambda root: (record(25)(root), root.set("pcmk_delay_base", "30s")),
        "warning",
        "short dumps",
        (
            "started only 41 s after a crash",
            "delay the power device instead: pcs stonith update kdump pcmk_delay_base=",
        ),
    ),
    Fault(
        "one that was shorter than the token's time-out",
        lambda root: (
            record(25)(root),
            root.change(COROSYNC, "totem {\n", "totem {\n    token: 30000\n"),
        ),
        "warning",
        "short dumps",
        ("started only 1 min 08 s after a crash", "wait for 68 s"),
    ),
    Fault(
        "a history that is none",
        lambda root: root.write(PATH[1:], "no history"),
        "unknown",
        "past dumps",
        (PATH, "not a"),
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_is_found_alone(healthy: Root, fault: Fault) -> None:
    judge(healthy, "cluster", fault)


def test_the_last_dump_of_each_node_counts(healthy: Root) -> None:
    dumps: list[tuple[float, Kind]] = [(300, "failed"), (6.5, "finished"), (252, "silent")]
    for day, (took, end) in enumerate(dumps):
        dumped(healthy.folder, took, end, day=day)
    dumped(healthy.folder, 40, node="node3")
    found = healthy.find("cluster")
    assert {one.state for one in found} == {"ok"}, found
    (text,) = (one.text for one in found if one.check == "past dumps")
    assert text.startswith("4 of 2 nodes; the longest took 4 min 12 s")


@pytest.mark.parametrize(("messages", "state"), [(1, "ok"), (2, "warning")])
def test_a_single_message_may_have_been_a_dry_run(healthy: Root, messages: int, state: str) -> None:
    dumped(healthy.folder, 0, "silent", messages=messages)
    assert [one.state for one in healthy.find("cluster") if "dumps" in one.check] == [state]


SBD = "SBD_WATCHDOG_DEV=/dev/null\nSBD_TIMEOUT_ACTION=crashdump\nSBD_OPTS='-C {}'\n"


@pytest.mark.parametrize(("time", "states"), [(600, []), (300, ["warning"])])
def test_sbd_gives_a_dump_as_long_as_dumps_took(
    tmp_path: Path, time: int, states: list[str]
) -> None:
    root = planted.debian(tmp_path / "root")
    roots.put(root, "/etc/systemd/system/corosync.service.requires/sbd.service")
    roots.put(root, "/etc/default/sbd", SBD.format(time))
    dumped(root, 312)
    found = [one for one in planted.findings(root, "crash kernel") if one.state != "ok"]
    assert [one.state for one in found] == states, found
    assert [one.check for one in found] == ["sbd crash dump"] * len(states)
    assert all("-C 312 or more in SBD_OPTS" in one.remedy for one in found)


def test_without_a_history_nothing_is_said(healthy: Root) -> None:
    assert not [one for one in healthy.find("cluster") if "dumps" in one.check]

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The steps of a drill have the cluster's own names, and it is refused where nobody could watch."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from kdumpfence.doctor import checks, drill, drill_pacemaker
from kdumpfence.doctor.drill_course import BY_KDUMP, EXIT_STATUS, FENCED, LEFT, Event
from kdumpfence.doctor.drill_pacemaker import Status
from kdumpfence.doctor.drill_watch import Watch
from kdumpfence.doctor.finding import Unknown, fails, ok
from kdumpfence.doctor.machine import Machine
from kdumpfence.install.sysroot import Sysroot
from tests.doctor.cluster_root import CIB, COROSYNC, Root, level

EVERYWHERE = Status("node1", {"node1": True, "node2": True, "node3": True}, {"web": frozenset()})


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


def steps(root: Root, node: str = "node3") -> dict[str, drill.Step]:
    """The steps, by their titles."""
    with Sysroot(str(root.folder)) as opened:
        machine = Machine(opened)
        return {one.title: one for one in drill.plan(machine, drill.target(machine, node))}


def running(
    root: Root, status: Status, monkeypatch: pytest.MonkeyPatch, node: str = "node3"
) -> dict[str, drill.Step]:
    """The same where the cluster runs."""
    monkeypatch.setattr(drill_pacemaker, "ask_status", lambda: status)
    monkeypatch.setattr(checks, "examine", lambda *_: {})
    with Sysroot(str(root.folder)) as opened:
        machine = Machine(opened)
        its = drill.target(machine, node)
        machine.runs = True
        return {one.title: one for one in drill.plan(machine, its)}


def refusal(root: Root, node: str) -> str:
    """Why a drill of this node is refused."""
    with Sysroot(str(root.folder)) as opened, pytest.raises(drill.Refused) as why:
        drill.target(Machine(opened), node)
    return str(why.value)


def test_levels_of_which_pacemaker_takes_one_or_the_other_are_not_promised(root: Root) -> None:
    root.change(CIB, level(1, "node3", "kdump"), level(1, "node.", "kdump"))
    root.change(CIB, level(2, "node3", "power-node3"), level(2, "3$", "power-node3"))
    for pattern in ("node.", "3$"):
        root.change(CIB, f'target="{pattern}"', f'target-pattern="{pattern}"')
    last = steps(root)["What the cluster will do"].lines[-1]
    assert last == "or other levels, since several are configured: step 1, fencing levels"


def test_the_steps_name_node_devices_addresses_and_time_outs(root: Root) -> None:
    found = steps(root, "NODE3")
    assert found["What the cluster will do"].lines == (
        "When node3 (192.0.2.3, 198.51.100.3) falls silent, Pacemaker fences it:",
        "level 1: kdump (fence_kdump) waits 50 s for a message from 192.0.2.3, 198.51.100.3; "
        "Pacemaker kills its agent after pcmk_off_timeout=60s",
        "level 2: power-node3 (fence_ipmilan) cuts the power, if kdump said no",
    )
    assert found["Look first"].commands == (
        ("node3", "kdumpfence doctor"),
        ("node1", "kdumpfence doctor"),
    )
    assert found["Crash it"].commands == (("node3", "sync; echo c > /proc/sysrq-trigger"),)
    assert found["No reboot loop"].commands == (("node1", "pcs cluster disable node3"),)
    assert found["Afterwards"].commands[1:] == (
        ("node1", "pcs cluster start node3"),
        ("node1", "pcs cluster enable node3"),
    )


def test_the_steps_can_be_printed_and_copied(root: Root) -> None:
    with Sysroot(str(root.folder)) as opened:
        machine = Machine(opened)
        plan = drill.plan(machine, drill.target(machine, "node2"))
    lines = list(drill.as_text(plan))
    numbers = [line.split(".")[0] for line in lines if not line.startswith(" ")]
    assert numbers == [str(number) for number in range(1, len(plan) + 1)]
    commands = [line.strip() for line in lines if "# " in line]
    assert "node2# sync; echo c > /proc/sysrq-trigger" in commands
    for line in commands:
        shlex.split(line.partition("# ")[2])


@pytest.mark.parametrize(
    ("version", "enabled", "timeout"),
    [
        ("2.1.5", "stonith-enabled", "stonith-timeout"),
        ("3.0.0", "stonith-enabled", "stonith-timeout"),
        ("3.0.2-x", "fencing-enabled", "fencing-timeout"),
    ],
)
def test_properties_are_called_as_this_pacemaker_calls_them(
    root: Root, version: str, enabled: str, timeout: str
) -> None:
    root.version(version).unset("pcmk_off_timeout")
    root.change(CIB, 'name="stonith-enabled" value="true"', f'name="{enabled}" value="false"')
    *_, kdump, _, off = steps(root)["What the cluster will do"].lines
    assert kdump.endswith(f"Pacemaker kills its agent after {timeout}=60s")
    assert off == f"but with {enabled}=false nobody is fenced"


def test_with_a_key_an_answer_has_to_be_signed(root: Root) -> None:
    root.set("auth", "sha256")
    assert "for a signed answer from" in steps(root)["What the cluster will do"].lines[1]


def test_power_that_is_not_behind_kdump_is_not_said_to_wait(root: Root) -> None:
    root.change(
        CIB, 'target="node3" index="1" devices="kdump"', 'target="node3" index="3" devices="kdump"'
    )
    assert [line.split(" (")[0] for line in steps(root)["What the cluster will do"].lines[1:]] == [
        "level 2: power-node3",
        "level 3: kdump",
    ]
    assert steps(root)["What the cluster will do"].lines[1].endswith("cuts the power")


def test_without_levels_all_devices_are_named(root: Root) -> None:
    root.change(CIB, 'target="node3"', 'target="node9"')
    lines = steps(root)["What the cluster will do"].lines
    assert lines[1].startswith("no fencing level is configured for it")
    assert [line.split(" ")[0] for line in lines[2:]] == ["kdump", "power-node3"]


def test_a_device_that_is_disabled_or_missing_is_said_to_be(root: Root) -> None:
    root.change(CIB, 'devices="power-node3"', 'devices="power-node3,gone"')
    meta = '<meta_attributes id="m"><nvpair id="m1" name="target-role" value="Stopped"/>'
    start = '<instance_attributes id="power-node3-instance_attributes">'
    root.change(CIB, start, f"{meta}</meta_attributes>{start}")
    lines = steps(root)["What the cluster will do"].lines
    assert "power-node3 (fence_ipmilan, disabled)" in lines[2]
    assert lines[3] == "level 2: gone, which is no device"


def test_what_the_doctor_finds_here_is_repeated(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"cluster": [ok("a", "b"), fails("fencing on", "it is off", "do it")]}
    monkeypatch.setattr(checks, "examine", lambda *_: found)
    assert steps(root)["Look first"].lines[1:] == ("Found here: fails: fencing on: it is off",)


def test_where_the_cluster_runs_what_moves_is_named(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {"web": frozenset({"node3"}), "db": frozenset({"node3"}), "x": frozenset({"node1"})}
    found = running(root, EVERYWHERE._replace(runs=runs), monkeypatch)
    first, second = found["What moves"].lines
    assert first.startswith("Running on node3: db, web. They start on another node")
    assert second == "Nodes left: node1, node2."
    assert len(found["Watch"].lines) == 1


@pytest.mark.parametrize(("leader", "words"), [("node2", "watch there"), ("node3", "successor")])
def test_another_leader_than_this_node_is_told_of(
    root: Root, leader: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = running(root, EVERYWHERE._replace(dc=leader), monkeypatch)
    assert words in found["Watch"].lines[1]


@pytest.mark.parametrize(
    ("tools", "command"),
    [
        ((), ("node3", "systemctl disable corosync pacemaker")),
        (("usr/sbin/crm",), ("node1", "crm cluster disable node3")),
    ],
)
def test_commands_are_those_of_the_tools_that_are_there(
    root: Root, tools: tuple[str, ...], command: tuple[str, str]
) -> None:
    root.remove("usr/sbin/pcs")
    for tool in tools:
        root.write(tool, "")
    assert steps(root)["No reboot loop"].commands == (command,)


def test_a_node_that_there_is_not_is_refused(root: Root) -> None:
    assert refusal(root, "node9") == (
        "'node9' is no node of this cluster, which has node1, node2, node3"
    )


def test_this_machine_itself_is_refused(root: Root) -> None:
    assert refusal(root, "Node1") == (
        "'Node1' is this very machine, which cannot watch its own crash: run this on node2, node3"
    )


@pytest.mark.parametrize("path", [COROSYNC, CIB])
def test_without_a_cluster_there_is_nothing_to_drill(root: Root, path: str) -> None:
    root.remove(path)
    with Sysroot(str(root.folder)) as opened, pytest.raises(Unknown):
        drill.target(Machine(opened), "node2")


# ------------------------------------------------------------------ watching


class Fake:
    """A Pacemaker that says what a test lets it say."""

    def __init__(self, *_: object) -> None:
        self.online, self.deaf = True, "/var/log/x: No such file or directory"
        self.said: list[Event] = []

    def log(self) -> list[Event]:
        return []

    def look(self) -> list[Event]:
        return self.said

    def close(self) -> None:
        pass


def watch(
    root: Root, monkeypatch: pytest.MonkeyPatch, fake: Fake, complaints: list[str]
) -> tuple[Watch, list[Event]]:
    """Watch node3 with this Pacemaker, and without its messages."""

    def deaf(*_: object) -> None:
        raise Unknown("raw socket: Operation not permitted")

    monkeypatch.setattr("kdumpfence.doctor.drill_watch.Pacemaker", lambda *_: fake)
    monkeypatch.setattr("kdumpfence.doctor.drill_watch.Messages", deaf)
    told: list[Event] = []
    with Sysroot(str(root.folder)) as opened:
        machine = Machine(opened)
        its = drill.target(machine, "node3")
        machine.runs = True
        return Watch(machine, its, told.append, complaints.append), told


def test_what_cannot_be_watched_is_said_and_the_rest_is_watched(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, complaints = Fake(), list[str]()
    made, told = watch(root, monkeypatch, fake, complaints)
    assert complaints == [
        "which device fences it will not be known: /var/log/x: No such file or directory",
        "its messages are not heard: raw socket: Operation not permitted",
    ]
    fake.said = [Event(LEFT, 1.0), Event(FENCED, 2.0, "node1"), Event("back", 3.0)]
    assert made.run(60)
    assert told == fake.said
    assert made.strangers == []


def test_the_time_may_be_over_before_anything_happens(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, told = watch(root, monkeypatch, Fake(), [])
    assert not made.run(0.01)
    assert told == []
    assert EXIT_STATUS[made.course.verdict(timed_out=True).how] == 2


def test_a_node_that_is_not_there_is_not_watched(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake()
    fake.online = False
    with pytest.raises(drill.Refused, match="node3 is not online: there is nothing to crash"):
        watch(root, monkeypatch, fake, [])


def test_a_pacemaker_that_does_not_answer_is_complained_of_once(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, complaints = Fake(), list[str]()
    made, _ = watch(root, monkeypatch, fake, complaints)
    complaints.clear()

    def fail() -> list[Event]:
        raise Unknown("crm_mon did not answer within 3 s")

    monkeypatch.setattr(fake, "look", fail)
    monkeypatch.setattr("kdumpfence.doctor.drill_watch._PATIENCE", -1.0)
    made.look()
    made.look()
    assert complaints == ["Pacemaker cannot be asked: crm_mon did not answer within 3 s"]


def test_the_exit_status_is_zero_for_kdump_alone() -> None:
    assert [how for how, status in EXIT_STATUS.items() if status == 0] == [BY_KDUMP]

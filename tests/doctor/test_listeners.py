# SPDX-License-Identifier: LGPL-2.1-or-later
"""Devices whose agents have a kdumpfenced listen: what the doctor says of it, and leaves alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.doctor import believed, cib, confinement, listeners
from kdumpfence.doctor.finding import Finding
from kdumpfence.doctor.machine import Machine
from kdumpfence.install.sysroot import Sysroot
from tests.daemon.running import Kdumpfenced
from tests.doctor.cluster_root import COROSYNC, Fault, Root, judge
from tests.support.answerer import key_text, write_key

HTTP = "http://192.0.2.9:9742"
NODES = "node1 = ['127.3.1.1']\nnode2 = ['127.3.1.2']\nnode3 = ['127.3.1.3']"


@pytest.fixture
def healthy(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


FAULTS = [
    Fault(
        "HTTP without keys",
        lambda root: root.set("listener", HTTP),
        "warning",
        "listener trusted",
        ("whoever is on the way there can say", "pcs stonith update kdump auth=sha256"),
    ),
    Fault(
        "no place",
        lambda root: root.set("listener", "192.0.2.9"),
        "fails",
        "agent options",
        ("the agent refuses listener '192.0.2.9': not unix:/PATH or http://HOST:PORT",),
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_of_a_configuration_is_found_alone(healthy: Root, fault: Fault) -> None:
    judge(healthy, "cluster", fault)


@pytest.mark.parametrize("place", ["unix:/run/kdumpfenced/control", "http://127.0.0.1:9742"])
def test_one_on_the_same_machine_needs_no_key(healthy: Root, place: str) -> None:
    healthy.set("listener", place)
    assert {one.state for one in healthy.find("cluster")} == {"ok"}


@contextlib.contextmanager
def machine(root: Root) -> Iterator[Machine]:
    with Sysroot(str(root.folder)) as opened:
        yield Machine(opened)


def test_what_only_agents_that_listen_need_is_not_asked_for(healthy: Root) -> None:
    drop_in = "etc/systemd/system/pacemaker.service.d/x.conf"
    healthy.write("usr/lib/systemd/system/pacemaker.service", "[Service]\nExecStart=x\n")
    healthy.write(drop_in, "[Service]\nCapabilityBoundingSet=CAP_CHOWN\n")
    healthy.change(COROSYNC, "198.51.100.2", "198.51.100.22")
    with machine(healthy) as here:
        assert [one.check for one in confinement.sandbox(here)] == ["sandbox"]
        assert "addresses of nodes" in {
            one.check for one in believed.believed(here) if one.state != "ok"
        }
        assert not listeners.only_elsewhere(here)
    healthy.set("listener", HTTP)
    with machine(healthy) as here:
        assert not list(confinement.sandbox(here))
        assert {one.state for one in believed.believed(here)} == {"ok"}
        assert listeners.only_elsewhere(here)
    healthy.set("listener", "unix:/run/kdumpfenced/control")
    with machine(healthy) as here:
        assert not listeners.only_elsewhere(here)


# ------------------------------------------------------------------- a daemon that runs


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Kdumpfenced]:
    with contextlib.closing(Kdumpfenced(tmp_path)) as made:
        made.configure("", NODES)
        yield made


def asked(root: Root, daemon: Kdumpfenced) -> Finding:
    root.set("listener", f"unix:{daemon.control}")
    with machine(root) as here:
        its = cib.read(here)
        return listeners._asked(here, its, its.kdump[0])


def test_a_daemon_that_hears_all_nodes_is_fine(healthy: Root, daemon: Kdumpfenced) -> None:
    daemon.start()
    found = asked(healthy, daemon)
    assert (found.state, found.check) == ("ok", "listener")
    assert found.text == f"kdump: unix:{daemon.control} hears its nodes"


def test_nodes_that_it_does_not_listen_for_are_told(healthy: Root, daemon: Kdumpfenced) -> None:
    daemon.configure("", NODES.partition("\nnode3")[0])
    daemon.start()
    found = asked(healthy, daemon)
    assert found.state == "fails"
    assert "does not hear node3 (it does not listen for 'node3'" in found.text
    assert "[nodes]" in found.remedy


def test_one_that_is_not_there_is_told(healthy: Root, daemon: Kdumpfenced) -> None:
    found = asked(healthy, daemon)
    assert found.state == "fails"
    assert "no daemon at" in found.text
    assert "systemctl enable --now kdumpfenced" in found.remedy


def test_one_that_checks_no_signatures_is_told(
    healthy: Root, daemon: Kdumpfenced, tmp_path: Path
) -> None:
    healthy.set("auth", "sha256")
    daemon.start()
    found = asked(healthy, daemon)
    assert found.state == "fails"
    assert "checks no signatures, which the agent wants" in found.text
    daemon.end()
    key = write_key(tmp_path / "key", key_text())
    daemon.configure(f'auth = "sha256"\nkey_file = "{key}"', NODES)
    daemon.start()
    assert asked(healthy, daemon).state == "ok"

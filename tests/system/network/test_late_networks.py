"""A crash kernel starts its sender before its network: whatever comes late is waited for."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.support import mute
from tests.support.netlab import Host, Lab
from tests.system.network.datagrams import arrivals, arrives, receiver
from tests.system.network.programs import Programs


@pytest.mark.parametrize("programs", ["compiled", "pure-no_raw", "native"], indirect=True)
@pytest.mark.slow
def test_an_interface_that_comes_up_seconds_late(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    link = lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"], up=False)
    agent = programs.agent(survivor, "-n", "10.0.0.1", "-t", "30")
    programs.sender(node, "10.0.0.2")
    time.sleep(1.5)
    link.up()
    # Three seconds and a margin: far less than the sender's interval of ten.
    assert agent.status(within=5) == 0


@pytest.mark.slow
def test_a_cable_that_carries_seconds_late(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    link = lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"], up=False)
    link.up(node)  # has its address and its route, so that sending seems to work
    link.resolve_impatiently()
    agent = programs.agent(survivor, "-n", "10.0.0.1", "-t", "30")
    programs.sender(node, "10.0.0.2")
    time.sleep(2)  # address resolution has given up, and dropped what waited for it
    link.up()
    assert agent.status(within=5) == 0


@pytest.mark.parametrize(
    ("programs", "late"),
    [("compiled", "node"), ("pure-no_raw", "survivor"), ("native", "node")],
    indirect=["programs"],
)
@pytest.mark.slow
def test_an_address_that_is_added_seconds_late(
    programs: Programs, lab: Lab, node: Host, survivor: Host, late: str
) -> None:
    link = lab.link(node, survivor)
    addresses = {node: "10.0.0.1/24", survivor: "10.0.0.2/24"}
    late_host, early_host = (node, survivor) if late == "node" else (survivor, node)
    link.add_address(early_host, addresses[early_host])
    agent = programs.agent(survivor, "-n", "10.0.0.1", "-t", "30")
    programs.sender(node, "10.0.0.2")
    time.sleep(2)
    link.add_address(late_host, addresses[late_host])
    assert agent.status(within=6) == 0


@pytest.mark.parametrize("programs", ["pure", "compiled-no_raw", "native"], indirect=True)
@pytest.mark.slow
def test_ipv6_addresses_that_are_still_tentative(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    link = lab.link(node, survivor)
    link.add_address(node, "fd00::1/64", dad=True)
    link.add_address(survivor, "fd00::2/64", dad=True)
    agent = programs.agent(survivor, "-n", "fd00::1", "-t", "30")
    programs.sender(node, "-i", "1", "fd00::2")
    for host in (node, survivor):
        assert "fd00::" in host.tool("ip", "-6", "address", "show", "tentative").stdout
    assert agent.status(within=20) == 0


@pytest.mark.parametrize("programs", ["pure", "compiled-no_raw"], indirect=True)
@pytest.mark.slow
def test_a_node_whose_name_resolves_seconds_late_at_the_agent(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    programs.sender(node, "-i", "1", "10.0.0.2")
    agent = programs.agent(survivor, "-n", "node1", "-t", "30")
    time.sleep(1.5)
    survivor.add_name("node1", "10.0.0.1")
    assert agent.status(within=15) == 0


@pytest.mark.slow
def test_a_survivor_whose_name_resolves_seconds_late_at_the_sender(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    messages = receiver(survivor)
    programs.sender(node, "-i", "1", "survivor")
    assert not arrives(messages, within=1.5)
    node.add_name("survivor", "10.0.0.2")
    assert arrives(messages, within=5)


@pytest.mark.parametrize(
    ("programs", "family"),
    [("compiled", socket.AF_INET), ("pure", socket.AF_INET6), ("native", socket.AF_INET)],
    indirect=["programs"],
    ids=["compiled-ipv4", "pure-ipv6", "native-ipv4"],
)
@pytest.mark.slow
def test_a_count_is_of_messages_that_left(
    programs: Programs, lab: Lab, node: Host, survivor: Host, family: socket.AddressFamily
) -> None:
    link = lab.link(
        node, survivor, ["10.0.0.1/24", "fd00::1/64"], ["10.0.0.2/24", "fd00::2/64"], up=False
    )
    messages = receiver(survivor, family)
    target = "10.0.0.2" if family == socket.AF_INET else "fd00::2"
    sender = programs.sender(node, "-c", "3", "-i", "1", target)
    time.sleep(1.5)
    assert sender.process.poll() is None, "nothing could leave yet, so it cannot have finished"
    link.up()
    assert sender.status(within=10) == 0
    assert len(arrivals(messages, 4, within=0.5)) == 3


@pytest.mark.parametrize("programs", ["compiled", "native"], indirect=True)
@pytest.mark.slow
def test_a_count_is_not_of_messages_that_waited_for_a_neighbour_in_vain(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    link = lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"], up=False)
    link.up(node)
    link.resolve_impatiently()
    messages = receiver(survivor)
    sender = programs.sender(node, "-c", "3", "-i", "1", "10.0.0.2")
    time.sleep(1.8)
    link.up()
    assert sender.status(within=10) == 0
    assert len(arrivals(messages, 4, within=0.5)) == 3


@pytest.mark.parametrize("programs", ["compiled", "pure", "native"], indirect=True)
@pytest.mark.slow
def test_where_the_kernel_cannot_tell_what_left_its_errors_are_heard(
    programs: Programs, lab: Lab, node: Host, survivor: Host, tmp_path: Path
) -> None:
    link = lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"], up=False)
    link.up(node)
    link.resolve_impatiently()
    messages = receiver(survivor)
    before = ["env", f"LD_PRELOAD={mute.library(tmp_path, refuse=True)}"]
    sender = programs.sender(node, "-c", "3", "-i", "1", "10.0.0.2", before=before)
    time.sleep(1.8)
    link.up()
    assert sender.status(within=10) == 0
    assert len(arrivals(messages, 4, within=0.5)) == 3

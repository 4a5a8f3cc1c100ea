# SPDX-License-Identifier: LGPL-2.1-or-later
"""A crash kernel starts its sender before its network: whatever comes late is waited for."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.support import mute
from tests.support.netlab import Host, Lab
from tests.system.network.datagrams import arrivals, receiver
from tests.system.network.programs import Programs

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("programs", ["compiled", "pure-no_raw"], indirect=True)
def test_an_address_that_the_agents_host_gets_seconds_late(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    link = lab.link(node, survivor, ["10.0.0.1/24"])
    agent = programs.agent(survivor, "-n", "10.0.0.1", "-t", "30")
    programs.sender(node, "10.0.0.2")
    time.sleep(2)
    link.add_address(survivor, "10.0.0.2/24")
    assert agent.status(within=6) == 0


@pytest.mark.parametrize("programs", ["pure", "compiled-no_raw", "native"], indirect=True)
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


@pytest.mark.parametrize(
    ("programs", "family"),
    [("compiled", socket.AF_INET), ("pure", socket.AF_INET6), ("native", socket.AF_INET)],
    indirect=["programs"],
    ids=["compiled-ipv4", "pure-ipv6", "native-ipv4"],
)
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


@pytest.mark.parametrize(
    ("programs", "kernel_tells"),
    [(form, tells) for form in ("compiled", "pure", "native") for tells in (True, False)],
    indirect=["programs"],
)
def test_a_count_is_not_of_messages_that_waited_for_a_neighbour_in_vain(
    programs: Programs, lab: Lab, node: Host, survivor: Host, tmp_path: Path, kernel_tells: bool
) -> None:
    """Even where the kernel cannot tell what left: its errors are heard."""
    link = lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"], up=False)
    link.up(node)
    link.resolve_impatiently()
    messages = receiver(survivor)
    mute_kernel = (
        [] if kernel_tells else ["env", f"LD_PRELOAD={mute.library(tmp_path, refuse=True)}"]
    )
    sender = programs.sender(node, "-c", "3", "-i", "1", "10.0.0.2", before=mute_kernel)
    time.sleep(1.8)
    link.up()
    assert sender.status(within=10) == 0
    assert len(arrivals(messages, 4, within=0.5)) == 3

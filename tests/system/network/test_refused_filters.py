# SPDX-License-Identifier: LGPL-2.1-or-later
"""A kernel that takes no long filter (net.core.optmem_max) still lets every address in."""

from __future__ import annotations

import socket

import pytest

from tests.support.netlab import Host, Lab
from tests.system.network.datagrams import say
from tests.system.network.programs import BOTH_CORES, EVERY_AGENT, Programs

#: What a kernel before 6.8 allows a socket, in bytes.
OPTMEM_MAX = "20480"

ADDRESSES = [f"fd00::1:{number}" for number in range(1, 101)]


def lay(lab: Lab, node: Host, survivor: Host) -> None:
    lab.link(node, survivor, [f"{ADDRESSES[-1]}/64", "fd00::99/64"], ["fd00::2/64"])


def flood(node: Host, number: int) -> None:
    with node.open_socket(socket.AF_INET6) as sock:
        sock.bind(("fd00::99", 0))
        for _ in range(number):
            sock.sendto(b"rubbish!", ("fd00::2", 7410))


@BOTH_CORES
@pytest.mark.slow
def test_the_newest_address_is_heard_in_a_flood(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lay(lab, node, survivor)
    survivor.set_sysctl("net/core/optmem_max", OPTMEM_MAX)
    agent = programs.waiting_agent(survivor, ",".join(ADDRESSES))
    agent.stop()
    flood(node, 10000)
    say(node, ADDRESSES[-1], "fd00::2")
    agent.cont()
    assert agent.status(within=10) == 0


@EVERY_AGENT
def test_without_any_filter_nothing_is_believed(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lay(lab, node, survivor)
    survivor.set_sysctl("net/core/optmem_max", "0")
    agent = programs.agent(survivor, "-n", ADDRESSES[-1], "-t", "60")
    agent.says("[error]: cannot attach a socket filter: Cannot allocate memory")
    assert agent.status(within=10) == 1

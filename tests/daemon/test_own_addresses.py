# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon on a member of the cluster that it watches: its own addresses are nobody's dump."""

from __future__ import annotations

import socket

import pytest

from tests.daemon.running import MESSAGE, Kdumpfenced, until
from tests.support.netlab import Host, Lab

#: A daemon that runs for seconds.
pytestmark = pytest.mark.slow

LINE = "10.0.0.2, fd00::2 are addresses of this machine; ignoring them"


def says(host: Host, source: str, target: str) -> None:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with host.open_socket(family) as sock:
        sock.bind((source, 0))
        sock.sendto(MESSAGE, (target, 7410))


@pytest.mark.parametrize("networks", ["", 'networks = ["10.0.0.0/24", "fd00::/64"]\nroom = 1'])
@pytest.mark.slow
def test_an_address_of_this_machine_is_passed_over_with_one_line(
    daemon: Kdumpfenced, lab: Lab, networks: str
) -> None:
    node, member = lab.host("node1"), lab.host("node2")
    lab.link(node, member, ["10.0.0.1/24"], ["10.0.0.2/24", "fd00::2/64"])
    # The hosts file of a Debian, and one with a mistake in it.
    member.write_file("/etc/hosts", "127.0.1.1 node2\n10.0.0.2 node3\n::1 node3\n")
    daemon.port = 7410
    daemon.configure(
        networks,
        nodes='node1 = "10.0.0.1, [fd00::1]"\nnode2 = ["10.0.0.2", "fd00::2", "node2"]\n'
        "node3 = []\nhere = ['127.0.0.9']",
    )
    daemon.start_on(member)
    until(lambda: LINE in daemon.said())
    for source, target in (
        ("127.0.1.1", "127.0.1.1"), ("10.0.0.2", "10.0.0.2"), ("::1", "::1"),
        ("fd00::2", "fd00::2"),
    ):  # fmt: skip
        says(member, source, target)
        says(member, source, target)
    says(node, "10.0.0.1", "10.0.0.2")
    says(member, "127.0.0.9", "127.0.0.1")  # given as such, for a trial
    until(lambda: len(daemon.status().dumps) == 2)
    assert {dump.node for dump in daemon.status().dumps} == {"node1", "here"}
    assert daemon.said().count("addresses of this machine") == 1


@pytest.mark.slow
def test_an_address_that_this_machine_takes_over_is_no_nodes_meanwhile(
    daemon: Kdumpfenced, lab: Lab
) -> None:
    node, member = lab.host("node1"), lab.host("node2")
    link = lab.link(node, member, ["10.0.0.1/24"], ["10.0.0.2/24"])
    daemon.port = 7410
    daemon.configure("", nodes='vip = "10.0.0.9"\nnode1 = "10.0.0.1"')
    daemon.start_on(member)
    member.tool("ip", "addr", "add", "10.0.0.9/24", "dev", link.interface(member))
    until(lambda: "10.0.0.9 is an address of this machine; ignoring it" in daemon.said())
    says(member, "10.0.0.9", "10.0.0.2")
    says(node, "10.0.0.1", "10.0.0.2")
    until(lambda: daemon.status().dumps)
    assert [dump.node for dump in daemon.status().dumps] == ["node1"]

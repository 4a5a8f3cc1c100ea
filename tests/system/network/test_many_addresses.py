# SPDX-License-Identifier: LGPL-2.1-or-later
"""A node is all of its addresses, whichever network, family or local address is used."""

from __future__ import annotations

import pytest

from tests.support.messages import PORT, family
from tests.support.netlab import Host, Lab
from tests.system.network.datagrams import arrives
from tests.system.network.programs import Programs


@pytest.mark.parametrize(
    ("programs", "working"),
    [
        ("compiled", "10.1.0.{}/24"),
        ("pure", "fd01::{}/64"),
        ("pure-no_raw", "10.1.0.{}/24"),
        ("compiled-no_raw", "fd01::{}/64"),
    ],
    indirect=["programs"],
)
def test_only_the_second_of_two_networks_works(
    programs: Programs, lab: Lab, node: Host, survivor: Host, working: str
) -> None:
    first = lab.link(
        node,
        survivor,
        ["10.0.0.1/24", "fd00::1/64"],
        ["10.0.0.2/24", "fd00::2/64"],
    )
    lab.link(node, survivor, [working.format(1)], [working.format(2)])
    first.down(survivor)
    survivor.add_name("node1", "10.0.0.1", "fd00::1", "10.1.0.1", "fd01::1")
    node.add_name("survivor", "10.0.0.2", "fd00::2", "10.1.0.2", "fd01::2")
    agent = programs.agent(survivor, "-n", "node1", "-t", "30")
    programs.sender(node, "-i", "1", "survivor")
    assert agent.status(within=10) == 0


@pytest.mark.parametrize("network", ["10.0.0.{}/24", "fd00::{}/64"], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    "programs", ["compiled", "pure", "native", "compiled-no_raw", "pure-no_raw"], indirect=True
)
@pytest.mark.slow
def test_a_message_to_an_address_that_the_survivor_would_not_send_from(
    programs: Programs, lab: Lab, node: Host, survivor: Host, network: str
) -> None:
    ours, preferred, other = (network.format(number) for number in (1, 2, 12))
    link = lab.link(node, survivor, [ours], [preferred])
    link.add_address(survivor, other)
    plain = {address: address.split("/")[0] for address in (ours, preferred, other)}
    # Which of the two is the route's source is the kernel's affair; the message goes to the other.
    route = survivor.tool("ip", "route", "get", plain[ours]).stdout.split()
    source = route[route.index("src") + 1]
    (target,) = {plain[preferred], plain[other]} - {source}
    agent = programs.agent(survivor, "-n", plain[ours], "-t", "30")
    programs.sender(node, "-i", "1", target)
    assert agent.status(within=10) == 0


@pytest.mark.parametrize(
    "programs", ["compiled", "pure", "native", "compiled-no_raw", "pure-no_raw"], indirect=True
)
@pytest.mark.slow
def test_link_local_addresses_with_their_interface(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    # The same addresses on a second link, so that the interface in the address matters.
    decoy = lab.link(node, survivor, ["fe80::1/64"], ["fe80::2/64"])
    link = lab.link(node, survivor, ["fe80::1/64"], ["fe80::2/64"])
    decoy.down(survivor)
    agent = programs.agent(survivor, "-n", f"fe80::1%{link.interface(survivor)}", "-t", "30")
    programs.sender(node, "-i", "1", f"fe80::2%{link.interface(node)}")
    assert agent.status(within=10) == 0


@pytest.mark.parametrize("programs", ["pure", "compiled-no_raw", "native"], indirect=True)
@pytest.mark.slow
def test_the_same_link_local_address_on_another_interface_is_another_node(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    elsewhere = lab.link(node, survivor, ["fe80::1/64"], ["fe80::2/64"])
    link = lab.link(node, survivor, ["fe80::1/64"], ["fe80::2/64"])
    agent = programs.agent(survivor, "-n", f"fe80::1%{link.interface(survivor)}", "-t", "2")
    sender = programs.sender(node, "-i", "1", f"fe80::2%{elsewhere.interface(node)}")
    assert agent.status(within=8) == 1
    assert sender.process.poll() is None


def test_all_addresses_of_a_survivor_get_the_message(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24", "fd00::1/64"], ["10.0.0.2/24", "fd00::2/64"])
    lab.link(node, survivor, ["10.1.0.1/24"], ["10.1.0.2/24"])
    addresses = ("10.0.0.2", "10.1.0.2", "fd00::2")
    node.add_name("survivor", *addresses)
    receivers = {}
    for address in addresses:
        receivers[address] = survivor.open_socket(family(address))
        receivers[address].bind((address, PORT))
    programs.sender(node, "-i", "1", "survivor")
    missed = [address for address, at in receivers.items() if not arrives(at, within=5)]
    assert missed == []

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A listener whose kernel counts, on a real network: whose messages it counts, and whose not.

That they were counted there is seen by a queue that has no room for them.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from kdumpfence.listener.listener import Listener
from kdumpfence.sockets import prepare_udp
from tests.conftest import cannot_run
from tests.support.kernel import need_kernel_counting
from tests.support.messages import PORT
from tests.support.netlab import Host, Lab, Link
from tests.system.network.datagrams import forge, say, say_from_anywhere

NODE, OWN = "fd00::1", "fd00::2"
MANY = 3000
#: From where the node sends to where, and through which interface if that has to be said.
WAYS = [("10.0.0.1", "10.0.0.2"), (NODE, OWN), ("fe80::1", "fe80::2"), ("fe80::1", "ff02::1")]


@pytest.fixture
def link(lab: Lab, node: Host, survivor: Host) -> Link:
    return lab.link(
        node,
        survivor,
        ["10.0.0.1/24", f"{NODE}/64", "fe80::1/64"],
        ["10.0.0.2/24", f"{OWN}/64", "fe80::2/64"],
    )


@pytest.fixture
def listening(survivor: Host, link: Link) -> Iterator[Listener]:
    """One on the survivor that hears all of that network."""
    need_kernel_counting()
    sockets = [survivor.open_socket(family) for family in (socket.AF_INET, socket.AF_INET6)]
    for sock in sockets:
        prepare_udp(sock)
        sock.bind(("", PORT))
    networks = ["10.0.0.0/24", "fd00::/64", "fe80::/10"]
    with Listener(
        networks=networks,
        sockets=sockets,
        receive_buffer=1,
        repeat_interval=3600,
        counting="kernel",
    ) as made:
        yield made


def accepted(listening: Listener) -> int:
    return listening.snapshot().counts["accepted"]


def began(listening: Listener) -> None:
    """The dump of the node that has just sent its first message."""
    (event,) = listening.events(10)
    assert event.kind == "began"


@pytest.mark.slow
@pytest.mark.parametrize(("source", "target"), WAYS)
def test_a_node_is_counted_whatever_its_address_and_the_survivors_users_are_not(
    listening: Listener, node: Host, survivor: Host, link: Link, source: str, target: str
) -> None:
    interface = link.interface(node) if source.startswith("fe80") else ""
    say(node, source, target, interface=interface)
    began(listening)
    say(node, source, target, interface=interface, times=MANY)
    assert accepted(listening) == MANY + 1
    own = [OWN, "ff02::1%" + link.interface(survivor)]
    if interface:
        source = f"{source}%{link.interface(survivor)}"
    else:
        own.append("::1")
    for host in own if ":" in source else ():
        assert forge(survivor, source, host)
    assert accepted(listening) == MANY + 1
    assert listening.snapshot().counts["unread"] == 0


@pytest.mark.slow
def test_an_ipv4_address_in_an_ipv6_header_is_not_counted_as_the_nodes(
    listening: Listener, node: Host
) -> None:
    say(node, "10.0.0.1", "10.0.0.2")
    began(listening)
    for _ in range(10):
        say_from_anywhere(node, "::ffff:10.0.0.1", OWN)
    assert accepted(listening) == 1


@pytest.mark.slow
def test_the_same_link_local_address_behind_another_interface_is_another_node(
    listening: Listener, lab: Lab, node: Host, survivor: Host, link: Link
) -> None:
    second = lab.link(node, survivor, ["fe80::1/64"], ["fe80::2/64"])
    if second.interface(node) == link.interface(node):
        cannot_run("the lab has one interface for both")
    for cable in (link, second):
        say(node, "fe80::1", "fe80::2", interface=cable.interface(node))
        began(listening)
    for cable in (link, second, link):
        say(node, "fe80::1", "fe80::2", interface=cable.interface(node), times=MANY)
    assert accepted(listening) == 3 * MANY + 2
    messages = [dump.messages for dump in listening.snapshot().dumps]
    assert messages == [2 * MANY + 1, MANY + 1]

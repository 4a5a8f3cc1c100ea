# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel tells of interfaces; of VRFs in tests/system/guest, for few kernels have them."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest

from kdumpfence.links import Links, hears_vrfs, is_bound
from tests.support.netlab import Host, Lab, joined


@pytest.fixture
def links(lab: Lab, survivor: Host) -> Iterator[Links]:
    with joined(survivor.pid, "net"):
        made = Links()
        yield made
        made.close()


def test_a_change_is_told_once(links: Links, survivor: Host) -> None:
    assert not links.changed()
    for words in (
        ("link", "add", "one", "type", "veth", "peer", "name", "two"),
        ("link", "set", "dev", "one", "up"),
        ("address", "add", "10.0.0.1/24", "dev", "one"),
        ("address", "add", "fd00::1/64", "dev", "one", "nodad"),
        ("link", "delete", "dev", "one"),
    ):
        survivor.tool("ip", *words)
        # An IPv6 address is told of a moment later, and again.
        assert select.select([links.fd], [], [], 5)[0], words
        assert links.changed(), words
    assert links.vrfs == set()


def test_an_interface_lies_in_no_vrf_though_it_be_gone(links: Links, survivor: Host) -> None:
    survivor.tool("ip", "link", "add", "one", "type", "veth", "peer", "name", "two")
    index = socket.if_nametoindex("one")
    assert not links.in_vrf(socket.if_nametoindex("lo"))
    assert not links.in_vrf(index)
    survivor.tool("ip", "link", "delete", "dev", "one")
    assert not links.in_vrf(index)
    assert links.changed(), "asking in between takes no news away"


def test_who_lost_news_says_so_and_believes_nothing_of_what_is_gone(
    links: Links, survivor: Host
) -> None:
    with socket.socket(fileno=os.dup(links.fd)) as events:
        events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for _ in range(4):
        survivor.tool("ip", "link", "add", "one", "type", "veth", "peer", "name", "two")
        index = socket.if_nametoindex("one")
        survivor.tool("ip", "link", "delete", "dev", "one")
    assert links.changed()
    assert links.in_vrf(index)
    assert not links.in_vrf(socket.if_nametoindex("lo"))


def test_a_socket_that_is_bound_to_an_interface_hears_that_alone(survivor: Host) -> None:
    sock = survivor.open_socket()
    with joined(survivor.pid, "net"):
        assert not is_bound(sock)
        assert not hears_vrfs(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        assert is_bound(sock)
        assert hears_vrfs(sock)

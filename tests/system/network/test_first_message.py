# SPDX-License-Identifier: GPL-2.0-or-later
"""The moment in which a message can leave, and the one in which it does: 0.2 s are promised.

Each case is played five times, and the median counts: a machine that is busy with something
else makes one of them late, a sender that waits for its next round makes them all late.
"""

from __future__ import annotations

import random
import socket
import statistics
import time
from collections.abc import Callable

import pytest

from tests.support.netlab import Host, Lab, Link
from tests.system.network.datagrams import receiver
from tests.system.network.programs import Programs, Running

PROMISED = 0.2
ROUNDS = 5
TARGETS = {socket.AF_INET: "10.0.0.2", socket.AF_INET6: "fd00::2"}


def measure(
    lab: Lab,
    start: Callable[[Host, Host, Link], Running],
    come: Callable[[Host, Link], object],
    family: socket.AddressFamily = socket.AF_INET,
) -> float:
    """Median seconds from the moment in which `come` is done to the arrival of a message.

    The survivor has its addresses before; the node has what `start` gives it.
    """
    dice = random.Random(7410)
    places = []
    for number in range(ROUNDS):
        node, survivor = lab.host(f"node{number}"), lab.host(f"survivor{number}")
        link = lab.link(node, survivor)
        for address in ("10.0.0.2/24", "fd00::2/64"):
            link.add_address(survivor, address)
        messages = receiver(survivor, family)
        places.append((node, link, messages, start(node, survivor, link)))
        time.sleep(dice.random() / 10)  # not in step with the others
    time.sleep(1.2)
    took = []
    for node, link, messages, sender in places:
        messages.setblocking(False)
        with pytest.raises(BlockingIOError):
            messages.recv(100)
        come(node, link)
        began = time.monotonic()
        messages.settimeout(20)
        messages.recv(100)
        took.append(time.monotonic() - began)
        sender.process.kill()
    print(f"{[f'{seconds:.4f}' for seconds in sorted(took)]} s after the network was ready")
    return statistics.median(took)


def sends(programs: Programs, target: str) -> Callable[[Host, Host, Link], Running]:
    return lambda node, survivor, link: programs.sender(node, target)


def test_an_interface_that_comes_up(programs: Programs, lab: Lab) -> None:
    def start(node: Host, survivor: Host, link: Link) -> Running:
        link.add_address(node, "10.0.0.1/24")
        link.down(node)
        return programs.sender(node, "10.0.0.2")

    assert measure(lab, start, lambda node, link: link.up(node)) < PROMISED


@pytest.mark.parametrize("family", TARGETS, ids=["ipv4", "ipv6"])
def test_an_address_that_is_added(
    programs: Programs, lab: Lab, family: socket.AddressFamily
) -> None:
    address = "10.0.0.1/24" if family == socket.AF_INET else "fd00::1/64"
    come = lambda node, link: link.add_address(node, address)  # noqa: E731
    assert measure(lab, sends(programs, TARGETS[family]), come, family) < PROMISED


@pytest.mark.parametrize("programs", ["native"], indirect=True)
def test_an_interface_that_is_renamed_and_then_comes_up(programs: Programs, lab: Lab) -> None:
    def start(node: Host, survivor: Host, link: Link) -> Running:
        link.down(node)
        return programs.sender(node, "10.0.0.2")

    def come(node: Host, link: Link) -> None:
        old = link.interface(node)
        node.tool("ip", "link", "set", "dev", old, "name", "kdump0")
        node.tool("ip", "link", "set", "dev", "kdump0", "up")
        node.tool("ip", "address", "add", "10.0.0.1/24", "dev", "kdump0")

    assert measure(lab, start, come) < PROMISED


@pytest.mark.parametrize("programs", ["native", "pure"], indirect=True)
def test_no_interface_at_all_until_it_appears(programs: Programs, lab: Lab) -> None:
    def start(node: Host, survivor: Host, link: Link) -> Running:
        node.tool("ip", "link", "set", "dev", link.interface(node), "netns", str(survivor.pid),
                  "name", "away0")  # fmt: skip
        node.tool("ip", "link", "set", "dev", "lo", "down")  # nor a route to itself
        return programs.sender(node, "10.0.0.2")

    def come(node: Host, link: Link) -> None:
        node.tool("ip", "link", "set", "dev", "lo", "up")
        survivor = next(host for host in link.hosts if host is not node)
        survivor.tool("ip", "link", "set", "dev", "away0", "netns", str(node.pid), "name", "late0")
        node.tool("ip", "link", "set", "dev", "late0", "up")
        node.tool("ip", "address", "add", "10.0.0.1/24", "dev", "late0")

    assert measure(lab, start, come) < PROMISED


@pytest.mark.parametrize("programs", ["native", "compiled"], indirect=True)
def test_an_ipv6_address_that_is_no_longer_tentative(programs: Programs, lab: Lab) -> None:
    def start(node: Host, survivor: Host, link: Link) -> Running:
        return programs.sender(node, "fd00::2")

    def come(node: Host, link: Link) -> None:
        link.add_address(node, "fd00::1/64", dad=True)
        while "fd00::" in node.tool("ip", "-6", "address", "show", "tentative").stdout:
            time.sleep(0.01)

    assert measure(lab, start, come, socket.AF_INET6) < PROMISED


def with_all_tentative(node: Host, link: Link) -> None:
    """Let the link come up as on a machine with IPv6 alone: not even its own address is usable."""
    name = link.interface(node)
    link.down(node)
    node.set_sysctl(f"net/ipv6/conf/{name}/accept_dad", "1")
    node.set_sysctl(f"net/ipv6/conf/{name}/dad_transmits", "2")
    node.tool("ip", "link", "set", "dev", name, "up")
    node.tool("ip", "address", "add", "fd00::1/64", "dev", name)


def test_while_all_addresses_are_tentative_nothing_is_taken_for_sent(
    programs: Programs, lab: Lab
) -> None:
    """Meanwhile the kernel sends from ::1, which is to be had as lo is up, and nothing leaves."""
    took = []
    for number in range(3):
        node, survivor = lab.host(f"node{number}"), lab.host(f"survivor{number}")
        link = lab.link(node, survivor)
        link.add_address(survivor, "fd00::2/64")
        messages = receiver(survivor, socket.AF_INET6)
        messages.settimeout(10)
        with_all_tentative(node, link)
        sender = programs.sender(node, "-c", "1", "fd00::2")
        time.sleep(0.5)
        assert "fd00::1" in node.tool("ip", "-6", "address", "show", "tentative").stdout
        assert sender.process.poll() is None
        # A try would have left a neighbour that is asked for once a second.
        assert node.tool("ip", "-6", "neigh", "show", "fd00::2").stdout == ""
        # The link's own address may be usable first; nobody knows the node by that.
        while "fd00::1" in node.tool("ip", "-6", "address", "show", "tentative").stdout:
            time.sleep(0.005)
        began = time.monotonic()
        assert messages.recvfrom(100)[1][0] == "fd00::1"
        took.append(time.monotonic() - began)
        assert sender.status(within=5) == 0
    print(took)
    assert statistics.median(took) < PROMISED


def test_a_source_that_only_loopback_has_is_none(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    link = lab.link(node, survivor, ["10.0.0.1/32"], ["10.0.0.2/24"])
    messages = receiver(survivor)
    way = ["10.0.0.0/24", "dev", link.interface(node), "src"]
    node.set_sysctl("net/ipv4/conf/all/route_localnet", "1")  # else the kernel refuses to send
    node.tool("ip", "route", "add", *way, "127.0.0.1")
    sender = programs.sender(node, "-c", "1", "10.0.0.2")
    time.sleep(1)
    assert sender.process.poll() is None
    assert "10.0.0.2" not in node.tool("ip", "-4", "neigh", "show").stdout
    node.tool("ip", "route", "replace", *way, "10.0.0.1")
    assert sender.status(within=5) == 0
    assert messages.recvfrom(100)[1][0] == "10.0.0.1"


def test_without_any_address_a_message_does_not_leave_from_none(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    link = lab.link(node, survivor, [], ["10.0.0.2/24"])
    messages = receiver(survivor)
    node.tool("ip", "address", "flush", "dev", "lo")
    node.tool("ip", "route", "add", "10.0.0.0/24", "dev", link.interface(node))
    sender = programs.sender(node, "-c", "1", "10.0.0.2")
    time.sleep(1)
    assert sender.process.poll() is None
    link.add_address(node, "10.0.0.1/24")
    assert sender.status(within=5) == 0
    assert messages.recvfrom(100)[1][0] == "10.0.0.1"


def test_a_rule_that_gives_another_source_is_obeyed(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    """What the main table says is useless, and a rule is in force: its table counts."""
    link = lab.link(node, survivor, ["10.0.9.1/32"], ["10.0.0.2/16"])
    messages = receiver(survivor)
    way = ["10.0.0.0/24", "dev", link.interface(node), "src"]
    node.tool("ip", "route", "add", *way, "127.0.0.1")
    node.tool("ip", "route", "add", *way, "10.0.9.1", "table", "7")
    node.tool("ip", "rule", "add", "to", "10.0.0.0/24", "ipproto", "udp", "dport", "7410",
              "lookup", "7")  # fmt: skip
    sender = programs.sender(node, "-c", "1", "10.0.0.2")
    assert sender.status(within=5) == 0
    assert messages.recvfrom(100)[1][0] == "10.0.9.1"


@pytest.mark.parametrize("programs", ["native", "pure"], indirect=True)
def test_a_route_that_is_added(programs: Programs, lab: Lab) -> None:
    def start(node: Host, survivor: Host, link: Link) -> Running:
        link.add_address(node, "10.9.0.1/24")
        link.add_address(survivor, "10.9.0.2/24")
        return programs.sender(node, "10.0.0.2")

    come = lambda node, link: node.tool(  # noqa: E731
        "ip", "route", "add", "10.0.0.0/24", "dev", link.interface(node)
    )
    assert measure(lab, start, come) < PROMISED


def test_a_hosts_file_that_appears(programs: Programs, lab: Lab) -> None:
    def start(node: Host, survivor: Host, link: Link) -> Running:
        link.add_address(node, "10.0.0.1/24")
        return programs.sender(node, "survivor")

    assert measure(lab, start, lambda node, link: node.add_name("survivor", "10.0.0.2")) < PROMISED


@pytest.mark.parametrize("programs", ["native", "pure"], indirect=True)
def test_a_hosts_file_that_appears_while_a_name_server_is_waited_for(
    programs: Programs, lab: Lab
) -> None:
    def start(node: Host, survivor: Host, link: Link) -> Running:
        link.add_address(node, "10.0.0.1/24")
        node.hang_name_service()
        return programs.sender(node, "survivor")

    assert measure(lab, start, lambda node, link: node.add_name("survivor", "10.0.0.2")) < PROMISED

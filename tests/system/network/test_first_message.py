# SPDX-License-Identifier: LGPL-2.1-or-later
"""The moment in which a message can leave, and the one in which it does: 0.2 s are promised.

Each case is played five times, and the median counts: a machine that is busy with something
else makes one of them late, a sender that waits for its next round makes them all late.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
import time
from collections.abc import Callable

import pytest

from tests.support.messages import family
from tests.support.netlab import Host, Lab, Link
from tests.system.network.datagrams import receiver
from tests.system.network.programs import Programs

PROMISED = 0.2
ROUNDS = 5

Step = Callable[[Host, Host, Link], object]  # of the node, the survivor and what is between them


def _give(address: str) -> Step:
    return lambda node, _, link: link.add_address(node, address)


def _take_down(node: Host, _: Host, link: Link) -> None:
    link.add_address(node, "10.0.0.1/24")
    link.down(node)


def _rename_and_bring_up(node: Host, _: Host, link: Link) -> None:
    node.tool("ip", "link", "set", "dev", link.interface(node), "name", "kdump0")
    node.tool("ip", "link", "set", "dev", "kdump0", "up")
    node.tool("ip", "address", "add", "10.0.0.1/24", "dev", "kdump0")


def _take_away(node: Host, survivor: Host, link: Link) -> None:
    """No interface at all, nor a route to itself."""
    away = ("netns", str(survivor.pid), "name", "away0")
    node.tool("ip", "link", "set", "dev", link.interface(node), *away)
    node.tool("ip", "link", "set", "dev", "lo", "down")


def _bring_back(node: Host, survivor: Host, _: Link) -> None:
    node.tool("ip", "link", "set", "dev", "lo", "up")
    survivor.tool("ip", "link", "set", "dev", "away0", "netns", str(node.pid), "name", "late0")
    node.tool("ip", "link", "set", "dev", "late0", "up")
    node.tool("ip", "address", "add", "10.0.0.1/24", "dev", "late0")


def _give_tentative(node: Host, _: Host, link: Link) -> None:
    link.add_address(node, "fd00::1/64", dad=True)
    while "fd00::" in node.tool("ip", "-6", "address", "show", "tentative").stdout:
        time.sleep(0.01)


def _give_without_route(node: Host, survivor: Host, link: Link) -> None:
    link.add_address(node, "10.9.0.1/24")
    link.add_address(survivor, "10.9.0.2/24")


def _add_route(node: Host, _: Host, link: Link) -> None:
    node.tool("ip", "route", "add", "10.0.0.0/24", "dev", link.interface(node))


def _add_name(node: Host, _: Host, link: Link) -> None:
    node.add_name("survivor", "10.0.0.2")


def _let_name_server_hang(node: Host, _: Host, link: Link) -> None:
    link.add_address(node, "10.0.0.1/24")
    node.hang_name_service()


@dataclasses.dataclass(frozen=True)
class Case:
    """What is so before the sender starts, and what then comes; and with which programs."""

    come: Step
    before: Step = lambda node, survivor, link: None
    target: str = "10.0.0.2"
    forms: tuple[str, ...] = ("compiled", "pure", "native")


CASES = {
    "an interface comes up": Case(lambda node, _, link: link.up(node), before=_take_down),
    "an IPv4 address": Case(_give("10.0.0.1/24")),
    "an IPv6 address": Case(_give("fd00::1/64"), target="fd00::2"),
    "an interface is renamed and comes up": Case(
        _rename_and_bring_up, before=lambda node, _, link: link.down(node), forms=("native",)
    ),
    "the only interface appears": Case(_bring_back, before=_take_away, forms=("native", "pure")),
    "an address is no longer tentative": Case(
        _give_tentative, target="fd00::2", forms=("native", "compiled")
    ),
    "a route": Case(_add_route, before=_give_without_route, forms=("native", "pure")),
    "a hosts file": Case(_add_name, before=_give("10.0.0.1/24"), target="survivor"),
    "a hosts file, while a name server is waited for": Case(
        _add_name, before=_let_name_server_hang, target="survivor", forms=("native", "pure")
    ),
}


@pytest.mark.parametrize(
    ("programs", "what"),
    [(form, what) for what, case in CASES.items() for form in case.forms],
    indirect=["programs"],
)
@pytest.mark.slow
def test_what_makes_a_message_possible(programs: Programs, lab: Lab, what: str) -> None:
    case = CASES[what]
    dice = random.Random(7410)
    places = []
    for number in range(ROUNDS):
        node, survivor = lab.host(f"node{number}"), lab.host(f"survivor{number}")
        link = lab.link(node, survivor)
        for address in ("10.0.0.2/24", "fd00::2/64"):
            link.add_address(survivor, address)
        messages = receiver(survivor, family(case.target))
        case.before(node, survivor, link)
        places.append((node, survivor, link, messages, programs.sender(node, case.target)))
        time.sleep(dice.random() / 10)  # not in step with the others
    time.sleep(1.2)
    took = []
    for node, survivor, link, messages, sender in places:
        messages.setblocking(False)
        with pytest.raises(BlockingIOError):
            messages.recv(100)
        case.come(node, survivor, link)
        began = time.monotonic()
        messages.settimeout(20)
        messages.recv(100)
        took.append(time.monotonic() - began)
        sender.process.kill()
    print(f"{[f'{seconds:.4f}' for seconds in sorted(took)]} s after the network was ready")
    assert statistics.median(took) < PROMISED


def with_all_tentative(node: Host, link: Link) -> None:
    """Let the link come up as on a machine with IPv6 alone: not even its own address is usable."""
    name = link.interface(node)
    link.down(node)
    node.set_sysctl(f"net/ipv6/conf/{name}/accept_dad", "1")
    node.set_sysctl(f"net/ipv6/conf/{name}/dad_transmits", "2")
    node.tool("ip", "link", "set", "dev", name, "up")
    node.tool("ip", "address", "add", "fd00::1/64", "dev", name)


@pytest.mark.slow
def test_while_all_addresses_are_tentative_nothing_is_taken_for_sent(
    programs: Programs, lab: Lab
) -> None:
    """Meanwhile the kernel sends from ::1, which is to be had as lo is up, and nothing leaves."""
    took = []
    for number in range(3):
        node, survivor = lab.host(f"node{number}"), lab.host(f"survivor{number}")
        link = lab.link(node, survivor)
        link.add_address(survivor, "fd00::2/64")
        messages = receiver(survivor, family("fd00::2"))
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


@pytest.mark.slow
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


@pytest.mark.slow
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

# SPDX-License-Identifier: LGPL-2.1-or-later
"""An interface that is deleted and made anew while an agent waits, as bonds and bridges may be."""

from __future__ import annotations

import time

import pytest

from tests.support.netlab import Host
from tests.system.network.datagrams import say
from tests.system.network.programs import EVERY_AGENT, Programs

NODE = "fe80::1%eth0"
ADDRESSES = ("10.0.0.1/24", "fd00::1/64", "fe80::1/64")
OWN = ("10.0.0.2/24", "fd00::2/64", "fe80::2/64")


def make(node: Host, survivor: Host, name: str = "eth0", own: tuple[str, ...] = OWN) -> None:
    """An interface of that name on both hosts, with a cable between them."""
    peer = ["peer", "name", name, "netns", str(node.pid)]
    survivor.tool("ip", "link", "add", "name", name, "type", "veth", *peer)
    for host, addresses in ((node, ADDRESSES), (survivor, own)):
        host.tool("ip", "link", "set", "dev", name, "up")
        for address in addresses:
            give(host, name, address)


def give(host: Host, interface: str, address: str) -> None:
    nodad = ["nodad"] if ":" in address else []
    host.tool("ip", "address", "replace", address, "dev", interface, *nodad)
    if nodad:
        host.await_address(interface, address)


def rename(survivor: Host, before: str, after: str, address: str) -> None:
    """Call it otherwise, and give it back the address that it loses by that."""
    survivor.tool("ip", "link", "set", "dev", before, "down")
    survivor.tool("ip", "link", "set", "dev", before, "name", after)
    survivor.tool("ip", "link", "set", "dev", after, "up")
    give(survivor, after, address)


def delete(survivor: Host, name: str = "eth0") -> None:
    survivor.tool("ip", "link", "delete", "dev", name)


def index(host: Host, name: str) -> int:
    return int(host.tool("ip", "-o", "link", "show", "dev", name).stdout.partition(":")[0])


def say_link_local(node: Host, target: str = "fe80::2", interface: str = "eth0") -> None:
    say(node, "fe80::1", target, interface=interface)


@EVERY_AGENT
@pytest.mark.slow
def test_a_link_local_node_is_heard_over_the_new_interface(
    programs: Programs, node: Host, survivor: Host
) -> None:
    make(node, survivor)
    agent = programs.waiting_agent(survivor, NODE)
    for _ in range(3):
        before = index(survivor, "eth0")
        delete(survivor)
        time.sleep(0.2)
        make(node, survivor)
        assert index(survivor, "eth0") != before
    assert agent.goes_on()
    say_link_local(node)
    assert agent.status(within=5) == 0


@EVERY_AGENT
@pytest.mark.parametrize("over", ["old", "new"])
def test_a_message_counts_that_came_before_the_agent_knew_of_the_new_interface(
    programs: Programs, node: Host, survivor: Host, over: str
) -> None:
    make(node, survivor)
    agent = programs.waiting_agent(survivor, NODE)
    agent.stop()
    if over == "old":
        say_link_local(node)
    delete(survivor)
    make(node, survivor)
    if over == "new":
        say_link_local(node)
    agent.cont()
    assert agent.status(within=5) == 0


@EVERY_AGENT
@pytest.mark.parametrize("made", ["before", "meanwhile"])
@pytest.mark.slow
def test_the_same_address_behind_another_interface_is_a_stranger_whatever_that_was_called(
    programs: Programs, node: Host, survivor: Host, made: str
) -> None:
    make(node, survivor)
    if made == "before":
        make(node, survivor, "other", ("fe80::3/64",))
    agent = programs.waiting_agent(survivor, NODE)
    if made == "meanwhile":
        make(node, survivor, "other", ("fe80::3/64",))
        assert agent.goes_on()
    say_link_local(node, "fe80::3", "other")
    assert agent.goes_on()
    # It gets the node's interface's name only now.
    delete(survivor)
    rename(survivor, "other", "eth0", "fe80::3/64")
    assert agent.goes_on()
    say_link_local(node, "fe80::3", "other")
    assert agent.status(within=5) == 0


@EVERY_AGENT
@pytest.mark.slow
def test_the_old_interface_under_another_name_is_not_the_nodes_any_more(
    programs: Programs, node: Host, survivor: Host
) -> None:
    make(node, survivor)
    make(node, survivor, "other", ("fe80::3/64",))
    agent = programs.waiting_agent(survivor, NODE)
    rename(survivor, "eth0", "spare", "fe80::2/64")
    rename(survivor, "other", "eth0", "fe80::3/64")
    rename(survivor, "spare", "other", "fe80::2/64")
    assert agent.goes_on()
    say_link_local(node)  # over the cable whose other end is called `other` now
    assert agent.goes_on()
    say_link_local(node, "fe80::3", "other")
    assert agent.status(within=5) == 0


@EVERY_AGENT
@pytest.mark.parametrize(("source", "prefix"), [("10.0.0.1", "/24"), ("fd00::1", "/64")])
@pytest.mark.parametrize("number", [2, 7])
@pytest.mark.slow
def test_other_nodes_are_heard_over_it_too_even_at_another_address(
    programs: Programs, node: Host, survivor: Host, source: str, prefix: str, number: int
) -> None:
    make(node, survivor)
    agent = programs.waiting_agent(survivor, source)
    delete(survivor)
    target = f"{source[:-1]}{number}"
    make(node, survivor, own=(target + prefix,))
    assert agent.goes_on()
    say(node, source, target)
    assert agent.status(within=5) == 0

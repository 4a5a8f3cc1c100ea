"""An interface that is deleted and made anew while an agent waits, as bonds and bridges may be."""

from __future__ import annotations

import signal
import socket
import time

import pytest

from tests.support.netlab import Host
from tests.system.network.datagrams import MESSAGE
from tests.system.network.programs import Programs, Running

every_way = pytest.mark.parametrize(
    "programs", ["compiled", "pure", "compiled-no_raw", "pure-no_raw"], indirect=True
)

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
            nodad = ["nodad"] if ":" in address else []
            host.tool("ip", "address", "replace", address, "dev", name, *nodad)


def delete(survivor: Host, name: str = "eth0") -> None:
    survivor.tool("ip", "link", "delete", "dev", name)


def index(host: Host, name: str) -> int:
    return int(host.tool("ip", "-o", "link", "show", "dev", name).stdout.partition(":")[0])


def send(node: Host, source: str, target: str, interface: str = "eth0") -> None:
    """A message, over that interface if they are link-local."""
    scope = index(node, interface) if source.startswith("fe80") else 0
    with node.open_socket(socket.AF_INET6 if ":" in source else socket.AF_INET) as sock:
        sock.bind((source, 0, 0, scope) if ":" in source else (source, 0))
        sock.sendto(MESSAGE, (target, 7410, 0, scope) if ":" in source else (target, 7410))


def waits(programs: Programs, survivor: Host, name: str) -> Running:
    agent = programs.agent(survivor, "-n", name, "-t", "30")
    agent.waits()
    return agent


def goes_on_waiting(agent: Running) -> bool:
    time.sleep(0.7)
    return agent.process.poll() is None


@every_way
@pytest.mark.slow
def test_a_link_local_node_is_heard_over_the_new_interface(
    programs: Programs, node: Host, survivor: Host
) -> None:
    make(node, survivor)
    agent = waits(programs, survivor, NODE)
    for _ in range(3):
        before = index(survivor, "eth0")
        delete(survivor)
        time.sleep(0.2)
        make(node, survivor)
        assert index(survivor, "eth0") != before
    assert goes_on_waiting(agent)
    send(node, "fe80::1", "fe80::2")
    assert agent.status(within=5) == 0


@every_way
def test_a_message_counts_that_came_before_the_agent_knew_of_the_new_interface(
    programs: Programs, node: Host, survivor: Host
) -> None:
    make(node, survivor)
    agent = waits(programs, survivor, NODE)
    agent.process.send_signal(signal.SIGSTOP)
    delete(survivor)
    make(node, survivor)
    send(node, "fe80::1", "fe80::2")
    agent.process.send_signal(signal.SIGCONT)
    assert agent.status(within=5) == 0


@every_way
def test_a_message_counts_that_came_over_the_old_interface(
    programs: Programs, node: Host, survivor: Host
) -> None:
    make(node, survivor)
    agent = waits(programs, survivor, NODE)
    agent.process.send_signal(signal.SIGSTOP)
    send(node, "fe80::1", "fe80::2")
    delete(survivor)
    make(node, survivor)
    agent.process.send_signal(signal.SIGCONT)
    assert agent.status(within=5) == 0


@every_way
@pytest.mark.slow
def test_the_same_address_behind_another_interface_is_a_stranger_whatever_that_was_called(
    programs: Programs, node: Host, survivor: Host
) -> None:
    make(node, survivor)
    make(node, survivor, "other", ("fe80::3/64",))
    agent = waits(programs, survivor, NODE)
    send(node, "fe80::1", "fe80::3", "other")
    assert goes_on_waiting(agent)
    # It gets the node's interface's name only now.
    delete(survivor)
    survivor.tool("ip", "link", "set", "dev", "other", "down")
    survivor.tool("ip", "link", "set", "dev", "other", "name", "eth0")
    survivor.tool("ip", "link", "set", "dev", "eth0", "up")
    survivor.tool("ip", "address", "replace", "fe80::3/64", "dev", "eth0", "nodad")
    assert goes_on_waiting(agent)
    send(node, "fe80::1", "fe80::3", "other")
    assert agent.status(within=5) == 0


@every_way
@pytest.mark.slow
def test_the_old_interface_under_another_name_is_not_the_nodes_any_more(
    programs: Programs, node: Host, survivor: Host
) -> None:
    make(node, survivor)
    make(node, survivor, "other", ("fe80::3/64",))
    agent = waits(programs, survivor, NODE)
    for before, after in (("eth0", "spare"), ("other", "eth0"), ("spare", "other")):
        survivor.tool("ip", "link", "set", "dev", before, "down")
        survivor.tool("ip", "link", "set", "dev", before, "name", after)
        survivor.tool("ip", "link", "set", "dev", after, "up")
        own = "fe80::3/64" if before == "other" else "fe80::2/64"
        survivor.tool("ip", "address", "replace", own, "dev", after, "nodad")
    assert goes_on_waiting(agent)
    send(node, "fe80::1", "fe80::2", "eth0")  # whose other end is called `other` now
    assert goes_on_waiting(agent)
    send(node, "fe80::1", "fe80::3", "other")
    assert agent.status(within=5) == 0


@every_way
@pytest.mark.parametrize(("source", "own"), [("10.0.0.1", "10.0.0.7"), ("fd00::1", "fd00::7")])
@pytest.mark.slow
def test_other_nodes_are_heard_over_it_too_even_at_another_address(
    programs: Programs, node: Host, survivor: Host, source: str, own: str
) -> None:
    for target in ("10.0.0.2" if "." in own else "fd00::2", own):
        make(node, survivor)
        agent = waits(programs, survivor, source)
        delete(survivor)
        prefix = "/24" if "." in own else "/64"
        make(node, survivor, own=(target + prefix,))
        assert goes_on_waiting(agent)
        send(node, source, target)
        assert agent.status(within=5) == 0
        delete(survivor)

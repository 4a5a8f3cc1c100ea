# SPDX-License-Identifier: LGPL-2.1-or-later
"""What this machine sends itself is never a proof, whoever it says that it comes from."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from tests.support.messages import PORT
from tests.support.netlab import Host, Lab, Link
from tests.system.network.datagrams import forge, say_from_anywhere
from tests.system.network.programs import EVERY_AGENT, Listening, Programs

NODE, OWN = "fd00::1", "fd00::2"
LINK_LOCAL_NODE, LINK_LOCAL_OWN = "fe80::1%eth0", "fe80::2%eth0"

#: From where to where a user of the survivor can send so that the survivor hears it.
FORGERIES = [
    (NODE, "::1"),
    (NODE, OWN),
    (NODE, LINK_LOCAL_OWN),
    (NODE, "ff02::1%eth0"),  # copies of what is sent to all come back over the same interface
    (NODE, "ff01::1%eth0"),
    (LINK_LOCAL_NODE, LINK_LOCAL_OWN),
    (LINK_LOCAL_NODE, OWN),
    (LINK_LOCAL_NODE, "ff02::1%eth0"),
]


@pytest.fixture
def link(lab: Lab, node: Host, survivor: Host) -> Link:
    return lab.link(
        node,
        survivor,
        ["10.0.0.1/24", f"{NODE}/64", "fe80::1/64"],
        ["10.0.0.2/24", f"{OWN}/64", "fe80::2/64"],
    )


@EVERY_AGENT
@pytest.mark.slow
def test_a_user_of_the_survivor_cannot_be_the_node(
    programs: Programs, node: Host, survivor: Host, link: Link
) -> None:
    agent = programs.waiting_agent(survivor, f"{NODE},{LINK_LOCAL_NODE}")
    for source, target in FORGERIES:
        assert forge(survivor, source, target), f"{source} to {target}"
    assert not forge(survivor, "10.0.0.1", "10.0.0.2"), "IPv4 does not allow that"
    assert agent.goes_on(1)
    programs.sender(node, "-c", "1", OWN)
    assert agent.status(within=10) == 0


@EVERY_AGENT
@pytest.mark.parametrize("source", [NODE, LINK_LOCAL_NODE])
@pytest.mark.slow
def test_the_node_itself_is_heard_at_every_address(
    programs: Programs, node: Host, survivor: Host, link: Link, source: str
) -> None:
    for target in (OWN, LINK_LOCAL_OWN, "ff02::1%eth0"):
        agent = programs.waiting_agent(survivor, source)
        assert forge(node, source, target)
        assert agent.status(within=10) == 0


@EVERY_AGENT
@pytest.mark.slow
def test_an_ipv4_address_in_an_ipv6_header_is_not_the_nodes(
    programs: Programs, node: Host, survivor: Host, link: Link
) -> None:
    agent = programs.waiting_agent(survivor, "10.0.0.1")
    with survivor.open_socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((OWN, PORT))
        sock.settimeout(10)
        say_from_anywhere(node, "::ffff:10.0.0.1", OWN)
        assert sock.recvfrom(99)[1][0] == "::ffff:10.0.0.1", "the kernel lets it through"
    say_from_anywhere(node, "::ffff:10.0.0.1", OWN)
    assert agent.goes_on(1)
    programs.sender(node, "-c", "1", "10.0.0.2")
    assert agent.status(within=10) == 0


def test_a_listener_does_not_take_it_for_the_node_either(
    core_name: str, node: Host, survivor: Host, link: Link
) -> None:
    listening = Listening(survivor, core_name, '{"node1": ["10.0.0.1"]}', '["0.0.0.0/0", "::/0"]')
    say_from_anywhere(node, "::ffff:10.0.0.1", OWN)
    say_from_anywhere(node, "::ffff:10.0.0.7", OWN)
    assert forge(node, NODE, OWN)
    assert listening.line().startswith(f"began {NODE} ")
    assert forge(node, "10.0.0.1", "10.0.0.2")
    assert listening.line().startswith("began node1 ")


@pytest.mark.parametrize("nodes", ['{"node1": ["fd00::2"]}', "[]"])
def test_nor_does_it_believe_another_machine_that_speaks_from_its_own_address(
    core_name: str, node: Host, survivor: Host, link: Link, nodes: str
) -> None:
    listening = Listening(survivor, core_name, nodes, '["fd00::/64"]')
    say_from_anywhere(node, OWN, OWN)
    assert forge(node, NODE, OWN)
    assert listening.line().startswith(f"began {NODE} ")


@EVERY_AGENT
@pytest.mark.slow
def test_a_message_that_lay_there_before_the_agent_could_look_is_none(
    programs: Programs, survivor: Host, link: Link
) -> None:
    """A raw socket hears from the moment it is made, before it has a filter."""
    flood = survivor.popen(
        [sys.executable, "-c", FLOOD, NODE, "::1"], stdout=subprocess.PIPE, stderr=None
    )
    assert flood.stdout is not None
    assert flood.stdout.readline() == "sends\n"
    for _ in range(5):
        assert programs.agent(survivor, "-n", NODE, "-t", "1").status(within=30) == 1
    assert flood.poll() is None


FLOOD = """if True:
    import socket, sys
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, 78, 1)
        sock.bind((sys.argv[1], 0))
        sock.connect((sys.argv[2], 7410))
        print("sends", flush=True)
        while True:
            try:
                sock.send(bytes.fromhex("402a301b01000000"))
            except ConnectionRefusedError:
                pass
"""


@EVERY_AGENT
@pytest.mark.slow
def test_a_name_that_leads_to_this_machine_proves_nothing(
    programs: Programs, node: Host, survivor: Host, link: Link
) -> None:
    survivor.add_name("node1", "127.0.1.1", "::1", "10.0.0.1")
    agent = programs.waiting_agent(survivor, "node1")
    for source, target in (("127.0.1.1", "127.0.0.1"), ("::1", "::1"), ("127.0.1.1", "10.0.0.2")):
        assert forge(survivor, source, target)
    assert agent.goes_on(1)
    programs.sender(node, "-c", "1", "10.0.0.2")
    assert agent.status(within=10) == 0


@EVERY_AGENT
@pytest.mark.parametrize("address", ["127.0.1.1", "::1"])
def test_a_loopback_address_that_is_given_as_such_counts(
    programs: Programs, survivor: Host, address: str
) -> None:
    agent = programs.waiting_agent(survivor, address)
    assert forge(survivor, address, address)
    assert agent.status(within=10) == 0


@pytest.mark.slow
def test_a_listener_does_not_hear_its_own_machine(
    core_name: str, node: Host, survivor: Host, link: Link
) -> None:
    survivor.add_name("trap", "127.0.1.1", "::1")
    listening = Listening(
        survivor,
        core_name,
        '{"node1": ["fd00::1", "fe80::1%eth0"], "trap": []}',
        '["::/0", "0.0.0.0/0"]',
    )
    for source, target in FORGERIES:
        assert forge(survivor, source, target), f"{source} to {target}"
    for source, target in (("127.0.1.1", "127.0.0.1"), ("::1", "::1"), ("10.0.0.2", "10.0.0.2")):
        assert forge(survivor, source, target)
    time.sleep(0.5)
    assert forge(node, NODE, OWN)
    said = listening.line()
    assert said.startswith("began node1 ")
    # They did not count as lost either: that would be told as an event.
    assert '"accepted": 1,' in said
    assert '"short": 9,' in said
    assert '"stranger": 2,' in said  # 127.0.1.1 and ::1
    assert '"unread": 0' in said
    assert forge(node, "10.0.0.1", "10.0.0.2")
    assert listening.line().startswith("began 10.0.0.1 ")


def test_a_listener_hears_loopback_addresses_that_are_given_as_such(
    core_name: str, survivor: Host
) -> None:
    listening = Listening(survivor, core_name, '{"one": ["::1"]}', '["127.0.0.0/8"]')
    assert forge(survivor, "::1", "::1")
    assert listening.line().startswith("began one ")
    assert forge(survivor, "127.0.1.1", "127.0.0.1")
    assert listening.line().startswith("began 127.0.1.1 ")

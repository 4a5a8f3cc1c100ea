# SPDX-License-Identifier: LGPL-2.1-or-later
"""Questions and answers between hosts: who is believed, from where, and whatever lies between."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support import packets
from tests.support.answerer import (
    CURRENT,
    NODE,
    PREVIOUS,
    Answer,
    Answerer,
    alive,
    dumping,
    key_text,
    packet,
    silent,
)
from tests.support.messages import MESSAGE, PORT, family
from tests.support.netlab import Host, Lab, Link
from tests.system.network.datagrams import arrives, forge, receiver
from tests.system.network.nat import Nat
from tests.system.network.programs import BOTH_CORES, EVERY_AGENT, Programs, Running

pytestmark = pytest.mark.slow

IPV4, IPV6, LINK_LOCAL = "10.0.0.1", "fd00::1", "fe80::1%eth0"
OWN = "fd00::2"
KEY_FILE = "/etc/kdump-key"
SIGNED = ("--auth=sha256", f"--key-file={KEY_FILE}")


@pytest.fixture(autouse=True)
def link(lab: Lab, node: Host, survivor: Host) -> Link:
    give_key(survivor, key_text(CURRENT, PREVIOUS))
    return lab.link(
        node,
        survivor,
        [f"{IPV4}/24", f"{IPV6}/64", "fe80::1/64"],
        ["10.0.0.2/24", f"{OWN}/64", "fe80::2/64"],
    )


def give_key(host: Host, text: str) -> None:
    host.write_file(KEY_FILE, text)
    (host.root / KEY_FILE.lstrip("/")).chmod(0o600)


def node_key(name: str = NODE, cluster: bytes = CURRENT) -> str:
    """What is in the node's crash image."""
    key = packets.node_key(cluster, name).hex()
    return f"node {name}\nsigns {packets.key_id(cluster):08x} {key}\n"


@contextlib.contextmanager
def answering(host: Host, answer: Answer, kind: int = socket.AF_INET) -> Iterator[Answerer]:
    """A node that answers at all its addresses of that family."""
    with receiver(host, kind) as sock, Answerer(sock, answer=answer) as one:
        yield one


def agent(programs: Programs, survivor: Host, nodes: str, *options: str) -> Running:
    return programs.agent(survivor, "-n", nodes, "-t", "30", *options)


def send(host: Host, source: tuple[str, int], peer: tuple[str, int], data: bytes) -> None:
    """Send this from an address of the host to where a question came from."""
    with host.open_socket(family(source[0])) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(source)
        sock.sendto(data, peer)


# ------------------------------------------------------------------ with our senders


@BOTH_CORES
@pytest.mark.parametrize("nodes", [IPV4, IPV6, LINK_LOCAL, NODE])
@pytest.mark.parametrize("signed", [False, True])
def test_a_sender_that_answers_is_a_yes_in_a_round_trip(
    programs: Programs, node: Host, survivor: Host, nodes: str, signed: bool
) -> None:
    node.crash()
    give_key(node, node_key())
    survivor.add_name(NODE, IPV4, IPV6)
    # It says so by itself to others only.
    how = ("--node", NODE, "--key-file", KEY_FILE) if signed else ()
    sender = programs.sender(node, *how, "10.0.0.99")
    sender.says("[debug]: '10.0.0.99' is 10.0.0.99")
    options = (*SIGNED, "--plug", NODE) if signed else ()
    waiting = agent(programs, survivor, nodes, *options)
    assert waiting.status(within=10) == 0
    assert waiting.age < 5


@BOTH_CORES
@pytest.mark.parametrize(
    ("its", "status"),
    [
        (node_key(), 0),
        (node_key(cluster=PREVIOUS), 0),
        (node_key("node2"), 1),
        (node_key(cluster=b"?" * 32), 1),
        ("", 1),
    ],
    ids=["current", "previous", "another node's", "another cluster's", "none"],
)
def test_the_key_in_the_crash_image_decides(
    programs: Programs, node: Host, survivor: Host, its: str, status: int
) -> None:
    node.crash()
    give_key(node, its)
    sender = programs.sender(node, "--node", NODE, "--key-file", KEY_FILE, "10.0.0.2")
    sender.says_of("[debug]: message sent to node")
    nodes = f"{NODE},{IPV4}"
    waiting = programs.agent(survivor, "-n", nodes, "-t", "10" if status == 0 else "3", *SIGNED)
    assert waiting.status(within=20) == status


# ------------------------------------------------------------------ who is believed


@EVERY_AGENT
def test_a_signed_answer_counts_from_whatever_address_and_an_unsigned_one_does_not(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    other = lab.host("other")
    lab.link(other, survivor, ["10.9.0.1/24"], ["10.9.0.2/24"])
    for options, status in (((), None), (SIGNED, 0)):
        with answering(node, silent) as one:
            waiting = agent(programs, survivor, f"{NODE},{IPV4}", *options)
            (_, port) = one.question()[1]
            send(other, ("10.9.0.1", 0), ("10.9.0.2", port), packet("status", one.nonce()))
            if status is None:
                assert waiting.goes_on()
                waiting.process.kill()
            else:
                assert waiting.status(within=10) == status


#: From where to where a user of the survivor can send; as tests/system/network/test_own_datagrams.
FORGERIES = [
    (IPV6, "::1"),
    (IPV6, OWN),
    (IPV6, "fe80::2%eth0"),
    (IPV6, "ff02::1%eth0"),
    (LINK_LOCAL, "fe80::2%eth0"),
    (LINK_LOCAL, OWN),
    (LINK_LOCAL, "ff02::1%eth0"),
]


@EVERY_AGENT
@pytest.mark.parametrize("kind", ["status", "alive"])
def test_a_user_of_the_survivor_cannot_answer_for_the_node(
    programs: Programs, node: Host, survivor: Host, kind: str
) -> None:
    """Even one who knew the nonce, which nobody does."""
    with answering(node, silent, socket.AF_INET6) as one:
        nodes = f"{IPV6},{LINK_LOCAL},::ffff:10.0.0.1"
        waiting = agent(programs, survivor, nodes, "--alive-grace=0")
        port, answer = one.question()[1][1], packet(kind, one.nonce(), key=None)
        for source, target in FORGERIES:
            assert forge(survivor, source, target, port=port, data=answer), f"{source} to {target}"
        assert waiting.goes_on()
        peer = (OWN, port)
        send(node, (IPV6, 0), peer, answer)
        assert waiting.status(within=10) == (0 if kind == "status" else 1)


@EVERY_AGENT
def test_an_address_that_this_machine_takes_over_is_neither_asked_nor_believed(
    programs: Programs, node: Host, survivor: Host
) -> None:
    with answering(node, silent) as one:
        waiting = agent(programs, survivor, IPV4)
        _, peer = one.question()
        survivor.tool("ip", "address", "add", f"{IPV4}/32", "dev", "eth0")
        time.sleep(0.3)
        before = len(one.questions)
        send(node, (IPV4, PORT + 1), peer, packet("status", one.nonce(), key=None))
        assert waiting.goes_on()
        assert len(one.questions) == before
        survivor.tool("ip", "address", "del", f"{IPV4}/32", "dev", "eth0")
        send(node, (IPV4, PORT + 1), peer, packet("status", one.nonce(), key=None))
        assert waiting.status(within=10) == 0


@EVERY_AGENT
def test_what_was_recorded_in_an_earlier_crash_is_refused_with_a_key(
    programs: Programs, node: Host, survivor: Host
) -> None:
    recorded: list[bytes] = []

    def crashed(told: packets.Told) -> list[bytes]:
        recorded.extend([packet("status"), packet("status", told.nonce)])
        return recorded[-1:]

    with answering(node, crashed):
        assert agent(programs, survivor, f"{NODE},{IPV4}", *SIGNED).status(within=10) == 0
    for options in (SIGNED, ()):
        with answering(node, lambda _: recorded) as one:  # it stays at that
            waiting = agent(programs, survivor, f"{NODE},{IPV4}", *options)
            one.question()
            for data in recorded:
                send(node, (IPV4, 0), ("10.0.0.2", PORT), data)
            if options:
                assert waiting.goes_on(1.5)
                waiting.process.kill()
            elif programs.rights == ():
                assert waiting.status(within=10) == 0, "without a key it is believed"


@BOTH_CORES
def test_two_waits_for_two_nodes_have_an_answer_each(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    other = lab.host("node2")
    lab.link(other, survivor, ["10.9.0.1/24"], ["10.9.0.2/24"])
    first = agent(programs, survivor, f"{NODE},{IPV4}", *SIGNED)
    second = agent(programs, survivor, "node2,10.9.0.1", *SIGNED)
    with answering(node, dumping), answering(other, silent) as one:
        assert first.status(within=10) == 0
        one.question()
        assert second.goes_on(0.1)
        one.answer = lambda told: [packet("status", told.nonce, name="node2")]
        assert second.status(within=10) == 0


# ------------------------------------------------------------------ what lies between


class Outside:
    """The node behind a router that hides it."""

    def __init__(self, lab: Lab, survivor: Host) -> None:
        self.node, router = lab.host("hidden"), lab.host("router")
        lab.link(self.node, router, ["10.5.0.1/24"], ["10.5.0.254/24"])
        lab.link(router, survivor, ["192.0.2.254/24"], ["192.0.2.2/24"])
        self.node.tool("ip", "route", "add", "default", "via", "10.5.0.254")
        router.set_sysctl("net/ipv4/ip_forward", "0")
        self.nat = Nat(router, "eth0", "192.0.2.254")


@BOTH_CORES
def test_a_node_behind_a_router_that_translates_addresses_is_asked_where_it_speaks_from(
    programs: Programs, lab: Lab, survivor: Host
) -> None:
    outside = Outside(lab, survivor)
    outside.node.crash()
    give_key(outside.node, node_key())
    survivor.add_name(NODE, "10.5.0.1")  # where nobody gets from here
    with outside.nat:
        options = ("--node", NODE, "--key-file", KEY_FILE, "192.0.2.2")
        sender = programs.sender(outside.node, *options)
        sender.says_of("[debug]: message sent to node")
        assert agent(programs, survivor, NODE).goes_on(2), "without a key it is a stranger"
        assert agent(programs, survivor, NODE, *SIGNED).status(within=25) == 0


@EVERY_AGENT
@pytest.mark.parametrize(("source", "target"), [(IPV4, "10.0.0.2"), (IPV6, OWN)])
def test_a_node_that_cannot_be_asked_at_the_port_is_asked_where_it_speaks_from(
    programs: Programs, node: Host, survivor: Host, source: str, target: str
) -> None:
    waiting = agent(programs, survivor, f"{NODE},{source}", *SIGNED)
    waiting.waits()
    with node.open_socket(family(source)) as speaking:
        speaking.bind((source, 0))
        speaking.settimeout(10)
        speaking.sendto(packet("status"), (target, PORT))
        question, peer = speaking.recvfrom(999)
        assert question == packet("question", packets.field(question, "nonce"))
        assert (peer[1] == PORT) is (programs.rights == ()), "from the port, so that NAT lets it in"
        assert waiting.goes_on(0.1)
        speaking.sendto(packet("status", packets.field(question, "nonce")), peer)
        assert waiting.status(within=10) == 0


@EVERY_AGENT
@pytest.mark.parametrize("sent", [MESSAGE, packet("status", key=None), packet("status", name="n2")])
def test_who_signs_nothing_is_not_asked_where_it_speaks_from(
    programs: Programs, node: Host, survivor: Host, sent: bytes
) -> None:
    with answering(node, silent) as one, node.open_socket() as speaking:
        speaking.bind((IPV4, 0))
        waiting = agent(programs, survivor, f"{NODE},{IPV4}", *SIGNED)
        one.question()
        for _ in range(5):
            speaking.sendto(sent, ("10.0.0.2", PORT))
            time.sleep(0.1)
        assert waiting.goes_on()
        with pytest.raises(BlockingIOError):
            speaking.recv(999, socket.MSG_DONTWAIT)


@EVERY_AGENT
def test_a_program_that_holds_the_port_keeps_no_answer_away(
    programs: Programs, node: Host, survivor: Host
) -> None:
    with survivor.open_socket() as holder, survivor.open_socket(socket.AF_INET6) as holder6:
        holder.bind(("", PORT))
        holder6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        holder6.bind(("", PORT))
        for options in ((), SIGNED):
            with answering(node, dumping):
                waiting = agent(programs, survivor, f"{NODE},{IPV4}", *options)
                assert waiting.status(within=10) == 0
        assert not arrives(holder, within=0.1)


@BOTH_CORES
def test_a_name_that_resolves_late_is_asked_at_once(
    programs: Programs, node: Host, survivor: Host
) -> None:
    with answering(node, dumping) as one:
        waiting = agent(programs, survivor, NODE, *SIGNED)
        assert waiting.goes_on()
        assert one.questions == []
        survivor.add_name(NODE, IPV4)
        assert waiting.status(within=8) == 0
        assert len(one.questions) == 1


@BOTH_CORES
def test_an_interface_that_is_made_anew_is_asked_through(
    programs: Programs, lab: Lab, node: Host, survivor: Host, link: Link
) -> None:
    with answering(node, silent, socket.AF_INET6) as one:
        waiting = agent(programs, survivor, f"{NODE},{LINK_LOCAL}", *SIGNED)
        one.question()
    survivor.tool("ip", "link", "delete", "dev", "eth0")
    assert waiting.goes_on(0.5), "without a way it is no error"
    survivor._interfaces = 0
    again = lab.host("node1")
    lab.link(again, survivor, ["fe80::1/64"], ["fe80::2/64"])
    with answering(again, dumping, socket.AF_INET6):
        assert waiting.status(within=10) == 0


@BOTH_CORES
@pytest.mark.parametrize("options", [(), SIGNED], ids=["none", "sha256"])
def test_among_many_addresses_where_nobody_is_one_is_asked_all_the_time(
    programs: Programs, node: Host, survivor: Host, options: tuple[str, ...]
) -> None:
    dead = [f"10.0.0.{number}" for number in range(100, 160)]
    nodes = ",".join([NODE, *dead, IPV4])
    with answering(node, silent) as one:
        waiting = agent(programs, survivor, nodes, *options)
        one.question()
        time.sleep(6)
        assert len(one.questions) >= 20
        one.answer = dumping
        assert waiting.status(within=1.5) == 0


@EVERY_AGENT
@pytest.mark.parametrize("options", [(), SIGNED], ids=["none", "sha256"])
def test_a_node_that_is_alive_is_a_no(
    programs: Programs, node: Host, survivor: Host, options: tuple[str, ...]
) -> None:
    with answering(node, alive):
        waiting = agent(programs, survivor, f"{NODE},{IPV4}", "--alive-grace=1", *options)
        assert waiting.status(within=10) == 1
    with answering(node, lambda told: [packet("alive", told.nonce, name="node2")]):
        waiting = agent(programs, survivor, f"{NODE},{IPV4}", "--alive-grace=1", *options)
        assert waiting.goes_on(2.5)

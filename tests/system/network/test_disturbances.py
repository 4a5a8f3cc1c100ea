# SPDX-License-Identifier: LGPL-2.1-or-later
"""ICMP errors, dead neighbours and closed ports disturb neither program."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from tests.conftest import cannot_run
from tests.support.messages import PORT, checksum, family
from tests.support.netlab import Host, Lab
from tests.system.network.datagrams import arrivals, arrives, receiver
from tests.system.network.programs import Programs

pytestmark = pytest.mark.slow


def test_a_neighbour_that_does_not_answer_holds_up_nobody(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    link = lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    link.resolve_impatiently()
    messages = receiver(survivor)
    programs.sender(node, "-c", "3", "-i", "1", "10.0.0.99", "10.0.0.2", "10.0.0.98")
    # The errors of address resolution must not cost this neighbour a message, nor bring it one.
    assert len(arrivals(messages, 3, within=6)) == 3
    assert not arrives(messages, within=1.2)


def test_a_port_that_is_closed_at_first_gets_the_message_when_it_opens(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    programs.sender(node, "-i", "1", "10.0.0.2")
    time.sleep(1.5)  # one or two messages, each answered by "port unreachable"
    assert arrives(receiver(survivor), within=4)


def forged_errors(source: str, target: str) -> list[bytes]:
    """ICMP messages of a node that say: your datagram from the message port did not reach me."""
    kind = family(source)
    udp = struct.pack("!HHHH", PORT, 40000, 16, 0) + bytes(8)
    addresses = socket.inet_pton(kind, source) + socket.inet_pton(kind, target)
    if kind == socket.AF_INET6:
        quoted = struct.pack("!IHBB", 6 << 28, len(udp), socket.IPPROTO_UDP, 64)
        # Destination unreachable: no route, prohibited, address, port. The kernel adds the sum.
        starts = [struct.pack("!BBHI", 1, code, 0, 0) for code in (0, 1, 3, 4)]
        return [start + quoted + addresses + udp for start in starts]
    quoted = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0)
    quoted += addresses
    quoted = quoted[:10] + struct.pack("!H", checksum(quoted)) + quoted[12:] + udp
    errors = []
    for code in (0, 1, 2, 3, 13):  # net, host, protocol, port, prohibited
        total = checksum(struct.pack("!BBHI", 3, code, 0, 0) + quoted)
        errors.append(struct.pack("!BBHI", 3, code, total, 0) + quoted)
    return errors


@pytest.mark.parametrize(
    ("programs", "dead", "waiting"),
    [
        ("compiled", "10.0.0.1", "10.0.0.2"),
        ("pure", "fd00::1", "fd00::2"),
        ("pure-no_raw", "10.0.0.1", "10.0.0.2"),
        ("compiled-no_raw", "fd00::1", "fd00::2"),
    ],
    indirect=["programs"],
)
def test_the_agent_survives_icmp_errors(
    programs: Programs, lab: Lab, node: Host, survivor: Host, dead: str, waiting: str
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24", "fd00::1/64"], ["10.0.0.2/24", "fd00::2/64"])
    kind = family(dead)
    protocol = socket.IPPROTO_ICMPV6 if kind == socket.AF_INET6 else socket.IPPROTO_ICMP
    icmp = node.open_socket(kind, socket.SOCK_RAW, protocol)
    # First see that such errors do reach a socket on the port.
    with receiver(survivor, kind) as victim:
        victim.connect((dead, 40000))
        victim.settimeout(5)
        icmp.sendto(forged_errors(waiting, dead)[3], (waiting, 0))
        with pytest.raises(OSError, match=r"refused|unreachable"):
            victim.recv(1)
    agent = programs.agent(survivor, "-n", dead, "-t", "30")
    while agent.age < 1.2:
        for error in forged_errors(waiting, dead):
            icmp.sendto(error, (waiting, 0))
        time.sleep(0.02)
    assert agent.process.poll() is None
    programs.sender(node, "-i", "1", waiting)
    assert agent.status(within=10) == 0


def test_a_message_that_never_leaves_its_queue_does_not_keep_the_sender_for_ever(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    link = lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    messages = receiver(survivor)
    with node.open_socket() as before:
        before.sendto(b"the neighbour is known", ("10.0.0.2", PORT))
        messages.recv(99)
        # A byte a second, of which only what has been saved up goes at once.
        slow = ("root", "tbf", "rate", "8bit", "burst", "70", "limit", "9999")
        done = node.tool("tc", "qdisc", "add", "dev", link.interface(node), *slow, check=False)
        if done.returncode:
            cannot_run(f"no tbf: {done.stderr}")
        before.sendto(b"and takes it", ("10.0.0.2", PORT))
    sender = programs.sender(node, "-c", "1", "10.0.0.2")
    assert sender.status(within=20) == 0
    assert sender.age > 4.5, "it waits for a while"

"""ICMP errors, dead neighbours and stopped processes disturb neither program."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time

import pytest

from tests.support.netlab import Host, Lab
from tests.system.network.datagrams import MESSAGE, PORT, arrivals, arrives, receiver
from tests.system.network.programs import Programs


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_port_that_is_closed_at_first_gets_the_message_when_it_opens(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    programs.sender(node, "-i", "1", "10.0.0.2")
    time.sleep(1.5)  # one or two messages, each answered by "port unreachable"
    assert arrives(receiver(survivor), within=4)


def forged_errors(family: socket.AddressFamily, source: str, target: str) -> list[bytes]:
    """ICMP messages of a node that say: your datagram from the message port did not reach me."""
    udp = struct.pack("!HHHH", PORT, 40000, 16, 0) + bytes(8)
    if family == socket.AF_INET6:
        quoted = struct.pack("!IHBB", 6 << 28, len(udp), socket.IPPROTO_UDP, 64)
        addresses = [socket.inet_pton(family, address) for address in (source, target)]
        body = quoted + b"".join(addresses) + udp
        # Destination unreachable: no route, prohibited, address, port. The kernel adds the sum.
        return [struct.pack("!BBHI", 1, code, 0, 0) + body for code in (0, 1, 3, 4)]
    quoted = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0)
    quoted += socket.inet_aton(source) + socket.inet_aton(target)
    quoted = quoted[:10] + checksum(quoted) + quoted[12:]
    errors = []
    for code in (0, 1, 2, 3, 13):  # net, host, protocol, port, prohibited
        error = struct.pack("!BBHI", 3, code, 0, 0) + quoted + udp
        errors.append(error[:2] + checksum(error) + error[4:])
    return errors


def checksum(data: bytes) -> bytes:
    """Compute the Internet checksum (RFC 1071) of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


@pytest.mark.parametrize(
    ("programs", "family"),
    [
        ("compiled", socket.AF_INET),
        ("pure", socket.AF_INET6),
        ("pure-no_raw", socket.AF_INET),
        ("compiled-no_raw", socket.AF_INET6),
    ],
    indirect=["programs"],
    ids=["compiled-ipv4", "pure-ipv6", "pure-no_raw-ipv4", "compiled-no_raw-ipv6"],
)
@pytest.mark.slow
def test_the_agent_survives_icmp_errors(
    programs: Programs, lab: Lab, node: Host, survivor: Host, family: socket.AddressFamily
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24", "fd00::1/64"], ["10.0.0.2/24", "fd00::2/64"])
    if family == socket.AF_INET6:
        dead, waiting, protocol = "fd00::1", "fd00::2", socket.IPPROTO_ICMPV6
    else:
        dead, waiting, protocol = "10.0.0.1", "10.0.0.2", socket.IPPROTO_ICMP
    icmp = node.open_socket(family, socket.SOCK_RAW, protocol)
    # First see that such errors do reach a socket on the port.
    with receiver(survivor, family) as victim:
        victim.connect((dead, 40000))
        victim.settimeout(5)
        icmp.sendto(forged_errors(family, waiting, dead)[3], (waiting, 0))
        with pytest.raises(OSError, match=r"refused|unreachable"):
            victim.recv(1)
    agent = programs.agent(survivor, "-n", dead, "-t", "30")
    while agent.age < 1.2:
        for error in forged_errors(family, waiting, dead):
            icmp.sendto(error, (waiting, 0))
        time.sleep(0.02)
    assert agent.process.poll() is None
    programs.sender(node, "-i", "1", waiting)
    assert agent.status(within=10) == 0


def stop_and_go(process_id: int, times: int) -> None:
    """Stop a process for a moment, again and again: each time its waiting is interrupted."""
    for _ in range(times):
        os.kill(process_id, signal.SIGSTOP)
        time.sleep(0.1)
        os.kill(process_id, signal.SIGCONT)
        time.sleep(0.1)


@pytest.mark.parametrize("programs", ["compiled", "pure-no_raw"], indirect=True)
@pytest.mark.slow
def test_an_agent_that_was_stopped_hears_what_came_meanwhile(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    agent = programs.agent(survivor, "-n", "10.0.0.1", "-t", "30")
    agent.waits()
    stop_and_go(agent.process.pid, 3)
    agent.process.send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    node.open_socket().sendto(MESSAGE, ("10.0.0.2", PORT))  # once, and nobody repeats it
    time.sleep(0.5)
    agent.process.send_signal(signal.SIGCONT)
    assert agent.status(within=15) == 0


@pytest.mark.parametrize("programs", ["pure", "compiled-no_raw"], indirect=True)
@pytest.mark.slow
def test_an_agent_that_is_stopped_and_continued_keeps_its_time(
    programs: Programs, survivor: Host
) -> None:
    agent = programs.agent(survivor, "-n", "10.0.0.1", "-t", "2")
    time.sleep(0.7)
    stop_and_go(agent.process.pid, 3)
    assert agent.status(within=6) == 1
    assert agent.age >= 2


@pytest.mark.slow
def test_a_sender_that_is_stopped_and_continued_keeps_its_count_and_its_interval(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    messages = receiver(survivor)
    sender = programs.sender(node, "-c", "2", "-i", "3", "10.0.0.2")
    assert arrives(messages, within=30)
    stop_and_go(sender.process.pid, 5)
    assert not arrives(messages, within=0.1), "too early: the interval is three seconds"
    assert arrives(messages, within=10)
    assert sender.status(within=15) == 0
    assert not arrives(messages, within=0.1)

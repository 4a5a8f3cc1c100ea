# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run in the guest: netem makes links as bad as the lab asks, or the other tests prove nothing."""

from __future__ import annotations

import socket
import time

from tests.support.netlab import BLACKHOLE, Host, Impairment, Lab


def pair(
    lab: Lab, node: Host, survivor: Host, impairment: Impairment
) -> tuple[socket.socket, socket.socket]:
    """Open a socket on each side of an impaired link; the neighbours know each other already."""
    link = lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    sender, receiver = node.open_socket(), survivor.open_socket()
    receiver.bind(("", 7410))
    receiver.settimeout(60)
    sender.connect(("10.0.0.2", 7410))
    sender.send(b"hello")
    receiver.recv(100)
    link.impair(impairment)
    return sender, receiver


def passed(sender: socket.socket, receiver: socket.socket, number: int, quiet: float) -> list[int]:
    """Tell which numbers arrive, in their order, when 0, 1, 2... are sent."""
    for serial in range(number):
        sender.send(serial.to_bytes(2, "big"))
        time.sleep(0.001)
    receiver.settimeout(quiet)
    numbers: list[int] = []
    while True:
        try:
            numbers.append(int.from_bytes(receiver.recv(100), "big"))
        except socket.timeout:
            return numbers


def test_an_unimpaired_link_passes_everything_in_order(
    lab: Lab, node: Host, survivor: Host
) -> None:
    ends = pair(lab, node, survivor, Impairment())
    assert passed(*ends, 200, quiet=1) == list(range(200))


def test_loss_takes_its_share(lab: Lab, node: Host, survivor: Host) -> None:
    ends = pair(lab, node, survivor, Impairment(loss=0.5))
    assert 60 < len(passed(*ends, 200, quiet=1)) < 140


def test_a_blackhole_passes_nothing(lab: Lab, node: Host, survivor: Host) -> None:
    ends = pair(lab, node, survivor, BLACKHOLE)
    assert passed(*ends, 50, quiet=1) == []


def test_duplication_doubles(lab: Lab, node: Host, survivor: Host) -> None:
    ends = pair(lab, node, survivor, Impairment(duplicate=1))
    assert sorted(passed(*ends, 50, quiet=1)) == sorted(2 * list(range(50)))


def test_reordering_and_jitter_lose_nothing_but_the_order(
    lab: Lab, node: Host, survivor: Host
) -> None:
    for impairment in (Impairment(delay=0.1, reorder=0.3), Impairment(delay=0.1, jitter=0.05)):
        numbers = passed(*pair(lab, lab.host("a"), lab.host("b"), impairment), 100, quiet=1.5)
        assert numbers != sorted(numbers)
        assert sorted(numbers) == list(range(100))


def test_delay_delays(lab: Lab, node: Host, survivor: Host) -> None:
    sender, receiver = pair(lab, node, survivor, Impairment(delay=0.3))
    began = time.monotonic()
    sender.send(b"late")
    receiver.recv(100)
    assert time.monotonic() - began >= 0.3

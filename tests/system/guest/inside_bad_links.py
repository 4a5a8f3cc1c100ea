# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run in the guest: a link that loses, delays and reorders still carries the node's message."""

from __future__ import annotations

import random
import time

import pytest

from tests.support.messages import MESSAGE, NO_MESSAGE, PORT
from tests.support.netlab import BLACKHOLE, Host, Impairment, Lab
from tests.system.network.datagrams import arrives, receiver, say
from tests.system.network.programs import EVERY_AGENT, Programs

HALF_IS_LOST = Impairment(loss=0.5)
LATE_UNEVEN_AND_TWICE = Impairment(delay=0.4, jitter=0.4, duplicate=1)
MIXED = Impairment(delay=0.2, jitter=0.2, duplicate=0.2, reorder=0.3)


@pytest.mark.parametrize(
    ("programs", "impairment"),
    [
        ("compiled", HALF_IS_LOST),
        ("pure", HALF_IS_LOST),
        ("compiled", LATE_UNEVEN_AND_TWICE),
        ("pure", MIXED),
    ],
    indirect=["programs"],
    ids=["compiled-half_lost", "pure-half_lost", "compiled-late_uneven_twice", "pure-mixed"],
)
def test_the_agent_hears_the_sender_through_a_bad_link(
    programs: Programs, lab: Lab, node: Host, survivor: Host, impairment: Impairment
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"], impairment)
    agent = programs.agent(survivor, "-n", "10.0.0.1", "-t", "200")
    programs.sender(node, "-i", "1", "10.0.0.2")
    assert agent.status(within=400) == 0


def test_a_lost_first_message_costs_a_second_not_an_interval(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    link = lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"], Impairment())
    messages = receiver(survivor)
    # The hosts must know each other's hardware address: else what is "lost" waits for it.
    say(node, "10.0.0.1", "10.0.0.2")
    assert arrives(messages, within=60)
    link.impair(BLACKHOLE)
    time.sleep(0.1)
    sender = programs.sender(node, "10.0.0.2")
    sender.says("[debug]: message sent to node '10.0.0.2' (10.0.0.2), number 1")
    assert not arrives(messages, within=0.5)
    link.impair(Impairment())
    assert arrives(messages, within=9)


@EVERY_AGENT
def test_a_message_is_found_in_rubbish_that_overtakes_it(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"], MIXED)
    agent = programs.agent(survivor, "-n", "10.0.0.1", "-t", "300")
    crashed = node.open_socket()
    crashed.bind(("10.0.0.1", 0))
    dice = random.Random(1)
    while agent.process.poll() is None and agent.age < 350:
        burst = [*NO_MESSAGE.values(), MESSAGE, *NO_MESSAGE.values()]
        dice.shuffle(burst)
        for datagram in burst:
            crashed.sendto(datagram, ("10.0.0.2", PORT))
        time.sleep(0.2)
    assert agent.status(within=60) == 0


@EVERY_AGENT
def test_rubbish_of_the_node_between_a_strangers_messages_is_no_yes(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    link = lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"], MIXED)
    link.add_address(node, "10.0.0.77/24")
    agent = programs.agent(survivor, "-n", "10.0.0.1", "-t", "1")
    crashed, stranger = node.open_socket(), node.open_socket()
    crashed.bind(("10.0.0.1", 0))
    stranger.bind(("10.0.0.77", 0))
    while agent.process.poll() is None and agent.age < 300:
        for datagram in NO_MESSAGE.values():
            stranger.sendto(MESSAGE, ("10.0.0.2", PORT))
            crashed.sendto(datagram, ("10.0.0.2", PORT))
        time.sleep(0.05)
    assert agent.status(within=60) == 1
    assert agent.age >= 1

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program that is stopped for a while (SIGSTOP, a paused guest) judges and sends as ever."""

from __future__ import annotations

import time

import pytest

from tests.support.netlab import Host, Lab
from tests.system.network.datagrams import arrives, receiver, say
from tests.system.network.programs import EVERY_AGENT, Programs, Running

pytestmark = pytest.mark.slow

TIMEOUT = 2

#: The node's address, and the survivor's.
PAIRS = [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")]


@pytest.fixture(autouse=True)
def link(lab: Lab, node: Host, survivor: Host) -> None:
    lab.link(node, survivor, ["10.0.0.1/24", "fd00::1/64"], ["10.0.0.2/24", "fd00::2/64"])


def stopped(programs: Programs, survivor: Host, name: str) -> Running:
    """An agent that waits for the node, and is stopped at once."""
    agent = programs.waiting_agent(survivor, name, TIMEOUT)
    agent.stop()
    return agent


def stop_and_go(program: Running, times: int) -> None:
    """Stop it for a moment, again and again: each time its waiting is interrupted."""
    for _ in range(times):
        program.stop()
        time.sleep(0.1)
        program.cont()
        time.sleep(0.1)


@EVERY_AGENT
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("sent_after", [0, TIMEOUT / 2])  # at once: the kernel may not stamp yet
def test_what_came_before_the_deadline_counts_though_it_is_read_later(
    programs: Programs, node: Host, survivor: Host, pair: tuple[str, str], sent_after: float
) -> None:
    agent = stopped(programs, survivor, pair[0])
    time.sleep(sent_after)
    say(node, *pair)
    time.sleep(TIMEOUT + 0.5 - sent_after)
    agent.cont()
    assert agent.status(within=5) == 0


@EVERY_AGENT
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("by_name", [False, True], ids=["address", "name that resolves late"])
def test_what_came_after_the_deadline_does_not(
    programs: Programs, node: Host, survivor: Host, pair: tuple[str, str], by_name: bool
) -> None:
    agent = stopped(programs, survivor, "node1" if by_name else pair[0])
    time.sleep(TIMEOUT + 0.2)
    survivor.add_name("node1", pair[0])
    say(node, *pair)
    agent.cont()
    assert agent.status(within=5) == 1


@pytest.mark.parametrize("programs", ["compiled", "pure-no_raw"], indirect=True)
def test_an_agent_that_is_stopped_again_and_again_hears_what_came_meanwhile(
    programs: Programs, node: Host, survivor: Host
) -> None:
    agent = programs.waiting_agent(survivor, "10.0.0.1")
    stop_and_go(agent, 3)
    agent.stop()
    time.sleep(0.1)
    say(node, "10.0.0.1", "10.0.0.2")  # once, and nobody repeats it
    time.sleep(0.5)
    agent.cont()
    assert agent.status(within=15) == 0


@pytest.mark.parametrize("programs", ["pure", "compiled-no_raw"], indirect=True)
def test_an_agent_that_is_stopped_again_and_again_keeps_its_time(
    programs: Programs, survivor: Host
) -> None:
    agent = programs.agent(survivor, "-n", "10.0.0.1", "-t", "2")
    time.sleep(0.7)
    stop_and_go(agent, 3)
    assert agent.status(within=6) == 1
    assert agent.age >= 2


def test_a_sender_that_is_stopped_again_and_again_keeps_its_count_and_its_interval(
    programs: Programs, node: Host, survivor: Host
) -> None:
    messages = receiver(survivor)
    sender = programs.sender(node, "-c", "2", "-i", "3", "10.0.0.2")
    assert arrives(messages, within=30)
    stop_and_go(sender, 5)
    assert not arrives(messages, within=0.1), "too early: the interval is three seconds"
    assert arrives(messages, within=10)
    assert sender.status(within=15) == 0
    assert not arrives(messages, within=0.1)

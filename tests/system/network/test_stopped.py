"""An agent that is stopped across its deadline (SIGSTOP, a paused guest) judges as ever."""

from __future__ import annotations

import signal
import time

import pytest

from tests.support.netlab import Host, Lab
from tests.system.network.datagrams import MESSAGE
from tests.system.network.programs import Programs, Running

every_way = pytest.mark.parametrize(
    "programs", ["compiled", "pure", "compiled-no_raw", "pure-no_raw"], indirect=True
)

TIMEOUT = 2

#: The node's address, and the survivor's.
PAIRS = [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")]


@pytest.fixture(autouse=True)
def link(lab: Lab, node: Host, survivor: Host) -> None:
    lab.link(node, survivor, ["10.0.0.1/24", "fd00::1/64"], ["10.0.0.2/24", "fd00::2/64"])


def send(node: Host, pair: tuple[str, str]) -> None:
    source, target = pair
    with node.open_socket(10 if ":" in source else 2) as sock:
        sock.bind((source, 0))
        sock.sendto(MESSAGE, (target, 7410))


def stopped(programs: Programs, survivor: Host, name: str) -> Running:
    """An agent that waits for the node, and is stopped at once."""
    agent = programs.agent(survivor, "-n", name, "-t", str(TIMEOUT))
    agent.waits()
    agent.process.send_signal(signal.SIGSTOP)
    return agent


def go_on(agent: Running) -> None:
    agent.process.send_signal(signal.SIGCONT)


@every_way
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.slow
def test_what_came_before_the_deadline_counts_though_it_is_read_later(
    programs: Programs, node: Host, survivor: Host, pair: tuple[str, str]
) -> None:
    agent = stopped(programs, survivor, pair[0])
    send(node, pair)  # at once: the kernel may not have begun to stamp
    time.sleep(TIMEOUT + 0.5)
    go_on(agent)
    assert agent.status(within=5) == 0
    agent = stopped(programs, survivor, pair[0])
    time.sleep(TIMEOUT / 2)
    send(node, pair)
    time.sleep(TIMEOUT)
    go_on(agent)
    assert agent.status(within=5) == 0


@every_way
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.slow
def test_what_came_after_the_deadline_does_not(
    programs: Programs, node: Host, survivor: Host, pair: tuple[str, str]
) -> None:
    agent = stopped(programs, survivor, pair[0])
    time.sleep(TIMEOUT + 0.2)
    send(node, pair)
    go_on(agent)
    assert agent.status(within=5) == 1


@every_way
@pytest.mark.slow
def test_a_late_message_of_a_name_that_resolves_late_does_not(
    programs: Programs, node: Host, survivor: Host
) -> None:
    agent = stopped(programs, survivor, "node1")
    time.sleep(TIMEOUT + 0.2)
    survivor.add_name("node1", "10.0.0.1")
    send(node, PAIRS[0])
    go_on(agent)
    assert agent.status(within=5) == 1

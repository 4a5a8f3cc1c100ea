# SPDX-License-Identifier: LGPL-2.1-or-later
"""Any number of agents on one host, also beside programs that hold the port themselves."""

from __future__ import annotations

import time

import pytest

from tests.interop.lab import Lab, needs_root
from tests.interop.programs import Programs
from tests.support.messages import MESSAGE

A, B, C = "127.0.0.2", "127.0.0.3", "127.0.0.4"
CROWD = [f"127.0.2.{number}" for number in range(1, 101)]


@pytest.mark.slow
def test_agents_for_different_nodes_each_hear_their_own(lab: Lab, ours_anyhow: Programs) -> None:
    silent = lab.agent(ours_anyhow, C, timeout=1)
    agents = {A: lab.agent(ours_anyhow, A), B: lab.agent(ours_anyhow, B)}
    lab.node(B).says(MESSAGE, lab.port)
    lab.node(A).says(MESSAGE, lab.port)
    assert {node: agent.heard() for node, agent in agents.items()} == {A: A, B: B}
    assert silent.heard() is None


@needs_root
@pytest.mark.slow
def test_ten_agents_for_one_node_all_hear_its_one_message(lab: Lab, ours: Programs) -> None:
    agents = [lab.start_agent(ours, A) for _ in range(10)]
    assert all(agent.listens(lab.port) for agent in agents)
    lab.node(A).says(MESSAGE, lab.port)
    assert [agent.heard() for agent in agents] == [A] * 10


@needs_root
@pytest.mark.slow
def test_a_hundred_agents_for_a_hundred_nodes_each_hear_their_own(lab: Lab, ours: Programs) -> None:
    agents = {node: lab.start_agent(ours, node, timeout=120) for node in CROWD}
    assert all(agent.listens(lab.port) for agent in agents.values())
    for node in CROWD[:50]:
        lab.node(node).says(MESSAGE, lab.port)
    assert [agents[node].heard() for node in CROWD[:50]] == CROWD[:50]
    assert all(agents[node].is_running for node in CROWD[50:]), "not everyone's node has spoken"
    for node in CROWD[50:]:
        lab.node(node).says(MESSAGE, lab.port)
    assert [agents[node].heard() for node in CROWD[50:]] == CROWD[50:]


@needs_root
@pytest.mark.parametrize("stock_first", [True, False])
@pytest.mark.slow
def test_ours_hear_while_a_stock_agent_holds_the_port_and_hears_too(
    lab: Lab, stock: Programs, ours: Programs, stock_first: bool
) -> None:
    stocks = lab.agent(stock, A) if stock_first else None
    for_a, for_b = lab.agent(ours, A), lab.agent(ours, B)
    stocks = stocks or lab.agent(stock, A)
    lab.node(B).says(MESSAGE, lab.port)
    assert for_b.heard() == B
    assert stocks.is_running
    assert for_a.is_running
    lab.node(A).says(MESSAGE, lab.port)
    assert for_a.heard() == A
    assert stocks.heard() == A


@needs_root
def test_a_program_that_holds_the_port_gets_all_its_datagrams_beside_ours(
    lab: Lab, ours: Programs
) -> None:
    holder = lab.receiver("0.0.0.0")
    agent = lab.agent(ours, A)
    a, b = lab.node(A), lab.node(B)
    datagrams = [b"other talk %d" % number for number in range(50)]
    for datagram in datagrams:
        b.says(datagram, lab.port)
        a.says(datagram, lab.port)
    a.says(MESSAGE, lab.port)
    assert agent.heard() == A
    expected = [datagram for datagram in datagrams for _ in (b, a)] + [MESSAGE]
    # On loopback the node's port is this program's: it hears what the node is asked.
    heard = [one for one in holder.hears_for(0.1) if not one.startswith(b"KDFQUEST")]
    assert heard == expected


def test_an_agent_leaves_the_port_free_when_it_is_done(lab: Lab, ours_anyhow: Programs) -> None:
    agent = lab.agent(ours_anyhow, A)
    lab.node(A).says(MESSAGE, lab.port)
    assert agent.heard() == A
    lab.receiver("0.0.0.0")
    lab.receiver("::")


@pytest.mark.slow
def test_a_message_before_the_agent_started_does_not_count(lab: Lab, listener: Programs) -> None:
    node = lab.node(A)
    node.says(MESSAGE, lab.port)
    time.sleep(0.05)
    agent = lab.agent(listener, A, timeout=1)
    assert agent.heard() is None

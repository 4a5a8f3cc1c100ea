"""What is not a message of the node is a no, and the no comes when the time is over."""

from __future__ import annotations

from tests.support.netlab import Host, Lab
from tests.system.network.programs import EVERY_AGENT, Programs


def test_a_cut_link_is_a_no_at_the_time_out(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    link = lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    programs.sender(node, "-i", "1", "10.0.0.2")
    link.down(node)
    agent = programs.agent(survivor, "-n", "10.0.0.1", "-t", "2")
    assert agent.status(within=7) == 1
    assert agent.age >= 2


@EVERY_AGENT
def test_the_messages_of_another_host_are_a_no(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    stranger = lab.host("stranger")
    lab.link(stranger, survivor, ["10.1.0.1/24"], ["10.1.0.2/24"])
    agent = programs.agent(survivor, "-n", "10.0.0.1", "-t", "4")
    witness = programs.agent(survivor, "-n", "10.1.0.1", "-t", "30")
    programs.sender(stranger, "-i", "1", "10.1.0.2")
    assert witness.status(within=40) == 0, "the messages do arrive"
    assert agent.status(within=20) == 1
    assert agent.age >= 4

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A name service that never answers holds up nobody but the node whose name is asked for."""

from __future__ import annotations

import ctypes
import select
import signal
import socket
from pathlib import Path

import pytest

from tests.support.netlab import Host, Lab
from tests.system.network.datagrams import arrivals, receiver
from tests.system.network.programs import Programs


def asked(nameserver: socket.socket) -> bool:
    """Whether a look-up hangs at a nameserver, or does so soon."""
    return bool(select.select([nameserver], [], [], 30)[0])


@pytest.mark.slow
def test_a_hanging_look_up_does_not_delay_the_message_to_the_others(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    node.add_name("survivor", "10.0.0.2")
    nameserver = node.hang_name_service()
    messages = receiver(survivor)
    programs.sender(node, "-i", "1", "nobody", "survivor")
    assert asked(nameserver)
    assert len(arrivals(messages, 3, within=6)) == 3


@pytest.mark.parametrize("programs", ["pure", "compiled-no_raw"], indirect=True)
def test_a_hanging_look_up_does_not_keep_the_agent_from_hearing_another_name(
    programs: Programs, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    survivor.add_name("node1", "10.0.0.1")
    nameserver = survivor.hang_name_service()
    agent = programs.agent(survivor, "-n", "nobody,node1", "-t", "30")
    assert asked(nameserver)
    programs.sender(node, "-i", "1", "10.0.0.2")
    assert agent.status(within=10) == 0


@pytest.mark.parametrize("programs", ["compiled", "pure-no_raw"], indirect=True)
@pytest.mark.slow
def test_the_agent_says_no_in_time_while_a_look_up_hangs(
    programs: Programs, survivor: Host
) -> None:
    nameserver = survivor.hang_name_service()
    agent = programs.agent(survivor, "-n", "nobody", "-t", "2")
    assert asked(nameserver)
    assert agent.status(within=6) == 1
    assert agent.age >= 2


@pytest.mark.parametrize("program", ["agent", "sender"])
@pytest.mark.slow
def test_a_program_ends_when_told_to_while_a_look_up_hangs(
    programs: Programs, node: Host, program: str
) -> None:
    nameserver = node.hang_name_service()
    running = (
        programs.agent(node, "-n", "nobody", "-t", "60")
        if program == "agent"
        else programs.sender(node, "nobody")
    )
    assert asked(nameserver)
    if program == "sender" and programs.form == "native":
        running.process.terminate()  # all its threads but the one that waits block signals
        assert running.status(within=3) == 128 + signal.SIGTERM
        return
    # Any thread may get the signal, and the one that waits may just be about to.
    newest = max(int(task.name) for task in Path(f"/proc/{running.process.pid}/task").iterdir())
    assert ctypes.CDLL(None).tgkill(running.process.pid, newest, signal.SIGTERM) == 0
    assert running.status(within=3) != 0

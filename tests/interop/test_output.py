# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the programs write: people and their scripts know the stock programs' lines.

Ours may say more, in a line or between the lines, but what the stock programs say is there.
"""

from __future__ import annotations

import re
import socket

import pytest

from tests.interop.lab import Lab, needs_root
from tests.interop.programs import Process, Programs, with_files
from tests.support.messages import MESSAGE

A, B = "127.0.0.2", "127.0.0.3"
LOG_DAEMON_INFO = 3 << 3 | 6  # RFC 5424, 6.2.1


def tells(process: Process, *lines: str) -> None:
    """Assert that its stdout has lines that begin like these, in this order."""
    pattern = ".*".join(f"^{re.escape('[debug]: ' + line)}" for line in lines)
    assert re.search(pattern, process.output, re.MULTILINE | re.DOTALL), str(process)


def test_a_yes_is_told_on_stdout(lab: Lab, programs: Programs) -> None:
    agent = lab.agent(programs, f"{A},{B}")
    lab.node(B).says(MESSAGE, lab.port)
    assert agent.heard() == B
    waiting = [f"waiting for message from '{address}'" for address in (A, B)]
    tells(agent, *waiting, f"received valid message from '{B}'")
    assert agent.errors == ""


@pytest.mark.slow
def test_a_no_is_told_on_stdout(lab: Lab, programs: Programs) -> None:
    agent = lab.agent(programs, A, timeout=1)
    assert agent.status() == 1
    tells(agent, f"waiting for message from '{A}'", "timeout after 1 seconds")
    assert agent.errors == ""


@pytest.mark.parametrize("named", ["bogus", "nodename"])
def test_an_error_is_told_on_stderr_alone(lab: Lab, programs: Programs, named: str) -> None:
    stdin = b"action=bogus\n" if named == "bogus" else b"action=off\n"
    agent = lab.start(programs, programs.agent, [], stdin)
    assert agent.status() == 1
    assert re.fullmatch(rf"\[error\]: .*\b{named}\b.*\n", agent.errors)
    assert agent.output == ""


def test_the_sender_tells_of_each_message_when_asked_to(lab: Lab, senders: Programs) -> None:
    lab.receiver(A)
    lab.receiver(B)
    sender = lab.sender(senders, "-c", "1", "-v", A, B)
    assert sender.status() == 0
    tells(sender, f"message sent to node '{A}'", f"message sent to node '{B}'")
    assert sender.complaints == ""


def test_the_sender_is_silent_when_not_asked(lab: Lab, senders: Programs) -> None:
    lab.receiver(A)
    sender = lab.sender(senders, "-c", "1", A)
    assert sender.status() == 0
    assert sender.output + sender.complaints == ""


@needs_root
def test_the_agent_tells_the_system_log(lab: Lab, programs: Programs) -> None:
    devices = lab.folder / "dev"
    devices.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(devices / "log"))
        log.settimeout(10)
        agent = lab.agent(programs.through(*with_files({"/dev": devices})), A)
        lab.node(A).says(MESSAGE, lab.port)
        assert agent.heard() == A
        for text in ("waiting for message from", "received valid message from"):
            entry = rf"<{LOG_DAEMON_INFO}>\w.* fence_kdump\[{agent.pid}\]: {text} '{A}'"
            line = log.recv(4096).decode()
            assert re.match(entry, line), line

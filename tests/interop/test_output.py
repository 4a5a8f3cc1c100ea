# SPDX-License-Identifier: GPL-2.0-or-later
"""What the programs write: scripts and logs go by the stock programs' lines."""

from __future__ import annotations

import re
import socket

import pytest

from .lab import Lab, needs_root
from .nodes import MESSAGE
from .programs import Programs, with_files

A, B = "127.0.0.2", "127.0.0.3"
LOG_DAEMON_INFO = 3 << 3 | 6  # RFC 5424, 6.2.1


def progress(text: str) -> list[str]:
    """Return the progress lines of an output, without the stock programs' dump of their options."""
    lines = re.findall(r"^\[debug\]: (.*)$", text, re.MULTILINE)
    return [line for line in lines if re.match(r"waiting|received|timeout|message", line)]


def test_a_yes_is_told_on_stdout(lab: Lab, programs: Programs) -> None:
    agent = lab.agent(programs, f"{A},{B}")
    lab.node(B).says(MESSAGE, lab.port)
    assert agent.heard() == B
    waiting = [f"waiting for message from '{address}'" for address in (A, B)]
    assert progress(agent.output) == [*waiting, f"received valid message from '{B}'"]
    assert agent.errors == ""


def test_a_no_is_told_on_stdout(lab: Lab, programs: Programs) -> None:
    agent = lab.agent(programs, A, timeout=1)
    assert agent.status() == 1
    expected = [f"waiting for message from '{A}'", "timeout after 1 seconds"]
    assert progress(agent.output) == expected
    assert agent.errors == ""


def test_a_refused_action_is_told_on_stderr(lab: Lab, programs: Programs) -> None:
    agent = lab.start_agent(programs, A, "-o", "bogus")
    assert agent.status() == 1
    assert agent.output == ""
    assert agent.errors.startswith("[error]: unsupported action 'bogus'")


def test_a_missing_node_is_told_on_stderr(lab: Lab, programs: Programs) -> None:
    agent = lab.start(programs, programs.agent, [], b"action=off\n")
    assert agent.status() == 1
    assert agent.output == ""
    assert agent.errors.startswith("[error]: action 'off' requires nodename")


@pytest.mark.parametrize(("verbose", "lines"), [([], 0), (["-v"], 2)])
def test_the_sender_tells_of_each_message_when_asked_to(
    lab: Lab, programs: Programs, verbose: list[str], lines: int
) -> None:
    lab.receiver(A)
    lab.receiver(B)
    sender = lab.sender(programs, "-c", "1", *verbose, A, B)
    assert sender.status() == 0
    expected = [f"message sent to node '{address}'" for address in (A, B)][:lines]
    assert progress(sender.output) == expected


@needs_root
def test_the_agent_tells_the_system_log(lab: Lab, programs: Programs) -> None:
    devices = lab.folder / "dev"
    devices.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(devices / "log"))
        log.settimeout(10)
        logging = programs.through(*with_files({"/dev": devices}))
        agent = lab.agent(logging, A)
        lab.node(A).says(MESSAGE, lab.port)
        assert agent.heard() == A
        for text in ("waiting for message from", "received valid message from"):
            entry = rf"<{LOG_DAEMON_INFO}>.* fence_kdump\[{agent.pid}\]: {text} '{A}'\n?\0?"
            line = log.recv(1000).decode()
            assert re.fullmatch(entry, line), line

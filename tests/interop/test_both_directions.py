# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stock and ours understand each other, whoever sends and whoever listens."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.conftest import cannot_run
from tests.interop.lab import Lab
from tests.interop.nodes import Receiver
from tests.interop.programs import Programs, until
from tests.support.messages import MESSAGE

ALL = ("stock", "ours-compiled", "ours-pure")
DEFAULT_PORT = 7410


def is_free(port: int) -> bool:
    try:
        Receiver("0.0.0.0", port).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("agents", ALL)
@pytest.mark.parametrize("senders", [*ALL, "ours-native"])
@pytest.mark.slow
def test_the_agent_hears_the_sender(
    lab: Lab, programs_of: Callable[[str], Programs], senders: str, agents: str, address: str
) -> None:
    agent = lab.agent(programs_of(agents), address)
    sender = lab.sender(programs_of(senders), "-c", "1", address)
    assert sender.status() == 0, str(sender)
    assert agent.heard() == address


@pytest.mark.parametrize(
    ("agents", "senders"),
    [("stock", "ours-pure"), ("ours-compiled", "stock"), ("ours-pure", "ours-native")],
)
def test_without_a_port_both_use_7410(
    lab: Lab, programs_of: Callable[[str], Programs], agents: str, senders: str
) -> None:
    # Another test may have it for a moment.
    if not until(lambda: is_free(DEFAULT_PORT)):
        cannot_run(f"another program holds UDP port {DEFAULT_PORT}")
    lab.port = DEFAULT_PORT
    listening, sending = programs_of(agents), programs_of(senders)
    agent = lab.start(listening, listening.agent, ["-n", "127.0.0.1", "-t", "30"])
    assert agent.listens(DEFAULT_PORT), str(agent)
    assert lab.start(sending, sending.sender, ["-c", "1", "127.0.0.1"]).status() == 0
    assert agent.heard() == "127.0.0.1"


@pytest.mark.slow
def test_an_agent_whose_node_stays_silent_says_no_when_the_time_is_over(
    lab: Lab, listener: Programs
) -> None:
    agent = lab.agent(listener, "127.0.0.2", timeout=1)
    assert agent.status() == 1, str(agent)


@pytest.mark.slow
def test_the_sender_sends_as_many_messages_as_asked_for_an_interval_apart(
    lab: Lab, senders: Programs
) -> None:
    nodes = ["127.0.0.3", "127.0.0.4", "::1"]
    receivers = [lab.receiver(address) for address in nodes]
    started = time.monotonic()
    sender = lab.sender(senders, "-c", "3", "-i", "1", *nodes)
    assert sender.status() == 0, str(sender)
    assert 1.9 < time.monotonic() - started < 15  # not 20, as by default
    assert [receiver.hears_for(0.05) for receiver in receivers] == [[MESSAGE] * 3] * 3


@pytest.mark.slow
def test_the_sender_goes_on_until_it_is_stopped(lab: Lab, senders: Programs) -> None:
    receiver = lab.receiver("127.0.0.3")
    sender = lab.sender(senders, "-i", "1", "127.0.0.3")
    assert [receiver.hears(30) for _ in range(2)] == [MESSAGE] * 2
    assert sender.is_running
    sender.terminate()
    assert sender.status() != 0

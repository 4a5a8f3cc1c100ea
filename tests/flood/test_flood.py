# SPDX-License-Identifier: GPL-2.0-or-later
"""One true message in a flood of rubbish and of strangers' valid messages is heard.

One flood of at least 100,000 datagrams a second runs on, while 100 agents, one after the
other, wait for their node; each is sent the message once, and gets one sending interval
to hear it. The flood's rate is measured over the whole run and asserted: a slower flood
would prove less than the test says.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import cannot_run, udp
from tests.programs.helpers import AGENT, agent_waits, environment, start
from tests.unit.test_listening import free_port

FLOODER = str(Path(__file__).with_name("flooder.py"))
ROUNDS = {"compiled": 100, "pure": 20}
LEAST_RATE = 100_000
#: What a stock sender waits between messages.
INTERVAL = 10
NODE = "127.0.0.31"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_one_true_message_is_heard_in_a_flood(core_name: str, root: None) -> None:
    rounds = ROUNDS[core_name]
    # Another program holds the port and does not read: its queue is full all the time,
    # and the kernel need not answer every datagram with an ICMP error.
    holder = udp("0.0.0.0")
    port = int(holder.getsockname()[1])
    seconds = 3 * rounds
    flood = subprocess.Popen(
        [sys.executable, FLOODER, str(port), str(seconds)],
        env=environment("compiled"),
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    heard = tried = 0
    try:
        node = udp(NODE)
        for _ in range(rounds):
            if flood.poll() is not None:
                break
            tried += 1
            agent = start([AGENT, "-n", NODE, "-p", str(port), "-t", "60"], core_name)
            agent_waits(agent)
            node.sendto(OWN_MESSAGE, ("127.0.0.1", port))
            try:
                agent.communicate(timeout=INTERVAL)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.communicate()
            heard += agent.returncode == 0
        node.close()
    finally:
        holder.close()
        flood.terminate()
        out, _ = flood.communicate(timeout=60)
    sent, took = out.split()
    rate = int(sent) / float(took)
    print(f"{heard} of {tried} heard at {rate:,.0f} datagrams/s")
    assert heard == tried
    if tried < rounds:
        cannot_run(f"only {tried} of {rounds} rounds fit into {seconds} s of flood")
    assert rate >= LEAST_RATE, f"the flood reached only {rate:,.0f} datagrams/s"



def test_a_flood_alone_is_never_a_yes(core_name: str, root: None) -> None:
    port = free_port()
    flood = subprocess.Popen(
        [sys.executable, FLOODER, str(port), "3"], env=environment("compiled"),
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    agent = start([AGENT, "-n", NODE, "-p", str(port), "-t", "2"], core_name)
    out, _ = agent.communicate(timeout=60)
    assert agent.returncode == 1
    assert "stranger" in out
    assert "unread" in out
    flood.communicate(timeout=60)

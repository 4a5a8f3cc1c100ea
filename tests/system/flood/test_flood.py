# SPDX-License-Identifier: LGPL-2.1-or-later
"""One true message in a flood of rubbish and of strangers' valid messages is heard.

One flood of at least 100,000 datagrams a second runs on, while 100 agents, one after the
other, wait for their node; each is sent the message once, and gets one sending interval
to hear it. The flood's rate is measured over the whole run: a slower one would prove less
than the test says.
"""

from __future__ import annotations

import contextlib
import subprocess

import pytest

from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import udp, unused_port
from tests.support.programs import AGENT, agent_waits, start
from tests.support.storms import Storm

pytestmark = pytest.mark.alone

ROUNDS = {"compiled": 100, "pure": 20}
LEAST_RATE = 100_000
#: What a stock sender waits between messages.
INTERVAL = 10
NODE = "127.0.0.31"


def flood(port: int, seconds: float) -> Storm:
    """Rubbish and messages of strangers, none from NODE; as fast as it goes, on the fast core."""
    mix = "foreign=2,empty,short,random,version,long"
    return Storm(
        port,
        *("--from", "127.8.0.0/27", "--foreign-from", "127.9.0.0/27", "--mix", mix),
        *("--duration", str(seconds)),
        core="compiled",
    )


def listen_in_a_flood(core_name: str, flooders: int, rounds: int) -> tuple[int, float]:
    """How many of the messages were heard, and at how many datagrams a second."""
    heard = 0
    with contextlib.ExitStack() as opened:
        # Another program holds the port and does not read: its queue is full all the time,
        # and the kernel need not answer every datagram with an ICMP error.
        holder = opened.enter_context(udp("0.0.0.0"))
        port = int(holder.getsockname()[1])
        floods = [opened.enter_context(flood(port, 3 * rounds)) for _ in range(flooders)]
        node = opened.enter_context(udp(NODE))
        for _ in range(rounds):
            agent = start([AGENT, "-n", NODE, "-p", str(port), "-t", "60"], core_name)
            agent_waits(agent)
            node.sendto(OWN_MESSAGE, ("127.0.0.1", port))
            try:
                agent.communicate(timeout=INTERVAL)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.communicate()
            heard += agent.returncode == 0
            assert not floods[0].over, "the flood has ended before the last round"
        holder.close()
        for one in floods:
            one.stop()
        return heard, sum(one.told()["rate"] for one in floods)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_one_true_message_is_heard_in_a_flood(core_name: str, root: None) -> None:
    rounds = ROUNDS[core_name]
    for flooders in (1, 2, 3):  # more of them where the machine has other work as well
        heard, rate = listen_in_a_flood(core_name, flooders, rounds)
        print(f"{heard} of {rounds} heard at {rate:,.0f} datagrams/s")
        assert heard == rounds
        if rate >= LEAST_RATE:
            return
    pytest.fail(f"the flood reached only {rate:,.0f} datagrams/s: that proves too little")


def test_a_flood_alone_is_never_a_yes(core_name: str, root: None) -> None:
    port = unused_port()
    with flood(port, 3):
        agent = start([AGENT, "-n", NODE, "-p", str(port), "-t", "2"], core_name)
        out, _ = agent.communicate(timeout=60)
        assert agent.returncode == 1
        assert "stranger" in out
        assert "unread" in out

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A whole agent that waits in a flood of foreign and malformed datagrams.

Ours and the stock agent wait in turns on one processor, in a network of their own, and are
flooded from another. A sample is the agent's processor time, as the scheduler counts it in
nanoseconds, by the number of datagrams that were sent meanwhile. Not all of them are looked at:
what finds the queue full is dropped by the kernel, and a note says how many were not.

What the kernel does with a datagram on its way into a queue, or out of it through a filter, is
done in the sender's time. Two more lines say how much that is.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import time

from bench.flooding import flood
from bench.paired import OTHER_CPU, Figure, alternate, figure, pinned, say
from bench.programs import (
    PORT,
    Agent,
    Waiting,
    installed,
    need_own_network,
    stock_agent,
    unread,
)
from kdumpfence import filters

GROUP = "2 flood"
#: Of the agent's to the stock agent's processor time.
BOUND = 0.1
#: Seconds until an agent that was flooded sleeps again.
SETTLING = 0.03


class _Sampler:
    """Processor time of one agent in floods, in nanoseconds a datagram sent."""

    def __init__(self, agent: Agent, seconds: float, rate: int) -> None:
        self._agent, self._seconds, self._rate = agent, seconds, rate
        self.looked_at: list[float] = []
        self.rates: list[float] = []

    def __call__(self) -> float:
        with Waiting(self._agent) as waiting:
            used, lost = waiting.processor(), unread("raw") + unread("udp")
            sent = flood(self._seconds, self._rate)
            time.sleep(SETTLING)
            lost = unread("raw") + unread("udp") - lost
            used = waiting.processor() - used
        self.looked_at.append(1 - lost / sent.datagrams)
        self.rates.append(sent.datagrams / sent.seconds)
        return used / sent.datagrams

    def said(self) -> str:
        return (
            f"looked at {statistics.median(self.looked_at):.1%} of "
            f"{statistics.median(self.rates):,.0f} a second"
        )


def _agents(rate: int, quick: bool) -> Figure:
    seconds, rounds = (0.2, 2) if quick else (1.0, 9)
    ours = _Sampler(installed(), seconds, rate)
    theirs = _Sampler(stock_agent(), seconds, rate)
    samples = alternate(rounds, ours=ours, peer=theirs)
    how = f"{rate:,} a second" if rate else "as fast as it goes"
    return figure(
        f"flood-{rate or 'most'}", GROUP, f"the waiting agent, flooded, {how}", "ns a datagram",
        samples["ours"], samples["peer"], "stock fence_kdump", "at most", BOUND,
        f"Processor time by datagrams sent. Ours {ours.said()}; stock {theirs.said()}.",
    )  # fmt: skip


def _sender_pays(agent: Agent | None, seconds: float, held: bool) -> float:
    """What the flood costs who sends it, in nanoseconds a datagram."""
    with contextlib.ExitStack() as stack:
        if held:  # else the kernel answers each datagram: port unreachable
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            filters.attach(sock, filters.NOTHING)
            sock.bind(("0.0.0.0", PORT))
        waiting = None if agent is None else stack.enter_context(Waiting(agent))
        sent = flood(seconds)
        if waiting is not None:
            waiting.processor()  # raises if it was not there to the end
    return sent.processor * 1e9 / sent.datagrams


def _kernel(quick: bool) -> list[Figure]:
    seconds, rounds = (0.1, 2) if quick else (0.4, 9)
    ours, theirs = installed(), stock_agent()
    samples = alternate(
        rounds,
        ours=lambda: _sender_pays(ours, seconds, False),
        stock=lambda: _sender_pays(theirs, seconds, False),
        held=lambda: _sender_pays(ours, seconds, True),
        nobody=lambda: _sender_pays(None, seconds, True),
    )
    return [
        figure(
            "flood-sender", GROUP, "what the flood costs its sender, kernel and all",
            "ns a datagram", samples["ours"], samples["stock"], "beside stock fence_kdump",
            note="On loopback the sender pays for the delivery. Nobody has bound the port beside "
            "our agent, so the kernel also answers each datagram: port unreachable.",
        ),
        figure(
            "flood-sender-held", GROUP, "the same while another socket holds the port",
            "ns a datagram", samples["held"], samples["nobody"], "that socket, without our agent",
            note="What our agent's raw sockets and their filters add to a delivery.",
        ),
    ]  # fmt: skip


def figures(quick: bool) -> list[Figure]:
    """Both agents in floods."""
    need_own_network()
    found = []
    with pinned(OTHER_CPU):
        for rate in (0, 50_000, 10_000):
            say(f"both agents, flooded with {rate or 'as many as can be'} a second")
            found.append(_agents(rate, quick))
        say("what the flood costs its sender")
        return found + _kernel(quick)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Counting in the kernel: how soon a node's first message is an event, beside reading all of them.

Two Listeners of this process, one of each way, are sent the first message of one node after the
other, in turns; what counts is the time from just before it is sent to the event in the hands of
whoever waits for it. Once while nothing else is sent, and once while other nodes, which are
dumping already, repeat as fast as another processor can send.
"""

from __future__ import annotations

import itertools
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Literal

from bench.crowd import Crowd
from bench.paired import Figure, Samples, figure, pinned, say
from bench.queue import MESSAGE, addresses
from kdumpfence.listener.event_queue import REST
from kdumpfence.listener.listener import Listener

GROUP = "9 kernel"
WAYS: tuple[Literal["kernel"], Literal["user"]] = ("kernel", "user")
#: Nodes of which one after the other sends its first message, in as many rounds.
FIRST, ROUNDS = 100, 7
#: Those that repeat beside them.
OTHERS = 10_000
#: Of both ways' times. Not slower means: by no more than two runs of the same differ.
BOUND = 1.1
#: Seconds for which a Listener rests after an event; a first message that comes then waits for it.
RESTS = 1.2 * REST
PATIENCE = 60.0
#: Seconds. Nobody is silent, and nobody goes on.
FOR_EVER = 86_400.0


class _Ways:
    """A Listener of each way, and nodes that have not spoken yet."""

    def __init__(self, stack: ExitStack, total: int, others: list[bytes]) -> None:
        names = {f"node{at}": [f"127.3.{at >> 8}.{at & 255}"] for at in range(total)}
        names.update((f"other{at}", [socket.inet_ntoa(one)]) for at, one in enumerate(others))
        self.listeners: dict[str, Listener] = {
            way: stack.enter_context(
                Listener(
                    names,
                    host="127.0.0.1",
                    port=0,
                    counting=way,
                    silence_timeout=FOR_EVER,
                    repeat_interval=FOR_EVER,
                )
            )
            for way in WAYS
        }
        self._nodes: dict[str, Iterator[int]] = {way: itertools.count() for way in WAYS}

    def milliseconds(self, way: str, pause: float) -> float:
        """From the next node's first message, after a pause, to its event."""
        listener, at = self.listeners[way], next(self._nodes[way])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((f"127.3.{at >> 8}.{at & 255}", 0))
            time.sleep(pause * (1 + random.random()))
            began = time.monotonic_ns()
            sock.sendto(MESSAGE, ("127.0.0.1", listener.port))
            event = listener.next_event(PATIENCE)
            took = time.monotonic_ns() - began
        if event is None or (event.kind, event.node) != ("began", f"node{at}"):
            raise RuntimeError(f"{way}: {event} instead of the first message of node{at}")
        return took / 1e6


def _figures(key: str, words: str, samples: dict[str, list[list[float]]]) -> list[Figure]:
    """Median and 99 % of these times, each list of which is a round."""

    def at(share: float) -> dict[str, Samples]:
        return {way: tuple(_quantile(one, share) for one in samples[way]) for way in samples}

    def one(name: str, title: str, both: dict[str, Samples]) -> Figure:
        return figure(
            f"kernel-first{key}{name}", GROUP, title, "ms", both["kernel"], both["user"],
            "with each message read", "at most", BOUND,
        )  # fmt: skip

    title = f"from a node's first message to its event{words}"
    return [one("", title, at(0.5)), one("-99", "the same, 99 % of them", at(0.99))]


def _quantile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


def _quiet(rounds: int) -> list[Figure]:
    samples: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    with ExitStack() as stack:
        ways = _Ways(stack, FIRST * (rounds + 1), [])
        for number in range(rounds + 1):
            times: dict[str, list[float]] = {way: [] for way in WAYS}
            for at in range(FIRST):
                for way in WAYS if (at + number) % 2 == 0 else reversed(WAYS):
                    times[way].append(ways.milliseconds(way, RESTS / 2))
            for way in WAYS if number else ():  # the first one warms up
                samples[way].append(times[way])
    return _figures("", "", samples)


def _busy(rounds: int) -> list[Figure]:
    samples: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    others = addresses(OTHERS)
    with ExitStack() as stack:
        ways = _Ways(stack, FIRST * (rounds + 1), others)
        crowd = stack.enter_context(closing(Crowd(others)))
        for listener in ways.listeners.values():
            while len(listener.snapshot(fresh=False).dumps) < OTHERS:
                crowd.send(listener.port, 1)
                crowd.sent()
                while listener.events(0.1):
                    pass
        for number in range(rounds + 1):
            for way in WAYS if number % 2 == 0 else reversed(WAYS):
                crowd.send(ways.listeners[way].port, 1 << 20)
                times = [ways.milliseconds(way, RESTS) for _ in range(FIRST)]
                crowd.sent_until_now()
                if number:
                    samples[way].append(times)
    return _figures("-busy", f" while {OTHERS:,} nodes repeat as fast as one core sends", samples)


def figures(quick: bool) -> list[Figure]:
    """The first messages of figure 9."""
    rounds = 1 if quick else ROUNDS
    with pinned():
        say("first messages, nothing beside them")
        found = _quiet(rounds)
        say("first messages, others repeat")
        return found + _busy(max(1, rounds // 2))

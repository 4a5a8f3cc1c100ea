# SPDX-License-Identifier: LGPL-2.1-or-later
"""What two Listeners know who hear the same, one of which has the kernel count: the same.

Nodes come, speak, change their addresses, end their dumps and go, at random. After each step both
have to know the same dumps and to have counted the same by reason, and in the end they must have
told the same.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from kdumpfence.listener.events import Dump
from kdumpfence.wire import Packet, encode, encode_packet
from tests.conftest import udp
from tests.listener.conftest import MakeListener, TrialListener, wait_for
from tests.support.kernel import need_kernel_counting

#: Whom there are messages from: each of them may be a node's, or admitted, or nobody's.
HOSTS = [f"127.7.5.{host}" for host in range(1, 7)] + ["127.7.4.1", "127.7.4.2", "::1"]
NETWORKS = ["127.7.4.0/24"]
NAMES = ["a", "b", "c", "127.7.4.1"]
RUBBISH = [b"", b"short", b"rubbish!", encode("little")[:4] + encode("big")[4:], bytes(200)]
STATES = ("started", "finished", "failed")
STEPS = 120


class _Pair:
    """Two Listeners, and who speaks to both."""

    def __init__(self, listen: MakeListener, dice: random.Random) -> None:
        # Silence comes to no end by itself here: which of two ended first would be chance.
        options = {"silence_timeout": 86400.0, "repeat_interval": 3600.0, "max_admitted": 1}
        self.both: list[TrialListener] = [
            listen({"a": HOSTS[:2]}, NETWORKS, counting=way, **options)
            for way in ("user", "kernel")
        ]
        self.dice = dice
        self.sent = 0
        self.kinds: list[dict[str, list[str]]] = [defaultdict(list), defaultdict(list)]

    def speak(self, payload: bytes, times: int) -> None:
        host = self.dice.choice(HOSTS)
        with udp(host) as sock:
            for one in self.both:
                for _ in range(times):
                    sock.sendto(payload, ("::1" if ":" in host else "127.0.0.1", one.port))
        self.sent += times
        wait_for(lambda: all(sum(one.counts.values()) == self.sent for one in self.both))

    def do(self, what: Callable[[TrialListener], object]) -> None:
        results = []
        for one in self.both:
            one.snapshot()  # what was heard before is told before
            try:
                results.append(what(one))
            except (KeyError, ValueError) as error:
                results.append(repr(error))
        assert results[0] == results[1]

    def step(self) -> None:
        dice = self.dice
        kind = dice.randrange(10)
        name = dice.choice(NAMES)
        hosts = dice.sample(HOSTS, dice.randint(1, 3))
        if kind < 5:
            self.speak(encode(dice.choice(["little", "big"])), dice.choice([1, 1, 2, 50]))
        elif kind == 5:
            self.speak(dice.choice(RUBBISH), 1)
        elif kind == 6:
            packet = Packet(
                "status", "x", state=dice.choice(STATES), session=dice.randint(1, 3), sequence=1
            )
            self.speak(encode_packet(packet), dice.choice([1, 3]))
        elif kind == 7:
            self.do(lambda one: one.add(name, hosts))
        elif kind == 8:
            self.do(lambda one: one.remove(name))
        else:
            others = {name: hosts, "d": [dice.choice(HOSTS)]}
            self.do(lambda one: one.replace_nodes(others))

    def compare(self) -> None:
        snapshots = [one.snapshot() for one in self.both]
        user, kernel = (sorted(map(known, one.dumps)) for one in snapshots)
        assert user == kernel
        assert snapshots[0].counts == snapshots[1].counts
        assert snapshots[0].shared == snapshots[1].shared
        assert [one.counting for one in snapshots] == ["user", "kernel"]
        for node in (*NAMES, *HOSTS):
            dumps = [one.dump(node) for one in self.both]
            assert len({None if dump is None else known(dump) for dump in dumps}) == 1
        for one, kinds in zip(self.both, self.kinds):
            for event in one.events(0):
                if event.kind != "dumping":
                    kinds[event.node].append(event.kind)


def known(dump: Dump) -> tuple[Any, ...]:
    """What does not depend on when it was looked at; nor on who counted, as its port does."""
    return dump.node, dump.messages, dump.addresses, dump.sessions


@pytest.mark.slow
@pytest.mark.usefixtures("ipv6")
@pytest.mark.parametrize("counting", ["kernel"])
@pytest.mark.parametrize("seed", [1, 2, 3, None])
def test_both_ways_know_and_tell_the_same(listen: MakeListener, seed: int | None) -> None:
    need_kernel_counting()
    seed = random.randrange(1 << 32) if seed is None else seed
    print(f"seed {seed}")
    pair = _Pair(listen, random.Random(seed))
    for _ in range(STEPS):
        pair.step()
        pair.compare()
    assert pair.kinds[0] == pair.kinds[1]
    assert any(pair.kinds[0].values())

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cores' `Schedule` as tests like it: nodes by name, addresses by any key, seconds.

The node of an address is the first letter of its key, or the key itself if that is a number.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

Times = dict[Hashable, list[float]]


def ns(seconds: float) -> int:
    return round(seconds * 1e9)


class Destination:
    """One address of a node."""

    def __init__(self, schedule: Schedule, key: Hashable, number: int) -> None:
        self.key = key
        self.number = number
        self._schedule = schedule

    @property
    def due(self) -> float:
        return self._schedule.real.when(self.number) / 1e9  # type: ignore[no-any-return]

    @property
    def left(self) -> int:
        return self._schedule.real.sent(self.number)  # type: ignore[no-any-return]

    @property
    def nodes(self) -> list[Hashable]:
        return [self._schedule.names[node] for node in self._schedule.real.nodes(self.number)]


def node_of(key: Hashable) -> Hashable:
    return key[0] if isinstance(key, str) else key


class Schedule:
    """What `kdumpfence.sender` makes of it, without addresses."""

    def __init__(
        self, core: Any, nodes: Iterable[Hashable], count: int, interval: float, now: float = 0.0
    ) -> None:
        self.names = tuple(nodes)
        self.real = core.Schedule(len(self.names), count, ns(interval), ns(now))
        self.destinations: dict[Hashable, Destination] = {}

    def give_up(self, node: Hashable) -> None:
        self.real.give_up(self.names.index(node))

    def add(self, key: Hashable, node: Hashable, now: float = 0.0) -> bool:
        known = self.destinations.get(key)
        if known is not None:
            self.real.share(known.number, self.names.index(node))
            return False
        number = self.real.add(self.names.index(node), ns(now))
        self.destinations[key] = Destination(self, key, number)
        return True

    def _numbered(self, numbers: list[int]) -> list[Destination]:
        destinations = list(self.destinations.values())
        return [destinations[number] for number in numbers]

    def due(self, now: float) -> list[Destination]:
        return self._numbered(self.real.due(ns(now)))

    def overdue(self, now: float) -> list[Destination]:
        return self._numbered(self.real.overdue(ns(now)))

    def trusted(self, key: Hashable) -> bool:
        return bool(self.real.trusted(self.destinations[key].number))

    def doubt(self) -> None:
        self.real.doubt()

    def asked(self, key: Hashable) -> float | None:
        asked = self.real.asked(self.destinations[key].number)
        return None if asked is None else asked / 1e9

    def taken(self, destination: Destination, now: float) -> None:
        self.real.taken(destination.number, ns(now))

    def left(self, destination: Destination, now: float) -> None:
        self.real.left(destination.number, ns(now))

    def failed(self, destination: Destination, now: float) -> None:
        self.real.failed(destination.number, ns(now))

    def lost(self, key: Hashable, now: float) -> Destination | None:
        destination = self.destinations.get(key)
        if destination is None or not self.real.lost(destination.number, ns(now)):
            return None
        return destination

    def hurry(self, now: float, again: bool = True) -> None:
        self.real.hurry(ns(now), again)

    @property
    def reached(self) -> set[Hashable]:
        return {self.names[node] for node in self.real.reached}

    def next_due(self, now: float) -> float | None:
        due = self.real.next_due(ns(now))
        return None if due is None else due / 1e9

    def finished(self, now: float) -> bool:
        return bool(self.real.finished(ns(now)))


def start(core: Any, keys: Iterable[Hashable], count: int = 0, interval: float = 10) -> Schedule:
    """A schedule at 0 s that has an address for each of these keys."""
    keys = list(keys)
    schedule = Schedule(core, dict.fromkeys(map(node_of, keys)), count, interval)
    for key in keys:
        schedule.add(key, node_of(key))
    return schedule


def play(
    schedule: Schedule, until: float, up: Callable[[Hashable, float], bool] = lambda *_: True
) -> Times:
    """Run it as the sender does, until then or its end: when messages left, for each key.

    `up` tells whether one can leave for that key at that time.
    """
    sent: Times = {key: [] for key in schedule.destinations}
    now = 0.0
    while now <= until and not schedule.finished(now):
        while ready := schedule.due(now):  # not always all of them at once
            for destination in ready:
                if up(destination.key, now):
                    schedule.left(destination, now)
                    sent[destination.key].append(now)
                else:
                    schedule.failed(destination, now)
        due = schedule.next_due(now)
        if due is None:
            break
        assert due > now, "a loop over this would spin"
        now = due
    return sent

# SPDX-License-Identifier: GPL-2.0-or-later
"""The cores' `Schedule` as tests like it: nodes by name, addresses by any key, seconds."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any


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
    def nodes(self) -> list[str]:
        return [self._schedule.names[node] for node in self._schedule.real.nodes(self.number)]


class Schedule:
    """What `kdumpfence.sender` makes of it, without addresses."""

    def __init__(
        self, core: Any, nodes: tuple[str, ...], count: int, interval: float, now: float
    ) -> None:
        self.names = nodes
        self.real = core.Schedule(len(nodes), count, ns(interval), ns(now))
        self.destinations: dict[Hashable, Destination] = {}

    def give_up(self, node: str) -> None:
        self.real.give_up(self.names.index(node))

    def add(self, key: Hashable, node: str, now: float) -> bool:
        known = self.destinations.get(key)
        if known is not None:
            self.real.share(known.number, self.names.index(node))
            return False
        number = self.real.add(self.names.index(node), ns(now))
        self.destinations[key] = Destination(self, key, number)
        return True

    def due(self, now: float) -> list[Destination]:
        destinations = list(self.destinations.values())
        return [destinations[number] for number in self.real.due(ns(now))]

    def trusted(self, key: Hashable) -> bool:
        return bool(self.real.trusted(self.destinations[key].number))

    def doubt(self) -> None:
        self.real.doubt()

    def asked(self, key: Hashable) -> float | None:
        asked = self.real.asked(self.destinations[key].number)
        return None if asked is None else asked / 1e9

    def overdue(self, now: float) -> list[Destination]:
        destinations = list(self.destinations.values())
        return [destinations[number] for number in self.real.overdue(ns(now))]

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
    def reached(self) -> set[str]:
        return {self.names[node] for node in self.real.reached}

    def next_due(self, now: float) -> float | None:
        due = self.real.next_due(ns(now))
        return None if due is None else due / 1e9

    def finished(self, now: float) -> bool:
        return bool(self.real.finished(ns(now)))

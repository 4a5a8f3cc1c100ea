# SPDX-License-Identifier: LGPL-2.1-or-later
"""When each datagram of a storm is due, and of which kind it is.

Arithmetic, and nothing else: no socket, no clock, no address. Datagrams are numbered from 0.
Times are nanoseconds since the storm began, in whole numbers, so nothing drifts however long
it lasts.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import gcd
from typing import Protocol

SECOND = 1_000_000_000

#: More datagrams than anybody will send.
NO_END = sys.maxsize

#: The kind of which each node sends one in each round.
VALID = "valid"

#: What all shares may come to when divided by what they have in common.
MOST_SHARES = 10_000


class Mix:
    """The kinds of datagrams, in shares that hold for every stretch of the storm.

    `pattern` is what is repeated. A valid one leads it, if there is any: what stands between
    two valid ones belongs to the first of them.
    """

    def __init__(self, shares: Mapping[str, int]) -> None:
        """Raises ValueError unless there is a share, none is negative and the sum is bounded."""
        if not any(shares.values()) or min(shares.values()) < 0:
            raise ValueError("no shares, or negative ones")
        common = gcd(*shares.values())
        self.shares = {kind: share // common for kind, share in shares.items() if share}
        if sum(self.shares.values()) > MOST_SHARES:
            raise ValueError(f"shares come to more than {MOST_SHARES}")
        # Each kind evenly over the pattern: number n of a share s is at (n + 1/2) / s of it.
        places = sorted(
            (Fraction(2 * number + 1, 2 * share), kind)
            for kind, share in self.shares.items()
            for number in range(share)
        )
        kinds = [kind for _, kind in places]
        first = kinds.index(VALID) if VALID in kinds else 0
        self.pattern = tuple(kinds[first:] + kinds[:first])
        self._turns = [at for at, kind in enumerate(self.pattern) if kind == VALID]

    def counts(self, datagrams: int) -> dict[str, int]:
        """How many of each kind are among the first so many datagrams."""
        times, rest = divmod(datagrams, len(self.pattern))
        more = Counter(self.pattern[:rest])
        return {kind: times * share + more[kind] for kind, share in self.shares.items()}

    def place(self, turn: int) -> int:
        """The number of the valid datagram with that number among valid ones."""
        times, rest = divmod(turn, len(self._turns))
        return times * len(self.pattern) + self._turns[rest]

    def turn(self, datagram: int) -> int:
        """The number, among valid ones, of the last valid datagram up to this one."""
        times, rest = divmod(datagram, len(self.pattern))
        return times * len(self._turns) + bisect_right(self._turns, rest) - 1


class Pace(Protocol):
    """When datagrams are due."""

    #: How long after the end of the storm what is late may still be sent.
    patience: int

    def owed(self, time: int) -> int:
        """How many datagrams are due at or before that time (0 or later)."""

    def when(self, datagram: int) -> int:
        """The time at which that one is due."""


class Greatest:
    """All at once: as fast as they can be sent."""

    patience = 0

    def owed(self, time: int) -> int:
        """All of them."""
        return NO_END

    def when(self, datagram: int) -> int:
        """At once."""
        return 0


class Evenly:
    """So many a second, one after the other with the same time between them."""

    patience = SECOND

    def __init__(self, rate: Fraction) -> None:
        self._above = rate.numerator
        self._below = rate.denominator * SECOND

    def owed(self, time: int) -> int:
        """How many datagrams are due at or before that time."""
        return time * self._above // self._below + 1

    def when(self, datagram: int) -> int:
        """The time at which that one is due, rounded up to a nanosecond."""
        return -(-datagram * self._below // self._above)


class Panics:
    """Every node begins at a moment of its own, and repeats its message every interval.

    `moments` are those of the nodes' first messages, in the order of time, all shorter than
    the `interval`. What the mix has between two valid ones leaves with the first of them.
    """

    patience = SECOND

    def __init__(self, mix: Mix, moments: Sequence[int], interval: int) -> None:
        self._mix = mix
        self._moments = moments
        self._interval = interval

    def owed(self, time: int) -> int:
        """How many datagrams are due at or before that time."""
        rounds, rest = divmod(time, self._interval)
        turns = rounds * len(self._moments) + bisect_right(self._moments, rest)
        return self._mix.place(turns)

    def when(self, datagram: int) -> int:
        """The time at which that one is due."""
        rounds, node = divmod(self._mix.turn(datagram), len(self._moments))
        return rounds * self._interval + self._moments[node]


class Pacer:
    """Tells how many datagrams to send now, and until when to wait.

    `most` datagrams in all; `until` is a time: what is due before it belongs to the storm, and
    what of this is late is still sent, if that takes no longer than the pace's patience.
    No more than `batch` at a time, so that somebody else gets a word in.
    """

    def __init__(
        self, pace: Pace, most: int = NO_END, until: int | None = None, batch: int = 1024
    ) -> None:
        self._pace = pace
        self._most = most
        self._until = until
        self._planned = most if until is None else min(most, pace.owed(max(until - 1, 0)))
        self._batch = batch
        self.handed = 0
        #: The longest time by which one left too late.
        self.late = 0
        #: The most that left together.
        self.together = 0

    @property
    def planned(self) -> int | None:
        """Datagrams of the whole storm; None if that is not known beforehand."""
        return None if self._planned == NO_END else self._planned

    def due(self, now: int) -> int:
        """How many to send now."""
        if self._until is not None and now >= self._until + self._pace.patience:
            return 0
        number = min(self._planned, self._pace.owed(now)) - self.handed
        return max(0, min(number, self._batch))

    def hand(self, number: int, now: int) -> None:
        """So many of those that were due are sent now."""
        self.late = max(self.late, now - self._pace.when(self.handed))
        self.together = max(self.together, number)
        self.handed += number

    def over(self, now: int) -> bool:
        """Whether the storm is at its end."""
        if self.handed >= self._most:
            return True
        if self._until is None or now < self._until:
            return False
        return self.handed >= self._planned or now >= self._until + self._pace.patience

    def next(self) -> int:
        """The time at which there is something to do, if nothing is now."""
        if self.handed < self._planned:
            return self._pace.when(self.handed)
        return self._until or 0

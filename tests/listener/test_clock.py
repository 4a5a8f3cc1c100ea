# SPDX-License-Identifier: LGPL-2.1-or-later
"""The clock that decisions are made by, while the system's is set."""

from __future__ import annotations

import time

import pytest

from kdumpfence.listener.clock import CLOCK_STEP, MOST_CLOCK_STEPS, Clock
from kdumpfence.listener.dumps import Dump, Event


class Times:
    """The system's clocks, which stand still until they are set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unix = 1_000_000.0
        self.monotonic = 100.0
        monkeypatch.setattr(time, "time", lambda: self.unix)
        monkeypatch.setattr(time, "monotonic", lambda: self.monotonic)

    def pass_by(self, seconds: float, step: float = 0.0) -> None:
        """So many pass, and the system's clock is set by as many more."""
        self.monotonic += seconds
        self.unix += seconds + step


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    return Times(monkeypatch)


def dump(since: float, last: float) -> Dump:
    return Dump("node1", since, last, 2, ("192.0.2.1",), last - since)


def test_a_clock_that_drifts_is_not_followed_and_one_that_is_set_is(times: Times) -> None:
    clock = Clock()
    times.pass_by(10, 0.9 * CLOCK_STEP)
    clock.follow()
    assert clock.unix(clock.now()) == 1_000_010.0
    times.pass_by(10, 60.0)
    before = clock.now() - 1
    clock.follow()
    assert clock.unix(clock.now()) == times.unix
    assert clock.unix(before) == 1_000_019.0
    goes_on = dump(1_000_005.0, clock.now())
    assert clock.told(goes_on)[1:3] == (1_000_005.0, times.unix)
    assert clock.told(Event("dumping", goes_on.node, clock.now(), *goes_on[1:])).when == times.unix


def test_of_a_clock_that_is_set_again_and_again_the_last_times_are_kept(times: Times) -> None:
    clock = Clock()
    for _ in range(3 * MOST_CLOCK_STEPS):
        times.pass_by(1, 60.0)
        clock.follow()
        assert clock.unix(clock.now()) == times.unix
    assert len(clock._line[0]) == MOST_CLOCK_STEPS


def test_a_restored_dump_from_the_future_is_told_as_it_was_until_it_is_over(times: Times) -> None:
    clock = Clock()
    then = dump(1_000_900.0, 1_001_000.0)
    restored = clock.restored(then)
    assert restored[1:3] == (999_900.0, 1_000_000.0)
    assert clock.told(restored) == then
    assert clock.all_told([restored]) == [then]
    clock.forget("node1")
    assert clock.all_told([restored]) == [restored]
    past = dump(999_000.0, 999_100.0)
    assert clock.restored(past) == past
    assert clock.told(past) == past

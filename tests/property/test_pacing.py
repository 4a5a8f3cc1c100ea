# SPDX-License-Identifier: LGPL-2.1-or-later
"""When a storm's datagrams leave, and of which kind they are, with a clock of the tests' own."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpfence.storm.pacing import (
    MOST_SHARES,
    NO_END,
    SECOND,
    Evenly,
    Greatest,
    Mix,
    Pacer,
    Panics,
)

KINDS = ("valid", "foreign", "short", "magic")

shares = st.dictionaries(st.sampled_from(KINDS), st.integers(0, 12), min_size=1).filter(
    lambda given: any(given.values())
)
mixes = shares.map(Mix)
speaking = shares.filter(lambda given: given.get("valid", 0) > 0).map(Mix)
rates = st.fractions(min_value=Fraction(1, 1000), max_value=10**9, max_denominator=10**9)


@st.composite
def panics(draw: st.DrawFn) -> tuple[Mix, list[int], int]:
    """A mix, the nodes' first moments and their interval."""
    interval = draw(st.integers(1, 20 * SECOND))
    within = draw(st.integers(1, interval))
    moments = draw(st.lists(st.integers(0, within - 1), min_size=1, max_size=20))
    return draw(speaking), sorted(moments), interval


# ---------------------------------------------------------------------------- the mix


@given(shares)
def test_every_stretch_of_a_storm_has_its_shares(given: dict[str, int]) -> None:
    mix = Mix(given)
    total = sum(given.values())
    seen: Counter[str] = Counter()
    for datagram in range(3 * len(mix.pattern)):
        assert mix.counts(datagram) == {kind: seen[kind] for kind in mix.shares}
        for kind, share in given.items():
            assert abs(seen[kind] - Fraction(datagram * share, total)) <= len(given)
        seen[mix.pattern[datagram % len(mix.pattern)]] += 1
    whole = sum(seen.values())
    assert {kind: seen[kind] * total for kind in given} == {
        kind: share * whole for kind, share in given.items()
    }


@given(speaking, st.integers(0, 200))
def test_the_place_of_every_nodes_turn_is_known(mix: Mix, turn: int) -> None:
    place = mix.place(turn)
    assert mix.pattern[place % len(mix.pattern)] == "valid"
    assert mix.counts(place)["valid"] == turn
    following = mix.place(turn + 1)
    assert {mix.turn(datagram) for datagram in range(place, following)} == {turn}


@pytest.mark.parametrize("given", [{}, {"valid": 0}, {"valid": 2, "short": -1}])
def test_a_mix_of_nothing_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="no shares"):
        Mix(given)


def test_a_mix_may_be_as_fine_as_it_says_and_no_finer() -> None:
    assert len(Mix({"valid": 1, "short": MOST_SHARES - 1}).pattern) == MOST_SHARES
    assert Mix({"valid": MOST_SHARES, "short": MOST_SHARES}).pattern == ("valid", "short")
    with pytest.raises(ValueError, match="more than"):
        Mix({"valid": 1, "short": MOST_SHARES})


# ---------------------------------------------------------------------------- the paces


@given(rates, st.integers(0, 10**12))
def test_a_rate_is_exact_however_long_it_lasts(rate: Fraction, datagram: int) -> None:
    pace = Evenly(rate)
    due = pace.when(datagram)
    assert due == math.ceil(datagram * SECOND / rate)
    assert pace.owed(due) >= datagram + 1
    if due:
        assert pace.owed(due - 1) <= datagram


@given(panics(), st.integers(0, 500))
def test_every_node_repeats_its_message_an_interval_after_the_one_before(
    panic: tuple[Mix, list[int], int], datagram: int
) -> None:
    mix, moments, interval = panic
    pace = Panics(mix, moments, interval)
    rounds, node = divmod(mix.turn(datagram), len(moments))
    due = pace.when(datagram)
    assert due == moments[node] + rounds * interval
    assert pace.owed(due) > datagram
    if due:
        assert pace.owed(due - 1) <= datagram


# ---------------------------------------------------------------------------- the pacer

Waits = st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=30)


def play(pacer: Pacer, delays: list[int] | None = None) -> list[tuple[int, int]]:
    """Drive it as the storm does: (time, datagrams) of each batch.

    A wait takes as long as asked for and one of the `delays` more, in turn.
    """
    now, batches, turn = 0, [], 0
    while not pacer.over(now):
        number = pacer.due(now)
        if number:
            batches.append((now, number))
            pacer.hand(number, now)
        else:
            assert pacer.next() > now, "it would spin"
            now = pacer.next()
        if delays:
            now += delays[turn % len(delays)]
            turn += 1
        assert turn < 100_000
    return batches


@given(rates, st.integers(1, 300))
def test_with_a_clock_that_is_always_right_each_leaves_alone_and_in_time(
    rate: Fraction, most: int
) -> None:
    pacer = Pacer(Evenly(rate), most)
    batches = play(pacer)
    assert batches == [(math.ceil(number * SECOND / rate), 1) for number in range(most)]
    assert (pacer.late, pacer.together, pacer.handed) == (0, 1, most)


@given(st.one_of(rates.map(Evenly), panics().map(lambda one: Panics(*one))), Waits,
       st.integers(1, 300), st.integers(1, 50))  # fmt: skip
def test_however_late_it_wakes_none_is_lost_and_none_comes_too_early(
    pace: Evenly | Panics, delays: list[int], most: int, batch: int
) -> None:
    pacer = Pacer(pace, most, batch=batch)
    handed, late = 0, 0
    for now, number in play(pacer, delays):
        assert 1 <= number <= batch
        assert pace.when(handed + number - 1) <= now
        late = max(late, now - pace.when(handed))
        handed += number
    assert handed == most == pacer.handed
    assert pacer.late == late


@given(rates.filter(lambda rate: rate < 200), st.lists(st.integers(0, SECOND // 8), min_size=1),
       st.integers(1, 3 * SECOND))  # fmt: skip
def test_a_duration_has_exactly_what_is_due_within_it(
    rate: Fraction, delays: list[int], until: int
) -> None:
    pacer = Pacer(Evenly(rate), until=until, batch=10_000)
    promised = math.ceil(until * rate / SECOND)
    assert pacer.planned == promised
    assert sum(number for _, number in play(pacer, delays)) == promised


@given(panics(), st.integers(1, 3))
def test_rounds_have_every_node_equally_often(
    panic: tuple[Mix, list[int], int], rounds: int
) -> None:
    mix, moments, interval = panic
    most = mix.place(len(moments) * rounds)
    play(pacer := Pacer(Panics(mix, moments, interval), most))
    assert mix.counts(pacer.handed)["valid"] == len(moments) * rounds


def test_what_cannot_be_sent_in_time_is_not_sent_for_ever() -> None:
    pacer = Pacer(Evenly(Fraction(10**9)), until=SECOND, batch=1000)
    batches = play(pacer, [SECOND // 10])
    assert SECOND <= batches[-1][0] < 2 * SECOND
    assert pacer.planned is not None
    assert pacer.handed < pacer.planned
    assert pacer.due(2 * SECOND) == 0


def test_without_a_pace_it_sends_batch_after_batch_until_the_end() -> None:
    pacer = Pacer(Greatest(), until=SECOND, batch=256)
    assert {number for _, number in play(pacer, [SECOND // 100])} == {256}
    assert pacer.planned is None
    assert pacer.handed == 100 * 256
    assert pacer.due(SECOND) == 0


def test_without_any_end_it_is_never_over() -> None:
    pacer = Pacer(Greatest())
    pacer.hand(pacer.due(0), 0)
    assert not pacer.over(NO_END)

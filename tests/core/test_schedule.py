# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sender's schedule to the second, with a clock of our own.

Any order of events, beside a model: tests/property/test_schedule.py.
"""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.support.schedule import Destination, Schedule, play, start


def keys(destinations: list[Destination]) -> list[object]:
    return [destination.key for destination in destinations]


@pytest.mark.parametrize(
    ("count", "interval", "expected"),
    [
        (0, 10, [*range(11), 20, 30, 40]),  # the first ten gaps are a second
        (0, 1, [*range(46)]),
        (3, 10, [0, 10, 20]),
    ],
)
def test_messages_leave_at_these_times(
    core: ModuleType, count: int, interval: float, expected: list[float]
) -> None:
    schedule = start(core, "a", count, interval)
    assert play(schedule, 45)["a"] == expected
    assert schedule.finished(20) is (count > 0)


def test_what_cannot_leave_is_tried_every_tenth_of_a_second_and_after_a_minute_every_second(
    core: ModuleType,
) -> None:
    tries: list[float] = []

    def late(key: object, now: float) -> bool:
        tries.append(now)
        return now >= 120

    sent = play(start(core, "a"), 125, late)["a"]
    gaps = [after - before for before, after in zip(tries, tries[1:])]
    assert max(gaps) < 1.01
    assert 600 + 50 < len(tries) < 600 + 70
    assert [time - sent[0] for time in sent] == pytest.approx(range(len(sent)))
    assert len(sent) >= 5


def test_a_node_never_reached_is_given_up_after_count_intervals(core: ModuleType) -> None:
    schedule = start(core, "ab", count=3)
    play(schedule, 100, lambda key, now: key == "a")
    assert not schedule.finished(29.9)
    assert schedule.finished(30)
    assert schedule.reached == {"a"}


def test_no_address_is_given_up_that_was_not_tried(core: ModuleType) -> None:
    schedule = start(core, "ab", count=1, interval=1)
    first, second = schedule.due(0)
    schedule.left(first, 0)
    assert not schedule.finished(3600)  # a slow machine came to the second so late
    schedule.taken(second, 3600)
    assert schedule.finished(3600)
    schedule = start(core, "a", count=1, interval=1)
    schedule.add("the other ring", "a", 0)
    schedule.left(schedule.due(0)[0], 0)
    assert not schedule.finished(0)  # the node was reached, but at one address alone


def test_as_long_as_nobody_is_reached_the_network_may_be_late(core: ModuleType) -> None:
    sent = play(start(core, "ab", count=3, interval=1), 100, lambda key, now: now >= 50)
    assert [len(times) for times in sent.values()] == [3, 3]
    assert 50 <= sent["a"][0] <= 50.2
    schedule = start(core, "a", count=3, interval=1)
    play(schedule, 100, lambda key, now: False)
    assert not schedule.finished(59.9)
    assert schedule.finished(60)
    assert schedule.reached == set()


def test_a_message_that_came_back_is_sent_again_after_a_second_or_when_the_network_changes(
    core: ModuleType,
) -> None:
    schedule = start(core, "a", count=2)
    (destination,) = schedule.due(0.0)
    schedule.left(destination, 0.0)
    assert schedule.lost("a", 3.0) is destination
    assert destination.left == 0
    assert schedule.due(3.9) == []
    assert schedule.due(4.0) == [destination]
    schedule.hurry(3.2)
    assert schedule.due(3.23) == []
    assert schedule.due(3.24) == [destination]


def test_a_network_that_changes_all_the_time_does_not_make_it_spin(core: ModuleType) -> None:
    schedule = start(core, "a")
    tries, now = 0, 0.0
    while now < 1:
        schedule.hurry(now)
        for destination in schedule.due(now):
            schedule.failed(destination, now)
            tries += 1
        now += 0.001
    assert 20 <= tries <= 26


def test_when_the_network_changes_what_left_is_repeated(core: ModuleType) -> None:
    # It may have left from an address that the others do not know, or to where nobody hears.
    schedule = start(core, "a")
    (destination,) = schedule.due(0.0)
    schedule.left(destination, 0.0)
    schedule.hurry(0.3)
    assert schedule.due(0.33) == []
    assert schedule.due(0.34) == [destination]


def test_after_its_first_messages_changes_cost_no_more_than_a_message_a_second(
    core: ModuleType,
) -> None:
    schedule = start(core, "a")
    sent, now = 0, 0.0
    while now < 30:
        schedule.hurry(now)
        for destination in schedule.due(now):
            schedule.left(destination, now)
            sent += 1
        now += 0.01
    assert 10 + 25 <= sent <= 11 + 31


def test_numbers_that_were_never_given_out_are_refused(core: ModuleType) -> None:
    schedule = start(core, "a").real
    for call in (schedule.when, schedule.sent, schedule.nodes, schedule.trusted, schedule.asked):
        for number in (-1, 1):
            with pytest.raises(IndexError, match=f"destination {number}: 0 to 0 are allowed"):
                call(number)
    for call in (schedule.left, schedule.failed, schedule.lost, schedule.taken):
        with pytest.raises(IndexError):
            call(1, 0)
    with pytest.raises(IndexError, match="node 1: 0 to 0 are allowed"):
        schedule.add(1, 0)
    with pytest.raises(IndexError):
        schedule.share(0, 1)
    with pytest.raises(IndexError):
        schedule.give_up(-1)


@pytest.mark.parametrize(("count", "interval"), [(-1, 1), (0, 0), (0, -1)])
def test_numbers_without_a_meaning_are_refused(core: ModuleType, count: int, interval: int) -> None:
    with pytest.raises(ValueError, match="is allowed"):
        core.Schedule(1, count, interval, 0)


def test_the_largest_numbers_that_can_be_asked_for(core: ModuleType) -> None:
    most = 2**31 - 1
    schedule = start(core, "a", most, most)
    (destination,) = schedule.due(0.0)
    schedule.left(destination, 0.0)
    assert destination.due == most
    assert not schedule.finished(1e9)


def test_a_thousand_addresses(core: ModuleType) -> None:
    nodes = range(500)
    schedule = Schedule(core, nodes, 2, 1)
    for number in range(1000):
        schedule.add(number, number % 500)
    sent = play(schedule, 10, lambda key, now: key != 7)
    assert sent.pop(7) == []
    assert all(times == [0, 1] for times in sent.values())
    assert schedule.reached == set(nodes)


# ------------------------------------------------------------- neighbours that are asked for


def test_a_message_that_waits_for_its_neighbour_has_not_left(core: ModuleType) -> None:
    schedule = start(core, "a", count=1)
    (destination,) = schedule.due(0.0)
    schedule.taken(destination, 0.0)
    assert (destination.left, schedule.reached, schedule.due(5.0)) == (0, set(), [])
    assert schedule.next_due(0.0) == 3.2
    schedule.left(destination, 1.0)
    assert (destination.left, schedule.reached) == (1, {"a"})
    assert schedule.finished(1.0)


def test_those_that_answered_come_first_and_those_that_did_not_last(core: ModuleType) -> None:
    schedule = start(core, "abc")
    a, _, c = schedule.due(0.0)
    schedule.taken(a, 0.0)
    schedule.lost("a", 0.0)
    schedule.left(c, 0.0)
    assert keys(schedule.due(20.0)) == ["c", "b", "a"]
    schedule.doubt()
    assert keys(schedule.due(20.0)) == ["c", "b", "a"]
    schedule.hurry(20.0)
    assert keys(schedule.due(21.0)) == ["c", "a", "b"]


def test_only_so_many_neighbours_are_asked_for_at_a_time(core: ModuleType) -> None:
    schedule = start(core, range(2000))
    ready = schedule.due(0.0)
    assert keys(ready) == list(range(core.MOST_ASKED))
    for destination in ready:
        schedule.taken(destination, 0.0)
    assert schedule.due(0.1) == []
    assert schedule.next_due(0.1) == 3.2  # and no sooner: there is no room
    schedule.left(ready[0], 0.2)
    assert keys(schedule.due(0.2)) == [core.MOST_ASKED]


def test_those_that_did_not_answer_take_turns_in_the_smaller_part_of_the_room(
    core: ModuleType,
) -> None:
    schedule = start(core, range(600))
    for destination in schedule.due(0.0):
        schedule.taken(destination, 0.0)
    for number in range(600):
        assert schedule.lost(number, 3.0) is not None
    most = core.MOST_ASKED_AGAIN
    seen = []
    for turn in range(5):
        now = 10.0 * (turn + 1)
        ready = schedule.due(now)
        assert len(ready) == most
        seen += keys(ready)
        for destination in ready:
            schedule.taken(destination, now)
        assert schedule.due(now) == []
        for destination in ready:
            schedule.lost(destination.key, now + 3)
    assert seen[: 600 * 2] == [*range(600), *range(600)]


def test_who_answers_has_room_beside_those_that_did_not(core: ModuleType) -> None:
    schedule = start(core, range(600))
    for destination in schedule.due(0.0):
        schedule.taken(destination, 0.0)
    for number in range(599):
        schedule.lost(number, 3.0)
    schedule.left(schedule.destinations[599], 3.0)
    for destination in schedule.due(20.0)[1:]:
        schedule.taken(destination, 20.0)
    assert keys(schedule.due(20.0)) == [599]
    schedule.doubt()
    assert keys(schedule.due(20.0)) == [599]


def test_any_number_of_those_that_are_trusted_are_sent_at_once(core: ModuleType) -> None:
    schedule = start(core, range(2000))
    for _ in range(3):
        for destination in schedule.due(0.0):
            schedule.left(destination, 0.0)
    assert all(schedule.trusted(n) for n in schedule.destinations)
    assert len(schedule.due(20.0)) == 2000
    schedule.doubt()
    assert not any(schedule.trusted(n) for n in schedule.destinations)
    assert len(schedule.due(20.0)) == core.MOST_ASKED


def test_trust_ends_with_a_failure_and_with_a_change_of_the_network(core: ModuleType) -> None:
    schedule = start(core, "a")
    (destination,) = schedule.due(0.0)
    assert not schedule.trusted("a")
    schedule.left(destination, 0.0)
    assert schedule.trusted("a")
    schedule.failed(destination, 1.0)
    assert not schedule.trusted("a")
    schedule.left(destination, 2.0)
    schedule.hurry(2.0)
    assert not schedule.trusted("a")
    schedule.left(destination, 3.0)
    schedule.lost("a", 3.0)
    assert not schedule.trusted("a")

# SPDX-License-Identifier: GPL-2.0-or-later
"""The sender's rhythm, with a clock of our own."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from tests.support.rhythm import Destination, Schedule


def play(
    schedule: Schedule, until: float, up: Callable[[object, float], bool] = lambda key, now: True
) -> dict[object, list[float]]:
    """Run until then; when messages left for whom. `up` tells whether one can leave."""
    sent: dict[object, list[float]] = {}
    now = 0.0
    while now <= until and not schedule.finished(now):
        while True:
            ready = schedule.due(now)  # not always all of them at once
            if not ready:
                break
            for destination in ready:
                if up(destination.key, now):
                    schedule.left(destination, now)
                    sent.setdefault(destination.key, []).append(round(now, 3))
                else:
                    schedule.failed(destination, now)
        due = schedule.next_due(now)
        assert due is None or due > now, "a loop over this would spin"
        now = until + 1 if due is None else due
    return sent


def make(core: ModuleType, count: int = 0, interval: float = 10, keys: str = "a") -> Schedule:
    schedule = Schedule(core, tuple(keys), count, interval, 0.0)
    for key in keys:
        schedule.add(key, key, 0.0)
    return schedule


def test_the_first_message_is_due_at_once(core: ModuleType) -> None:
    assert [d.key for d in make(core).due(0.0)] == ["a"]


def test_without_a_count_the_first_ten_gaps_are_a_second(core: ModuleType) -> None:
    assert play(make(core), 45)["a"] == [*range(11), 20, 30, 40]


def test_an_interval_of_a_second_stays_one(core: ModuleType) -> None:
    assert play(make(core, interval=1), 30)["a"] == list(range(31))


def test_with_a_count_the_interval_holds_from_the_start(core: ModuleType) -> None:
    schedule = make(core, count=3)
    assert play(schedule, 100)["a"] == [0, 10, 20]
    assert schedule.finished(20)


def test_what_cannot_leave_is_tried_every_tenth_of_a_second(core: ModuleType) -> None:
    sent = play(make(core), 15, up=lambda key, now: now >= 3)
    assert 3 <= sent["a"][0] <= 3.1
    gaps = [round(b - a, 2) for a, b in zip(sent["a"], sent["a"][1:])]
    assert gaps[:10] == [1] * 10


def test_after_a_minute_it_is_tried_every_second(core: ModuleType) -> None:
    tries: list[float] = []

    def never(key: object, now: float) -> bool:
        tries.append(now)
        return False

    play(make(core), 120, up=never)
    gaps = [b - a for a, b in zip(tries, tries[1:])]
    assert max(gaps) < 1.01
    assert 600 + 50 < len(tries) < 600 + 70


def test_one_that_fails_does_not_delay_another(core: ModuleType) -> None:
    sent = play(make(core, keys="ab"), 10, up=lambda key, now: key == "b")
    assert sent == {"b": list(range(11))}


def test_a_count_counts_what_left_not_what_was_tried(core: ModuleType) -> None:
    sent = play(make(core, count=3, interval=1), 60, up=lambda key, now: not 0.5 < now < 30)
    assert len(sent["a"]) == 3
    assert sent["a"][0] == 0
    assert sent["a"][1] >= 30


def test_a_node_that_was_once_reached_is_owed_all_its_messages(core: ModuleType) -> None:
    schedule = make(core, count=2, interval=1)
    play(schedule, 3600, up=lambda key, now: now < 0.5)
    assert not schedule.finished(3600)


def test_a_node_never_reached_is_given_up_after_count_intervals(core: ModuleType) -> None:
    schedule = make(core, count=3, interval=10, keys="ab")
    play(schedule, 100, up=lambda key, now: key == "a")
    assert not schedule.finished(29.9)
    assert schedule.finished(30)
    assert schedule.reached == {"a"}


def test_no_address_is_given_up_that_was_not_tried(core: ModuleType) -> None:
    schedule = make(core, count=1, interval=1, keys="ab")
    first, second = schedule.due(0)
    schedule.left(first, 0)
    assert not schedule.finished(3600)  # a slow machine came to the second so late
    schedule.taken(second, 3600)
    assert schedule.finished(3600)
    schedule = make(core, count=1, interval=1)
    schedule.add("the other ring", "a", 0)
    schedule.left(schedule.due(0)[0], 0)
    assert not schedule.finished(0)  # the node was reached, but at one address alone


def test_as_long_as_nobody_is_reached_the_network_may_be_late(core: ModuleType) -> None:
    schedule = make(core, count=3, interval=1, keys="ab")
    sent = play(schedule, 100, up=lambda key, now: now >= 50)
    assert [len(times) for times in sent.values()] == [3, 3]
    assert 50 <= sent["a"][0] <= 50.2
    schedule = make(core, count=3, interval=1)
    play(schedule, 100, up=lambda key, now: False)
    assert not schedule.finished(59.9)
    assert schedule.finished(60)
    assert schedule.reached == set()


def test_a_node_without_hope_is_not_waited_for(core: ModuleType) -> None:
    schedule = make(core, count=1, keys="ab")
    schedule.give_up("b")
    play(schedule, 5, up=lambda key, now: key == "a")
    assert schedule.finished(0)


def test_with_nobody_to_be_told_it_ends_even_without_a_count(core: ModuleType) -> None:
    schedule = Schedule(core, ("a",), 0, 10, 0.0)
    assert not schedule.finished(0)
    schedule.give_up("a")
    assert schedule.finished(0)


def test_a_node_without_an_address_is_waited_for_as_well(core: ModuleType) -> None:
    schedule = Schedule(core, ("a", "b"), 1, 10, 0.0)
    schedule.add("a", "a", 0.0)
    play(schedule, 5)
    assert not schedule.finished(5)
    schedule.add("b", "b", 5.0)
    (destination,) = schedule.due(5.0)
    schedule.left(destination, 5.0)
    assert schedule.finished(5.0)


def test_a_second_address_that_never_works_does_not_hold_up_the_end(core: ModuleType) -> None:
    schedule = Schedule(core, ("a",), 2, 10, 0.0)
    schedule.add("a-first", "a", 0.0)
    schedule.add("a-second", "a", 0.0)
    sent = play(schedule, 100, up=lambda key, now: key == "a-first")
    assert sent == {"a-first": [0, 10]}
    assert schedule.finished(10)


def test_a_message_that_came_back_is_sent_again_within_a_second(core: ModuleType) -> None:
    schedule = make(core, count=2, interval=10)
    (destination,) = schedule.due(0.0)
    schedule.left(destination, 0.0)
    assert schedule.lost("a", 3.0) is destination
    assert destination.left == 0
    assert schedule.due(3.9) == []
    assert schedule.due(4.0) == [destination]


def test_an_error_about_nobody_is_passed_over(core: ModuleType) -> None:
    schedule = make(core)
    assert schedule.lost("x", 1.0) is None
    assert schedule.lost("a", 1.0) is None  # nothing had left


def test_without_a_count_it_never_ends(core: ModuleType) -> None:
    schedule = make(core)
    play(schedule, 1000)
    assert not schedule.finished(1e9)


def test_what_could_not_be_sent_in_time_is_not_made_up_for(core: ModuleType) -> None:
    schedule = make(core, interval=1)
    destination: Destination = schedule.due(0.0)[0]
    schedule.left(destination, 0.0)
    schedule.left(destination, 100.0)  # the machine stood still
    assert destination.due >= 100.5


def test_an_address_added_twice_is_one(core: ModuleType) -> None:
    schedule = Schedule(core, ("a", "other"), 0, 10, 0.0)
    assert schedule.add("x", "a", 0.0) is True
    assert schedule.add("x", "other", 1.0) is False
    assert schedule.add("x", "other", 1.0) is False
    (destination,) = schedule.due(1.0)
    assert destination.nodes == ["a", "other"]
    schedule.left(destination, 1.0)
    assert schedule.reached == {"a", "other"}
    assert schedule.add("y", "other", 1.0) is True


def test_when_the_network_changes_what_failed_is_tried_in_a_moment(core: ModuleType) -> None:
    schedule = make(core, count=5, interval=1, keys="ab")
    first, second = schedule.due(0.0)
    schedule.left(first, 0.0)
    schedule.failed(second, 0.0)
    schedule.hurry(0.01)
    assert schedule.due(0.01) == []
    assert schedule.due(0.05) == [second]
    assert first.due == 1.0  # its rhythm stays


def test_a_network_that_changes_all_the_time_does_not_make_it_spin(core: ModuleType) -> None:
    schedule = make(core)
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
    schedule = make(core)
    (destination,) = schedule.due(0.0)
    schedule.left(destination, 0.0)
    schedule.hurry(0.3)
    assert schedule.due(0.33) == []
    assert schedule.due(0.34) == [destination]


def test_late_in_its_rhythm_changes_cost_no_more_than_a_message_a_second(
    core: ModuleType,
) -> None:
    schedule = make(core)
    sent, now = 0, 0.0
    while now < 30:
        schedule.hurry(now)
        for destination in schedule.due(now):
            schedule.left(destination, now)
            sent += 1
        now += 0.01
    assert 10 + 25 <= sent <= 11 + 31


def test_a_change_never_makes_it_later(core: ModuleType) -> None:
    schedule = make(core)
    (destination,) = schedule.due(0.0)
    schedule.failed(destination, 0.0)
    schedule.hurry(0.0995)
    assert destination.due <= 0.1


def test_a_message_that_came_back_is_sent_again_when_the_network_changes(
    core: ModuleType,
) -> None:
    schedule = make(core, count=2, interval=10)
    (destination,) = schedule.due(0.0)
    schedule.left(destination, 0.0)
    schedule.lost("a", 3.0)
    schedule.hurry(3.2)
    assert schedule.due(3.24) == [destination]


def test_numbers_that_were_never_given_out_are_refused(core: ModuleType) -> None:
    schedule = make(core).real
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
    schedule = make(core, count=most, interval=most)
    (destination,) = schedule.due(0.0)
    schedule.left(destination, 0.0)
    assert destination.due == most
    assert not schedule.finished(1e9)


def test_a_thousand_addresses(core: ModuleType) -> None:
    names = tuple(f"n{number}" for number in range(500))
    schedule = Schedule(core, names, 2, 1, 0.0)
    for number in range(1000):
        schedule.add(number, names[number % 500], 0.0)
    sent = play(schedule, 10, up=lambda key, now: key != 7)
    assert len(sent) == 999
    assert all(times == [0, 1] for times in sent.values())
    assert schedule.reached == set(names)


# ------------------------------------------------------------- neighbours that are asked for


def crowd(core: ModuleType, number: int, count: int = 0) -> Schedule:
    schedule = Schedule(core, tuple(f"n{n}" for n in range(number)), count, 10, 0.0)
    for n in range(number):
        schedule.add(n, f"n{n}", 0.0)
    return schedule


def keys(destinations: list[Destination]) -> list[object]:
    return [destination.key for destination in destinations]


def test_a_message_that_waits_for_its_neighbour_has_not_left(core: ModuleType) -> None:
    schedule = make(core, count=1)
    (destination,) = schedule.due(0.0)
    schedule.taken(destination, 0.0)
    assert (destination.left, schedule.reached, schedule.due(5.0)) == (0, set(), [])
    assert schedule.next_due(0.0) == 3.2
    schedule.left(destination, 1.0)
    assert (destination.left, schedule.reached) == (1, {"a"})
    assert schedule.finished(1.0)


def test_what_is_under_way_for_too_long_is_overdue(core: ModuleType) -> None:
    schedule = make(core)
    (destination,) = schedule.due(0.0)
    schedule.taken(destination, 0.0)
    assert schedule.overdue(3.1) == []
    assert keys(schedule.overdue(3.2)) == ["a"]
    assert schedule.lost("a", 3.2) is destination
    assert schedule.overdue(3.2) == []
    assert destination.due == 4.2


def test_those_that_answered_come_first_and_those_that_did_not_last(core: ModuleType) -> None:
    schedule = make(core, keys="abc")
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
    schedule = crowd(core, 2000)
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
    schedule = crowd(core, 600)
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
    schedule = crowd(core, 600)
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
    schedule = crowd(core, 2000)
    for _ in range(3):
        for destination in schedule.due(0.0):
            schedule.left(destination, 0.0)
    assert all(schedule.trusted(n) for n in schedule.destinations)
    assert len(schedule.due(20.0)) == 2000
    schedule.doubt()
    assert not any(schedule.trusted(n) for n in schedule.destinations)
    assert len(schedule.due(20.0)) == core.MOST_ASKED


def test_trust_ends_with_a_failure_and_with_a_change_of_the_network(core: ModuleType) -> None:
    schedule = make(core)
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


def test_with_a_count_nobody_is_trusted(core: ModuleType) -> None:
    schedule = make(core, count=2)
    (destination,) = schedule.due(0.0)
    schedule.left(destination, 0.0)
    assert not schedule.trusted("a")


def test_what_is_under_way_is_sent_again_after_a_change_if_there_is_room(
    core: ModuleType,
) -> None:
    schedule = make(core)
    (destination,) = schedule.due(0.0)
    schedule.taken(destination, 0.0)
    schedule.hurry(1.0, again=False)
    assert schedule.due(3.0) == []
    schedule.hurry(1.0)
    assert schedule.next_due(1.0) == 1.04
    assert keys(schedule.due(1.04)) == ["a"]

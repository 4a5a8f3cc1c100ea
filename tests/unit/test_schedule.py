# SPDX-License-Identifier: GPL-2.0-or-later
"""The sender's rhythm, with a clock of our own."""

from __future__ import annotations

from collections.abc import Callable

from kdumpfence.schedule import Destination, Schedule


def play(
    schedule: Schedule, until: float, up: Callable[[object, float], bool] = lambda key, now: True
) -> dict[object, list[float]]:
    """Run until then; when messages left for whom. `up` tells whether one can leave."""
    sent: dict[object, list[float]] = {}
    now = 0.0
    while now <= until and not schedule.finished(now):
        for destination in schedule.due(now):
            if up(destination.key, now):
                schedule.left(destination, now)
                sent.setdefault(destination.key, []).append(round(now, 3))
            else:
                schedule.failed(destination, now)
        due = schedule.next_due(now)
        assert due is None or due > now, "a loop over this would spin"
        now = until + 1 if due is None else due
    return sent


def make(count: int = 0, interval: float = 10, keys: str = "a") -> Schedule:
    schedule = Schedule(tuple(keys), count, interval, 0.0)
    for key in keys:
        schedule.add(key, key, 0.0)
    return schedule


def test_the_first_message_is_due_at_once() -> None:
    assert [d.key for d in make().due(0.0)] == ["a"]


def test_without_a_count_the_first_ten_gaps_are_a_second() -> None:
    assert play(make(), 45)["a"] == [*range(11), 20, 30, 40]


def test_an_interval_of_a_second_stays_one() -> None:
    assert play(make(interval=1), 30)["a"] == list(range(31))


def test_with_a_count_the_interval_holds_from_the_start() -> None:
    schedule = make(count=3)
    assert play(schedule, 100)["a"] == [0, 10, 20]
    assert schedule.finished(20)


def test_what_cannot_leave_is_tried_every_tenth_of_a_second() -> None:
    sent = play(make(), 15, up=lambda key, now: now >= 3)
    assert 3 <= sent["a"][0] <= 3.1
    gaps = [round(b - a, 2) for a, b in zip(sent["a"], sent["a"][1:])]
    assert gaps[:10] == [1] * 10


def test_after_a_minute_it_is_tried_every_second() -> None:
    tries: list[float] = []

    def never(key: object, now: float) -> bool:
        tries.append(now)
        return False

    play(make(), 120, up=never)
    gaps = [b - a for a, b in zip(tries, tries[1:])]
    assert max(gaps) < 1.01
    assert 600 + 50 < len(tries) < 600 + 70


def test_one_that_fails_does_not_delay_another() -> None:
    sent = play(make(keys="ab"), 10, up=lambda key, now: key == "b")
    assert sent == {"b": list(range(11))}


def test_a_count_counts_what_left_not_what_was_tried() -> None:
    sent = play(make(count=3, interval=1), 60, up=lambda key, now: not 0.5 < now < 30)
    assert len(sent["a"]) == 3
    assert sent["a"][0] == 0
    assert sent["a"][1] >= 30


def test_a_node_that_was_once_reached_is_owed_all_its_messages() -> None:
    schedule = make(count=2, interval=1)
    play(schedule, 3600, up=lambda key, now: now < 0.5)
    assert not schedule.finished(3600)


def test_a_node_never_reached_is_given_up_after_count_intervals() -> None:
    schedule = make(count=3, interval=10, keys="ab")
    play(schedule, 100, up=lambda key, now: key == "a")
    assert not schedule.finished(29.9)
    assert schedule.finished(30)
    assert schedule.reached == {"a"}


def test_as_long_as_nobody_is_reached_the_network_may_be_late() -> None:
    schedule = make(count=3, interval=1, keys="ab")
    sent = play(schedule, 100, up=lambda key, now: now >= 50)
    assert [len(times) for times in sent.values()] == [3, 3]
    assert 50 <= sent["a"][0] <= 50.2
    schedule = make(count=3, interval=1)
    play(schedule, 100, up=lambda key, now: False)
    assert not schedule.finished(59.9)
    assert schedule.finished(60)
    assert schedule.reached == set()


def test_a_node_without_hope_is_not_waited_for() -> None:
    schedule = make(count=1, keys="ab")
    schedule.give_up("b")
    play(schedule, 5, up=lambda key, now: key == "a")
    assert schedule.finished(0)


def test_with_nobody_to_be_told_it_ends_even_without_a_count() -> None:
    schedule = Schedule(("a",), 0, 10, 0.0)
    assert not schedule.finished(0)
    schedule.give_up("a")
    assert schedule.finished(0)


def test_a_node_without_an_address_is_waited_for_as_well() -> None:
    schedule = Schedule(("a", "b"), 1, 10, 0.0)
    schedule.add("a", "a", 0.0)
    play(schedule, 5)
    assert not schedule.finished(5)
    schedule.add("b", "b", 5.0)
    (destination,) = schedule.due(5.0)
    schedule.left(destination, 5.0)
    assert schedule.finished(5.0)


def test_a_second_address_that_never_works_does_not_hold_up_the_end() -> None:
    schedule = Schedule(("a",), 2, 10, 0.0)
    schedule.add("a-first", "a", 0.0)
    schedule.add("a-second", "a", 0.0)
    sent = play(schedule, 100, up=lambda key, now: key == "a-first")
    assert sent == {"a-first": [0, 10]}
    assert schedule.finished(10)


def test_a_message_that_came_back_is_sent_again_within_a_second() -> None:
    schedule = make(count=2, interval=10)
    (destination,) = schedule.due(0.0)
    schedule.left(destination, 0.0)
    assert schedule.lost("a", 3.0) is destination
    assert destination.left == 0
    assert schedule.due(3.9) == []
    assert schedule.due(4.0) == [destination]


def test_an_error_about_nobody_is_passed_over() -> None:
    schedule = make()
    assert schedule.lost("x", 1.0) is None
    assert schedule.lost("a", 1.0) is None  # nothing had left


def test_without_a_count_it_never_ends() -> None:
    schedule = make()
    play(schedule, 1000)
    assert not schedule.finished(1e9)


def test_what_could_not_be_sent_in_time_is_not_made_up_for() -> None:
    schedule = make(interval=1)
    destination: Destination = schedule.due(0.0)[0]
    schedule.left(destination, 0.0)
    schedule.left(destination, 100.0)  # the machine stood still
    assert destination.due >= 100.5


def test_an_address_added_twice_is_one() -> None:
    schedule = make()
    assert schedule.add("a", "other", 1.0) is False
    (destination,) = schedule.due(1.0)
    schedule.left(destination, 1.0)
    assert schedule.reached == {"a", "other"}
    assert schedule.add("b", "other", 1.0) is True

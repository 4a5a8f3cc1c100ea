# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a drill makes of what was seen: which steps are new, and who fenced the node."""

from __future__ import annotations

import pytest

from kdumpfence.doctor.drill_course import (
    ASKED,
    BACK,
    BY_KDUMP,
    BY_POWER,
    DUMPED,
    FAILED,
    FENCED,
    HEARD,
    LEFT,
    MOVED,
    NO,
    NOT_FENCED,
    REQUESTED,
    SENDING,
    UNKNOWN,
    YES,
    Course,
    Event,
)

LEVELS = (("kdump",), ("power",))


def course(*seen: Event, levels: tuple[tuple[str, ...], ...] = LEVELS) -> Course:
    """What was made of these."""
    made = Course(levels, ["kdump", "kdump2"])
    for one in seen:
        made.take(one)
    return made


def kinds(made: Course) -> list[str]:
    """The steps, in the order in which they became known."""
    return [f"{one.kind} {one.device}".strip() for one in made.events]


def heard(when: float, grade: str = "plain") -> Event:
    return Event(HEARD, when, "192.0.2.3", text=grade)


def asked(when: float, device: str) -> Event:
    return Event(ASKED, when, "node1", device)


LOST = (Event(LEFT, 2), Event(REQUESTED, 3, text="reboot"))
OVER = Event(FENCED, 9, "node1", "", "reboot")


def test_a_node_that_the_log_shows_to_be_fenced_by_kdump() -> None:
    made = course(heard(1), *LOST, asked(4, "kdump"), Event(YES, 5, "", "kdump"), OVER)
    assert kinds(made) == [HEARD, LEFT, REQUESTED, "asked kdump", "yes kdump", FENCED]
    assert made.began == 1
    how, text = made.verdict()
    assert (how, text) == (BY_KDUMP, "fenced by kdump, and no power was cut")


def test_a_device_that_was_asked_last_said_yes_if_the_node_is_fenced() -> None:
    made = course(*LOST, asked(4, "kdump"), OVER)
    assert made.events[-2:] == [Event(YES, 9, "", "kdump"), OVER]
    assert made.verdict().how == BY_KDUMP


def test_a_device_said_no_if_another_level_is_tried() -> None:
    made = course(*LOST, asked(4, "kdump"), asked(8, "power"), OVER)
    assert kinds(made)[2:] == ["asked kdump", "no kdump", "asked power", "yes power", FENCED]
    assert made.verdict() == (
        BY_POWER,
        "fenced by power after kdump said no; no message was heard here",
    )
    assert made.take(Event(NO, 8, "", "kdump")) == []


def test_an_answer_that_is_known_already_is_no_news() -> None:
    made = course(*LOST, asked(4, "kdump"), OVER)
    assert made.take(Event(YES, 5, "", "kdump")) == []


def test_a_device_said_yes_if_the_next_one_of_its_level_is_asked() -> None:
    made = course(*LOST, asked(4, "kdump"), asked(8, "power"), OVER, levels=(("kdump", "power"),))
    assert "yes kdump" in kinds(made)
    assert made.verdict() == (BY_POWER, "kdump said yes, and yet power was used")


def test_a_device_may_be_asked_twice() -> None:
    no = Event(NO, 5, "", "kdump", "exit status 1")
    made = course(*LOST, asked(4, "kdump"), no, asked(6, "kdump"), OVER)
    assert kinds(made).count("asked kdump") == 2
    assert made.verdict().how == BY_KDUMP


def test_power_after_a_yes_costs_the_dump() -> None:
    first = (*LOST, asked(4, "kdump"), OVER)
    again = (Event(REQUESTED, 12, text="reboot"), asked(13, "power"), OVER._replace(when=14))
    made = course(heard(1), *first, *again)
    assert kinds(made).count(REQUESTED) == kinds(made).count(FENCED) == 2
    assert made.verdict().how == BY_POWER


def test_a_request_that_is_told_of_late_is_no_second_one() -> None:
    made = course(*LOST, OVER, Event(REQUESTED, 8, text="reboot"))
    assert kinds(made) == [LEFT, REQUESTED, FENCED]


def test_power_at_once_says_that_kdump_was_not_asked() -> None:
    made = course(heard(1), *LOST, asked(4, "power"), OVER)
    assert made.verdict() == (BY_POWER, "fenced by power, and kdump was not asked")


def test_messages_after_the_fencing_show_that_no_power_was_cut() -> None:
    made = course(heard(1), *LOST, OVER)
    assert made.verdict().how == UNKNOWN
    assert made.take(heard(9.5)) == []  # may have been on its way
    assert [one.kind for one in made.take(heard(11.2))] == [SENDING]
    assert made.take(heard(19)) == []
    assert made.verdict() == (
        BY_KDUMP,
        "fenced, and no power was cut; it still sent messages 10 s later",
    )


def test_messages_that_came_after_the_fencing_alone_show_nothing() -> None:
    made = course(*LOST, OVER, heard(12))
    assert made.verdict().how == UNKNOWN


def test_a_refusal_of_kdump_that_this_node_saw_is_enough() -> None:
    made = course(*LOST, Event(NO, 8, "", "kdump", "exit status 1"), OVER)
    assert made.verdict() == (BY_POWER, "kdump said no, and another device fenced it")


def test_a_refusal_of_a_node_that_goes_on_sending_decides_nothing() -> None:
    made = course(heard(1), *LOST, Event(NO, 8, "", "kdump"), OVER, heard(20))
    assert made.verdict().how == UNKNOWN


def test_each_grade_is_told_once() -> None:
    made = course(heard(1), heard(2), heard(3, "signed with key 5f2a91c3"), heard(4))
    assert [one.text for one in made.events] == ["plain", "signed with key 5f2a91c3"]


def test_the_end_of_the_dump_and_its_contradiction_are_told() -> None:
    ends = [Event(DUMPED, 3, "192.0.2.3", text=text) for text in ("failed", "failed", "finished")]
    assert [one.text for one in course(heard(1), *ends).events[1:]] == ["failed", "finished"]


def test_it_is_over_when_the_node_is_fenced_and_back() -> None:
    made = course(heard(1), *LOST, OVER, Event(MOVED, 10))
    assert not made.over
    made.take(Event(BACK, 60))
    assert made.over
    assert course(Event(BACK, 60)).events == []  # it was never away
    assert not course(*LOST, Event(BACK, 60)).over


def test_a_node_that_does_not_come_back_is_said_not_to() -> None:
    made = course(*LOST, asked(4, "kdump"), OVER)
    text = "fenced by kdump, and no power was cut; not back in this time"
    assert made.verdict(timed_out=True) == (BY_KDUMP, text)
    made.take(Event(BACK, 60))
    assert made.verdict(timed_out=True).text == "fenced by kdump, and no power was cut"


def test_steps_are_put_in_the_order_of_their_times() -> None:
    made = course(Event(LEFT, 2), heard(1))
    assert [one.kind for one in made.in_order] == [HEARD, LEFT]
    assert made.began == 1


@pytest.mark.parametrize(
    ("seen", "timed_out", "how", "text"),
    [
        ((), True, UNKNOWN, "nothing happened: no crash was seen"),
        (LOST, True, NOT_FENCED, "not fenced in this time"),
        (LOST, False, UNKNOWN, "broken off before the node was fenced"),
        (
            (*LOST, asked(4, "kdump"), OVER._replace(kind=FAILED)),
            False,
            NOT_FENCED,
            "fencing failed",
        ),
    ],
)
def test_a_node_that_is_not_fenced(
    seen: tuple[Event, ...], timed_out: bool, how: str, text: str
) -> None:
    assert course(*seen).verdict(timed_out) == (how, text)

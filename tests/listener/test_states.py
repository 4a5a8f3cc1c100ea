# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nodes say of their dumps, from the socket to the events; on loopback, each core."""

from __future__ import annotations

import time

import pytest

from kdumpfence.listener.events import AnyEvent, Dump, Event
from kdumpfence.wire import Packet, encode_packet
from tests.listener.conftest import NETWORK, A, B, MakeListener, TrialListener, kinds, wait_for


def status(state: str, session: int, name: str = "node1") -> bytes:
    return encode_packet(Packet("status", name, state=state, session=session, sequence=1))


@pytest.mark.parametrize("end", ["finished", "failed"])
def test_a_dump_ends_as_its_node_says_at_once_and_once(listen: MakeListener, end: str) -> None:
    listening = listen({"node1": [A]}, silence_timeout=60)
    listening.say(A, status("started", 7))
    began = listening.only_event()
    assert (began.kind, began.sessions) == ("began", (7,))
    listening.say(A, status(end, 8))
    ended = listening.only_event()
    assert ended[:2] == (end, "node1")
    assert (ended.since, ended.messages, ended.sessions) == (began.since, 2, (7, 8))
    assert ended.when == ended.last
    assert ended.took == pytest.approx(ended.last - ended.since, abs=1e-3)
    assert listening.snapshot().dumps == []
    for data in (status("dumping", 7), status(end, 8), status("dumping", 7)[:8]):
        listening.say(A, data)
    listening.wait_for_count("accepted", 5)
    assert listening.events(0.1) == []


def test_after_another_panic_there_is_another_dump(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdumpfence.listener.dumps.OVERTAKEN", 0.2)
    listening = listen({"node1": [A]}, silence_timeout=60)
    listening.say(A, status("dumping", 7))
    listening.say(A, status("finished", 8))
    assert kinds(listening.several(2)) == ["began", "finished"]
    time.sleep(0.3)
    listening.say(A, status("dumping", 7))
    listening.say(A, status("started", 9))
    assert listening.only_event()[:2] == ("began", "node1")


def test_what_was_not_looked_at_is_told_in_its_order(listen: MakeListener) -> None:
    listening = listen({"node1": [A, B]})
    listening.say(A)
    listening.say(A, status("failed", 1))
    listening.say(B, status("dumping", 2))
    listening.say(B, status("finished", 3))
    listening.wait_for_count("accepted", 4)
    events = listening.several(3)
    assert kinds(events) == ["began", "failed", "finished"]
    assert [event.messages for event in events] == [2, 2, 4]
    assert events[2].addresses == (A, B)
    assert events[2].sessions == (1, 2, 3)


def test_the_dump_after_one_that_was_restored_from_the_future_has_its_own_times(
    listen: MakeListener,
) -> None:
    listening = listen({"node1": [A]})
    future = time.time() + 3600  # to which the clock was set before the restart
    ended = Event("finished", "node1", future - 60, future - 90, future, 3, (A,), 90, (7,))
    listening.restore([], [ended])
    listening.say(A, status("dumping", 9))
    began = listening.only_event()
    assert began[:2] == ("began", "node1")
    assert began.since == began.when < future - 1800


def test_a_node_of_a_network_keeps_its_room_until_nothing_more_can_come_of_its_dump(
    listen: MakeListener,
) -> None:
    listening = listen(networks=[NETWORK], max_admitted=1)
    listening.say(A, status("finished", 1))
    assert kinds(listening.several(2)) == ["began", "finished"]
    listening.say(B)
    listening.wait_for_count("crowded", 1)
    assert kinds(listening.until(bool)) == ["overflow"]


def test_then_its_room_is_for_others(listen: MakeListener) -> None:
    listening = listen(networks=[NETWORK], max_admitted=1, silence_timeout=1.0)
    listening.say(A, status("finished", 1))
    assert kinds(listening.several(2)) == ["began", "finished"]
    heard: list[AnyEvent] = []

    def is_heard() -> bool:
        listening.say(B)
        heard.extend(listening.events(0.1))
        return ("began", B) in [event[:2] for event in heard]

    wait_for(is_heard)
    assert kinds(heard).count("began") == 1


def test_a_node_that_is_removed_and_added_again_begins_anew(listen: MakeListener) -> None:
    listening = listen({"node1": [A]})
    listening.say(A, status("finished", 1))
    assert kinds(listening.several(2)) == ["began", "finished"]
    listening.remove("node1")
    listening.add("node1", [A])
    assert listening.after_message(A).kind == "began"


def restarted(listen: MakeListener, when: float, silence: float = 300.0) -> TrialListener:
    """As a program is that was told of an end before it was started again."""
    listening = listen({"node1": [A], "node2": [B]}, silence_timeout=silence)
    dump = Dump("node1", when - 60, when, 5, (A,), 60.0, (7, 8))
    listening.restore([], [Event("failed", "node1", when, *dump[1:])])
    return listening


@pytest.mark.parametrize("ahead", [-0.5, 1000.0])
def test_an_end_from_before_a_restart_is_not_taken_back_and_the_later_one_counts(
    listen: MakeListener, ahead: float
) -> None:
    """Also if the clock was set back meanwhile: its times are told as they were."""
    when = time.time() + ahead
    listening = restarted(listen, when)
    listening.say(A, status("dumping", 7))
    assert listening.events(0.2) == []
    assert listening.snapshot().dumps == []
    listening.say(A, status("finished", 9))
    finished = listening.only_event()
    assert finished[:2] == ("finished", "node1")
    assert finished.since == pytest.approx(when - 60, abs=1e-3)
    assert finished.messages == 7


def test_after_the_silence_nothing_is_left_of_an_end_from_before_a_restart(
    listen: MakeListener,
) -> None:
    listening = restarted(listen, time.time(), silence=1.0)
    listening.say(B)
    assert kinds(listening.several(2)) == ["began", "silent"]  # so that time has passed
    began = listening.after_message(A)
    assert began.kind == "began"
    assert began.since == pytest.approx(time.time(), abs=120)

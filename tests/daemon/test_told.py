# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was told can be paged through and followed; on its own, and over the control socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from kdumpfence.client import Client, Refused, Unexpected
from kdumpfence.daemon.control import Answers, Sources
from kdumpfence.daemon.questions import Questions
from kdumpfence.daemon.status import MOST
from kdumpfence.daemon.status_server import Server
from kdumpfence.daemon.told import Told
from kdumpfence.listener.events import Dump, Event, Kind


def event(node: str, kind: Kind = "began", since: float = 1.8e9) -> Event:
    return Event(kind, node, since + 5, since, since + 5, 2, ("192.0.2.1",), 5.0, (), 4711)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def client(path: str, told: Told) -> Iterator[Client]:
    """One that asks a daemon which knows node1 and node2, and what was told."""

    def figures(nodes: Iterable[str]) -> list[Dump | None]:
        now = {"node1": Dump("node1", 1.8e9, 1.8e9 + 7, 9, ("192.0.2.1",), 7.0)}
        return [now.get(node) for node in nodes]

    answers = Answers(told, Sources(figures, lambda node: node in ("node1", "node2")))
    with Server(path, questions=Questions(answers)), Client(path) as opened:
        yield opened


def test_a_node_is_asked_for_by_its_name(client: Client, told: Told) -> None:
    def ask(node: str) -> dict[str, Any]:
        return client.ask({"ask": "node", "node": node})

    answer = ask("node2")
    assert answer.pop("when") > 1.7e9
    assert answer == {
        "doubt": "", "node": "node2", "known": True, "dumping": False, "dump": None, "ended": None
    }  # fmt: skip
    assert ask("node7")["known"] is False
    # Heard, and not told yet: it is not in the history, but somebody may have to decide.
    assert ask("node1")["dumping"] is True
    assert ask("node1")["dump"]["recorded"] is False
    assert client.ask({"ask": "dumps"})["dumps"] == []
    told.tell(event("node1"))
    told.tell(event("node2"))
    dump = ask("node1")["dump"]
    assert dump.pop("age") >= 0
    # What is known of it now, which is more than what was told.
    assert dump == {
        "node": "node1", "since": 1.8e9, "last": 1.8e9 + 7, "messages": 9,
        "addresses": ["192.0.2.1"], "took": 7.0, "port": 0, "proof": "address", "recorded": True,
    }  # fmt: skip
    assert ask("node2")["dump"]["messages"] == 2
    told.tell(event("node1", "failed"))
    answer = ask("node1")
    assert answer["dump"] is None
    assert (answer["ended"]["end"], answer["ended"]["ended"]) == ("failed", 1.8e9 + 5)


def test_all_dumps_come_in_pages_and_none_that_goes_on_is_left_out(
    client: Client, told: Told
) -> None:
    for number in range(3 * MOST + 5):
        told.tell(event(f"node{number}", since=1e9 - number))
    found = []
    for dump in client.dumps():
        found.append(dump.node)
        if len(found) % MOST == 1:  # with each page
            told.tell(event(found[0], "silent"))
            told.tell(event(f"new{len(found)}"))
    assert found == [f"node{n}" for n in range(3 * MOST + 5)] + ["new1", "new1001", "new2001"]


def test_what_began_and_ended_can_be_followed_and_nothing_is_left_out(
    client: Client, told: Told
) -> None:
    told.tell(event("node0"))
    begun = client.follow()
    assert (begun.events, begun.last) == ([], 1)
    for number in range(MOST):
        told.tell(event(f"n{number}"))
        told.tell(event(f"n{number}", "dumping"))  # which is neither
        told.tell(event(f"n{number}", "silent"))
    seen: list[Event] = []
    last = begun.last
    while (found := client.follow(last)).events:
        assert (found.life, found.missed) == (told.life, 0)
        seen += found.events
        last = found.last
    assert [one.kind for one in seen] == ["began", "silent"] * MOST
    assert [one.node for one in seen[::2]] == [f"n{number}" for number in range(MOST)]
    assert seen[1] == event("n0", "silent")._replace(sessions=())


def test_a_number_of_a_life_that_is_over_is_noticed_without_its_life(
    client: Client, told: Told
) -> None:
    told.tell(event("node1"))
    assert client.follow(1) == (told.life, [], 0, 1, False)
    found = client.follow(2)
    assert (found.restarted, [one.node for one in found.events], found.last) == (True, ["node1"], 1)


def test_who_comes_too_late_is_told_how_much_is_gone() -> None:
    told = Told(most=10)
    for number in range(50):
        told.tell(event(f"node{number}", "silent"))
    found, missed = told.events(5, 1000)
    assert ([one.number for one in found], missed) == (list(range(41, 51)), 35)
    assert told.events(45, 2) == (found[5:7], 0)
    assert told.events(50, 1000) == ([], 0)
    assert told.events(99, 1000) == ([], 0)
    # Of what is gone no end is known either, and nothing is kept.
    assert told.end_of("node39") is None
    assert told.end_of("node40") is not None
    assert len(told._ends) == 10


def test_ended_dumps_come_in_pages_the_newest_first(client: Client, told: Told) -> None:
    for number in range(7):
        told.tell(event(f"node{number}"))
        told.tell(event(f"node{number}", "finished"))
    nodes: list[str] = []
    before: int | None = None
    for _ in range(4):
        answer = client.ask({"ask": "ended", "before": before, "most": 2})
        nodes += [one["node"] for one in answer["ended"]]
        before = answer["next"]
    assert nodes == [f"node{number}" for number in range(6, -1, -1)]
    assert before is None
    assert told.tell(event("node6", "failed")) is None, "which contradicts the end, and is no dump"
    answer = client.ask({"ask": "ended", "most": 1})
    assert (answer["ended"][0]["node"], answer["ended"][0]["end"]) == ("node6", "failed")


def test_a_dump_that_goes_on_keeps_its_place(told: Told) -> None:
    for node in ("node1", "node2", "node3"):
        assert told.tell(event(node)) is None
    assert told.tell(event("node1", "dumping")) == event("node1")
    assert [one.node for one in told.newest(2)] == ["node3", "node2"]
    assert [one.node for one in told.oldest(2)] == ["node1", "node2"]
    told.tell(event("node1", "silent"))
    told.tell(event("node1"))
    assert [one.node for one in told.oldest(9)] == ["node2", "node3", "node1"]
    assert (len(told), list(told)) == (3, ["node2", "node3", "node1"])


@pytest.mark.parametrize(
    "question",
    [
        {"ask": "node"}, {"ask": "node", "node": 7}, {"ask": "node", "node": ""},
        {"ask": "dumps", "after": -1}, {"ask": "dumps", "most": "all"},
        {"ask": "dumps", "after": True}, {"ask": "events", "after": 1.5},
        {"ask": "ended", "before": "x"}, {"ask": ["node"]}, {"ask": None}, {"ask": "nodes"},
    ],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused_in_one_line(
    client: Client, question: dict[str, Any]
) -> None:
    with pytest.raises(Refused, match="the daemon says: "):
        client.ask(question)


def test_numbers_may_be_as_large_as_anybody_likes(client: Client, told: Told) -> None:
    told.tell(event("node1"))
    assert client.ask({"ask": "dumps", "after": 10**300})["dumps"] == []
    assert client.ask({"ask": "events", "after": 10**300})["restarted"] is True
    assert len(client.ask({"ask": "ended", "before": 10**300, "most": 10**300})["ended"]) == 0
    assert client.ask({"ask": "dumps", "most": 0})["next"] is None


@pytest.mark.parametrize(
    "answer", [b"{}", b'{"dumps": [{"node": 1}], "next": null}', b'{"dumps": 1, "next": 1}']
)
def test_an_answer_that_is_none_is_told_of(path: str, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        with Client(path) as client:

            def respond() -> None:
                other, _ = listener.accept()
                with other:
                    other.recv(4096)
                    other.sendall(answer + b"\n")

            responder = threading.Thread(target=respond)
            responder.start()
            with pytest.raises(Unexpected, match="unexpected answer"):
                list(client.dumps())
            responder.join()


def test_a_daemon_that_ends_still_answers_with_what_was_told(told: Told) -> None:
    def closed(nodes: Iterable[str]) -> list[Dump | None]:
        raise RuntimeError("this Listener is closed")

    told.tell(event("node1"))
    answers = Answers(told, Sources(closed, lambda _: True))
    assert json.loads(answers.node("node1"))["dump"]

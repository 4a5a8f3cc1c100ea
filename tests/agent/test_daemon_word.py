# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a kdumpfenced's word is worth to the agent: of this wait, of one life, or nothing."""

from __future__ import annotations

import os
from typing import Any

import pytest

from kdumpfence import keys
from kdumpfence.agent.asking import questions
from kdumpfence.agent.daemon_word import Heard, Passed, WordError
from kdumpfence.agent.decision import Signatures
from tests.support import packets
from tests.support.answerer import CURRENT, FOREIGN, packet

NAMES = ["node1", "192.0.2.1"]


class Daemon:
    """What an honest one answers."""

    def __init__(self, life: str = "a life", node: str | None = "node1") -> None:
        self.life = life
        self.node = node
        self.heard: dict[str, Any] | None = None
        self.mark = 12.5
        self.before: float | None = None

    def answer(self, question: dict[str, Any], **other: object) -> dict[str, Any]:
        made: dict[str, Any] = {"life": self.life, "wait": question["wait"], "node": self.node}
        if self.node is None:
            made["why"] = "it does not listen for 'node1'"
        elif question.get("life") == self.life and "mark" in question:
            made.update(mark=question["mark"], heard=self.heard, before=self.before)
        else:
            made["mark"] = self.mark
        return {**made, **other}


def said(age: float = 0.1, messages: int = 3) -> dict[str, Any]:
    return {"age": age, "messages": messages, "addresses": ["192.0.2.1"]}


def waits(daemon: Daemon, now: float = 100.0) -> Heard:
    """One that has its mark, asked for at `now`."""
    judge = Heard(NAMES, "this wait")
    judge.answered(daemon.answer(judge.question(now)), now)
    assert judge.waits
    return judge


def test_a_message_behind_the_mark_is_a_yes() -> None:
    daemon = Daemon()
    judge = waits(daemon)
    question = judge.question(101.0)
    assert question == {
        "ask": "heard", "nodes": NAMES, "wait": "this wait", "life": "a life", "mark": 12.5,
    }  # fmt: skip
    judge.answered(daemon.answer(question), 101.0)
    proofs = [judge.proof]
    daemon.heard = said()
    judge.answered(daemon.answer(judge.question(102.0)), 102.0)
    assert [*proofs, judge.proof] == ["", "'node1' from 192.0.2.1"]


def test_until_all_is_read_it_comes_back_with_the_same_moment() -> None:
    judge = Heard(NAMES, "this wait")
    judge.question(100.0)
    judge.answered({"life": "l", "wait": "this wait", "node": "node1", "begin": 7.25}, 100.0)
    assert not judge.waits
    assert judge.hurry
    assert judge.question(100.1) == {
        "ask": "heard", "nodes": NAMES, "wait": "this wait", "life": "l", "begin": 7.25,
    }  # fmt: skip


def test_a_yes_before_there_is_a_mark_is_none() -> None:
    daemon = Daemon()
    judge = Heard(NAMES, "this wait")
    judge.answered(daemon.answer(judge.question(100.0), heard=said(0.0)), 100.0)
    assert judge.waits
    assert not judge.proof


def test_of_another_life_of_the_daemon_nothing_counts_and_it_begins_anew() -> None:
    daemon = Daemon()
    judge = waits(daemon)
    daemon.life, daemon.heard = "another", said()
    judge.answered(daemon.answer(judge.question(101.0), mark=12.5, heard=said()), 101.0)
    assert not judge.proof
    assert not judge.waits
    assert "mark" not in judge.question(101.1)
    judge.answered(daemon.answer(judge.question(101.1)), 101.2)
    assert judge.waits
    judge.answered(daemon.answer(judge.question(101.4)), 101.4)
    assert judge.proof


def test_of_another_node_nothing_counts() -> None:
    daemon = Daemon()
    judge = waits(daemon)
    # Its settings were changed meanwhile: the name is another machine's now.
    judge.answered(daemon.answer(judge.question(101.0), node="node2", heard=said()), 101.0)
    assert not judge.proof
    assert not judge.waits


def test_a_node_that_it_does_not_listen_for_is_a_problem_and_no_yes() -> None:
    daemon = Daemon(node=None)
    judge = Heard(NAMES, "this wait")
    judge.answered(daemon.answer(judge.question(100.0), heard=said()), 100.0)
    assert judge.problem == "it does not listen for 'node1'"
    judge.answered(daemon.answer(judge.question(100.2), mark=1.0, heard=said()), 100.2)
    assert not judge.proof
    daemon.node = "node1"
    for now in (100.4, 100.6, 100.8):
        judge.answered(daemon.answer(judge.question(now)), now)
    assert judge.waits
    assert not judge.problem


@pytest.mark.parametrize("age", [1.5, -1.0, float("nan"), float("inf"), "0", None, True, 10**400])
def test_an_age_that_reaches_back_before_the_wait_or_is_none_is_no_yes(age: Any) -> None:
    daemon = Daemon()
    judge = waits(daemon)
    daemon.heard = said(age)
    with pytest.raises(WordError):
        judge.answered(daemon.answer(judge.question(101.0)), 101.0)
    assert not judge.proof


@pytest.mark.parametrize(
    "wrong",
    [
        {"wait": "another wait"},
        {"wait": None},
        {"life": None},
        {"life": ""},
        {"life": 7},
        {"life": "x" * 65},
        {"node": 7},
        {"node": ""},
        {"mark": None},
        {"mark": "12.5"},
        {"mark": True},
        {"mark": 12.500001},
        {"heard": True},
        {"heard": "yes"},
        {"heard": []},
        {"heard": {}},
        {"heard": {"age": 0.1}},
        {"heard": {"age": 0.1, "messages": 0}},
        {"heard": {"age": 0.1, "messages": "3"}},
    ],
    ids=str,
)
def test_nonsense_is_no_yes(wrong: dict[str, Any]) -> None:
    daemon = Daemon()
    judge = waits(daemon)
    daemon.heard = said()
    with pytest.raises(WordError):
        judge.answered(daemon.answer(judge.question(101.0), **wrong), 101.0)
    assert not judge.proof


def test_a_yes_without_anything_else_is_none() -> None:
    for answer in ({"heard": said()}, {"yes": True}, {}, {"heard": True, "node": "node1"}):
        judge = Heard(NAMES, "this wait")
        judge.question(100.0)
        with pytest.raises(WordError):
            judge.answered(answer, 100.0)
        assert not judge.proof


def test_what_was_heard_before_the_wait_is_told_as_such() -> None:
    daemon = Daemon()
    judge = waits(daemon)
    daemon.before = 9.0
    judge.answered(daemon.answer(judge.question(104.0)), 104.0)
    assert judge.before == 5.0


# ------------------------------------------------------------------------------ signed


NONCE = bytes(range(16))


def passing(*names: str) -> Passed:
    slot = packets.key_id(CURRENT), CURRENT
    signatures = Signatures(keys.Keys(slot), names or ("node1",))
    asked = questions(NONCE, (), signatures)
    return Passed(list(names or NAMES), signatures, asked, NONCE)


def brings(*data: bytes, node: str | None = "node1", **other: Any) -> dict[str, Any]:
    answers = [{"address": "192.0.2.1", "packet": one.hex()} for one in data]
    return {"life": "l", "node": node, "dumping": True, "sent": 1, "answers": answers, **other}


def test_an_answer_that_the_node_signed_for_this_wait_is_a_yes() -> None:
    judge = passing()
    question = judge.question(0.0)
    data = bytes.fromhex(str(question["packet"]))
    told = packets.read(data)
    assert told is not None
    assert (told.kind, told.name, told.nonce) == ("question", "node1", NONCE)
    judge.answered(brings(packet("status", NONCE)), 0.1)
    number = packets.key_id(CURRENT)
    assert judge.proof == f"'node1' from 192.0.2.1, key {number:08x}"


@pytest.mark.parametrize(
    "data",
    [
        packet("status", os.urandom(16)),
        packet("status"),
        packet("status", NONCE, key=None),
        packet("status", NONCE, key=FOREIGN),
        packet("status", NONCE, name="node2"),
        packet("status", NONCE, signed_as="node2"),
        packet("alive", NONCE),
        packet("question", NONCE),
        packet("status", NONCE)[:-1],
        b"",
    ],
    ids=[
        "recorded", "unasked", "unsigned", "another cluster's key", "another node",
        "another node's key", "alive", "the question itself", "cut", "empty",
    ],
)  # fmt: skip
def test_nothing_else_that_a_daemon_brings_is(data: bytes) -> None:
    judge = passing()
    judge.question(0.0)
    judge.answered(brings(data, heard=said(), mark=1.0, wait="x"), 0.1)
    assert not judge.proof


def test_the_daemons_own_word_is_nothing_where_signatures_are_asked_for() -> None:
    judge = passing()
    judge.question(0.0)
    judge.answered({**Daemon().answer({"wait": "x"}), "heard": said(), "dumping": True}, 0.1)
    assert not judge.proof


@pytest.mark.parametrize(
    "answers", ["yes", 7, [7], [{}], [{"address": 7, "packet": "00"}],
                [{"address": "x", "packet": "zz"}], [{"address": "x", "packet": "0" * 2000}]],
)  # fmt: skip
def test_answers_that_are_none_are_nonsense(answers: Any) -> None:
    judge = passing()
    judge.question(0.0)
    with pytest.raises(WordError):
        judge.answered(brings(answers=answers), 0.1)
    assert not judge.proof


def test_a_node_with_several_names_is_asked_by_the_one_that_the_daemon_has() -> None:
    judge = passing("short", "node1")

    def name() -> str:
        told = packets.read(bytes.fromhex(str(judge.question(0.0)["packet"])))
        assert told is not None
        return told.name

    assert [name(), name(), name()] == ["short", "node1", "short"]
    judge.answered(brings(node="node1"), 0.1)
    assert [name(), name()] == ["node1", "node1"]
    judge.answered(brings(node="node9"), 0.2)
    assert judge.problem == "it calls the node 'node9', which is none of its names here"

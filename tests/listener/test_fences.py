# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel is told to drop when a queue was overfull, by what was read since the last look.

tests/listener/test_answers.py and test_hearing.py have real floods.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from kdumpfence import filters
from kdumpfence.listener import reader
from kdumpfence.listener.nodes import Nodes
from kdumpfence.listener.reader import FENCE, FLOOD, Reader
from kdumpfence.sockets import udp_program
from kdumpfence.wire import Sources
from tests.conftest import udp


class Counts:
    """In the place of a receiver: what it is said to have read, and what the kernel dropped."""

    def __init__(self, *_: object, **__: object) -> None:
        self.counts = {"accepted": 0, "question": 0, "crowded": 0}
        self.dropped = 0

    def add_socket(self, sock: socket.socket) -> None:
        """It is not read."""


class Answering:
    """In the place of the thread that answers questions."""

    questions = None


Look = Callable[..., str]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, sockets: list[socket.socket]) -> Callable[..., Look]:
    """Make a reader; what is made looks after its queue, and returns what is let in then."""
    sock = udp()
    sockets.append(sock)
    programs = {
        filters.packed(udp_program(sock)): "all",
        filters.packed(udp_program(sock, messages_only=True, questions=True)): "both",
        filters.packed(udp_program(sock, messages_only=True)): "messages",
    }
    told = ["all"]
    monkeypatch.setattr(reader, "Receiver", Counts)
    monkeypatch.setattr(
        filters, "attach", lambda _, program: told.append(programs[filters.packed(program)])
    )

    def make(answers: bool = True) -> Look:
        told[:] = ["all"]
        sources = Sources()
        answering: Any = Answering() if answers else None
        made = Reader(Nodes(0, sources), sources, None, [sock], answering)
        counts: Any = made._receiver

        def at(now: float, messages: int = 0, questions: int = 0, lost: int = 1) -> str:
            counts.counts["accepted"] += messages
            counts.counts["question"] += questions
            counts.dropped += lost
            made._look_after(now)
            return told[-1]

        return at

    return make


def test_questions_are_dropped_if_they_are_many_and_more_than_half(
    look: Callable[..., Look],
) -> None:
    for messages, questions, let_in in (
        (0, FLOOD, "both"),
        (0, FLOOD + 1, "messages"),
        (2 * FLOOD, 2 * FLOOD, "both"),
        (2 * FLOOD, 2 * FLOOD + 1, "messages"),
    ):
        assert look()(1, messages, questions) == let_in
        assert look()(1, messages, questions, lost=0) == "all"


def test_where_nobody_answers_they_are_always_dropped(look: Callable[..., Look]) -> None:
    assert look(answers=False)(1, messages=1) == "messages"


def test_for_half_a_minute_and_no_longer_whatever_else_is_lost(look: Callable[..., Look]) -> None:
    at = look()
    assert at(1, questions=FLOOD + 1) == "messages"
    assert at(FENCE, messages=1) == "messages"
    assert at(1 + FENCE, messages=1, lost=0) == "both"
    assert at(FENCE + FENCE, lost=0) == "all"

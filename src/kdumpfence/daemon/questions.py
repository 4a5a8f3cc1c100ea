# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where every way of asking leads: a question as an object in, its answer as JSON text out.

The main loop publishes its status when it likes; everything else is answered by `control`, as soon
as the daemon is ready. What may not be in this file: sockets, lines, HTTP.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from kdumpfence.daemon.control import QUESTIONS, Answer, Answers, number
from kdumpfence.daemon.status import MOST, Status, as_object


class NotReady(Exception):
    """There is no answer yet; one line says why."""

    def __init__(self) -> None:
        super().__init__("the daemon is still starting: try again")


class Questions:
    """What is known, for the threads that answer."""

    def __init__(self, answers: Answers | None = None) -> None:
        #: Who answers all questions but that for the status; None: nobody yet.
        self.answers = answers
        self._published: tuple[Status | Callable[[], Status], float] | None = None
        #: The last statuses: which was published, what it is, and `most` -> text without the age
        #: and the end.
        self._texts: tuple[object, Status | None, dict[int, str]] = (None, None, {})

    def publish(self, status: Status | Callable[[], Status]) -> None:
        """From now on this is the status, or what makes it when somebody asks, in the thread that
        answers. Costs next to nothing; from any thread.

        The Status must not be changed any more, nor the sequences in it.
        """
        self._published = (status, time.monotonic())

    def ask(self, question: Mapping[str, Any]) -> Answer:
        """The answer. ValueError tells what is wrong with the question; NotReady."""
        ask = question.get("ask")
        if ask == "status":
            return self._status(number(question, "most", MOST, MOST))
        if not isinstance(ask, str) or ask not in QUESTIONS:
            raise ValueError(f'not {{"ask": ...}} with one of {", ".join(QUESTIONS)}')
        return self.ready().answer(question)

    def ready(self) -> Answers:
        """Who answers. NotReady."""
        if self.answers is None:
            raise NotReady
        return self.answers

    def _status(self, most: int) -> Answer:
        published = self._published
        if published is None:
            raise NotReady
        of, status, texts = self._texts
        if of is published[0] and status is not None and most in texts:
            return _aged(texts[most], published[1])
        return _StatusAsked(functools.partial(self._make_status, published, most))

    def _make_status(
        self, published: tuple[Status | Callable[[], Status], float], most: int
    ) -> str:
        newest, when = published
        of, status, texts = self._texts  # one tuple: several threads may be here
        if of is not newest or status is None:
            status, texts = newest if isinstance(newest, Status) else newest(), {}
            self._texts = (newest, status, texts)
        elif len(texts) >= 4:  # of clients that ask for odd numbers
            texts = {}
            self._texts = (newest, status, texts)
        text = texts.get(most)
        if text is None:
            # Up to where the age comes.
            text = texts[most] = json.dumps(as_object(status, most))[:-1]
        return _aged(text, when)


class _StatusAsked:
    """A status that has to be made: that takes milliseconds if many nodes are dumping."""

    due = 0.0

    def __init__(self, make: Callable[[], str]) -> None:
        self._make = make

    def look(self) -> str:
        """The answer."""
        return self._make()


def _aged(text: str, when: float) -> str:
    return f'{text}, "age": {round(time.monotonic() - when, 3)!r}}}'

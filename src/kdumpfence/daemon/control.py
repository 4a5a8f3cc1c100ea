# SPDX-License-Identifier: LGPL-2.1-or-later
"""The questions over the control socket beside that for the status, and their answers.

    {"ask": "node", "node": "node1"}
    {"ask": "dumps", "after": 0, "most": 1000}
    {"ask": "ended", "before": 12, "most": 1000}
    {"ask": "events", "after": 12, "most": 1000}

kdumpfenced(8) explains each field. Whether there is a dump is as of what was written in the
history, its figures are what the Listener knows at this moment. What may not be in this file:
sockets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kdumpfence.daemon.status import MOST, dump_object
from kdumpfence.daemon.told import Numbered, Told
from kdumpfence.listener.events import Dump, Event

#: What questions there are.
QUESTIONS = ("status", "node", "dumps", "ended", "events")

#: The largest number that one may ask with: what any JSON library can write.
_MOST_NUMBER = (1 << 53) - 1

#: The dumps of these nodes now, as `Listener.dumps`; RuntimeError if that hears nothing any more.
Figures = Callable[["list[str]"], "list[Dump | None]"]


class Answers:
    """Answers from what was `told`. `listens_for`: whether a node's dump would be heard."""

    def __init__(self, told: Told, figures: Figures, listens_for: Callable[[str], bool]) -> None:
        self._told = told
        self._figures = figures
        self._listens_for = listens_for

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a question of QUESTIONS other than "status".

        ValueError says what is wrong with it.
        """
        ask = {
            "node": self._node,
            "dumps": self._dumps,
            "ended": self._ended,
            "events": self._events,
        }[question["ask"]]
        return {"when": round(time.time(), 3), **ask(question)}

    def _node(self, question: Mapping[str, Any]) -> dict[str, Any]:
        node = question.get("node")
        if not isinstance(node, str) or not node:
            raise ValueError('"node": not a name')
        told, ended = self._told.get(node), self._told.end_of(node)
        return {
            "node": node,
            "known": self._listens_for(node),
            "dump": self._objects([told])[0] if told is not None else None,
            "ended": _end(ended) if ended is not None else None,
        }

    def _dumps(self, question: Mapping[str, Any]) -> dict[str, Any]:
        most = _number(question, "most", MOST, MOST)
        page = self._told.page(_number(question, "after", 0), most)
        objects = self._objects([one.event for one in page])
        return {
            "dumping": len(self._told),
            "dumps": [{"number": one.number, **made} for one, made in zip(page, objects)],
            "next": _next(page, most),
        }

    def _ended(self, question: Mapping[str, Any]) -> dict[str, Any]:
        most = _number(question, "most", MOST, MOST)
        page = self._told.ended(_number(question, "before", 0), most)
        return {
            "ended": [{"number": one.number, **_end(one.event)} for one in page],
            "next": _next(page, most),
        }

    def _events(self, question: Mapping[str, Any]) -> dict[str, Any]:
        last = self._told.last
        after = _number(question, "after", last)
        page, missed = self._told.events(after, _number(question, "most", MOST, MOST))
        return {
            "life": self._told.life,
            "events": [
                {
                    "number": one.number,
                    "kind": one.event.kind,
                    "at": one.event.when,
                    **dump_object(one.event),
                }
                for one in page
            ],
            "missed": missed,
            "last": page[-1].number if page else max(last, after),
        }

    def _objects(self, events: list[Event]) -> list[dict[str, Any]]:
        """Dumps under way, with what is known of them now."""
        return [
            {**dump_object(dump), "age": round(dump.age, 3)}
            for dump in current(events, self._figures)
        ]


def current(events: Iterable[Event], figures: Figures) -> list[Dump]:
    """What is known now of dumps that were told of; of one that is over what was told last."""
    told = [Dump(event.node, *event[3:]) for event in events]
    try:
        found = figures([dump.node for dump in told])
    except RuntimeError:  # it does not hear any more: the daemon ends
        return told
    return [
        new if new is not None and new.since == old.since else old for old, new in zip(told, found)
    ]


def _end(event: Event) -> dict[str, Any]:
    return {**dump_object(event), "end": event.kind, "ended": event.when}


def _next(page: list[Numbered], most: int) -> int | None:
    """From where the next page goes on; None: this is the last one."""
    return page[-1].number if page and len(page) == most else None


def _number(question: Mapping[str, Any], name: str, default: int, most: int = _MOST_NUMBER) -> int:
    """A number of a question; one that is too large is as large as can be."""
    value = question.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f'"{name}": not a whole number (0 or more)')
    return min(value, most)

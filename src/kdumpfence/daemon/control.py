# SPDX-License-Identifier: LGPL-2.1-or-later
"""The questions about dumps, and their answers as JSON, however they are asked.

    {"ask": "node", "node": "node1"}
    {"ask": "nodes", "nodes": ["node1", "node2"]}
    {"ask": "dumps", "after": 0, "most": 1000}
    {"ask": "ended", "before": 12, "most": 1000}
    {"ask": "events", "after": 12, "most": 1000, "life": "0123456789abcdef", "wait": 30}
    {"ask": "health"}

and those of fence agents that wait (`waits`). kdumpfenced(8) explains each member, openapi.py has
their schemas. Lists and events are of what was told, which is in the history. Who asks for a node
has to decide something: that is answered with what was heard of it, and never waits for a disk. The
figures of a dump are what the Listener knows at this moment. What may not be in this file: sockets,
and HTTP.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Union

from kdumpfence.daemon.json_text import dump_text, end_text, event_text, quoted
from kdumpfence.daemon.status import MOST
from kdumpfence.daemon.told import Numbered, Told
from kdumpfence.daemon.waits import WAITS
from kdumpfence.listener.events import Dump, Event

#: What questions there are.
QUESTIONS = ("status", "node", "nodes", "dumps", "ended", "events", "health", *WAITS)

#: Nodes in one question: two megabytes of answer, if all of them are dumping.
MOST_NODES = 5000

#: Of what an answer lists, as much is made before others have their turn: two milliseconds.
SLICE = 200

#: Seconds for which a question waits for events at most.
MOST_WAIT = 60.0

#: The largest number that one may ask with: what any JSON library can write.
_MOST_NUMBER = (1 << 53) - 1

#: The dumps of these nodes now, as `Listener.dumps`; RuntimeError if that hears nothing any more.
Figures = Callable[["list[str]"], "list[Dump | None]"]


class Sources(NamedTuple):
    """Where answers come from, beside what was told."""

    figures: Figures
    #: Whether a node's dump would be heard.
    listens_for: Callable[[str], bool]
    #: How a dump is known to be this node's: "signature", "address", "network" or "history".
    proof: Callable[[Dump], str] = lambda _: "address"
    #: Why the dump of a node may have been missed; "" if nothing is known of that.
    doubt: Callable[[], str] = lambda: ""
    #: Has what was heard seen to if the main loop waits for the disk.
    look: Callable[[], None] = lambda: None
    #: What keeps the daemon from its work; "" if all is well.
    trouble: Callable[[], str] = lambda: ""
    #: What agents that wait are answered; None: nobody can wait.
    waits: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None


class Answers:
    """Answers from what was `told`, and from `sources`, as JSON texts."""

    def __init__(self, told: Told, sources: Sources) -> None:
        self.told = told
        self._sources = sources
        self._asks: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
            "node": self._node,
            "nodes": self._nodes,
            "dumps": self._dumps,
            "ended": self._ended,
            "events": self._events,
            "health": self._health,
            **dict.fromkeys(WAITS, self._wait),
        }

    def answer(self, question: Mapping[str, Any]) -> Answer:
        """The answer to a question of QUESTIONS other than "status".

        ValueError says what is wrong with it.
        """
        return self._asks[question["ask"]](question)

    # ------------------------------------------------------------------------- nodes

    def node(self, node: str) -> str:
        """What is known of a node."""
        return f'{_now()}, "doubt": {quoted(self._sources.doubt())}, {self._about(node)}}}'

    def _node(self, question: Mapping[str, Any]) -> str:
        node = question.get("node")
        if not isinstance(node, str) or not node:
            raise ValueError('"node": not a name')
        return self.node(node)

    def _nodes(self, question: Mapping[str, Any]) -> Answer:
        nodes = question.get("nodes")
        if not isinstance(nodes, list) or not all(isinstance(one, str) and one for one in nodes):
            raise ValueError('"nodes": not a list of names')
        if len(nodes) > MOST_NODES:
            raise ValueError(f'"nodes": {len(nodes)} names, {MOST_NODES} at most: ask twice')
        if len(set(nodes)) < len(nodes):
            raise ValueError('"nodes": a name is there twice')
        begin = _now()  # what is told of the first of them may be over later

        def texts(part: Sequence[str]) -> list[str]:
            return [f"{{{self._about(node)}}}" for node in part]

        def whole(found: str) -> str:
            return f'{begin}, "doubt": {quoted(self._sources.doubt())}, "nodes": [{found}]}}'

        return _InSlices(nodes, texts, whole).answer()

    def _about(self, node: str) -> str:
        """The members that tell of a node."""
        dump, text = self.told.get(node) or self._untold(node), "null"
        if isinstance(dump, Dump):
            text = dump_text(dump, self._sources.proof(dump), recorded=False)
        elif dump is not None:
            text = self._texts([dump])[0]
        known = dump is not None or self._sources.listens_for(node)
        ended = self.told.end_of(node)
        end = "null" if ended is None else end_text(ended)
        return (
            f'"node": {quoted(node)}, "known": {_bool(known)}, '
            f'"dumping": {_bool(dump is not None)}, "dump": {text}, "ended": {end}'
        )

    def _untold(self, node: str) -> Dump | None:
        """Its dump if that was heard and not told yet."""
        self._sources.look()
        try:
            found = self._sources.figures([node])[0]
        except RuntimeError:  # it does not hear any more: the daemon ends
            return None
        ended = self.told.end_of(node)
        # That may have been told in between.
        return None if ended is not None and found and found.since <= ended.since else found

    def _texts(self, events: list[Event]) -> list[str]:
        """Dumps under way, with what is known of them now."""
        proof, unrecorded = self._sources.proof, self.told.unrecorded
        return [
            dump_text(dump, proof(dump), dump.node not in unrecorded)
            for dump in current(events, self._sources.figures)
        ]

    def _wait(self, question: Mapping[str, Any]) -> str:
        if self._sources.waits is None:
            raise ValueError("nobody can wait for a node here")
        return f"{_now()}, {json.dumps(self._sources.waits(question))[1:]}"

    # ------------------------------------------------------------------------- pages

    def _dumps(self, question: Mapping[str, Any]) -> Answer:
        most = number(question, "most", MOST, MOST)
        page = self.told.page(number(question, "after", 0), most)
        begin = f'{_now()}, "life": "{self.told.life}", "dumping": {len(self.told)}'

        def texts(part: Sequence[Numbered]) -> list[str]:
            found = self._texts([one.event for one in part])
            return [f'{{"number": {one.number}, {text[1:]}' for one, text in zip(part, found)]

        def whole(found: str) -> str:
            return f'{begin}, "dumps": [{found}], "next": {_next(page, most)}}}'

        return _InSlices(page, texts, whole).answer()

    def _ended(self, question: Mapping[str, Any]) -> Answer:
        most = number(question, "most", MOST, MOST)
        page = self.told.ended(number(question, "before", 0), most)
        begin = f'{_now()}, "life": "{self.told.life}"'

        def texts(part: Sequence[Numbered]) -> list[str]:
            return [f'{{"number": {one.number}, {end_text(one.event)[1:]}' for one in part]

        def whole(found: str) -> str:
            return f'{begin}, "ended": [{found}], "next": {_next(page, most)}}}'

        return _InSlices(page, texts, whole).answer()

    # ------------------------------------------------------------------------- events

    def _events(self, question: Mapping[str, Any]) -> Answer:
        after, restarted = self.place(question.get("after"), question.get("life"))
        most = number(question, "most", MOST, MOST)
        wait = seconds(question, "wait", MOST_WAIT)
        asked = _EventsAsked(self.told, after, most, restarted, wait)
        return asked.look() or asked

    def place(self, after: Any, life: Any) -> tuple[int, bool]:  # noqa: ANN401
        """After which number events are asked for; whether the daemon was restarted since.

        Then all of this life are: what was under way and goes on is among them. A number that this
        life has not reached is of another one.
        """
        if life is not None and not isinstance(life, str):
            raise ValueError('"life": not a text')
        last = self.told.last
        if life is not None and life != self.told.life:
            return 0, True
        begin = number({"after": after}, "after", last)
        return (begin, False) if begin <= last else (0, True)

    def _health(self, _: Mapping[str, Any]) -> str:
        trouble = self._sources.trouble()
        return f'{_now()}, "healthy": {_bool(not trouble)}, "trouble": {quoted(trouble)}}}'

    def is_well(self) -> bool:
        """What the answer for health says."""
        return not self._sources.trouble()


class _InSlices:
    """An answer about many things: of some at each look, so that others have their turn."""

    #: There is always something to be done.
    due = 0.0

    def __init__(
        self,
        things: Sequence[Any],
        texts: Callable[[Sequence[Any]], list[str]],
        whole: Callable[[str], str],
    ) -> None:
        self._left = things
        self._texts = texts
        self._whole = whole
        self._found: list[str] = []

    def look(self) -> str | None:
        """The answer; None if it is not complete."""
        self._found += self._texts(self._left[:SLICE])
        self._left = self._left[SLICE:]
        return None if self._left else self._whole(", ".join(self._found))

    def at_once(self) -> str | None:
        """The answer if there is no more to it than one slice."""
        return None if len(self._left) > SLICE else self.look()

    def answer(self) -> Answer:
        """That, or this, which is to be looked at until it is complete."""
        return self.at_once() or self


class _EventsAsked:
    """What began and ended after a number, as soon as there is something of it."""

    def __init__(self, told: Told, after: int, most: int, restarted: bool, wait: float) -> None:
        self._told = told
        self._after = after
        self._most = most
        self._restarted = restarted
        #: When it is answered at the latest, CLOCK_MONOTONIC.
        self.due = time.monotonic() + wait
        self._found: _InSlices | None = None

    def look(self) -> str | None:
        """The answer; None if it is to be waited for."""
        if self._found is not None:
            return self._found.look()
        page, missed = self._told.events(self._after, self._most)
        if not page and not missed and not self._restarted and time.monotonic() < self.due:
            return None
        last = page[-1].number if page else max(self._told.last, self._after)
        if not self._most:
            last = self._after + missed
        begin = f'{_now()}, "life": "{self._told.life}", "restarted": {_bool(self._restarted)}'

        def texts(part: Sequence[Numbered]) -> list[str]:
            return [event_text(one.number, one.event) for one in part]

        def whole(found: str) -> str:
            return f'{begin}, "events": [{found}], "missed": {missed}, "last": {last}}}'

        self._found = _InSlices(page, texts, whole)
        self.due = self._found.due
        return self._found.at_once()


class Later(Protocol):
    """An answer that is not there yet."""

    #: When to look at the latest, CLOCK_MONOTONIC; it may change with each look.
    due: float

    def look(self) -> str | None:
        """The answer; None if it is not complete."""


#: JSON text, or what will have it later.
Answer = Union[str, Later]


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


def number(question: Mapping[str, Any], name: str, default: int, most: int = _MOST_NUMBER) -> int:
    """A number of a question; one that is too large is as large as can be."""
    value = question.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f'"{name}": not a whole number (0 or more)')
    return min(value, most)


def seconds(question: Mapping[str, Any], name: str, most: float) -> float:
    """Seconds of a question, 0 if it does not say; more than `most` are as many."""
    value = question.get(name)
    if value is None:
        return 0.0
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 0:
        raise ValueError(f'"{name}": not a number of seconds (0 or more)')
    return float(min(value, most))


def _now() -> str:
    """The beginning of every answer."""
    return f'{{"when": {round(time.time(), 3)!r}'


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _next(page: list[Numbered], most: int) -> str:
    """From where the next page goes on; null: this is the last one."""
    return str(page[-1].number) if page and len(page) == most else "null"

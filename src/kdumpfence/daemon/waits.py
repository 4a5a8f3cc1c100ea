# SPDX-License-Identifier: LGPL-2.1-or-later
"""Answers for fence agents that have this daemon hear for them: was a node heard since a moment?

    {"ask": "heard", "nodes": ["node1", "192.0.2.1"], "wait": "ANY"}
    {"ask": "heard", "nodes": [...], "wait": "ANY", "life": "...", "begin": 12.5}
    {"ask": "heard", "nodes": [...], "wait": "ANY", "life": "...", "mark": 12.6}
    {"ask": "question", "nodes": ["node1"], "packet": "4b4446..."}

An agent begins, comes back until all that had arrived before is read and it is given a mark, and
then asks what came behind the mark. Nothing is kept for it here: it may come over another
connection each time, and as many may wait as like. Of another life of the daemon no mark counts.
What may not be in this file: sockets, and what an agent believes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from kdumpfence.daemon.relay import Relay
from kdumpfence.daemon.told import Told
from kdumpfence.listener.events import MOST_ADDRESSES, Dump, Event
from kdumpfence.listener.listener import Listener
from kdumpfence.text import shown
from kdumpfence.wire import PACKET_BYTES

#: The members of each question.
_MEMBERS = {"heard": ("nodes", "wait", "life", "begin", "mark"), "question": ("nodes", "packet")}

#: What questions there are here.
WAITS = tuple(_MEMBERS)

#: Names and addresses of one node that a question may have.
MOST_NAMES = 64

#: Seconds: no clock that begins at a machine's start comes as far.
FAR = 1e12

#: Characters of a name, and of what an agent calls its wait.
MOST_NAME, MOST_WAIT = 255, 64

#: Seconds between two looks at what the Listener heard, at least and at most; in between they have
#: this share of the time, whoever asks how often.
_LOOK_FIRST, _LOOK_LAST = 0.05, 1.0
_LOOK_SHARE = 0.05

#: Seconds. Times of messages were Unix times meanwhile, of which a float has no more digits.
_ROUNDING = 1e-5


class Waits:
    """Answers from what `listener` hears, with `auth`, and `told` has of dumps that are over."""

    def __init__(self, told: Told, listener: Listener, relay: Relay, auth: str) -> None:
        self._told = told
        self._listener = listener
        self._relay = relay
        self._auth = auth
        self._next_look = 0.0
        self._lock = threading.Lock()  # there is more than one way to ask

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a question "heard" or "question". ValueError says what is wrong with it."""
        ask = question["ask"]
        unknown = question.keys() - {"ask", *_MEMBERS[ask]}
        if unknown:
            raise ValueError(f"{shown(min(unknown))}: unknown; allowed: {', '.join(_MEMBERS[ask])}")
        with self._lock:
            return self._heard(question) if ask == "heard" else self._question(question)

    def _heard(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Whether a message of the node was heard behind the mark."""
        wait = question.get("wait")
        if not isinstance(wait, str) or len(wait) > MOST_WAIT:
            raise ValueError(f'"wait": not a string of at most {MOST_WAIT} characters')
        life, began, mark = (
            question.get("life"),
            _moment(question, "begin"),
            _moment(question, "mark"),
        )
        if life is not None and not isinstance(life, str):
            raise ValueError('"life": not a text')
        node, why = self._node(question)
        answer: dict[str, Any] = {
            "life": self._told.life,
            "wait": wait,
            "node": node,
            "auth": self._auth,
        }
        if node is None:
            return {**answer, "why": why}
        if life != self._told.life or (began is None and mark is None):
            began, mark = time.monotonic(), None
        try:
            if mark is not None:
                return {**answer, "mark": mark, **self._since(node, mark)}
            assert began is not None
            if not self._listener.has_read(began):
                return {**answer, "begin": began}
        except RuntimeError as error:  # closed, or its thread is dead
            raise ValueError(f"the daemon does not hear: {error}") from None
        return {**answer, "mark": time.monotonic() + _ROUNDING}

    def _question(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Pass a signed question on to where the node was heard; what it has answered so far."""
        packet = question.get("packet")
        try:
            data = bytes.fromhex(packet if isinstance(packet, str) else "")
        except ValueError:
            data = b""
        if len(data) != PACKET_BYTES:
            raise ValueError(f'"packet": not {PACKET_BYTES} bytes in hexadecimal')
        node, why = self._node(question)
        answer: dict[str, Any] = {"life": self._told.life, "node": node}
        if node is None:
            return {**answer, "why": why}
        try:
            dump = self._latest(node)
        except RuntimeError as error:
            raise ValueError(f"the daemon does not hear: {error}") from None
        where = () if dump is None else dump.addresses
        port = 0 if dump is None else dump.port
        sent, answers = self._relay.ask(node, data, where, port)
        return {
            **answer,
            "dumping": dump is not None,
            "sent": sent,
            "answers": [{"address": its, "packet": data.hex()} for its, data in answers],
        }

    def _node(self, question: Mapping[str, Any]) -> tuple[str | None, str]:
        """The one node that these are names and addresses of; or why it is none."""
        names = question.get("nodes")
        if not isinstance(names, list) or len(names) > MOST_NAMES:
            raise ValueError(f'"nodes": not a list of at most {MOST_NAMES} names')
        if not all(isinstance(name, str) and 0 < len(name) <= MOST_NAME for name in names):
            raise ValueError(f'"nodes": not names of 1 to {MOST_NAME} characters')
        listener = self._listener
        found: dict[str, None] = {}
        for name in names:
            owner = listener.node_of(name)
            if owner is not None:
                found[owner] = None
        if not found:  # one that a network may admit
            found = {name: None for name in names if listener.listens_for(name)}
        if len(found) == 1:
            return next(iter(found)), ""
        if found:
            several = ", ".join(map(shown, list(found)[:4]))
            return None, f"these are names of several nodes: {several}"
        given = ", ".join(map(shown, names[:4]))
        return None, f"it does not listen for {given}" if names else "no names were given"

    def _since(self, node: str, mark: float) -> dict[str, Any]:
        """What was heard of the node behind the mark; or, if nothing was, when it was last."""
        # In this order: one that is over meanwhile is told of.
        found: list[Dump | Event | None] = [self._latest(node), self._told.end_of(node)]
        for one in found:
            if one is not None and one.heard > mark:
                its = list(one.addresses[:MOST_ADDRESSES])
                heard = {"age": _age(one), "messages": one.messages, "addresses": its}
                return {"heard": heard}
        ages = [_age(one) for one in found if one is not None and one.heard]
        return {"heard": None, "before": min(ages, default=None)}

    def _latest(self, node: str) -> Dump | None:
        """What was heard of the node, now or when the Listener was looking just now."""
        began = time.monotonic()
        fresh = began >= self._next_look
        found = self._listener.latest(node, fresh)
        if fresh:
            took = time.monotonic() - began
            pause = min(max(_LOOK_FIRST, took / _LOOK_SHARE), _LOOK_LAST)
            self._next_look = began + took + pause
        return found


def _age(one: Dump | Event) -> float:
    """Seconds since its last message."""
    return round(one.age, 6)


def _moment(question: Mapping[str, Any], name: str) -> float | None:
    value = question.get(name)
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < FAR:
        raise ValueError(f'"{name}": not a moment that the daemon told')
    return float(value)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's questions over HTTP: which path is which question, and what its answer is in HTTP.

    GET /v1/nodes/node1      {"ask": "node", "node": "node1"}
    GET /v1/events?after=12  {"ask": "events", "after": 12}

`openapi` describes all of it. A path that is not there, a parameter that is unknown and one that is
there twice are faults, so that no client takes an answer for that to another question. What may not
be in this file: sockets, and what an answer says.
"""

from __future__ import annotations

import functools
import ipaddress
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kdumpfence.daemon.bounded_server import Limits
from kdumpfence.daemon.control import MOST_NODES, Answer, Answers
from kdumpfence.daemon.event_stream import EventStream
from kdumpfence.daemon.http import Later, Pages, Reply
from kdumpfence.daemon.http_request import BadRequest, Request, decoded, parameters
from kdumpfence.daemon.questions import NotReady, Questions
from kdumpfence.daemon.settings import Settings
from kdumpfence.daemon.waits import WAITS
from kdumpfence.text import one_line, whole_number

#: As those of the control socket.
LIMITS = Limits(clients=64, question=(1 << 19) + (1 << 16), quiet=60.0, unread=5.0)

JSON = "application/json"
STREAM = "text/event-stream"

_NODES = "/v1/nodes/"

#: The largest number in a query: more than any number is, and one that JSON can write.
_MOST = (1 << 53) - 1


class Path(NamedTuple):
    """A path that is a question, with the names of its parameters and what they are."""

    ask: str
    parameters: Mapping[str, Callable[[str], object]]


def _whole(text: str) -> int:
    found = whole_number(text, 0, 10**40)
    if found is None:
        raise ValueError("not a whole number (0 or more)")
    return min(found, _MOST)


def _seconds(text: str) -> float:
    try:
        found = float(text) if text.isascii() and not text[:1].isspace() else -1.0
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf") or "_" in text:
        raise ValueError("not a number of seconds (0 or more)")
    return found


PATHS = {
    "/v1/status": Path("status", {"most": _whole}),
    "/v1/health": Path("health", {}),
    "/v1/dumps": Path("dumps", {"after": _whole, "most": _whole}),
    "/v1/ended": Path("ended", {"before": _whole, "most": _whole}),
    "/v1/events": Path("events", {"after": _whole, "most": _whole, "life": str, "wait": _seconds}),
}


#: Those of agents that wait have their question in a body.
POSTED = {f"/v1/{ask}": ask for ask in WAITS}


class Api:
    """Answers requests from these `questions`.

    `local`: it listens to this machine alone, so nobody has a reason to call it by another name
    than an address or localhost; who does is a browser that was led here (DNS rebinding).
    """

    def __init__(self, questions: Questions, local: bool = False) -> None:
        self._questions = questions
        self._local = local

    def handle(self, request: Request) -> Reply | Later:
        """As http.Handler."""
        if self._local and not is_own_name(request.headers.get("host", "localhost")):
            host = one_line(request.headers.get("host", ""))
            return refused(421, f"Host {host!r}: call it by address, or localhost")
        try:
            return self._handle(request)
        except NotReady as error:
            return refused(503, str(error), ("Retry-After", "1"))

    def _handle(self, request: Request) -> Reply | Later:
        path, method = request.path, request.method
        if path.startswith(_NODES) and path != _NODES:
            wrong = _only(method, "GET", "HEAD")
            if wrong is not None:
                return wrong
            _given(request.query, {})
            node = decoded(path[len(_NODES) :])
            return _json(self._questions.ready().node(node))
        if path == "/v1/nodes":
            return _only(method, "GET", "HEAD", "POST") or self._nodes(request)
        if path in POSTED:
            return _only(method, "POST") or self._waits(request, POSTED[path])
        if path == "/v1/openapi.json":
            return _only(method, "GET", "HEAD") or _described(request)
        if path in PATHS:
            return _only(method, "GET", "HEAD") or self._asked(request, PATHS[path])
        known = ", ".join((*PATHS, *POSTED, "/v1/nodes", "/v1/openapi.json"))
        return refused(404, f"no such path: {known} are")

    def _asked(self, request: Request, path: Path) -> Reply | Later:
        question = _given(request.query, path.parameters)
        if path.ask == "events":
            last = _last_event(request)
            if STREAM in request.headers.get("accept", ""):
                return self._stream({**question, **last})
        found = self._questions.ask({**question, "ask": path.ask})
        if not isinstance(found, str):
            return _LaterReply(found)
        well = path.ask != "health" or self._questions.ready().is_well()
        return _json(found, 200 if well else 503)

    def _waits(self, request: Request, ask: str) -> Reply:
        _given(request.query, {})
        body = _body(request)
        if "ask" in body:
            raise ValueError('body: "ask" is the path here')
        found = self._questions.ask({**body, "ask": ask})
        assert isinstance(found, str)
        return _json(found)

    def _nodes(self, request: Request) -> Reply | Later:
        if request.method == "POST":
            if request.query:
                raise ValueError("query: POST takes the nodes in its body")
            nodes = _posted(request)
        else:
            pairs = parameters(request.query)
            for name, _ in pairs:
                if name != "node":
                    raise ValueError(f"{one_line(name)!r}: unknown; allowed is node, once for each")
            nodes = [value for _, value in pairs]
        if not nodes:
            raise ValueError("no nodes: name one or more")
        found = self._questions.ask({"ask": "nodes", "nodes": nodes})
        return _json(found) if isinstance(found, str) else _LaterReply(found)

    def _stream(self, question: Mapping[str, Any]) -> Reply:
        answers: Answers = self._questions.ready()
        for name in ("most", "wait"):
            if name in question:
                raise ValueError(f"{name}: not for {STREAM}")
        begin, restarted = answers.place(question.get("after"), question.get("life"))
        return Reply(200, STREAM, more=EventStream(answers.told, begin, restarted))


def pages(settings: Settings, questions: Questions, say: Callable[[str, str], None]) -> Pages:
    """The answers on the TCP port of the settings."""
    local = ipaddress.ip_address(settings.http_address).is_loopback
    where = settings.http_address, settings.http_port
    return Pages(*where, Api(questions, local).handle, say, "http", refused, LIMITS)


class _LaterReply:
    """An answer that is waited for, as a reply."""

    def __init__(self, later: Answer) -> None:
        assert not isinstance(later, str)
        self._later = later
        self.due = later.due

    def look(self) -> Reply | None:
        text = self._later.look()
        self.due = self._later.due
        return None if text is None else _json(text)


def refused(status: int, why: str, *headers: tuple[str, str]) -> Reply:
    """A fault, as JSON."""
    return Reply(status, JSON, json.dumps({"error": why}).encode() + b"\n", headers)


@functools.lru_cache(maxsize=64)
def is_own_name(host: str) -> bool:
    """Whether that header is one with which this machine is called without a name service."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def _json(text: str, status: int = 200) -> Reply:
    return Reply(status, JSON, text.encode() + b"\n")


def _only(method: str, *allowed: str) -> Reply | None:
    """The refusal of other methods."""
    if method in allowed:
        return None
    words = ", ".join(allowed)
    return refused(405, f"method {one_line(method)}: not here; {words} are", ("Allow", words))


def _given(query: str, allowed: Mapping[str, Callable[[str], object]]) -> dict[str, Any]:
    """The parameters of a query. Raises ValueError."""
    found: dict[str, Any] = {}
    for name, value in parameters(query):
        if name not in allowed:
            known = f"allowed: {', '.join(allowed)}" if allowed else "there are none here"
            raise ValueError(f"{one_line(name)!r}: unknown; {known}")
        if name in found:
            raise ValueError(f"{name}: there twice")
        try:
            found[name] = allowed[name](value)
        except ValueError as error:
            raise ValueError(f"{name} {one_line(value)[:40]!r}: {error}") from None
    return found


def _last_event(request: Request) -> dict[str, Any]:
    """Where a client that comes back goes on: it knows better than the URL. Raises ValueError."""
    given = request.headers.get("last-event-id")
    if not given:
        return {}
    life, dash, after = given.rpartition("-")
    number = whole_number(after, 0, _MOST)
    if not dash or not life or number is None:
        raise ValueError("Last-Event-ID: not that of an event: LIFE-NUMBER")
    return {"life": life, "after": number}


def _body(request: Request) -> dict[str, Any]:
    """The object in a body. Raises BadRequest and ValueError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise BadRequest(415, f"Content-Type: has to be {JSON}")
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        raise ValueError("body: not JSON") from None
    if not isinstance(body, dict):
        raise ValueError("body: not an object")
    return body


def _posted(request: Request) -> list[str]:
    """The nodes in a body. Raises BadRequest and ValueError."""
    body = _body(request)
    if body.keys() != {"nodes"}:
        raise ValueError('body: not {"nodes": [...]}')
    nodes: list[str] = body["nodes"]
    if not isinstance(nodes, list) or len(nodes) > MOST_NODES:
        raise ValueError(f'"nodes": not a list of at most {MOST_NODES} names')
    return nodes


def _described(request: Request) -> Reply:
    _given(request.query, {})
    from kdumpfence.daemon.openapi import as_json  # nobody else needs it

    return Reply(200, JSON, as_json())

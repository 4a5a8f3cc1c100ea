# SPDX-License-Identifier: LGPL-2.1-or-later
"""The description of the HTTP interface, OpenAPI 3.1: what /v1/openapi.json tells.

Its schemas are those of the control socket's answers too. Tests check a running daemon against it.
What may not be in this file: how an answer comes about.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from kdumpfence._version import __version__
from kdumpfence.daemon.control import MOST_NODES, MOST_WAIT
from kdumpfence.daemon.relay import MOST_ANSWERS
from kdumpfence.daemon.status import MOST, MOST_ENDED, MOST_UNRESOLVED
from kdumpfence.daemon.waits import FAR, MOST_NAME, MOST_NAMES
from kdumpfence.daemon.waits import MOST_WAIT as MOST_CALLED
from kdumpfence.listener.events import ENDS, KINDS, MOST_ADDRESSES
from kdumpfence.wire import PACKET_BYTES

Object = dict[str, Any]

_TIME: Object = {"type": "number", "description": "Unix time, seconds"}
_SECONDS: Object = {"type": "number", "minimum": 0, "description": "Seconds"}
_COUNT: Object = {"type": "integer", "minimum": 0}
_TEXT: Object = {"type": "string"}
_YES: Object = {"type": "boolean"}
_NULL: Object = {"type": "null"}


def _ref(name: str) -> Object:
    return {"$ref": f"#/components/schemas/{name}"}


def _told(what: Object, description: str) -> Object:
    return {**what, "description": description}


def _object(members: Object, optional: tuple[str, ...] = ()) -> Object:
    """Members may be added to answers, so a client has to leave alone what it does not know."""
    required = [name for name in members if name not in optional]
    return {"type": "object", "required": required, "properties": members}


def _list(of: Object, most: int | None = None) -> Object:
    return {"type": "array", "items": of, **({} if most is None else {"maxItems": most})}


_DUMP: Object = {
    "node": _TEXT,
    "since": _told(_TIME, "First message, Unix time; with `node` the name of the dump"),
    "last": _told(_TIME, "Last message, Unix time"),
    "messages": {"type": "integer", "minimum": 1},
    "addresses": _told(_list(_TEXT, MOST_ADDRESSES), "Where the messages came from"),
    "took": _told(_SECONDS, "Seconds from the first message to the last, by a monotonic clock"),
    "port": {
        "type": "integer",
        "minimum": 0,
        "maximum": 65535,
        "description": "UDP port of the last message; 0: not known",
    },
}
_UNDER_WAY: Object = {
    "age": _told(_SECONDS, "Seconds since the last message"),
    "proof": {
        "enum": ["signature", "address", "network", "history"],
        "description": "How the dump is known to be this node's: its messages are signed with the "
        "node's key and were not recorded earlier; they come from an address of the node; from an "
        "address in a network, and the node is called by it; it was under way before the daemon's "
        "start, and nothing was heard of it since",
    },
    "recorded": _told(_YES, "Whether it is in the history, so that no end of the daemon loses it"),
}
_ENDED: Object = {
    "end": {"enum": list(ENDS), "description": "silent: it rebooted, or died while dumping"},
    "ended": _told(_TIME, "When it was over, Unix time"),
}
_NUMBER: Object = {"number": _told({"type": "integer", "minimum": 1}, "Grows within a life")}
_WHEN: Object = {"when": _told(_TIME, "When this was so, Unix time")}
_LIFE: Object = {"life": _told(_TEXT, "Of which life of the daemon the numbers are")}
_NEXT: Object = {
    "next": {"type": ["integer", "null"], "description": "Where the next page goes on; null: none"}
}
_NODE: Object = {
    "node": _TEXT,
    "known": _told(_YES, "Whether its dump would be heard: it is in the settings"),
    "dumping": _YES,
    "dump": {"oneOf": [_ref("Dump"), _NULL]},
    "ended": {
        "oneOf": [_ref("Ended"), _NULL],
        "description": "Its last dump that is over; null: none since the daemon's start",
    },
}
_DOUBT: Object = {"doubt": _told(_TEXT, 'Why a dump may have been missed; "": nothing is known')}

_MOMENT: Object = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": FAR}
_FOUND: Object = {
    **_LIFE,
    "node": {"type": ["string", "null"], "description": "What the daemon calls the node"},
    "why": _told(_TEXT, "Why it has none"),
}

SCHEMAS: Object = {
    "Error": _object({"error": _TEXT, "again": _YES}, optional=("again",)),
    "Dump": _object({**_DUMP, **_UNDER_WAY}),
    "Ended": _object({**_DUMP, **_ENDED}),
    "Event": _object({**_NUMBER, "kind": {"enum": list(KINDS)}, "at": _TIME, **_DUMP}),
    "Node": _object({**_WHEN, **_DOUBT, **_NODE}),
    "Nodes": _object({**_WHEN, **_DOUBT, "nodes": _list(_object(_NODE), MOST_NODES)}),
    "Dumps": _object(
        {
            **_WHEN,
            **_LIFE,
            "dumping": _told(_COUNT, "How many are under way"),
            "dumps": _list({"allOf": [_object(_NUMBER), _ref("Dump")]}, MOST),
            **_NEXT,
        }
    ),
    "EndedDumps": _object(
        {
            **_WHEN,
            **_LIFE,
            "ended": _list({"allOf": [_object(_NUMBER), _ref("Ended")]}, MOST),
            **_NEXT,
        }
    ),
    "Events": _object(
        {
            **_WHEN,
            **_LIFE,
            "restarted": _told(_YES, "The life that was asked for is over: all of this one"),
            "events": _list(_ref("Event"), MOST),
            "missed": _told(_COUNT, "How many were too long ago to be kept"),
            "last": _told(_COUNT, "Ask with this as `after` for what comes next"),
        }
    ),
    "Health": _object(
        {**_WHEN, "healthy": _YES, "trouble": _told(_TEXT, '"" if it is healthy')},
    ),
    "Heard": _object(
        {
            **_WHEN,
            **_FOUND,
            "wait": _told(_TEXT, "As it was asked"),
            "auth": {"enum": ["none", "sha256"], "description": "What the daemon believes"},
            "begin": _told(_MOMENT, "Not all is read yet: ask again with this and `life`"),
            "mark": _told(_MOMENT, "Ask with this and `life` what came behind it"),
            "heard": {
                "oneOf": [
                    _object(
                        {
                            "age": _told(_SECONDS, "Seconds since the last message"),
                            "messages": {"type": "integer", "minimum": 1},
                            "addresses": _list(_TEXT, MOST_ADDRESSES),
                        }
                    ),
                    _NULL,
                ],
                "description": "What came behind the mark; null: nothing",
            },
            "before": {
                "type": ["number", "null"],
                "description": "Seconds since the last message before the mark; null: not known",
            },
        },
        optional=("why", "auth", "begin", "mark", "heard", "before"),
    ),
    "PassedOn": _object(
        {
            **_WHEN,
            **_FOUND,
            "dumping": _told(_YES, "Whether the node was heard lately"),
            "sent": _told(_COUNT, "To how many places the question was passed on now"),
            "answers": _list(
                _object({"address": _TEXT, "packet": _told(_TEXT, "In hexadecimal")}),
                MOST_ANSWERS,
            ),
        },
        optional=("why", "dumping", "sent", "answers"),
    ),
    "Status": _object(
        {
            "version": _TEXT,
            "up": _told(_SECONDS, "Seconds since the daemon's start"),
            **_WHEN,
            "nodes": _told(_COUNT, "Nodes in the settings"),
            "unresolved": _list(_TEXT, MOST_UNRESOLVED),
            "unresolved_nodes": _COUNT,
            "dumping": _COUNT,
            "dumps": _told(_list(_object(_DUMP), MOST), "Those that began last, newest first"),
            "ended": _list(_ref("Ended"), MOST_ENDED),
            "counts": {"type": "object", "additionalProperties": _COUNT},
            "counting": {"enum": ["kernel", "user"]},
            "troubles": _list(_TEXT),
            "age": _told(_SECONDS, "Seconds since this was published"),
        }
    ),
}

#: The schema of the answer to each question.
ANSWERS = {
    "status": "Status",
    "node": "Node",
    "nodes": "Nodes",
    "dumps": "Dumps",
    "ended": "EndedDumps",
    "events": "Events",
    "health": "Health",
    "heard": "Heard",
    "question": "PassedOn",
}


def _parameter(name: str, schema: Object, description: str, **more: object) -> Object:
    return {"name": name, "in": "query", "schema": schema, "description": description, **more}


_MOST = _parameter("most", _COUNT, f"At most so many; no more than {MOST}")


def _content(schema: str) -> Object:
    return {"application/json": {"schema": _ref(schema)}}


def _error(description: str) -> Object:
    return {"description": description, "content": _content("Error")}


_STARTING = _error("The daemon is still starting: try again")
_WRONG = _error("What is wrong with the request")


def _operation(
    ask: str, summary: str, parameters: tuple[Object, ...] = (), responses: Object | None = None
) -> Object:
    return {
        "operationId": ask,
        "summary": summary,
        "parameters": list(parameters),
        "responses": {
            "200": {"description": "The answer", "content": _content(ANSWERS[ask])},
            "400": _WRONG,
            "503": _STARTING,
            **(responses or {}),
        },
    }


def _asked_in_body(ask: str, summary: str, required: tuple[str, ...], members: Object) -> Object:
    """A question of agents that wait."""
    name = {"type": "string", "minLength": 1, "maxLength": MOST_NAME}
    nodes = _told(_list(name, MOST_NAMES), "Names and addresses of one node")
    schema = {
        "type": "object",
        "required": ["nodes", *required],
        "properties": {"nodes": nodes, **members},
        "additionalProperties": False,
    }
    errors = {"413": _error("The body is too long"), "415": _error("The body is not JSON")}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {"post": {**_operation(ask, summary, responses=errors), "requestBody": body}}


def _paths() -> Object:
    name = {"type": "string", "minLength": 1}
    after = _parameter("after", _COUNT, "Those with a number above this one")
    nodes = _operation("nodes", "Many nodes")
    posted = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["nodes"],
                    "properties": {
                        "nodes": {**_list(name, MOST_NODES), "minItems": 1, "uniqueItems": True}
                    },
                    "additionalProperties": False,
                }
            }
        },
    }
    events = _operation(
        "events",
        "What began and ended",
        (
            _parameter("after", _COUNT, "After this number; without it, from now on"),
            _parameter("life", _TEXT, "Of which life `after` is a number"),
            _MOST,
            _parameter(
                "wait",
                {"type": "number", "minimum": 0},
                f"Seconds to wait for one if there is none, {MOST_WAIT:g} at most",
            ),
            {
                "name": "Last-Event-ID",
                "in": "header",
                "schema": {"type": "string", "pattern": r"^.+-\d+$"},
                "description": "Where a stream of server-sent events goes on: LIFE-NUMBER",
            },
        ),
    )
    events["responses"]["200"]["content"]["text/event-stream"] = {
        "schema": _told(
            _TEXT,
            "An endless stream of server-sent events. The first is `start`, with `life`, "
            "`restarted` and `after`; then one for each Event, with its kind as the type and "
            "LIFE-NUMBER as the id, and `missed` if some were too long ago",
        )
    }
    return {
        "/v1/nodes/{node}": {
            "get": _operation(
                "node",
                "One node: is it dumping now, since when, from where, how sure",
                ({"name": "node", "in": "path", "required": True, "schema": name},),
            )
        },
        "/v1/nodes": {
            "get": {
                **nodes,
                "responses": {**nodes["responses"], "431": _error("So many need POST")},
                "parameters": [
                    _parameter(
                        "node",
                        {**_list(name), "minItems": 1, "uniqueItems": True},
                        "Once for each node, as far as a head of 64 KiB has room for them",
                        required=True,
                        style="form",
                        explode=True,
                    )
                ],
            },
            "post": {
                **nodes,
                "operationId": "nodes_posted",
                "requestBody": posted,
                "responses": {
                    **nodes["responses"],
                    "413": _error("The body is too long"),
                    "415": _error("The body is not JSON"),
                },
            },
        },
        "/v1/dumps": {"get": _operation("dumps", "All dumps under way", (after, _MOST))},
        "/v1/ended": {
            "get": _operation(
                "ended",
                "Dumps that are over, the last one first",
                (_parameter("before", _COUNT, "Those with a number below this one"), _MOST),
            )
        },
        "/v1/events": {"get": events},
        "/v1/status": {"get": _operation("status", "The state as a whole", (_MOST,))},
        "/v1/health": {
            "get": _operation(
                "health",
                "Whether messages are heard and recorded",
                responses={
                    "503": {
                        "description": "It is not healthy, or still starting",
                        "content": {
                            "application/json": {
                                "schema": {"anyOf": [_ref("Health"), _ref("Error")]}
                            }
                        },
                    }
                },
            )
        },
        "/v1/heard": _asked_in_body(
            "heard",
            "Whether a node was heard behind a mark, for fence agents that wait",
            ("wait",),
            {
                "wait": {"type": "string", "maxLength": MOST_CALLED},
                "life": _TEXT,
                "begin": _MOMENT,
                "mark": _MOMENT,
            },
        ),
        "/v1/question": _asked_in_body(
            "question",
            "Pass a signed question on to a node that dumps, and its answers back",
            ("packet",),
            {"packet": {"type": "string", "pattern": f"^[0-9a-f]{{{2 * PACKET_BYTES}}}$"}},
        ),
        "/v1/openapi.json": {
            "get": {
                "operationId": "openapi",
                "summary": "This description",
                "responses": {
                    "200": {
                        "description": "OpenAPI 3.1",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    },
                    "400": _WRONG,
                },
            }
        },
    }


def description() -> Object:
    """All of it, as an object."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kdumpfenced",
            "version": __version__,
            "description": "Which nodes are dumping. Nothing can be changed by it. Members may be "
            "added to answers, and kinds of events.",
            "license": {"name": "LGPL-2.1-or-later", "identifier": "LGPL-2.1-or-later"},
        },
        "paths": _paths(),
        "components": {"schemas": SCHEMAS},
    }


@functools.lru_cache(maxsize=1)
def as_json() -> bytes:
    """All of it, as it is served."""
    return json.dumps(description(), indent=1).encode() + b"\n"

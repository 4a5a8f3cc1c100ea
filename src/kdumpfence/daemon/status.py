# SPDX-License-Identifier: LGPL-2.1-or-later
"""What both ends of the control socket share: its place, and the status of kdumpfenced as JSON.

A Unix stream socket. The client sends one line of JSON, the daemon answers with one:

    {"ask": "status", "most": 200}
    {"version": ..., "up": ..., "nodes": ..., "dumping": ..., "dumps": [...], ...}

and so on over the same connection. It only answers: nothing can be changed by it. The other
questions are in control.py, the daemon's end is status_server.py, that of its clients
kdumpfence.client; what may not be in this file: sockets.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kdumpfence.listener.events import KINDS, MOST_ADDRESSES, Dump, Event, length

#: Where kdumpfenced listens.
PATH = "/run/kdumpfenced/control"

#: Dumps that one answer holds at most; of all others only the number is told.
MOST = 1000

#: Dumps that are over, of which an answer tells: the last ones.
MOST_ENDED = 100

#: Names of unresolved nodes that an answer holds at most.
MOST_UNRESOLVED = 100


class ControlError(Exception):
    """The socket cannot be used; the text is one line for people."""


class Status(NamedTuple):
    """What the daemon says of itself. Times of dumps are Unix time in seconds."""

    version: str
    up: float  # seconds since the daemon was started
    when: float  # Unix time at which this was so
    nodes: int  # nodes that it knows
    unresolved: Sequence[str]  # nodes with a name that has no address; the first MOST_UNRESOLVED
    dumping: int  # nodes that are dumping
    dumps: Sequence[Dump]  # those that began last, newest first; MOST at most
    counts: Mapping[str, int]  # datagrams: "accepted", by reason, "unread"
    troubles: Sequence[str] = ()  # what does not work at the moment, a line each
    age: float = 0.0  # seconds since it was published; filled in for the client
    unresolved_nodes: int = 0  # how many `unresolved` would be if it had all
    ended: Sequence[Event] = ()  # dumps that are over, newest first; MOST_ENDED at most
    counting: str = ""  # "kernel" or "user"; "" of a daemon that does not say


def as_object(status: Status, most: int = MOST) -> dict[str, Any]:
    """The status as it is written in JSON, without its age, with `most` of its dumps."""
    return {
        "version": status.version,
        "up": round(status.up, 3),
        "when": round(status.when, 3),
        "nodes": status.nodes,
        "unresolved": list(status.unresolved[:MOST_UNRESOLVED]),
        "unresolved_nodes": status.unresolved_nodes,
        "dumping": status.dumping,
        "dumps": [dump_object(dump) for dump in status.dumps[:most]],
        "ended": [
            {**dump_object(event), "end": event.kind, "ended": event.when}
            for event in status.ended[: min(most, MOST_ENDED)]
        ],
        "counts": dict(status.counts),
        "counting": status.counting,
        "troubles": list(status.troubles),
    }


def dump_object(dump: Dump | Event) -> dict[str, Any]:
    """A dump as it is written in JSON."""
    return {
        "node": dump.node,
        "since": dump.since,
        "last": dump.last,
        "messages": dump.messages,
        "addresses": list(dump.addresses[:MOST_ADDRESSES]),
        "took": round(length(dump), 3),
        "port": dump.port,
    }


def read_dump(one: Mapping[str, Any]) -> Dump:
    """A dump out of JSON. KeyError, TypeError or ValueError if it is none."""
    return Dump(
        str(one["node"]),
        float(one["since"]),
        float(one["last"]),
        int(one["messages"]),
        tuple(str(address) for address in one["addresses"]),
        float(one.get("took", 0.0)),
        port=int(one.get("port", 0)),
    )


def read_event(one: Mapping[str, Any], kind: object, when: Any) -> Event:  # noqa: ANN401
    """An event out of JSON, of this kind and time. Raises as `read_dump`."""
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: unknown")
    # Not by way of `read_dump`: who follows a hundred thousand of them has to keep up.
    return Event(
        kind,
        str(one["node"]),
        float(when),
        float(one["since"]),
        float(one["last"]),
        int(one["messages"]),
        tuple([str(address) for address in one["addresses"]]),
        float(one.get("took", 0.0)),
        port=int(one.get("port", 0)),
    )


def from_object(answer: Mapping[str, Any]) -> Status:
    """The status in an answer, which may be of a daemon of another version, or of no daemon.

    ValueError if it is no status.
    """
    try:
        dumps = [read_dump(one) for one in answer["dumps"]]
        ended = tuple(read_event(one, one["end"], one["ended"]) for one in answer.get("ended", ()))
        return Status(
            str(answer["version"]),
            float(answer["up"]),
            float(answer["when"]),
            int(answer["nodes"]),
            tuple(str(name) for name in answer["unresolved"]),
            int(answer["dumping"]),
            dumps,
            {str(name): int(number) for name, number in answer["counts"].items()},
            tuple(str(line) for line in answer.get("troubles", ())),
            float(answer.get("age", 0.0)),
            int(answer.get("unresolved_nodes", 0)),
            ended,
            str(answer.get("counting", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise ValueError("not a status") from None


def is_open_to_all(path: str) -> bool:
    """Whether everybody can put something at that place. OSError if it has no directory."""
    return bool(os.stat(os.path.dirname(os.path.abspath(path))).st_mode & stat.S_IWOTH)

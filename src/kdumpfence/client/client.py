# SPDX-License-Identifier: LGPL-2.1-or-later
"""The class that asks: one method for each question, with types for what is told.

**These types are stable.** Fields keep their names, meaning and place; new ones are added at the
end, with a default. What may not be in this file: sockets (`connection`), and how events are
followed (`following`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from kdumpfence.client.connection import Connection, Question, parsed_place
from kdumpfence.client.errors import CannotTell, ClientError, Unexpected, Unreachable
from kdumpfence.client.following import Events
from kdumpfence.daemon.status import MOST, PATH, Status, from_object, read_dump, read_event
from kdumpfence.listener.events import Dump, Event
from kdumpfence.text import one_line

if TYPE_CHECKING:
    import ssl

#: Seconds that an answer may take.
TIMEOUT = 2.0

#: Seconds that anybody may wait.
_MOST_SECONDS = 86400.0

#: Nodes in one question, and bytes of their names: a daemon takes more of both.
_MOST_NODES = 5000
_MOST_BYTES = 200_000

Read = TypeVar("Read")


class Node(NamedTuple):
    """What is known of a node at a moment."""

    node: str
    #: Whether its dump would be heard: it is in the daemon's settings.
    known: bool
    #: Its dump under way, whose `age` goes on counting; None: there is none, as far as is known.
    dump: Dump | None
    #: How the dump is known to be this node's: "signature" (its messages are signed with the
    #: node's key, and were not recorded earlier), "address" (they come from an address of the
    #: node), "network" (from an address in a network, and the node is called by it), "history" (it
    #: was under way before the daemon's start, and nothing was heard of it since); "": no dump.
    proof: str
    #: Its last dump that is over; None: none since the daemon's start.
    ended: Event | None
    #: Why a dump may have been missed; "" if nothing is known of that.
    doubt: str
    #: When this was so, Unix time by the daemon's clock.
    when: float


class Followed(NamedTuple):
    """What began and ended since a number."""

    #: Of which life of a daemon the numbers are.
    life: str
    events: list[Event]
    #: How many there were that the daemon does not have any more.
    missed: int
    #: From which number to go on.
    last: int
    #: The life that was asked for is over: these are all events of this one.
    restarted: bool = False


class Client:
    """Asks one daemon, at "unix:PATH" or "http://HOST:PORT" (IPv6: "http://[::1]:9742").

    It connects with the first question and again when the connection is gone. `timeout` is in
    seconds, for each question; `headers` go along with each request over HTTP, and `tls` is for
    https, where a proxy asks for such things. ValueError for what is no place.

    Any thread may use it; questions go one after the other. `events` has a connection of its own.
    A process that forks must not use it in the child.

    Every method raises a ClientError if there is no answer: `Unreachable`, `Refused` or
    `Unexpected`.
    """

    def __init__(
        self,
        where: str = f"unix:{PATH}",
        timeout: float = TIMEOUT,
        *,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.where = where
        self.timeout = timeout
        self._place = parsed_place(where)
        self._headers = dict(headers or {})
        if not 0 < timeout <= _MOST_SECONDS:
            raise ValueError(f"timeout {timeout!r}: not seconds (more than 0, at most a day)")
        for name, value in self._headers.items():
            if not f"{name}{value}".isprintable() or max(f"{name}{value}", default="") > "\xff":
                raise ValueError(f"header {name!r}: not printable Latin-1")
        self._tls = tls
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    # ------------------------------------------------------------------------- nodes

    def dump(self, node: str) -> Dump | None:
        """The dump of this node; None if it is not dumping.

        CannotTell if the daemon does not listen for this node, or may have missed its messages.
        """
        found = self.node(node)
        if found.dump is None:
            name = one_line(node)
            if not found.known:
                raise CannotTell(f"node '{name}': {self.where} does not listen for it")
            if found.doubt:
                raise CannotTell(f"node '{name}': a dump may have been missed: {found.doubt}")
        return found.dump

    def node(self, node: str) -> Node:
        """What is known of this node."""
        found = self._read(_only_node, self.ask({"ask": "node", "node": node}))
        if found.node != node:
            raise self._unexpected()
        return found

    def nodes(self, nodes: Iterable[str]) -> dict[str, Node]:
        """What is known of each of these nodes, of which there may be any number."""
        found: dict[str, Node] = {}
        for some in _in_pieces(dict.fromkeys(nodes)):
            read = self._read(_all_nodes, self.ask({"ask": "nodes", "nodes": some}))
            if [one.node for one in read] != some:
                raise self._unexpected()
            found.update((one.node, one) for one in read)
        return found

    # ------------------------------------------------------------------------- lists

    def dumps(self) -> Iterator[Dump]:
        """All dumps under way, in the order in which they began.

        They come in pages: what goes on all the time is among them, what begins and ends meanwhile
        may be.
        """
        after: int | None = 0
        while after is not None:
            answer = self.ask({"ask": "dumps", "after": after, "most": MOST})
            yield from self._read(_dumps, answer)
            before, after = after, self._read(_next, answer)
            if after is not None and after <= before:  # that would go on for ever
                raise self._unexpected()

    def ended(self) -> Iterator[Event]:
        """The dumps that are over, the last one first; `kind` says how each ended.

        As far as the daemon has told of them since its start, and has not forgotten them.
        """
        before: int | None = 0
        while before is not None:
            answer = self.ask({"ask": "ended", "before": before, "most": MOST})
            yield from self._read(_ends, answer)
            last, before = before, self._read(_next, answer)
            if before is not None and (before <= 0 or 0 < last <= before):
                raise self._unexpected()

    def status(self, most: int = MOST) -> Status:
        """The daemon's status, with the `most` dumps that began last (1000 at most)."""
        return self._read(from_object, self.ask({"ask": "status", "most": most}))

    def trouble(self) -> str:
        """What keeps the daemon from its work, in a line; "" if it is well."""
        return self._read(_trouble, self.ask({"ask": "health"}))

    # ------------------------------------------------------------------------ events

    def events(self, after: str | None = None, patience: float = 30.0) -> Events:
        """An iterator over what begins and ends, which waits for it.

        `after`: a `place` of an earlier iterator, to miss nothing in between; None: from now on.
        `patience`: see `Events`.
        """
        other = Client(self.where, self.timeout, headers=self._headers, tls=self._tls)
        return Events(other, after, patience)

    def follow(
        self,
        after: int | None = None,
        life: str | None = None,
        wait: float = 0.0,
        most: int = MOST,
    ) -> Followed:
        """What began and ended after that number, of this life; without one only where to go on.

        For programs that have a loop of their own. Not everything at once: again from `last`, until
        there is nothing more. `wait`: seconds that the daemon waits for something (60 at most).
        """
        question: dict[str, object] = {"ask": "events", "after": after, "most": most}
        if life is not None:
            question["life"] = life
        if wait:
            question["wait"] = wait
        return self._read(_followed, self.ask(question, wait))

    # --------------------------------------------------------------------- questions

    def ask(self, question: Question, wait: float = 0.0) -> dict[str, Any]:
        """Send one question as an object and return the answer, which may take `wait` s longer."""
        if not 0 <= wait <= _MOST_SECONDS:
            raise ValueError(f"wait {wait!r}: not seconds (0 or more, at most a day)")
        with self._lock:
            deadline = time.monotonic() + self.timeout + wait
            while True:
                connection = self._connected()
                reused = connection.used
                try:
                    return connection.ask(question, wait, deadline)
                except Unreachable:
                    self._hang_up()
                    # It may have been closed for being quiet. No question does anything, so it can
                    # be asked again.
                    if not reused or time.monotonic() >= deadline:
                        raise
                except ClientError:
                    self._hang_up()
                    raise

    def close(self) -> None:
        """Hang up; the next question connects again."""
        with self._lock:
            self._hang_up()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = Connection(self._place, self.timeout, self._headers, self._tls)
        return self._connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _read(self, read: Callable[[Mapping[str, Any]], Read], answer: Mapping[str, Any]) -> Read:
        """What is in an answer, which may be of anybody."""
        try:
            return read(answer)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise self._unexpected() from None

    def _unexpected(self) -> Unexpected:
        self.close()
        return Unexpected(f"{self._place.name}: unexpected answer; not kdumpfenced?")


def _in_pieces(nodes: Iterable[str]) -> Iterator[list[str]]:
    """As many as fit into a question."""
    piece: list[str] = []
    size = 0
    for node in nodes:
        length = 6 * len(node) + 4  # as JSON at most
        if piece and (len(piece) == _MOST_NODES or size + length > _MOST_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(node)
        size += length
    if piece:
        yield piece


def _dump(one: Mapping[str, Any]) -> Dump:
    heard = time.monotonic() - float(one["age"])
    if not math.isfinite(heard):
        raise ValueError("not an age")
    return read_dump(one)._replace(heard=heard)


def _dumps(answer: Mapping[str, Any]) -> list[Dump]:
    return [_dump(one) for one in answer["dumps"]]


def _end(one: Mapping[str, Any]) -> Event:
    return read_event(one, one["end"], one["ended"])


def _ends(answer: Mapping[str, Any]) -> list[Event]:
    return [_end(one) for one in answer["ended"]]


def _next(answer: Mapping[str, Any]) -> int | None:
    return None if answer["next"] is None else int(answer["next"])


def _trouble(answer: Mapping[str, Any]) -> str:
    return "" if answer["healthy"] is True else str(answer["trouble"])


def _followed(answer: Mapping[str, Any]) -> Followed:
    return Followed(
        str(answer["life"]),
        [read_event(one, one["kind"], one["at"]) for one in answer["events"]],
        int(answer["missed"]),
        int(answer["last"]),
        bool(answer.get("restarted", False)),
    )


def _only_node(answer: Mapping[str, Any]) -> Node:
    return _node(answer, answer)


def _all_nodes(answer: Mapping[str, Any]) -> list[Node]:
    return [_node(one, answer) for one in answer["nodes"]]


def _node(one: Mapping[str, Any], answer: Mapping[str, Any]) -> Node:
    dump, ended = one["dump"], one["ended"]
    if not isinstance(one["known"], bool) or not isinstance(one["node"], str):
        raise ValueError("not a node")
    if one["dumping"] is not (dump is not None):
        raise ValueError("dumping, or not?")
    return Node(
        one["node"],
        one["known"],
        None if dump is None else _dump(dump),
        "" if dump is None else str(dump["proof"]),
        None if ended is None else _end(ended),
        str(answer["doubt"]),
        float(answer["when"]),
    )

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a `Listener` tells: events, dumps under way, losses, and what it knows at a moment.

**These types are stable.** Fields keep their names, meaning and place; new ones are added at the
end, with a default. Kinds of events may be added: leave out those that you do not know. What may
not be in this file: when something is told (`dumps`, `event_queue`).
"""

from __future__ import annotations

import math
import time
from typing import Literal, NamedTuple, Protocol, Union

from kdumpfence.addresses import is_address

#: What can happen to a node, and what it can tell of the end of its dump.
Kind = Literal["began", "dumping", "finished", "failed", "silent"]
ToldEnd = Literal["finished", "failed"]
#: Under which datagrams are counted that were lost, and events that nobody took.
Counter = Literal["unread", "crowded", "untaken"]

#: Source addresses that are kept of one dump, and sessions.
MOST_ADDRESSES = 16
MOST_SESSIONS = 8

#: The kinds of events with which a dump is over as its node says, and those that end one.
TOLD_ENDS: tuple[ToldEnd, ...] = ("finished", "failed")
ENDS: tuple[Kind, ...] = (*TOLD_ENDS, "silent")
KINDS: tuple[Kind, ...] = ("began", "dumping", *ENDS)

#: The end of the year 9999, where calendars end: a Unix time.
_LAST_TIME = 253402300799.0
#: What a count can be.
_MOST_MESSAGES = (1 << 63) - 1


class Event(NamedTuple):
    """What happened to a node. All times are float seconds, Unix times if a `Listener` tells them.

    `kind`: "began": the first message of a dump; "dumping": it goes on; "finished", "failed": it
    is over, as the node says; "silent": it is over, or the node died in it. "finished" and "failed"
    may contradict each other, as after a second try: the later one counts.
    """

    kind: Kind
    #: The name that it was given; of one that a network admitted, its address.
    node: str
    #: When it happened; of "silent", when that was decided.
    when: float
    #: First message of this dump. Together with `node` it names the dump: it never changes.
    since: float
    #: Last message of this dump.
    last: float
    #: Messages of this dump so far.
    messages: int
    #: Where they came from, in the order of their first message; MOST_ADDRESSES at most.
    addresses: tuple[str, ...]
    #: Seconds from the first message to the last, whatever became of the system's clock meanwhile.
    took: float = 0.0
    #: Of the senders that told of it, as far as they said; MOST_SESSIONS at most.
    sessions: tuple[int, ...] = ()
    #: UDP port that the last message came from (of those that the kernel does not count); 0: not
    #: known.
    port: int = 0
    #: The last message by CLOCK_MONOTONIC, for `age`; 0.0: not known.
    heard: float = 0.0

    @property
    def duration(self) -> float:
        """Seconds from the first message to the last, or what the times tell of it."""
        return length(self)

    @property
    def age(self) -> float:
        """Seconds since the last message, now; the system's clock may have been set meanwhile."""
        return _age(self)


class Dump(NamedTuple):
    """A dump under way. The fields are those of `Event`."""

    node: str
    since: float
    last: float
    messages: int
    addresses: tuple[str, ...]
    took: float = 0.0
    sessions: tuple[int, ...] = ()
    port: int = 0
    heard: float = 0.0

    @property
    def duration(self) -> float:
        """Seconds from the first message to the last, or what the times tell of it."""
        return length(self)

    @property
    def age(self) -> float:
        """Seconds since the last message, now; the system's clock may have been set meanwhile."""
        return _age(self)


class Overflow(NamedTuple):
    """Something was lost: a `Listener` tells so among its events.

    `counter`: "unread": datagrams that the kernel dropped; "crowded": messages from a network that
    had no room for their senders; "untaken": events that nobody took in time, the oldest ones.
    """

    kind: Literal["overflow"]
    #: "": this is about no node. It is here for loops that look at `kind` and `node` alone.
    node: str
    #: When it was noticed, Unix time.
    when: float
    counter: Counter
    #: How many were lost since this was told last.
    messages: int


class ListenerClosed(RuntimeError):
    """The `Listener` was closed: it hears and knows nothing any more."""


class Snapshot(NamedTuple):
    """What a `Listener` knows at a moment. Stable as events are: fields are only added."""

    #: Unix time.
    when: float
    #: The dumps under way, in the order in which they began; times are Unix times.
    dumps: list[Dump]
    #: How many nodes it was told of (without those that networks admitted).
    nodes: int
    #: The nodes that have a name without an address so far.
    unresolved: list[str]
    #: Datagrams by verdict: "accepted", those of `kdumpfence.REASONS`, and "unread": dropped
    #: by the kernel, for want of room or, in a flood, because they were no messages.
    counts: dict[str, int]
    #: Addresses that more than one node has. Messages from there count for none of them.
    shared: list[str]
    #: Addresses of nodes that are this machine's own. Messages from there do not count.
    own: list[str]
    #: Why messages may not reach it, in one line, such as that another program shares the port;
    #: "" if nothing is known to be wrong. Firewalls are not looked at.
    deaf: str = ""
    #: How many questions it has answered.
    answers: int = 0
    #: The name with which it answers, and the last one that was asked for if that was another; "".
    answers_as: str = ""
    asked_for: str = ""
    #: What counts messages that say nothing new: "kernel" or "user".
    counting: str = "user"


#: What a `Listener` yields: `kind` says which of the two it is.
AnyEvent = Union[Event, Overflow]


class _Dumped(Protocol):
    @property
    def since(self) -> float: ...
    @property
    def last(self) -> float: ...
    @property
    def took(self) -> float: ...


def length(dump: _Dumped) -> float:
    """What it took, or, if nobody measured that, what its times tell. Seconds, not negative."""
    return dump.took or max(0.0, dump.last - dump.since)


def _age(dump: Event | Dump) -> float:
    if dump.heard:
        return max(0.0, time.monotonic() - dump.heard)
    return max(0.0, time.time() - dump.last)


def checked(dump: Dump) -> Dump:
    """A dump that was stored somewhere, with tuples for what JSON makes lists of.

    ValueError with one line if it cannot be one.
    """
    node, since, last, messages, addresses, took, sessions, port, _ = Dump(*dump)
    if not isinstance(node, str) or not node:
        raise ValueError(f"node {node!r}: must be a name")
    for what, value in (("since", since), ("last", last), ("took", took)):
        if not _is_number(value) or not 0 <= value <= _LAST_TIME:
            raise ValueError(f"node {node!r}: {what} {value!r}: must be seconds, 0 or more")
    # What was measured tells that the system's clock was set back in between.
    if since > last and not took:
        raise ValueError(f"node {node!r}: since {since} is later than last {last}")
    if not _is_whole(messages) or not 1 <= messages <= _MOST_MESSAGES:
        raise ValueError(f"node {node!r}: messages {messages!r}: must be a whole number above 0")
    if not _is_whole(port) or not 0 <= port <= 65535:
        raise ValueError(f"node {node!r}: port {port!r}: must be 0 to 65535")
    return Dump(
        node,
        float(since),
        float(last),
        messages,
        _addresses(node, addresses)[:MOST_ADDRESSES],
        float(took),
        _numbers(node, sessions)[:MOST_SESSIONS],
        port,
    )


def as_told_end(word: str) -> ToldEnd | None:
    """The same, if it is one of TOLD_ENDS."""
    return next((end for end in TOLD_ENDS if end == word), None)


def checked_end(event: Event) -> tuple[Dump, ToldEnd, float]:
    """An end that was stored: the dump, how it ended and when. ValueError as `checked`."""
    event = Event(*event)
    dump = checked(Dump(event.node, *event[3:]))
    end = as_told_end(event.kind)
    if end is None:
        raise ValueError(f"node {event.node!r}: kind {event.kind!r}: must be finished or failed")
    when = event.when
    if not _is_number(when) or not 0 <= when <= _LAST_TIME:
        raise ValueError(f"node {event.node!r}: when {when!r}: must be seconds, 0 or more")
    return dump, end, float(when)


def _is_number(value: object) -> bool:
    """Also a whole one; neither NaN nor infinite."""
    if isinstance(value, float):
        return math.isfinite(value)
    return _is_whole(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _addresses(node: str, values: object) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"node {node!r}: addresses {values!r}: must be a list of addresses")
    for one in values:
        # The interface of a link-local one may have any name, and may be gone.
        host, percent, _ = one.partition("%") if isinstance(one, str) else ("", "", "")
        if not is_address(host) or (percent and ":" not in host):
            raise ValueError(f"node {node!r}: address {one!r}: not an IP address")
    return tuple(values)


def _numbers(node: str, values: object) -> tuple[int, ...]:
    if isinstance(values, (list, tuple)) and all(map(_is_whole, values)):
        return tuple(values)
    raise ValueError(f"node {node!r}: sessions {values!r}: must be a list of whole numbers")

# SPDX-License-Identifier: GPL-2.0-or-later
"""The decision: which nodes are dumping, since when, and whose dump is over.

A plain object without sockets, clock, threads or files: it is told what was heard and what
time it is, and answers with events. Everything that decides over a dump of many nodes must
live here, in this file; what carries it to and fro is `listener`.

All times are float seconds of whatever clock the caller uses, as long as it uses one.

Two rules:

- A message of a node that is not dumping begins a dump.
- Only `tick` ends one. A gap between two messages does not, however long it was: who did not
  look cannot know whether it was silent. So the caller first tells what it heard, and ticks
  then, with a time up to which it has heard everything.
"""

from __future__ import annotations

import heapq
import math
from typing import NamedTuple, Protocol

#: Without a message for so many seconds a dump is over. Senders repeat every 10 s.
SILENCE = 30.0

#: Seconds; a node that goes on dumping is told of at most that often.
REPEAT = 10.0

#: Source addresses that are kept of one dump.
MOST_ADDRESSES = 16


class Event(NamedTuple):
    """What happened to a node. All times are float seconds.

    `kind`: "began": the first message of a dump; "dumping": it goes on; "silent": it is over, or
    the node died in it. A `Listener` adds "overflow": datagrams were lost. That is not about a
    node: `node` is the name under which they are counted ("unread": dropped by the kernel;
    "crowded": messages from a network that had no room for their senders), `messages` how many
    there were since the last such event, and `addresses` is empty.
    """

    kind: str
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


class Dump(NamedTuple):
    """A dump under way. The fields are those of `Event`."""

    node: str
    since: float
    last: float
    messages: int
    addresses: tuple[str, ...]
    took: float = 0.0


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


class Dumps:
    """Who is dumping.

    `silence` (seconds, more than 0): without a message for so long a dump is over.
    `repeat` (seconds, 0 or more): "dumping" is told at most that often for a node; 0 tells
    of every `heard`. ValueError if they are not such.

    Not to be used by two threads at a time.
    """

    def __init__(self, silence: float = SILENCE, repeat: float = REPEAT) -> None:
        if not (math.isfinite(silence) and silence > 0):
            raise ValueError(f"silence {silence}: must be a number of seconds above 0")
        if not (math.isfinite(repeat) and repeat >= 0):
            raise ValueError(f"repeat {repeat}: must be a number of seconds, 0 or more")
        self.silence = silence
        self.repeat = repeat
        # In the order in which they began. A Dump is never changed but replaced, so a
        # snapshot is a list of what is there and copies nothing.
        self._dumps: dict[str, Dump] = {}
        #: When an event of the dump was last returned.
        self._told: dict[str, float] = {}
        #: Of dumps that were restored: from when on silence counts at the earliest.
        self._from: dict[str, float] = {}
        # When to look after a node, at the latest. A message does not touch it, which would
        # cost more than all the rest: who looks moves it on. Of a node's entries that one
        # counts whose time is in `_queued`.
        self._queue: list[tuple[float, str]] = []
        self._queued: dict[str, float] = {}

    def heard(
        self,
        node: str,
        address: str,
        when: float,
        messages: int = 1,
        first: float | None = None,
    ) -> Event | None:
        """Messages of this node were heard, the first of them at `first`, the last at `when`.

        Without `first` they came at once. An event if its dump began, or if it is time to tell
        again that it goes on.
        """
        dump = self._dumps.get(node)
        if dump is None:
            since = when if first is None else min(first, when)
            dump = Dump(node, since, when, messages, (address,), when - since)
            self._begin(dump, when)
            return Event("began", node, since, *dump[1:])
        _, since, last, before, addresses, took = dump
        if address not in addresses and len(addresses) < MOST_ADDRESSES:
            addresses += (address,)
        took += max(0.0, when - last)
        last = max(last, when)
        messages += before
        self._dumps[node] = Dump(node, since, last, messages, addresses, took)
        if when - self._told[node] < self.repeat:
            return None
        self._told[node] = when
        return Event("dumping", node, when, since, last, messages, addresses, took)

    def tick(self, now: float, most: int | None = None) -> list[Event]:
        """It is `now`, and all that was heard until then has been told: who fell silent.

        Those silent longest come first. With `most` no more than so many nodes are looked
        at; if others are due as well, `next_due` is not after `now`.
        """
        events: list[Event] = []
        queue, queued = self._queue, self._queued
        looked = 0
        while queue and queue[0][0] <= now and looked != most:
            looked += 1
            due, node = queue[0]
            dump = self._dumps.get(node)
            if queued.get(node) != due:  # an earlier one took its place
                heapq.heappop(queue)
            elif dump is not None and self._over(dump) > due:
                queued[node] = self._over(dump)
                heapq.heapreplace(queue, (queued[node], node))
            else:
                heapq.heappop(queue)
                del queued[node]
                if dump is not None:
                    events.append(self._end(dump, now))
        return events

    @property
    def next_due(self) -> float | None:
        """When `tick` wants to be called; None: not before something is heard.

        It may have nothing to tell then: only so is this answered at once, however many
        nodes there are.
        """
        return self._queue[0][0] if self._dumps else None

    def forget(self, node: str, when: float | None = None) -> Event | None:
        """The node is none of ours any more: "silent" if it was dumping.

        `when` is the time of that event; without it, that of the last message.
        """
        dump = self._dumps.get(node)
        return None if dump is None else self._end(dump, dump.last if when is None else when)

    def restore(self, dump: Dump, when: float | None = None) -> None:
        """A dump was under way before a restart, and goes on as if there had been none.

        Its silence counts from `when` on if that is later than its last message, for
        nobody listened meanwhile. ValueError if that node is dumping already.
        """
        if dump.node in self._dumps:
            raise ValueError(f"node {dump.node!r} is dumping already: restore before listening")
        self._begin(dump._replace(took=length(dump)), dump.last)
        if when is not None and when > dump.last:
            self._from[dump.node] = when

    def snapshot(self) -> list[Dump]:
        """All dumps under way, in the order in which they began."""
        return list(self._dumps.values())

    def __contains__(self, node: object) -> bool:
        """Whether this node is dumping."""
        return node in self._dumps

    def __len__(self) -> int:
        """How many nodes are dumping."""
        return len(self._dumps)

    def _begin(self, dump: Dump, told: float) -> None:
        self._dumps[dump.node] = dump
        self._told[dump.node] = told
        due = dump.last + self.silence
        # There may be one of a dump that was forgotten; if it is early enough, it will do.
        if self._queued.get(dump.node, math.inf) > due:
            self._queued[dump.node] = due
            heapq.heappush(self._queue, (due, dump.node))

    def _end(self, dump: Dump, when: float) -> Event:
        del self._dumps[dump.node]
        del self._told[dump.node]
        self._from.pop(dump.node, None)
        if not self._dumps:  # nobody comes to clear away what was forgotten
            self._queue.clear()
            self._queued.clear()
        return Event("silent", dump.node, when, *dump[1:])

    def _over(self, dump: Dump) -> float:
        """When it is over if nothing more is heard."""
        return max(dump.last, self._from.get(dump.node, dump.last)) + self.silence

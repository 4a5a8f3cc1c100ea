# SPDX-License-Identifier: LGPL-2.1-or-later
"""The decision: which nodes are dumping, since when, and whose dump is over.

A plain object without sockets, clock, threads or files: it is told what was heard and what
time it is, and answers with events. Everything that decides over a dump of many nodes must
live here, in this file; what carries it to and fro is `listener`.

All times are float seconds of whatever clock the caller uses, as long as it uses one.

The rules:

- A message of a node that is not dumping begins a dump.
- Silence ends one, which only `tick` finds. A gap between two messages does not, however long it
  was: who did not look cannot know whether it was silent. So the caller first tells what it
  heard, and ticks then, with a time up to which it has heard everything.
- A status "finished" or "failed" ends it at once. What may be left of that dump takes nothing
  back, since the ordinary sender goes on beside the call that told of the end: messages of
  sessions that were heard before, or within OVERTAKEN seconds, and messages without a session.
- Then another session begins the node's next dump, or any message after `silence` seconds without
  one. Another end does not: of two that contradict each other the later one counts, as after a
  second try.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from kdumpfence.listener.due import Due
from kdumpfence.listener.events import (
    ENDS,
    MOST_ADDRESSES,
    MOST_SESSIONS,
    TOLD_ENDS,
    Dump,
    Event,
    as_told_end,
    length,
)
from kdumpfence.listener.lengths import check_times, longer, merged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kdumpfence.listener.events import Kind, ToldEnd

__all__ = ["ENDS", "MOST_ADDRESSES", "TOLD_ENDS", "Dump", "Dumps", "Event", "Said", "length"]

#: Makes a tuple of a class with names in a third of the time that the class takes: a hundred
#: thousand nodes may begin to dump in a second.
_made = tuple.__new__

#: Without a message for so many seconds a dump is over. Senders repeat every 10 s.
SILENCE = 30.0

#: Seconds; a node that goes on dumping is told of at most that often.
REPEAT = 10.0

#: Seconds after an end within which the first message of a session may be of the same dump: the
#: call that told of the end may have overtaken it. No machine crashes again so soon.
OVERTAKEN = 5.0


class Said(NamedTuple):
    """A status of a node: in this state, said by the sender of this session."""

    session: int
    state: str
    when: float
    #: How many of the messages that are told of together came until then, itself included.
    messages: int


class _Ended:
    """A dump that is over as its node said, while messages of it may still come."""

    __slots__ = ("dump", "ended_by", "kind", "since", "when")

    def __init__(self, dump: Dump, kind: ToldEnd, when: float, *sessions: int) -> None:
        #: With what was heard since.
        self.dump = dump
        self.kind: ToldEnd = kind
        self.when = when
        #: The sessions that said so.
        self.ended_by = set(sessions)
        #: From when on silence counts at the earliest.
        self.since = dump.last


class Dumps:
    """Who is dumping.

    `silence` (seconds, more than 0): without a message for so long a dump is over.
    `repeat` (seconds, 0 or more): "dumping" is told at most that often for a node; 0 tells
    of every `heard`. ValueError if they are not such. `base`: what the caller's times are ahead
    of CLOCK_MONOTONIC, for the age of what is told; None: that is not known.

    Not to be used by two threads at a time.
    """

    def __init__(
        self, silence: float = SILENCE, repeat: float = REPEAT, base: float | None = None
    ) -> None:
        if not (math.isfinite(silence) and silence > 0):
            raise ValueError(f"silence {silence}: must be a number of seconds above 0")
        if not (math.isfinite(repeat) and repeat >= 0):
            raise ValueError(f"repeat {repeat}: must be a number of seconds, 0 or more")
        self.silence = silence
        self.repeat = repeat
        self.base = base
        # In the order in which they began. A Dump is never changed but replaced, so a
        # snapshot is a list of what is there and copies nothing.
        self._dumps: dict[str, Dump] = {}
        #: When an event of the dump was last returned.
        self._told: dict[str, float] = {}
        #: Of dumps that were restored: from when on silence counts at the earliest.
        self._from: dict[str, float] = {}
        #: The last dumps of nodes that are not dumping, as long as messages of them may come.
        self._ended: dict[str, _Ended] = {}
        self._forgotten: list[str] = []
        #: Asked for what else was heard of a node, before silence of it counts.
        self.ask: Callable[[str], None] | None = None
        self._due = Due()

    def heard(
        self,
        node: str,
        address: str,
        when: float,
        messages: int = 1,
        first: float | None = None,
        port: int = 0,
    ) -> Event | None:
        """Messages of this node were heard, the first of them at `first`, the last at `when`.

        `port` is where the last one came from. Without `first` they came at once. An event if its
        dump began, or if it is time to tell again that it goes on.
        """
        dump = self._dumps.get(node)
        if dump is None:
            since = when if first is None else min(first, when)
            if node in self._ended:
                ended = self._ended[node]
                last = ended.dump.last
                if max(since - last, when - max(since, last)) <= self.silence:
                    ended.dump = self.longer(ended.dump, address, when, messages, port)
                    return None
                if since - last <= self.silence:
                    since = when  # it was silent in between, and nobody looked when
                del self._ended[node]
            heard = 0.0 if self.base is None else when - self.base
            its = (since, when, messages, (address,), when - since, (), port, heard)
            self._begin(_made(Dump, (node, *its)), when)
            return _made(Event, ("began", node, since, *its))
        self._dumps[node] = dump = self.longer(dump, address, when, messages, port)
        if when - self._told[node] < self.repeat:
            return None
        self._told[node] = when
        return Event("dumping", node, when, *dump[1:])

    def told(
        self,
        node: str,
        address: str,
        when: float,
        messages: int,
        first: float,
        said: Iterable[Said],
        port: int = 0,
    ) -> list[Event]:
        """As `heard`, with what statuses among these messages said, in the order of their times."""
        events: list[Event] = []
        done = 0
        for status in said:
            events += self._status(node, address, status, status.messages - done, first, port)
            done, first = status.messages, status.when
        if messages > done:
            event = self.heard(node, address, when, messages - done, first, port)
            events += [event] if event is not None else []
        return events

    def _status(
        self, node: str, address: str, status: Said, messages: int, first: float, port: int
    ) -> list[Event]:
        """So many messages were heard, and the last of them said this."""
        session, state, when, _ = status
        ended = self._ended.get(node)
        if ended is not None:
            if self._is_of(ended, status):
                ended.dump = self.longer(ended.dump, address, when, messages, port, (session,))
                return _contradicted(ended, status)
            del self._ended[node]
            messages, first = 1, when  # all others were still of that one
        event = self.heard(node, address, when, messages, first, port)
        dump = self._dumps[node]
        if session not in dump.sessions:
            self._dumps[node] = dump = self.longer(dump, address, when, 0, port, (session,))
            event = event and event._replace(sessions=dump.sessions)
        told_end = as_told_end(state)
        if told_end is None:
            return [event] if event is not None else []
        self._ended[node] = _Ended(dump, told_end, when, session)
        end = self._end(dump, when, told_end)
        self._look_at(node)  # the end may be forgotten sooner than the dump, if that was restored
        return [event, end] if event is not None and event.kind == "began" else [end]

    def _is_of(self, ended: _Ended, status: Said) -> bool:
        """Whether a status is of the dump that ended, and not of the node's next one."""
        if status.session in ended.dump.sessions:
            return True
        if status.when - ended.dump.last > self.silence:
            return False
        return status.state in TOLD_ENDS or status.when <= ended.when + OVERTAKEN

    def tick(self, now: float, most: int | None = None) -> list[Event]:
        """It is `now`, and all that was heard until then has been told: who fell silent.

        Those silent longest come first. With `most` no more than so many nodes are looked
        at; if others are due as well, `next_due` is not after `now`.
        """
        events: list[Event] = []
        for node in self._due.until(now, most, self._over_for_good):
            if node in self._dumps:
                events.append(self._end(self._dumps[node], now, "silent"))
            elif self._ended.pop(node, None) is not None:
                self._forgotten.append(node)
                self._clear_away()
        return events

    def _over_for_good(self, node: str, asking: bool) -> float:
        """As `over`; if `asking`, with all that can be known."""
        if asking and self.ask is not None:
            self.ask(node)
        return self.over(node)

    def watch(self, node: str, watched: bool) -> None:
        """Whether somebody else will tell `heard` what was heard of this node, and take this back,
        when it falls silent. Until then `tick` does not look after it, which takes a while with
        very many nodes.
        """
        if self._due.watch(node, watched) and self._knows(node):
            self._look_at(node)

    def is_watched(self, node: str) -> bool:
        """Whether somebody else looks after it: see `watch`."""
        return self._due.is_watched(node)

    def forgotten(self) -> list[str]:
        """The nodes whose last dump, which ended as they said, `tick` has forgotten since the last
        call: whatever comes from there begins another one.
        """
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    @property
    def next_due(self) -> float | None:
        """When `tick` wants to be called; None: not before something is heard.

        It may have nothing to tell then: only so is this answered at once, however many
        nodes there are.
        """
        return self._due.first if self._dumps or self._ended else None

    def forget(self, node: str, when: float | None = None) -> Event | None:
        """The node is none of ours any more: "silent" if it was dumping.

        `when` is the time of that event; without it, that of the last message.
        """
        self._due.watch(node, False)
        if self._ended.pop(node, None) is not None:
            self._clear_away()
        dump = self._dumps.get(node)
        if dump is None:
            return None
        return self._end(dump, dump.last if when is None else when, "silent")

    def rename(self, node: str, name: str | None, when: float) -> list[Event]:
        """What was taken for a node of its own is the node `name`; None: it is nobody.

        Its dump is over under the old name ("silent"), and goes on under the new one ("dumping"),
        with the times and messages that it had; if `name` is dumping already, as a part of that.
        """
        self._due.watch(node, False)
        dump, ended = self._dumps.get(node), self._ended.pop(node, None)
        events: list[Event] = []
        if dump is not None:
            since = self._from.get(node)
            events.append(self._end(dump, when, "silent"))
            its = self._ended.get(name) if name is not None else None
            if name in self._dumps:
                self._dumps[name] = merged(self._dumps[name], dump)
            elif its is not None:
                its.dump = merged(its.dump, dump)
            elif name is not None:
                dump = dump._replace(node=name)
                if since is not None:
                    self._from[name] = since
                self._begin(dump, when)
                events.append(Event("dumping", name, when, *dump[1:]))
        elif ended is not None and name is not None and not self._knows(name):
            ended.dump = ended.dump._replace(node=name)
            self._ended[name] = ended
            self._look_at(name)
        self._clear_away()
        return events

    def restore(self, dump: Dump, when: float | None = None) -> None:
        """A dump was under way before a restart, and goes on as if there had been none.

        Its silence counts from `when` on if that is later than its last message, for
        nobody listened meanwhile. ValueError, with nothing changed, if that node is dumping
        already, or if a time is no finite number.
        """
        self.check_new(dump.node)
        check_times(dump, when)
        self._begin(dump._replace(took=length(dump)), dump.last)
        if when is not None:
            self._from[dump.node] = when

    def restore_end(self, dump: Dump, kind: ToldEnd, ended: float, when: float) -> None:
        """A dump was over before a restart, at `ended`, as its node said: "finished" or "failed".

        What belongs to it belongs to it still; its silence counts as in `restore`. ValueError
        as there.
        """
        self.check_new(dump.node)
        check_times(dump, when, ended)
        over = _Ended(dump._replace(took=length(dump)), kind, ended)
        over.since = when
        self._ended[dump.node] = over
        self._look_at(dump.node)

    def check_new(self, node: str) -> None:
        """ValueError if a dump of this node cannot be restored since there is one already."""
        if self._knows(node):
            raise ValueError(f"node {node!r} is dumping already: restore before listening")

    def _knows(self, node: str) -> bool:
        return node in self._dumps or node in self._ended

    def get(self, node: str) -> Dump | None:
        """The dump of this node; None if it is not dumping."""
        return self._dumps.get(node)

    def latest(self, node: str) -> Dump | None:
        """The same; of a dump that ended as its node said, with what was heard since."""
        ended = self._ended.get(node)
        return self._dumps.get(node) if ended is None else ended.dump

    def snapshot(self) -> list[Dump]:
        """All dumps under way, in the order in which they began."""
        return list(self._dumps.values())

    def __contains__(self, node: object) -> bool:
        """Whether this node is dumping."""
        return node in self._dumps

    def __len__(self) -> int:
        """How many nodes are dumping."""
        return len(self._dumps)

    def longer(
        self,
        dump: Dump,
        address: str,
        when: float,
        messages: int,
        port: int,
        said: tuple[int, ...] = (),
    ) -> Dump:
        """A dump with so many messages more, the last of them at `when`, of these sessions."""
        return longer(dump, self.base, address, when, messages, port, said)

    def _begin(self, dump: Dump, told: float) -> None:
        node = dump.node
        self._dumps[node] = dump
        self._told[node] = told
        self._due.put(node, dump.last + self.silence)  # if that is too early, `tick` asks `over`

    def _look_at(self, node: str) -> None:
        """See to it that `tick` looks at the node in time."""
        self._due.put(node, self.over(node))

    def _end(self, dump: Dump, when: float, kind: Kind) -> Event:
        del self._dumps[dump.node]
        del self._told[dump.node]
        self._from.pop(dump.node, None)
        self._clear_away()
        return Event(kind, dump.node, when, *dump[1:])

    def _clear_away(self) -> None:
        """Leave nothing of what was forgotten, when there is nothing for which anybody comes."""
        if not self._dumps and not self._ended:
            self._due.clear()

    def over(self, node: str) -> float:
        """When there is nothing to be known of it any more if nothing more is heard."""
        dump = self._dumps.get(node)
        if dump is not None:
            return max(dump.last, self._from.get(node, dump.last)) + self.silence
        ended = self._ended.get(node)
        return -math.inf if ended is None else max(ended.dump.last, ended.since) + self.silence


def _contradicted(ended: _Ended, status: Said) -> list[Event]:
    """The event if this status, which is counted, is an end that takes the place of the first one.

    Each session can do so once, and no more sessions than are kept: else one sender could
    make up any number of events.
    """
    end = as_told_end(status.state)
    if end is None or status.session in ended.ended_by or len(ended.ended_by) >= MOST_SESSIONS:
        return []
    ended.ended_by.add(status.session)
    if end == ended.kind or status.when < ended.when:
        return []
    ended.kind, ended.when = end, status.when
    return [Event(end, ended.dump.node, status.when, *ended.dump[1:])]

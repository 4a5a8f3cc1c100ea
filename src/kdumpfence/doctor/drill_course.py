# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happened in a drill: the node's crash, as those saw it who watched, and who fenced the node.

A plain object without sockets, programs or clocks: it is told what was seen, in any order and more
than once, and answers with what is new. Everything that decides over a drill must live here.

The rules:

- Pacemaker's history says that a node was fenced, and not by which device. Only the log of the node
  that leads (the DC) says which devices were asked, in their order; what came of each is in the log
  of the node that ran its agent.
- So a device that nobody has heard an answer of said no if Pacemaker went on to another level, yes
  if it went on to the next device of the same level, or if the node was fenced then.
- Where no log says anything, a node that sends messages after it was fenced shows that its power
  was not cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kdumpfence.doctor.cluster import joined

# Kinds of events, in the order in which they are expected.
HEARD = "heard"  #: the first message of a grade; `text` is the grade, `where` the address
LEFT = "left"  #: Pacemaker took the node for lost
REQUESTED = "requested"  #: fencing was requested; `text` is the action
ASKED = "asked"  #: a device was asked; `where` is the node that runs its agent
YES, NO = "yes", "no"  #: the device's answer; `text` says why, if that is known
FENCED, FAILED = "fenced", "fencing failed"  #: `where` is the node that did it last
MOVED = "moved"  #: what ran on the node runs elsewhere
SENDING = "still sending"  #: a message came after the fencing: the power is on
DUMPED = "dump"  #: the node said that its dump is over; `text`: "finished" or "failed"
BACK = "back"  #: the node takes part again

#: Seconds after a fencing, from which on a message was not on its way before.
_AFTER = 1.0


class Event(NamedTuple):
    """Something that was seen. `when` is Unix time."""

    kind: str
    when: float
    where: str = ""
    device: str = ""
    text: str = ""


# How a drill ended.
BY_KDUMP, BY_POWER, NOT_FENCED, UNKNOWN = "kdump", "power", "not fenced", "unknown"

#: The exit status for each.
EXIT_STATUS = {BY_KDUMP: 0, BY_POWER: 1, NOT_FENCED: 1, UNKNOWN: 2}


class Verdict(NamedTuple):
    """How it ended, and why that is known, or what is not."""

    how: str
    text: str


class _Attempt:
    """A device that was asked, and what it said; None: not known yet."""

    def __init__(self, device: str, said: bool | None = None) -> None:
        self.device = device
        self.said = said


class Course:
    """One drill.

    `levels`: the names of the devices of each of the node's fencing levels, the first one first;
    `kdump`: those that cut nothing.
    """

    def __init__(self, levels: Sequence[Sequence[str]], kdump: Iterable[str]) -> None:
        self._levels = levels
        self._kdump = set(kdump)
        self._attempts: list[_Attempt] = []
        self._requested = False  # and not over yet
        self._ended = 0.0  # when the last fencing was over
        self._once: set[tuple[str, str]] = set()
        self._heard = 0.0  # when first; 0: never
        self._fenced: float | None = None
        self._sent_after = 0.0  # seconds; 0: nothing was
        #: All that was new, in the order in which it became known.
        self.events: list[Event] = []

    @property
    def began(self) -> float | None:
        """When the crash was first noticed; None: it was not."""
        return min((one.when for one in self.events), default=None)

    @property
    def in_order(self) -> list[Event]:
        """All that was new, by its time."""
        return sorted(self.events, key=lambda one: one.when)

    @property
    def over(self) -> bool:
        """Whether nothing more is to be expected: the node was fenced, and is back."""
        return self._fenced is not None and any(one.kind == BACK for one in self.events)

    def take(self, seen: Event) -> list[Event]:
        """Something was seen; what of it is new."""
        new = list(self._news(seen))
        self.events += new
        return new

    def _news(self, seen: Event) -> Iterable[Event]:
        if seen.kind == HEARD:
            return self._message(seen)
        if seen.kind == REQUESTED:
            if self._requested or seen.when <= self._ended:
                return []
            self._requested = True
            return [seen]
        if seen.kind == ASKED:
            self._requested = True
            news = self._answered(self._went_on(seen.device), seen)
            self._attempts.append(_Attempt(seen.device))
            return [*news, seen]
        if seen.kind in (YES, NO):
            return self._answer(seen)
        if seen.kind in (FENCED, FAILED):
            news = self._answered(seen.kind == FENCED, seen)
            self._requested, self._ended = False, seen.when
            if seen.kind == FENCED and self._fenced is None:
                self._fenced = seen.when
            return [*news, seen]
        if seen.kind == BACK and not any(one.kind == LEFT for one in self.events):
            return []
        return self._first(seen)

    def _first(self, seen: Event) -> list[Event]:
        """Each only once."""
        key = (seen.kind, seen.text)
        if key in self._once:
            return []
        self._once.add(key)
        return [seen]

    def _message(self, seen: Event) -> list[Event]:
        self._heard = self._heard or seen.when
        news = self._first(seen)
        if self._fenced is not None and seen.when - self._fenced > _AFTER:
            self._sent_after = max(self._sent_after, seen.when - self._fenced)
            news += self._first(seen._replace(kind=SENDING, text=""))
        return news

    def _open(self) -> _Attempt | None:
        """The device that has not answered yet."""
        last = self._attempts[-1] if self._attempts else None
        return last if last is not None and last.said is None else None

    def _went_on(self, device: str) -> bool:
        """What the device that was asked before must have said if this one is asked now."""
        last = self._open()
        return last is not None and any(
            pair == (last.device, device)
            for level in self._levels
            for pair in zip(level, level[1:])
        )

    def _answered(self, said: bool, by: Event) -> list[Event]:
        """The device that was asked last said this, as what came then shows."""
        last = self._open()
        if last is None:
            return []
        last.said = said
        return [Event(YES if said else NO, by.when, "", last.device)]

    def _answer(self, seen: Event) -> list[Event]:
        said = seen.kind == YES
        for one in reversed(self._attempts):
            if one.device == seen.device and one.said in (None, said):
                if one.said is not None:
                    return []
                one.said = said
                return [seen]
        self._attempts.append(_Attempt(seen.device, said))
        return [seen]

    # ------------------------------------------------------------------ the verdict

    def verdict(self, timed_out: bool = False) -> Verdict:
        """How it ended. `timed_out`: it was watched for as long as was allowed."""
        found = self._verdict(timed_out)
        if timed_out and self._fenced is not None and not self.over:
            return found._replace(text=f"{found.text}; not back in this time")
        return found

    def _verdict(self, timed_out: bool) -> Verdict:
        yes = list(dict.fromkeys(one.device for one in self._attempts if one.said))
        no = list(dict.fromkeys(one.device for one in self._attempts if one.said is False))
        cut = [one for one in yes if one not in self._kdump]
        asked = [one for one in yes if one in self._kdump]
        if cut and asked:
            return Verdict(BY_POWER, f"{joined(asked)} said yes, and yet {joined(cut)} was used")
        if cut:
            before = [one for one in no if one in self._kdump]
            why = f" after {joined(before)} said no" if before else ", and kdump was not asked"
            heard = "" if self._heard else "; no message was heard here"
            return Verdict(BY_POWER, f"fenced by {joined(cut)}{why}{heard}")
        if self._fenced is not None:
            return self._fenced_by(asked, [one for one in no if one in self._kdump])
        if any(one.kind == FAILED for one in self.events):
            return Verdict(NOT_FENCED, "fencing failed")
        if not self.events:
            return Verdict(UNKNOWN, "nothing happened: no crash was seen")
        if timed_out:
            return Verdict(NOT_FENCED, "not fenced in this time")
        return Verdict(UNKNOWN, "broken off before the node was fenced")

    def _fenced_by(self, asked: list[str], refused: list[str]) -> Verdict:
        """The node was fenced, and no log here says that anything but these answered."""
        assert self._fenced is not None
        sent = (
            f"; it still sent messages {self._sent_after:.0f} s later" if self._sent_after else ""
        )
        if asked:
            return Verdict(BY_KDUMP, f"fenced by {joined(asked)}, and no power was cut{sent}")
        if refused and not sent:
            return Verdict(BY_POWER, f"{joined(refused)} said no, and another device fenced it")
        if sent and not refused and self._heard and self._heard <= self._fenced:
            return Verdict(BY_KDUMP, f"fenced, and no power was cut{sent}")
        return Verdict(
            UNKNOWN, "fenced, and which device did it is in no log of this node: see that of the DC"
        )

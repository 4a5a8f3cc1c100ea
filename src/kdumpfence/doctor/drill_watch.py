# SPDX-License-Identifier: LGPL-2.1-or-later
"""Watches a node that is to be crashed, until it is back: everything around `drill_course`.

It only reads and listens. What cannot be looked at any more is told once, and the rest goes on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable

from kdumpfence.doctor.drill import Refused, Target
from kdumpfence.doctor.drill_course import Course, Event
from kdumpfence.doctor.drill_messages import Messages
from kdumpfence.doctor.drill_pacemaker import Pacemaker
from kdumpfence.doctor.finding import Unknown
from kdumpfence.doctor.machine import Machine

#: Seconds between two looks at Pacemaker, and at its log.
_EVERY = 1.0
_SLICE = 0.25

#: Seconds for which Pacemaker may answer nothing before that is told: it may elect a new DC.
_PATIENCE = 30.0


class Watch:
    """One drill that is watched.

    Raises Unknown if this machine can watch nothing, Refused if the node is not there to be
    crashed. `tell` gets each event when it is new, `complain` each thing that cannot be looked at.
    """

    def __init__(
        self,
        machine: Machine,
        its: Target,
        tell: Callable[[Event], None],
        complain: Callable[[str], None],
    ) -> None:
        if not machine.runs:
            raise Unknown("only a running system can watch; the steps are those of its files")
        self.course = Course(
            its.device_names, [one.name for one in its.its.devices.values() if one.is_kdump]
        )
        self._tell, self._complain = tell, complain
        self._pacemaker = Pacemaker(machine, its.node)
        self._messages: Messages | None = None
        if not self._pacemaker.online:
            self._pacemaker.close()
            raise Refused(f"{its.node} is not online: there is nothing to crash")
        if self._pacemaker.deaf:
            complain(f"which device fences it will not be known: {self._pacemaker.deaf}")
        try:
            self._messages = Messages(machine, its)
        except Unknown as error:
            complain(f"its messages are not heard: {error}")
        self._answered = time.monotonic()

    def run(self, seconds: float) -> bool:
        """Watch until the node was fenced and is back; False if it took longer than that."""
        end = time.monotonic() + seconds
        due = 0.0
        while not self.course.over:
            now = time.monotonic()
            if now >= end:
                return False
            self.look(due <= now)
            due = time.monotonic() + _EVERY if due <= now else due
            self._wait(max(0.0, min(_SLICE, end - time.monotonic())))
        return True

    def look(self, at_all: bool = True) -> None:
        """Take what is new; `at_all`: ask Pacemaker's programs too."""
        if self._messages is not None:
            self._take(self._messages.heard())
        try:
            self._take(self._pacemaker.look() if at_all else self._pacemaker.log())
        except Unknown as error:
            self._take(self._pacemaker.log())
            if time.monotonic() - self._answered > _PATIENCE:
                self._answered = float("inf")  # once is enough
                self._complain(f"Pacemaker cannot be asked: {error}")
        else:
            if at_all:
                self._answered = max(self._answered, time.monotonic())

    def _take(self, seen: Iterable[Event]) -> None:
        for one in seen:
            for new in self.course.take(one):
                self._tell(new)

    def _wait(self, seconds: float) -> None:
        if self._messages is not None:
            self._messages.wait(seconds)
        else:
            time.sleep(seconds)

    def close(self) -> None:
        """End it, whatever was seen."""
        with contextlib.suppress(OSError):
            self._pacemaker.close()
        if self._messages is not None:
            self._messages.close()

    @property
    def strangers(self) -> list[str]:
        """Addresses of which messages came that are not known as the node's."""
        return [] if self._messages is None else self._messages.strangers

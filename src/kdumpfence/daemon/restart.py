# SPDX-License-Identifier: LGPL-2.1-or-later
"""What outlives the daemon: dumps that were under way go on when it starts again.

What may not be in this file: how the history keeps them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from kdumpfence.daemon.log import Journal
from kdumpfence.daemon.told import Told
from kdumpfence.listener.events import Dump, Event, checked
from kdumpfence.listener.listener import Listener


def restore(
    dumps: list[Dump], over: Iterable[Event], listener: Listener, told: Told, journal: Journal
) -> list[Event]:
    """What was under way before the restart goes on; the ends of what does not.

    That of a node which is none of ours any more is over: nobody listens for it. So is one
    whose times contradict each other, of a file that knows no better. `over`: the ends that nodes
    told of their last dumps.
    """
    under_way = {dump.node for dump in dumps}
    ends = [event for event in over if event.node not in under_way]

    def ours(dump: Dump) -> bool:
        try:
            checked(dump)
        except ValueError:
            return False
        return listener.listens_for(dump.node)

    kept, gone = [], []  # type: list[Dump], list[Dump]
    for dump in dumps:
        (kept if ours(dump) else gone).append(dump)
    listener.restore(
        kept,
        [event for event in ends if ours(Dump(event.node, *event[3:]))],
    )
    for event in ends:
        told.tell(event)
    for dump in dumps:
        event = Event("dumping", dump.node, dump.last, *dump[1:])
        told.tell(event)
        journal.event(event, kind="restored")
    now = time.time()
    return [Event("silent", dump.node, now, *dump[1:]) for dump in gone]


def unwritten(listener: Listener, told: Told) -> list[Event]:
    """Where the dumps are that were told of, if that is further than the history has it.

    While one goes on it is written every `repeat` seconds only. If the node is not heard
    again after a restart, its dump would end too early by as much.
    """
    now = listener.snapshot()
    events = []
    for dump in now.dumps:
        last = told.get(dump.node)
        if last is not None and last.since == dump.since and last.last < dump.last:
            events.append(Event("dumping", dump.node, now.when, *dump[1:]))
    return events

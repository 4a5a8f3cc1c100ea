# SPDX-License-Identifier: LGPL-2.1-or-later
"""What has changed at kdumpfenced since the last look, in lines: for `watch` without a screen.

What may not be in this file: asking again and again, and the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kdumpfence.cli.status import counts, headings, how_it_ended
from kdumpfence.cli.tables import joined, plural, stamp
from kdumpfence.client import Client, Status
from kdumpfence.daemon.timeout_advice import duration
from kdumpfence.listener.events import ENDS, Dump, Event, length
from kdumpfence.text import one_line


class Changes:
    """Tells two looks apart: a line for each change.

    Beginnings and ends come from the daemon's own list of them, so none is left out that came and
    went between two looks. A daemon of an older version does not have one: then two looks at its
    newest dumps are compared.
    """

    def __init__(self) -> None:
        self._dumps: dict[tuple[str, float], Dump] = {}
        #: Where that list goes on.
        self._life = ""
        self._last = 0
        #: How those ended that are known to be over; None: nothing is known yet.
        self._ended: dict[tuple[str, float], str] | None = None
        self._counts: dict[str, int] | None = None
        self._trouble: str | None = None
        self._troubles: tuple[str, ...] = ()
        self._dumping = 0
        self._whole = True

    def lost(self, trouble: str) -> list[str]:
        """There is no status, and why."""
        if trouble == self._trouble:
            return []
        self._trouble = trouble
        self._counts = None
        return [one_line(trouble)]

    def follow(self, client: Client) -> Iterator[str]:
        """What began and ended since the last time. Refused if the daemon has no such list."""
        begun = client.follow()
        if begun.life != self._life:
            yield from self._start(client)
            self._life, self._last = begun.life, begun.last
        while True:
            found = client.follow(self._last)
            self._last = found.last
            if found.missed:
                yield f"{found.missed:,} beginnings and ends were too many to be shown"
            for event in found.events:
                line = self._happened(event)
                if line:
                    yield line
            if not found.events:
                return

    def _start(self, client: Client) -> Iterator[str]:
        """Another daemon than before, or the first one: what is under way there."""
        before, self._dumps = self._dumps, {}
        for dump in client.dumps():
            self._dumps[dump.node, dump.since] = dump
            if (dump.node, dump.since) not in before:
                yield _began(dump)
        yield from (_vanished(dump) for key, dump in before.items() if key not in self._dumps)

    def _happened(self, event: Event) -> str:
        """A line, if this is news."""
        key = (event.node, event.since)
        if event.kind in ENDS:
            self._dumps.pop(key, None)
            return (
                f"{one_line(event.node)} {how_it_ended(event)}; "
                f"heard {plural(event.messages, 'message')}"
            )
        known = key in self._dumps
        self._dumps[key] = dump = Dump(event.node, *event[3:])
        return "" if known else _began(dump)

    def seen(self, found: Status, followed: bool = False) -> list[str]:
        """There is one; what is new in it, but for dumps if these are `followed`."""
        lines = []
        if self._trouble is not None:
            lines.append("the daemon answers again")
        if self._trouble is not None or self._counts is None:
            lines += headings(found)[:1]
        self._trouble = None
        troubles = tuple(found.troubles)
        lines += [f"trouble: {one_line(text)}" for text in troubles if text not in self._troubles]
        lines += [f"over: {one_line(text)}" for text in self._troubles if text not in troubles]
        self._troubles = troubles
        if not followed:
            lines += self._dumps_changed(found)
        lines += self._rejected(found.counts)
        return lines

    def _dumps_changed(self, found: Status) -> list[str]:
        lines = []
        now = {(dump.node, dump.since): dump for dump in found.dumps}
        whole = found.dumping <= len(found.dumps)
        # Of more dumps than an answer holds only the newest are known.
        oldest = 0.0 if whole else min((dump.since for dump in found.dumps), default=0.0)
        before, self._ended = (
            self._ended,
            {(event.node, event.since): event.kind for event in found.ended},
        )
        for event in reversed(found.ended):
            known = None if before is None else before.get((event.node, event.since))
            if before is not None and known != event.kind:
                lines.append(
                    f"{one_line(event.node)} {how_it_ended(event)}; "
                    f"heard {plural(event.messages, 'message')}"
                )
        for key, dump in self._dumps.items():
            if key not in now and key not in self._ended and dump.since >= oldest:
                lines.append(_vanished(dump))
        for key, dump in reversed(now.items()):
            if key not in self._dumps:
                lines.append(_began(dump))
        if (not whole and found.dumping != self._dumping) or whole != self._whole:
            told = "" if whole else f"; showing the newest {len(now):,}"
            lines.append(f"{plural(found.dumping, 'node')} dumping{told}")
        self._dumps, self._dumping, self._whole = now, found.dumping, whole
        return lines

    def _rejected(self, found: Mapping[str, int]) -> list[str]:
        before, self._counts = self._counts, dict(found)
        if before is None:
            return []
        new = {
            name: number - before.get(name, 0)
            for name, number in found.items()
            if name != "accepted" and number > before.get(name, 0)
        }
        return [f"datagrams not counted as messages: {counts(new)}"] if new else []


def _began(dump: Dump) -> str:
    return (
        f"{one_line(dump.node)} has been dumping since {stamp(dump.since)}, "
        f"from {joined(dump.addresses)}"
    )


def _vanished(dump: Dump) -> str:
    """It is over, and the daemon does not say how."""
    return (
        f"{one_line(dump.node)} fell silent, {duration(length(dump))} after "
        f"its first message; heard {plural(dump.messages, 'message')} or more"
    )

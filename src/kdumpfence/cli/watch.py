# SPDX-License-Identifier: GPL-2.0-or-later
"""kdumpfence watch: what kdumpfenced knows, live, until the user ends it.

On a terminal, with rich, the whole screen; else a line for each change.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from kdumpfence import signals
from kdumpfence.cli.status import (
    HEADS,
    add_socket,
    counts,
    endings,
    headings,
    how_it_ended,
    row,
)
from kdumpfence.cli.tables import joined, make_console, plural, rich_lines, stamp
from kdumpfence.daemon.status_client import PATH, Client, ControlError, Status
from kdumpfence.daemon.timeout_advice import duration
from kdumpfence.listener.dumps import Dump, length
from kdumpfence.text import one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

HELP = "the same, live; q or Ctrl-C quits"

#: Seconds between two questions.
_PERIOD = 1.0

add_arguments = add_socket


def run(given: argparse.Namespace) -> int:
    """Show the daemon's status until the user ends it."""
    signals.install()
    looker = _Looker(given.socket or PATH)
    console = make_console()
    try:
        if console is not None and not console.is_dumb_terminal:
            _live(console, looker)
        else:
            _lines(looker)
    except signals.Ended as ended:
        # Ctrl-C is how one leaves it; what else ends it wants to know that it did.
        return 0 if str(ended) == "SIGINT" else 128 + ended.number
    finally:
        looker.close()
    return 0


class _Looker:
    """Asks the daemon, again and again, also when it comes and goes; keeps its last answer."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.last: Status | None = None
        self.heard = 0.0  # when it came, by time.monotonic()
        self.rates: dict[str, float] = {}
        self.trouble = ""
        self._client: Client | None = None
        self._before: Status | None = None

    def look(self) -> Status | None:
        """The daemon's status now; None if there is none, and `trouble` says why."""
        try:
            if self._client is None:
                self._client = Client(self.path)
            found = self._client.status()
        except ControlError as error:
            self.close()
            self._before = None
            self.trouble = str(error)
            return None
        if self._before is None or found.up != self._before.up:  # else it is the same one again
            self.rates = rates(self._before, found)
            self._before = found
        self.last, self.heard, self.trouble = found, time.monotonic(), ""
        return found

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def rates(before: Status | None, now: Status) -> dict[str, float]:
    """Datagrams a second between two looks; none if the daemon was started anew meanwhile."""
    if before is None or now.up <= before.up:
        return {}
    gap = now.up - before.up
    return {
        name: max(0, number - before.counts.get(name, 0)) / gap
        for name, number in now.counts.items()
    }


class Changes:
    """Tells two looks apart: a line for each change."""

    def __init__(self) -> None:
        self._dumps: dict[tuple[str, float], Dump] = {}
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

    def seen(self, found: Status) -> list[str]:
        """There is one; what is new in it."""
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
                lines.append(  # a daemon that does not say how
                    f"{one_line(dump.node)} fell silent, {duration(length(dump))} after "
                    f"its first message; heard {plural(dump.messages, 'message')} or more"
                )
        for key, dump in reversed(now.items()):
            if key not in self._dumps:
                lines.append(
                    f"{one_line(dump.node)} has been dumping since {stamp(dump.since)}, "
                    f"from {joined(dump.addresses)}"
                )
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


def _lines(looker: _Looker) -> None:
    """A line for each change, until a signal ends it."""
    changes = Changes()
    while True:
        found = looker.look()
        news = changes.lost(looker.trouble) if found is None else changes.seen(found)
        for line in news:
            print(f"{stamp(time.time())} {line}")
        if news:
            sys.stdout.flush()
        time.sleep(_PERIOD)


def _live(console: Console, looker: _Looker) -> None:
    """The whole screen, until a signal or the key q ends it."""
    from rich.live import Live

    with _keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            begun = time.monotonic()
            looker.look()
            live.update(_screen(console, looker), refresh=True)
            if _quits(keys, begun + _PERIOD):
                return


def _screen(console: Console, looker: _Looker) -> RenderableType:
    """All that is on the screen: not a line more than it is high."""
    from rich.console import Group
    from rich.text import Text

    def line(text: str, style: str = "") -> Text:
        return Text(text, style, no_wrap=True, overflow="ellipsis", end="\n")

    found, age = looker.last, time.monotonic() - looker.heard
    above = []
    if looker.trouble:
        state = "" if found is None else f"no answer; showing the state of {duration(age)} ago, "
        above += [line(text, "bold red") for text in _wrapped(one_line(looker.trouble), console)]
        above.append(line(f"{state}asking every second"))
    below = [line("q quits", "dim")]
    if found is None:
        return Group(*above, *below)
    now = found._replace(age=found.age + age)
    head, *rest = headings(now if looker.trouble else found)
    above.append(line(head, "bold"))
    above += [line(text, "yellow") for text in rest[:-1]]
    above.append(line(rest[-1], "bold" if found.dumping else ""))
    datagrams = f"datagrams: {counts(found.counts, looker.rates)}"
    # It may be long, and each part of it counts.
    below = [*(line(text) for text in _wrapped(datagrams, console)), *below]
    room = console.height - len(above) - len(below)
    shown: Sequence[Dump] = found.dumps
    if len(shown) + 1 > room or found.dumping > len(shown):
        shown = shown[: max(0, room - 2)]
        below.insert(0, line(f"and {found.dumping - len(shown):,} more"))
    middle: list[RenderableType] = []
    if shown:
        middle += rich_lines(HEADS, [row(dump, now) for dump in shown])
    room = console.height - len(above) - len(middle) - len(below)
    middle += [line(text, "dim") for text in endings(now)[: max(0, room)]]
    return Group(*[*above, *middle, *below][: max(1, console.height)])


def _wrapped(text: str, console: Console) -> list[str]:
    """A few lines, as wide as the screen."""
    return textwrap.wrap(text, max(20, console.width - 1))[:4]


@contextlib.contextmanager
def _keys() -> Iterator[int | None]:
    """The terminal's keys as they are pressed; afterwards it is as before. None: no terminal."""
    import termios

    try:
        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd)
    except (AttributeError, ValueError, OSError, termios.error):
        yield None
        return
    keys = termios.tcgetattr(fd)
    keys[3] &= ~(termios.ICANON | termios.ECHO)
    keys[6][termios.VMIN], keys[6][termios.VTIME] = 1, 0
    # Ctrl-Z would leave the shell with this screen.
    keys[6][termios.VSUSP] = b"\0"
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, keys)
        yield fd
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _quits(keys: int | None, until: float) -> bool:
    """Wait until then (CLOCK_MONOTONIC); whether the user wants to leave."""
    poller = select.poll()
    if keys is not None:
        poller.register(keys, select.POLLIN)
    while True:
        left = until - time.monotonic()
        if left <= 0:
            return False
        if poller.poll(left * 1000) and keys is not None:
            pressed = os.read(keys, 100)
            if not pressed or b"q" in pressed.lower():
                return True

# SPDX-License-Identifier: LGPL-2.1-or-later
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
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from kdumpfence import signals
from kdumpfence.cli.changes import Changes
from kdumpfence.cli.memory import add_database, watch
from kdumpfence.cli.status import HEADS, add_socket, asks_database, counts, endings, headings, row
from kdumpfence.cli.tables import make_console, rich_lines, stamp
from kdumpfence.client import PATH, Client, ClientError, Refused, Status
from kdumpfence.daemon.timeout_advice import duration
from kdumpfence.listener.events import Dump
from kdumpfence.text import one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

HELP = "the same, live; q or Ctrl-C quits"

#: Seconds between two questions.
_PERIOD = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_socket(parser)
    add_database(parser)


def run(given: argparse.Namespace) -> int:
    """Show the daemon's status until the user ends it."""
    by_database = asks_database(given)
    signals.install()
    if by_database:
        try:
            return watch(given.database)
        except signals.Ended as ended:
            return 0 if str(ended) == "SIGINT" else 128 + ended.number
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
        except ClientError as error:
            self.close()
            self._before = None
            self.trouble = str(error)
            return None
        if self._before is None or found.up != self._before.up:  # else it is the same one again
            self.rates = rates(self._before, found)
            self._before = found
        self.last, self.heard, self.trouble = found, time.monotonic(), ""
        return found

    def follow(self, changes: Changes) -> Iterator[str]:
        """What `changes` makes of the daemon's list of what began and ended; raises as that."""
        try:
            if self._client is None:
                self._client = Client(self.path)
            yield from changes.follow(self._client)
        except ClientError:
            self.close()
            raise

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


def _lines(looker: _Looker) -> None:
    """A line for each change, until a signal ends it."""
    changes = Changes()
    followed = True
    while True:
        found = looker.look()
        news: Iterable[str]
        if found is None:
            news, followed = changes.lost(looker.trouble), True  # it may be another one next time
        else:
            news = changes.seen(found, followed)
        _print(news)
        if found is not None and followed:
            try:
                _print(looker.follow(changes))
            except Refused:
                followed = False
            except ClientError:
                pass  # it is said when it is asked the next time
        time.sleep(_PERIOD)


def _print(lines: Iterable[str]) -> None:
    try:
        for line in lines:
            print(f"{stamp(time.time())} {line}")
    finally:
        sys.stdout.flush()


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

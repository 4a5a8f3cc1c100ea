# SPDX-License-Identifier: GPL-2.0-or-later
"""kdumpfence status, watch and history: what kdumpfenced knows, for people and for programs.

What is shown and how must live here, in this file, and nothing else: the figures come from
control.py, history.py and timeouts.py. rich draws where it is installed and where there is a
terminal; without it everything is plain text. Whatever is printed, names above all, may hold
anything, so it is escaped for the terminal, and never taken for rich's markup.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kdumpfence import signals
from kdumpfence.cli import timeout_advice
from kdumpfence.cli.timeout_advice import duration, rounded_up
from kdumpfence.daemon.history import History, Past
from kdumpfence.daemon.status_client import MOST, Client, ControlError, Status, as_object
from kdumpfence.listener.dumps import Dump, length
from kdumpfence.text import one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

#: Dumps that a table for people shows if nothing else is asked for.
SHOWN = 100

#: Nodes in the table of `history` that has one line a node.
_NODES = 20

#: Dumps that the figures of `history` are made of, at most.
_FIGURES = 100_000

#: Seconds between two looks of `watch`.
_PERIOD = 1.0

#: Seconds; figures of the daemon that are older than that are said to be.
_STALE = 10.0

#: Columns of the longest bar, and of a line of prose.
_BAR = 30
_PROSE = 78

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_FORMS = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S")


class WindowError(Exception):
    """What was asked for makes no sense; the text is one line for people."""


def status(path: str, most: int = SHOWN, as_json: bool = False) -> None:
    """Print what the daemon at that socket says. Raises ControlError if none does."""
    with Client(path) as client:
        found = client.status(min(most, MOST))
    if as_json:
        print(json.dumps({**as_object(found), "age": found.age}))
        return
    console = _console()
    for line in _headings(found):
        print(line)
    if found.dumps:
        _print_table(console, _HEADS, [_row(dump, found) for dump in found.dumps])
    left = found.dumping - len(found.dumps)
    if left > 0:
        print(f"and {left:,} more")
    print(f"datagrams: {_counts(found.counts)}")


def history(
    path: str,
    node: str | None = None,
    since: str | None = None,
    most: int = SHOWN,
    pause: float = timeout_advice.PAUSE,
    as_json: bool = False,
) -> None:
    """Print past dumps, and what they say about time-outs.

    `since` as the user gave it; `pause` is the senders', in seconds. Raises HistoryError if
    the file at `path` cannot be read, WindowError if `since` is no time.
    """
    start = None if since is None else moment(since, time.time())
    with History(path, writable=False) as opened:
        # One more, to know whether there are others; and closed before the first line is
        # printed: a pager that stands still must not hold the daemon's file.
        found = opened.past(node, start, max(most, _FIGURES) + 1)
    more = len(found) > max(most, _FIGURES)
    found = found[: max(most, _FIGURES)]
    if as_json:
        print(json.dumps(_history_object(found, most, more, pause)))
        return
    if not found:
        print("no dump" + ("" if node is None else f" of {one_line(node)}") + _since(start))
        return
    console = _console()
    _print_dumps(console, found[:most])
    if len(found) > most:
        print(f"and {len(found) - most:,}{' or more' if more else ''} older ones (--most)")
    print()
    _print_figures(console, found, more, pause)
    for paragraph in timeout_advice.lesson(found, pause):
        print()
        print(textwrap.fill(paragraph, min(_PROSE, _width())))


def watch(path: str) -> int:
    """Show the daemon's status live until the user ends it; return the exit status.

    On a terminal, with rich, the whole screen; else a line for each change.
    """
    signals.install()
    looker = _Looker(path)
    console = _console()
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


def moment(text: str, now: float) -> float:
    """A time as people write it, as Unix time: a date, a date with a time, or how long ago."""
    ago = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    if ago is not None:
        return now - int(ago[1]) * _UNITS[ago[2]]
    for form in _FORMS:
        with contextlib.suppress(ValueError, OverflowError):
            return time.mktime(time.strptime(text, form))
    raise WindowError(
        f"--since {text!r}: neither a time (2026-11-20, '2026-11-20 03:00') nor how long ago "
        "(90m, 24h, 7d)"
    )


# --- what is said of a status ---------------------------------------------------------------

_HEADS = ("NODE", "SINCE", "LASTS", "LAST MESSAGE", "MESSAGES", "FROM")
_RIGHT = {"LASTS", "LAST MESSAGE", "MESSAGES", "TOOK", "DUMPS", "LONGEST", "95 OF 100", "POWER"}


def _row(dump: Dump, found: Status) -> tuple[str, ...]:
    now = found.when + found.age
    return (
        one_line(dump.node),
        _stamp(dump.since),
        duration(length(dump) + max(0.0, now - dump.last)),
        f"{duration(max(0.0, now - dump.last))} ago",
        f"{dump.messages:,}",
        _from(dump.addresses),
    )


def _headings(found: Status) -> list[str]:
    """What stands above the table of who is dumping."""
    head = (
        f"kdumpfenced {one_line(found.version)}, up for {duration(found.up)}; "
        f"knows {_number(found.nodes, 'node')}"
    )
    lines = [head]
    if found.unresolved:
        names = ", ".join(one_line(name) for name in found.unresolved[:5])
        number = max(found.unresolved_nodes, len(found.unresolved))
        rest = f" and {number - 5:,} more" if number > 5 else ""
        lines.append(f"nodes with a name that has no address, so not heard by it: {names}{rest}")
    lines += [f"trouble: {one_line(text)}" for text in found.troubles]
    if found.age > _STALE:
        lines.append(f"these figures are {duration(found.age)} old: the daemon is stuck")
    if found.dumping:
        verb = "is" if found.dumping == 1 else "are"
        lines.append(f"{_number(found.dumping, 'node')} {verb} dumping")
    else:
        lines.append("no node is dumping")
    return lines


def _counts(counts: Mapping[str, int], rates: Mapping[str, float] | None = None) -> str:
    """Datagrams by what became of them, with those of each second."""
    parts = []
    for name in sorted(counts, key=lambda name: (name != "accepted", name)):
        part = f"{counts[name]:,} {one_line(name)}"
        if rates is not None and rates.get(name):
            part += f" (+{rates[name]:,.0f}/s)"
        if counts[name] or name == "accepted":
            parts.append(part)
    return ", ".join(parts) or "none"


def _number(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _from(addresses: Sequence[str]) -> str:
    return " ".join(one_line(address) for address in addresses)


def _stamp(when: float) -> str:
    """Local time; a time that no calendar has stands as its number."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    except (ValueError, OverflowError, OSError):
        return f"{when:.0f}"


# --- history --------------------------------------------------------------------------------


def _since(start: float | None) -> str:
    return "" if start is None else f" since {_stamp(start)}"


def _print_dumps(console: Console | None, dumps: Sequence[Past]) -> None:
    """One line a dump, with a bar as long as it took."""
    longest = max(length(dump) for dump in dumps) or 1.0
    rows = [
        (
            one_line(dump.node),
            _stamp(dump.since),
            ("" if dump.ended is not None else "> ") + duration(length(dump)),
            f"{dump.messages:,}",
            _from(dump.addresses),
        )
        for dump in dumps
    ]
    heads = ("NODE", "BEGAN", "TOOK", "MESSAGES", "FROM")
    # The bars get what the others leave, but for an address of IPv4.
    others = sum(len(cell) + 2 for cell in _cells(heads[:-1], [row[:-1] for row in rows])[0])
    size = _BAR if console is None else min(_BAR, max(10, console.width - others - 18))
    full = "\u2588" if _can_print("\u2588") else "#"
    bars = [full * max(1, round(size * length(dump) / longest)) for dump in dumps]
    _print_table(
        console,
        (*heads[:-1], f"UP TO {duration(longest)}", heads[-1]),
        [(*row[:-1], bar, row[-1]) for row, bar in zip(rows, bars)],
    )


def _print_figures(
    console: Console | None, found: Sequence[Past], more: bool, pause: float
) -> None:
    figures = timeout_advice.by_node(found, pause)
    rows = [_figure_row(one, one_line(one.node or "")) for one in figures[:_NODES]]
    if len(figures) > _NODES:
        rows.append((f"and {len(figures) - _NODES:,} more nodes", "", "", "", ""))
    rows.append(_figure_row(timeout_advice.lengths(found, pause), "all"))
    which = f"the newest {len(found):,} dumps" if more else _number(len(found), "dump")
    print(f"From the first message to the last ({which}), and how long power has")
    print("to stay on after the first message, at least:")
    _print_table(console, ("NODE", "DUMPS", "LONGEST", "95 OF 100", "POWER"), rows)


def _figure_row(one: timeout_advice.Lengths, name: str) -> tuple[str, ...]:
    percentile = "-" if one.percentile is None else rounded_up(one.percentile)
    return (name, f"{one.dumps:,}", rounded_up(one.longest), percentile, rounded_up(one.power))


def _history_object(found: Sequence[Past], most: int, more: bool, pause: float) -> dict[str, Any]:
    """The history for programs. Times are Unix time, lengths seconds."""
    return {
        "dumps": [
            {
                "node": dump.node,
                "since": dump.since,
                "last": dump.last,
                "ended": dump.ended,
                "took": round(length(dump), 3),
                "messages": dump.messages,
                "addresses": list(dump.addresses),
            }
            for dump in found[:most]
        ],
        "considered": len(found),
        "older": more,
        "pause": pause,
        "nodes": [_figures_object(one) for one in timeout_advice.by_node(found, pause)],
        "all": _figures_object(timeout_advice.lengths(found, pause)) if found else None,
        "quick": timeout_advice.quick(found),
    }


def _figures_object(one: timeout_advice.Lengths) -> dict[str, Any]:
    return {
        "node": one.node,
        "dumps": one.dumps,
        "longest": round(one.longest, 3),
        "percentile95": None if one.percentile is None else round(one.percentile, 3),
        "power": round(one.power, 3),
    }


# --- watch ----------------------------------------------------------------------------------


class _Seen(NamedTuple):
    """What one look at the daemon brought: its status, or why there is none."""

    found: Status | None
    rates: dict[str, float]
    trouble: str


class _Looker:
    """Asks the daemon, again and again, also when it comes and goes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._client: Client | None = None
        self._before: Status | None = None
        self._rates: dict[str, float] = {}

    def look(self) -> _Seen:
        try:
            if self._client is None:
                self._client = Client(self.path)
            found = self._client.status()
        except ControlError as error:
            self.close()
            self._before = None
            self._rates = {}
            return _Seen(None, {}, str(error))
        if self._before is None or found.up != self._before.up:  # else it is the same one again
            self._rates = rates(self._before, found)
            self._before = found
        return _Seen(found, self._rates, "")

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
            lines += _headings(found)[:1]
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
        for key, dump in self._dumps.items():
            if key not in now and dump.since >= oldest:
                lines.append(
                    f"{one_line(dump.node)} fell silent, {duration(length(dump))} after "
                    f"its first message; heard {_number(dump.messages, 'message')} or more"
                )
        for key, dump in reversed(now.items()):
            if key not in self._dumps:
                lines.append(
                    f"{one_line(dump.node)} is dumping since {_stamp(dump.since)}, "
                    f"from {_from(dump.addresses)}"
                )
        if (not whole and found.dumping != self._dumping) or whole != self._whole:
            told = "" if whole else f"; the newest {len(now):,} are told of"
            lines.append(f"{_number(found.dumping, 'node')} dumping{told}")
        self._dumps, self._dumping, self._whole = now, found.dumping, whole
        return lines

    def _rejected(self, counts: Mapping[str, int]) -> list[str]:
        before, self._counts = self._counts, dict(counts)
        if before is None:
            return []
        new = {
            name: number - before.get(name, 0)
            for name, number in counts.items()
            if name != "accepted" and number > before.get(name, 0)
        }
        return [f"datagrams not counted as messages: {_counts(new)}"] if new else []


def _lines(looker: _Looker) -> None:
    """A line for each change, until a signal ends it."""
    changes = Changes()
    while True:
        seen = looker.look()
        news = changes.lost(seen.trouble) if seen.found is None else changes.seen(seen.found)
        for line in news:
            print(f"{_stamp(time.time())} {line}")
        if news:
            sys.stdout.flush()
        time.sleep(_PERIOD)


def _live(console: Console, looker: _Looker) -> None:
    """The whole screen, until a signal or the key q ends it."""
    from rich.live import Live

    last = _Seen(None, {}, "")
    heard = time.monotonic()
    with _keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            begun = time.monotonic()
            seen = looker.look()
            if seen.found is not None:
                last, heard = seen, time.monotonic()
            live.update(
                _screen(console, last, seen.trouble, time.monotonic() - heard), refresh=True
            )
            if _quits(keys, begun + _PERIOD):
                return


def _screen(console: Console, last: _Seen, trouble: str, age: float) -> RenderableType:
    """All that is on the screen: not a line more than it is high."""
    from rich.console import Group
    from rich.text import Text

    def line(text: str, style: str = "") -> Text:
        return Text(text, style, no_wrap=True, overflow="ellipsis", end="\n")

    above = []
    if trouble:
        above += [line(text, "bold red") for text in _wrapped(one_line(trouble), console)]
        if last.found is not None:
            above.append(line(f"what follows was so {duration(age)} ago; asking every second"))
        else:
            above.append(line("asking every second"))
    found = last.found
    below = [line("q quits", "dim")]
    if found is None:
        return Group(*above, *below)
    now = found._replace(age=found.age + age)
    head, *rest = _headings(now if trouble else found)
    above.append(line(head, "bold"))
    above += [line(text, "yellow") for text in rest[:-1]]
    above.append(line(rest[-1], "bold" if found.dumping else ""))
    counts = f"datagrams: {_counts(found.counts, last.rates)}"
    # It may be long, and each part of it counts.
    below = [*(line(text) for text in _wrapped(counts, console)), *below]
    room = console.height - len(above) - len(below)
    shown: Sequence[Dump] = found.dumps
    if len(shown) + 1 > room or found.dumping > len(shown):
        shown = shown[: max(0, room - 2)]
        below.insert(0, line(f"and {found.dumping - len(shown):,} more"))
    middle: list[RenderableType] = []
    if shown:
        middle += _table(_HEADS, [_row(dump, now) for dump in shown])
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


# --- text and tables ------------------------------------------------------------------------


def _console() -> Console | None:
    """A console of rich's if stdout is a terminal and rich is there."""
    if not sys.stdout.isatty():
        return None
    _find_rich()
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=False)


def _find_rich() -> None:
    """Packages of distributions run this without site-packages, where theirs of rich is."""
    if sys.flags.no_site:
        import site

        sys.path += [path for path in site.getsitepackages() if path not in sys.path]


def _print_table(
    console: Console | None, heads: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    if console is None:
        for cells in _cells(heads, rows):
            print("  ".join(cells).rstrip())
        return
    for line in _table(heads, rows):
        console.print(line, no_wrap=True, overflow="ellipsis")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Text]:
    """Lines of rich's, one a row; what is too long is cut at the right edge, not in the midst."""
    from rich.text import Text

    styles = ["cyan" if head == "NODE" else "magenta" if _is_bar(head) else "" for head in heads]
    lines: list[Text] = []
    for cells in _cells(heads, rows):
        line = Text(no_wrap=True, overflow="ellipsis")
        for cell, style in zip(cells, styles):
            line.append(cell, style if lines else "bold")
            line.append("  ")
        line.rstrip()
        lines.append(line)
    return lines


def _cells(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Heads and rows with their cells as wide as their column is."""
    lines = [heads, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    return [
        [
            cell.rjust(width) if head in _RIGHT else cell.ljust(width)
            for cell, width, head in zip(line, widths, heads)
        ]
        for line in lines
    ]


def _is_bar(head: str) -> bool:
    return head.startswith("UP TO ")


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True


def _width() -> int:
    return max(40, shutil.get_terminal_size((_PROSE, 24)).columns - 1)

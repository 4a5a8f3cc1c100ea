# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfenced's log: one line for each event, on stderr.

Under systemd each line begins with its priority, as sd-daemon(3) has it. However much happens,
only so many lines about nodes are written in a second; the rest is counted and told in one
line. And nothing waits for the log: who does not read it loses lines, which are counted too.
What may not be in this file: which event there is.
"""

from __future__ import annotations

import os
import select
import time
from collections import Counter
from typing import TYPE_CHECKING

from kdumpfence.daemon.formats import moment
from kdumpfence.daemon.settings import LEVELS
from kdumpfence.listener.dumps import length
from kdumpfence.text import one_line

if TYPE_CHECKING:
    from kdumpfence.listener.events import AnyEvent

_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
_RANK = {level: rank for rank, level in enumerate(LEVELS)}

#: The level of a kind of event, if it is not info.
_LEVEL_OF = {"dumping": "debug", "overflow": "warning", "failed": "warning"}

#: Bytes of a line, and of one write: what a pipe that can be written to takes as a whole.
_MOST_LINE = 2000
_MOST_WRITE = 4096

#: Seconds that one `flush` waits for a reader, at most.
_PATIENCE = 0.05

_SPARED = {
    "began": "dumps that began",
    "dumping": "dumps that go on",
    "finished": "dumps that finished",
    "failed": "dumps that failed",
    "silent": "dumps that ended in silence",
    "overflow": "losses of datagrams",
    "restored": "dumps from before the restart",
}


#: What was lost, by the counter that it is in.
_LOST = {
    "unread": "the kernel dropped {} datagrams: the queue was full",
    "crowded": "no room for the senders of {} messages: raise room, or keep strangers out",
    "untaken": "{} events came faster than they could be recorded and were given up",
}


def told(event: AnyEvent, *, recorded: bool = True, kind: str = "") -> str:
    """An event in a line; as one of another kind, if it is given."""
    if event.kind == "overflow":
        return _LOST[event.counter].format(event.messages)
    what = kind or event.kind
    addresses = ", ".join(event.addresses) or "an unknown address"
    messages = "1 message" if event.messages == 1 else f"{event.messages} messages"
    seconds = f"{length(event):.0f} s"
    line = f"node '{event.node}' "
    if what == "began":
        line += f"began to dump: first message {moment(event.since)} from {addresses}"
    elif what == "dumping":
        line += (
            f"has been dumping for {seconds}, since {moment(event.since)}: {messages} "
            f"from {addresses}"
        )
    elif what == "restored":
        line += (
            f"was dumping before the restart, since {moment(event.since)}: {messages} "
            f"from {addresses}"
        )
    else:
        how = {"finished": "finished its dump", "failed": "failed to dump"}.get(what, "fell silent")
        line += (
            f"{how}: dumped for {seconds}, from {moment(event.since)} to "
            f"{moment(event.last)}; {messages} from {addresses}"
        )
    return line if recorded else line + " (not in the history yet)"


class Journal:
    """Where the lines go. `level` is one of LEVELS; `lines` about nodes are written a second."""

    def __init__(self, level: str = "info", lines: int = 1000, fd: int = 2) -> None:
        self.level = level
        self.lines = lines
        #: Lines about nodes that were not written: too many in a second, or nobody read them.
        self.left_out = 0
        self._fd = fd
        self._prefixed = _is_the_journal(fd)
        self._waiting: list[bytes] = []
        self._second = 0.0
        self._written = 0
        self._spared: Counter[str] = Counter()

    def shows(self, level: str) -> bool:
        """Whether lines of that level are written."""
        return _RANK[level] >= _RANK[self.level]

    def event(self, event: AnyEvent, *, recorded: bool = True, kind: str = "") -> None:
        """Tell of an event. "dumping" is for those who want to know everything."""
        kind = kind or event.kind
        level = _LEVEL_OF.get(kind, "info")
        if not self.shows(level):
            return
        self._turn(time.monotonic())
        if self._written >= self.lines:
            self._spared[kind] += 1
            self.left_out += 1
            return
        self._written += 1
        self._add(level, told(event, recorded=recorded, kind=kind))

    def say(self, level: str, text: str) -> None:
        """A line about the daemon itself; these are not bounded, so they must be rare."""
        if self.shows(level):
            self._add(level, text)

    def flush(self, last: bool = False) -> None:
        """Write what there is; call it after each batch of events, and once a second.

        After the `last` events their sum is told, though the second is not over.
        """
        self._turn(time.monotonic())
        if last:
            self._tell_spared()
        if not self._waiting:
            return
        lines, self._waiting = self._waiting, []
        deadline = time.monotonic() + _PATIENCE
        at = 0
        while at < len(lines):
            end, size = at, 0
            while end < len(lines) and size + len(lines[end]) <= _MOST_WRITE:
                size += len(lines[end])
                end += 1
            if not self._write(b"".join(lines[at:end]), deadline):
                self.left_out += len(lines) - at
                return
            at = end

    def _write(self, data: bytes, deadline: float) -> bool:
        poller = select.poll()
        try:
            poller.register(self._fd, select.POLLOUT)
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return False
            os.write(self._fd, data)
        except OSError:
            return False
        return True

    def _turn(self, now: float) -> None:
        """A new second begins: say what the last one was spared."""
        if now - self._second < 1.0:
            return
        self._second = now
        self._written = 0
        self._tell_spared()

    def _tell_spared(self) -> None:
        if self._spared:
            what = ", ".join(f"{count} {_SPARED[kind]}" for kind, count in self._spared.items())
            self._spared.clear()
            self._add("warning", f"too many lines, not shown: {what}")

    def _add(self, level: str, text: str) -> None:
        prefix = f"<{_PRIORITIES[level]}>" if self._prefixed else ""
        line = one_line(prefix + text).encode("utf-8", "backslashreplace")
        if len(line) > _MOST_LINE:
            line = line[:_MOST_LINE].decode("utf-8", "ignore").encode() + b"..."
        self._waiting.append(line + b"\n")


def _is_the_journal(fd: int) -> bool:
    """Whether this descriptor leads to systemd's journal (JOURNAL_STREAM is its identity)."""
    try:
        about = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{about.st_dev}:{about.st_ino}"

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What Pacemaker's log says of the fencing of a node, line by line, as it grows.

The lines are those of the fencer of Pacemaker 2.1 and 3: the node that leads says which device is
asked where, the node that runs the agent what it said, and every node when it is over.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator

from kdumpfence.doctor.drill_course import (
    ASKED,
    FAILED,
    FENCED,
    LEFT,
    NO,
    REQUESTED,
    YES,
    Event,
)
from kdumpfence.doctor.machine import Machine
from kdumpfence.doctor.settings import variables

_PATH = "/var/log/pacemaker/pacemaker.log"

#: Bytes that are read at a time, and of a line at most.
_MOST = 1 << 20
_MOST_LINE = 1 << 16

_STAMP = re.compile(r"([A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8})(\.[0-9]{1,9})? ")
_NOBODY = "unknown node"
_NAME = r"(?P<target>[^\s|]{1,200})"
_LINES = (
    (LEFT, re.compile(rf"Node {_NAME} state is now lost")),
    (REQUESTED, re.compile(rf"Requesting peer fencing \((?P<text>\w+)\) targeting {_NAME}")),
    (
        ASKED,
        re.compile(
            rf"Requesting that (?P<where>\S+) perform '\w+' action targeting {_NAME}"
            r"(?: using (?P<device>[^\s|]+))?"
        ),
    ),
    (
        YES,
        re.compile(
            rf"Operation '\w+'(?: \[\d+\])? targeting {_NAME} using (?P<device>\S+) returned 0\b"
        ),
    ),
    (
        NO,
        re.compile(
            rf"Operation '\w+'(?: \[\d+\])? targeting {_NAME} using (?P<device>\S+) "
            r"(?:returned (?P<text>[1-9]\d*)|could not be executed: (?P<why>.*?)(?: \||$))"
        ),
    ),
    # One that was merged with another, or came too late, has an end of its own beside.
    (
        FENCED,
        re.compile(rf"Operation '(?P<text>\w+)' targeting {_NAME} by (?P<where>.+?) for \S+: OK\b"),
    ),
    (
        FAILED,
        re.compile(
            rf"Operation '(?P<text>\w+)' targeting {_NAME} by (?P<where>.+?) for \S+: "
            r"(?!Result arrived too late)"
        ),
    ),
)


def said(line: str, node: str, now: float) -> Event | None:
    """What a line of the log says of the node; `now` if it does not say when."""
    if "targeting" not in line and "state is now" not in line:
        return None
    for kind, form in _LINES:
        found = form.search(line)
        if found is None:
            continue
        its = found.groupdict()
        if its["target"].lower() != node.lower():
            return None
        text = its.get("text") or ""
        if kind == NO:
            text = f"exit status {text}" if text else its.get("why") or ""
        where, device = its.get("where") or "", its.get("device") or ""
        if where == _NOBODY:
            where = ""
        return Event(kind, _stamped(line, now), where, device, text)
    return None


def _stamped(line: str, now: float) -> float:
    found = _STAMP.match(line)
    if found is None:
        return now
    year = time.localtime(now).tm_year
    try:
        when = time.mktime(time.strptime(f"{year} {found[1]}", "%Y %b %d %H:%M:%S"))
    except (ValueError, OverflowError):
        return now
    return when + float(found[2] or 0)


class Log:
    """The log as it grows, also when it is rotated; nothing of what stood there before."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = open(path, "rb")  # noqa: SIM115 (closed by close)
        self._file.seek(0, os.SEEK_END)
        self._rest = b""

    def lines(self) -> Iterator[str]:
        """What was written since."""
        data = self._file.read(_MOST)
        if not data:
            with contextlib.suppress(OSError):
                there, mine = os.stat(self._path), os.fstat(self._file.fileno())
                if there.st_ino != mine.st_ino or there.st_size < self._file.tell():
                    file = open(self._path, "rb")  # noqa: SIM115
                    self._file.close()
                    self._file = file
                    data = file.read(_MOST)
        *whole, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_MOST_LINE:]
        for line in whole:
            yield line.decode(errors="replace")

    def close(self) -> None:
        """No more lines."""
        self._file.close()


def path(machine: Machine) -> str:
    """Where Pacemaker writes it. Raises Unknown."""
    return {
        **variables(machine.read("/etc/sysconfig/pacemaker")),
        **variables(machine.read("/etc/default/pacemaker")),
    }.get("PCMK_logfile", _PATH)

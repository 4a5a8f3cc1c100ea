# SPDX-License-Identifier: GPL-2.0-or-later
"""What a running Pacemaker says of a node: crm_mon, the fencing history, and the log.

Texts become events, or nothing; how they are put together is decided in `drill_course`. The XML is
that of Pacemaker 2.1 and 3 (xml/api of its source), the lines of the log those of its fencer: the
node that leads says which device is asked where, the node that runs the agent what it said, and
every node when it is over.
"""

from __future__ import annotations

import calendar
import contextlib
import os
import re
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import NamedTuple

from kdumpfence.doctor.drill_course import (
    ASKED,
    BACK,
    FAILED,
    FENCED,
    LEFT,
    MOVED,
    NO,
    REQUESTED,
    YES,
    Event,
)
from kdumpfence.doctor.finding import Unknown
from kdumpfence.doctor.machine import Machine
from kdumpfence.doctor.settings import variables

_STATUS = ("crm_mon", "--one-shot", "--output-as=xml")
_HISTORY = ("stonith_admin", "--verbose", "--output-as=xml", "--history")
_LOG = "/var/log/pacemaker/pacemaker.log"

#: Seconds that a program may take, which is one of several things to be looked at.
_PATIENCE = 3.0

#: Bytes of an answer, and of the log that are read at a time.
_MOST = 1 << 26
_MOST_LOG = 1 << 20

#: Seconds by which other nodes' clocks may be behind.
_CLOCKS = 2.0


class Status(NamedTuple):
    """What crm_mon says."""

    dc: str  #: the node that leads; "" if none does
    online: dict[str, bool]  #: whether each node takes part
    runs: dict[str, frozenset[str]]  #: the nodes on which each resource runs, instances left out


class Fencing(NamedTuple):
    """An entry of the fencing history."""

    action: str
    status: str  #: "success", "failed" or "pending"
    by: str  #: the node that did it last; "" if that is not known
    completed: str  #: as it is written; "" if it is not over
    reason: str


def status(text: str) -> Status:
    """Read crm_mon's answer. Raises Unknown."""
    root = _parsed(text)
    dc = root.find("summary/current_dc")
    online = {
        one.get("name", ""): one.get("online") == "true"
        and one.get("pending") != "true"
        and one.get("unclean") != "true"
        for one in root.iterfind("nodes/node")
    }
    instances = {one for clone in root.iter("clone") for one in clone.iter("resource")}
    runs = {
        one.get("id", ""): frozenset(node.get("name", "") for node in one.findall("node"))
        for one in root.iter("resource")
        if one not in instances and one.get("active") == "true"
    }
    return Status(dc.get("name", "") if dc is not None else "", online, runs)


def history(text: str, node: str) -> list[Fencing]:
    """Read the history of a node, the latest one first. Raises Unknown."""
    return [
        Fencing(
            one.get("action", ""),
            one.get("status", ""),
            one.get("delegate", ""),
            one.get("completed", ""),
            one.get("exit-reason", ""),
        )
        for one in _parsed(text).iter("fence_event")
        if one.get("target", "").lower() == node.lower()
    ]


def _parsed(text: str) -> ET.Element:
    if len(text) > _MOST or "<!" in text:
        raise Unknown("not what Pacemaker writes")
    try:
        return ET.fromstring(text.encode(errors="replace"))  # noqa: S314
    except (ET.ParseError, ValueError) as error:
        raise Unknown(str(error)) from None


def moment(text: str) -> float | None:
    """Unix time of "2026-11-22 16:05:22.123456Z", or +01:00 for the Z; None if it is none."""
    found = re.fullmatch(
        r"([0-9]{4}-[0-9]{2}-[0-9]{2}) ([0-9:]{8})(\.[0-9]{1,9})?"
        r" ?(?:Z|([+-])([0-9]{2}):?([0-9]{2}))?",
        text.strip(),
    )
    if found is None:
        return None
    try:
        when = calendar.timegm(time.strptime(f"{found[1]} {found[2]}", "%Y-%m-%d %H:%M:%S"))
    except (ValueError, OverflowError):
        return None
    offset = (60 * int(found[5]) + int(found[6])) * 60 if found[4] else 0
    return when + float(found[3] or 0) - (-offset if found[4] == "-" else offset)


# ------------------------------------------------------------------ the log

_STAMP = re.compile(r"([A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8})(\.[0-9]{1,9})? ")
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
    (
        FENCED,
        re.compile(rf"Operation '(?P<text>\w+)' targeting {_NAME} by (?P<where>\S+) for .*?: OK\b"),
    ),
    (FAILED, re.compile(rf"Operation '(?P<text>\w+)' targeting {_NAME} by .*? for .*?: (?!OK\b)")),
)


def said_in_log(line: str, node: str, now: float) -> Event | None:
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


class _Log:
    """The log as it grows, also when it is rotated; nothing of what stood there before."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = open(path, "rb")  # noqa: SIM115 (closed by close)
        self._file.seek(0, os.SEEK_END)
        self._rest = b""

    def lines(self) -> Iterator[str]:
        """What was written since."""
        data = self._file.read(_MOST_LOG)
        if not data:
            with contextlib.suppress(OSError):
                there, mine = os.stat(self._path), os.fstat(self._file.fileno())
                if there.st_ino != mine.st_ino or there.st_size < self._file.tell():
                    file = open(self._path, "rb")  # noqa: SIM115
                    self._file.close()
                    self._file = file
                    data = file.read(_MOST_LOG)
        *whole, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-65536:]
        for line in whole:
            yield line.decode(errors="replace")

    def close(self) -> None:
        self._file.close()


# ------------------------------------------------------------------ the running cluster


def ask(*command: str) -> str:
    """What a program of Pacemaker says now. Raises Unknown."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise Unknown(f"{command[0]} did not answer within {_PATIENCE:g} s") from None
    except OSError as error:
        raise Unknown(f"{command[0]}: {error.strerror}") from None
    if done.returncode and not done.stdout.lstrip().startswith("<"):
        last = (done.stderr or done.stdout).strip().split("\n")[-1]
        raise Unknown(f"{command[0]}: {last or f'exit status {done.returncode}'}")
    return done.stdout


def ask_status() -> Status:
    """What crm_mon says now. Raises Unknown."""
    return status(ask(*_STATUS))


class Pacemaker:
    """What is new of the node, each time it is asked. Raises Unknown if there is no cluster."""

    def __init__(self, machine: Machine, node: str) -> None:
        self._node = node
        self._began = self._looked = time.time()
        self.before = ask_status()
        self._online = self._is_online(self.before)
        self._moving = {one for one, on in self.before.runs.items() if node in on}
        self._known = set(history(ask(*_HISTORY, node), node))
        self._over = {"log": 0, "history": 0}
        #: Why the log says nothing; "" if it can be read.
        self.deaf = ""
        self._log: _Log | None = None
        named = {
            **variables(machine.read("/etc/sysconfig/pacemaker")),
            **variables(machine.read("/etc/default/pacemaker")),
        }.get("PCMK_logfile", _LOG)
        try:
            self._log = _Log(named)
        except OSError as error:
            self.deaf = f"{named}: {error.strerror}"

    @property
    def online(self) -> bool:
        """Whether the node took part when it was looked at last."""
        return self._online

    def _is_online(self, found: Status) -> bool:
        return any(on for name, on in found.online.items() if name.lower() == self._node.lower())

    def close(self) -> None:
        """No more."""
        if self._log is not None:
            self._log.close()

    def log(self) -> Iterator[Event]:
        """What the log says since it was asked last."""
        now = time.time()
        for line in self._log.lines() if self._log is not None else ():
            event = said_in_log(line, self._node, now)
            if event is None:
                continue
            event = event._replace(when=min(max(event.when, self._began), now))
            if event.kind not in (FENCED, FAILED) or self._is_news("log"):
                yield event

    def look(self) -> Iterator[Event]:
        """What the log and the programs say since then. Raises Unknown.

        The log is read after they have answered, and believed before them: its times are exact.
        """
        looked, self._looked = self._looked, time.time()
        past, found = history(ask(*_HISTORY, self._node), self._node), ask_status()
        yield from self.log()
        for one in reversed(past):
            if one not in self._known:
                self._known.add(one)
                yield from self._entry(one, looked)
        online = self._is_online(found)
        if self._online != online:
            self._online = online
            yield Event(BACK if online else LEFT, self._looked)
        elsewhere = [found.runs.get(one, frozenset()) - {self._node} for one in self._moving]
        if not online and elsewhere and all(elsewhere):
            yield Event(MOVED, self._looked)

    def _entry(self, one: Fencing, looked: float) -> Iterator[Event]:
        """What a new entry of the history says; there was none at `looked`."""
        when, now = moment(one.completed), time.time()
        if when is not None and when < self._began - _CLOCKS:
            return  # another node brought it back
        if one.status not in ("success", "failed"):
            yield Event(REQUESTED, self._looked, text=one.action)
        elif self._is_news("history"):
            exact = when is not None and "." in one.completed  # more than whole seconds
            when = min(max(when or now, looked), now) if exact else now
            kind = FENCED if one.status == "success" else FAILED
            yield Event(kind, when, one.by, "", one.action)

    def _is_news(self, source: str) -> bool:
        """Whether this end of a fencing was told by nobody yet."""
        before = max(self._over.values())
        self._over[source] += 1
        return self._over[source] > before

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a running Pacemaker says of a node: crm_mon, the fencing history, and the log.

All of it becomes events; how they are put together is decided in `drill_course`. The XML is that of
Pacemaker 2.1 and 3 (xml/api of its source).
"""

from __future__ import annotations

import calendar
import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import NamedTuple

from kdumpfence.doctor import drill_log
from kdumpfence.doctor.drill_course import BACK, FAILED, FENCED, LEFT, MOVED, REQUESTED, Event
from kdumpfence.doctor.finding import Unknown
from kdumpfence.doctor.machine import Machine, run

_STATUS = ("crm_mon", "--one-shot", "--output-as=xml")
_HISTORY = ("stonith_admin", "--verbose", "--output-as=xml", "--history")

#: Bytes of an answer.
_MOST = 1 << 26

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


# ------------------------------------------------------------------ the running cluster


def ask(*command: str) -> str:
    """What a program of Pacemaker says now. Raises Unknown."""
    done = run(command)
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
        self._log: drill_log.Log | None = None
        path = drill_log.path(machine)
        try:
            self._log = drill_log.Log(path)
        except OSError as error:
            self.deaf = f"{path}: {error.strerror}"

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
            event = drill_log.said(line, self._node, now)
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

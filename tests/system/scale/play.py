# SPDX-License-Identifier: LGPL-2.1-or-later
"""So many nodes panic, one real kdumpfenced hears them, and everything is measured.

The nodes are played by `kdumpfence storm`, each with an address of its own in 127/8. Every
other one stands in the settings by a name, the rest are admitted by a network. The daemon has
one processor, whatever plays has the others. Meanwhile this process asks it for its status
again and again, as `kdumpfence status` does, with a connection for each question.

What may not be in this file: what a figure ought to be.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from kdumpfence.client import Client, ClientError
from kdumpfence.daemon.history import History
from kdumpfence.daemon.history_reading import Past
from tests.daemon.running import Kdumpfenced, until
from tests.support.storms import Storm

#: Strangers are beyond it, nodes within.
NETWORK = "127.0.0.0/9"
FIRST = int(ipaddress.ip_address("127.0.0.1"))

#: What a flood is made of, in equal shares. A message with something behind it is none of it:
#: that counts.
RUBBISH = ("foreign", "empty", "short", "magic", "version", "random")

#: Seconds between two questions, and between two looks at the process.
ASK_EVERY = 0.1
LOOK_EVERY = 1.0

#: Seconds between two readings of the metrics.
SCRAPE_EVERY = 5.0

#: Dumps that an answer is asked to hold.
MOST = 200

#: Answers a line with a line and does nothing else: what this machine makes of a question.
ECHO = """
import socket, sys
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    while True:
        with listener.accept()[0] as asker:
            asker.sendall(asker.recv(4096))
"""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is played."""

    nodes: int
    #: Messages of each node, and seconds between two of them.
    rounds: int
    interval: float = 1.0
    #: Seconds within which all begin.
    within: float = 1.0
    #: Whether rubbish is sent beside it, as fast as one processor can.
    flood: bool = False
    #: Of the settings: bytes of the kernel's queue, seconds.
    queue: str = "64M"
    silence: float = 10.0
    #: Nodes that networks may admit.
    room: int = 131072
    #: Who counts repeated messages, as settings have it.
    counting: str = "auto"


@dataclasses.dataclass
class Outcome:
    """What came of it. Times in seconds, memory in bytes."""

    plan: Plan
    #: Who counted, "kernel" or "user".
    counting: str = ""
    #: Valid messages that left, and datagrams of the flood.
    sent: int = 0
    rubbish: int = 0
    #: By how much the player was late at worst.
    late: float = 0.0
    #: The daemon's own counts at the end.
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    #: What the kernel dropped before any socket's queue.
    backlog: int = 0
    #: Nodes that the history lacks, has more than once, has with another address than theirs,
    #: has as still dumping, or has with another number of messages than was sent.
    missing: int = 0
    twice: int = 0
    elsewhere: int = 0
    not_over: int = 0
    miscounted: int = 0
    #: Nodes in it that nobody played.
    strangers: int = 0
    #: Messages of all dumps in the history.
    recorded: int = 0
    #: Dumps that began, and nodes that were told of by name, by the metrics.
    began: float = math.nan
    #: The most that a status said were dumping.
    reported: int = 0
    #: From the first message: until the last node's first was read, until a status told of all.
    read_after: float = math.nan
    reported_after: float = math.nan
    #: From the last message until a status told of none.
    silent_after: float = math.nan
    #: How long each answer took, the age of what it told; questions without an answer.
    answers: list[float] = dataclasses.field(default_factory=list)
    ages: list[float] = dataclasses.field(default_factory=list)
    unanswered: int = 0
    #: How long a process beside the daemon took for an answer, which does nothing else.
    echoes: list[float] = dataclasses.field(default_factory=list)
    #: How long each page of metrics took.
    pages: list[float] = dataclasses.field(default_factory=list)
    #: Resident memory: before the first message, 15 seconds after it (all were told of a second
    #: time by then), at half time, at the last message, at the end, and the most that it was.
    memory_before: int = 0
    memory_wave: int = 0
    memory_half: int = 0
    memory_last: int = 0
    memory_end: int = 0
    memory_peak: int = 0
    #: Processor time from the first message to the last, and the share in the busiest second.
    processor: float = 0.0
    busiest: float = 0.0
    seconds: float = 0.0
    #: Bytes of the history's files.
    disk: int = 0
    exit_status: int | None = None
    log: str = ""


def quantile(times: list[float], share: float) -> float:
    """The time that this share of all did not exceed."""
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


def address(number: int) -> str:
    """That of a node."""
    return str(ipaddress.ip_address(FIRST + number))


def name(number: int) -> str:
    """How the daemon knows it: odd ones are in the settings, the others have their address."""
    return f"node-{number:06}" if number % 2 else address(number)


class Stage(Kdumpfenced):
    """A daemon with the settings of a plan."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.plan = plan
        super().__init__(folder)

    def configure(self, *_: Any, **__: Any) -> None:
        nodes = "\n".join(f'{name(n)} = ["{address(n)}"]' for n in range(1, self.plan.nodes, 2))
        self.settings.write_text(
            f'port = {self.port}\nnetworks = ["{NETWORK}"]\nqueue = "{self.plan.queue}"\n'
            f"silence = {self.plan.silence}\nroom = {self.plan.room}\n"
            f'[listen]\ncounting = "{self.plan.counting}"\n'
            f'[history]\npath = "{self.history}"\n[control]\npath = "{self.control}"\n'
            f"[metrics]\nport = {self.metrics_port}\n[nodes]\n{nodes}\n"
        )


@dataclasses.dataclass(frozen=True)
class _Look:
    """The process at a moment."""

    when: float
    resident: int
    peak: int
    processor: float


def _look(pid: int) -> _Look:
    fields = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        fields[key] = value
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return _Look(
        time.monotonic(),
        int(fields["VmRSS"].split()[0]) * 1024,
        int(fields["VmHWM"].split()[0]) * 1024,
        (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK"),
    )


def _backlog_drops() -> int:
    lines = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(line.split()[1], 16) for line in lines)


def processors() -> tuple[str, str, str]:
    """Which the daemon has, which the player, and which the flood; lists as taskset has them."""
    have = sorted(os.sched_getaffinity(0))
    daemon, others = have[0], have[1:] or have
    return str(daemon), str(others[0]), str(others[-1])


class _Audience:
    """Asks, and looks at the process, in a rhythm."""

    def __init__(self, daemon: Kdumpfenced, outcome: Outcome) -> None:
        self._daemon = daemon
        self._outcome = outcome
        self._echo = str(daemon.folder / "echo")
        self._next_ask = self._next_look = self._next_scrape = time.monotonic()
        self.looks: list[_Look] = []
        self.status = daemon.status()
        #: When all were told of, Unix time.
        self.complete: float | None = None

    def attend(self) -> None:
        """The next of what is due."""
        now = time.monotonic()
        time.sleep(max(0.0, min(self._next_ask, self._next_look) - now))
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = max(self._next_look + LOOK_EVERY, now)
            self.looks.append(_look(self._daemon.pid))
        if now >= self._next_ask:
            self._next_ask = max(self._next_ask + ASK_EVERY, now)
            self._ask()
        if now >= self._next_scrape:
            self._next_scrape = max(self._next_scrape + SCRAPE_EVERY, now)
            began = time.perf_counter()
            self._daemon.get("/metrics")
            self._outcome.pages.append(time.perf_counter() - began)

    def _ask(self) -> None:
        began = time.perf_counter()
        try:
            with Client(str(self._daemon.control)) as client:
                self.status = client.status(MOST)
        except ClientError:
            self._outcome.unanswered += 1
            return
        self._outcome.answers.append(time.perf_counter() - began)
        self._outcome.ages.append(self.status.age)
        self._outcome.reported = max(self._outcome.reported, self.status.dumping)
        if self.complete is None and self.status.dumping >= self._outcome.plan.nodes:
            self.complete = time.time()
        began = time.perf_counter()
        with socket.socket(socket.AF_UNIX) as echo:
            echo.connect(self._echo)
            echo.sendall(b"?\n")
            echo.recv(4096)
        self._outcome.echoes.append(time.perf_counter() - began)


def play(plan: Plan, folder: Path) -> Outcome:
    """Play it, with everything below that folder."""
    outcome = Outcome(plan)
    daemon = Stage(folder, plan)
    where, player_at, flood_at = processors()
    players: list[Storm] = []
    echo: subprocess.Popen[bytes] | None = None
    try:
        echo = subprocess.Popen(
            ["taskset", "-c", where, sys.executable, "-c", ECHO, str(folder / "echo")]
        )
        daemon.start(("taskset", "-c", where))
        until((folder / "echo").exists)
        backlog = _backlog_drops()
        audience = _Audience(daemon, outcome)
        if plan.flood:
            shares = ",".join(f"{kind}=1" for kind in RUBBISH)
            options = ("--mix", shares, "--nodes", str(plan.nodes), "--duration", "3600")
            # After the nodes: in the field each of those has a processor of its own.
            after = ("taskset", "-c", flood_at, "nice", "-n", "19")
            players.append(Storm(daemon.port, *options, wrapper=after))
            _attend(audience, 3.0)
        audience.looks.append(_look(daemon.pid))
        outcome.memory_before = audience.looks[-1].resident
        storm = Storm(
            daemon.port, "--nodes", str(plan.nodes), "--rounds", str(plan.rounds),
            "--interval", str(plan.interval), "--panic-within", str(plan.within),
            wrapper=("taskset", "-c", player_at),
        )  # fmt: skip
        players.insert(0, storm)
        while not storm.over:
            audience.attend()
        ended = time.monotonic()
        audience.looks.append(_look(daemon.pid))
        last = audience.looks[-1]
        deadline = ended + plan.silence + 30
        while audience.status.dumping and time.monotonic() < deadline:
            audience.attend()
        outcome.silent_after = time.monotonic() - ended
        for flood in players[1:]:
            flood.stop()
            flood.told(60)  # on a busy machine it goes on for a while
        _attend(audience, 1.5)
        outcome.memory_end = _look(daemon.pid).resident
        outcome.memory_peak = _look(daemon.pid).peak
        outcome.counts = dict(daemon.status().counts)
        outcome.counting = daemon.status().counting
        outcome.backlog = _backlog_drops() - backlog
        outcome.began = _metric(daemon, "kdumpfence_dumps_total")
        told = storm.told()
        outcome.sent, outcome.late = told["kinds"]["valid"], told["late"]
        outcome.rubbish = sum(flood.told()["sent"] for flood in players[1:])
        outcome.exit_status = daemon.end()
        outcome.log = daemon.said()
        outcome.disk = sum(
            one.stat().st_size for one in folder.iterdir() if one.name.startswith("history.sqlite")
        )
        with contextlib.closing(History(str(daemon.history), writable=False)) as history:
            past = history.past(most=10 * plan.nodes)
        _compare(outcome, past)
        _sum_up(outcome, past, audience, last)
        return outcome
    finally:
        for player in players:
            player.close()
        if echo is not None:
            echo.kill()
            echo.wait()
        daemon.close()


def _attend(audience: _Audience, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        audience.attend()


def _metric(daemon: Kdumpfenced, wanted: str) -> float:
    for line in daemon.get("/metrics")[1].splitlines():
        if line.startswith(wanted + " "):
            return float(line.split()[1])
    return math.nan


def _compare(outcome: Outcome, past: list[Past]) -> None:
    """What is in the history with what was played."""
    plan = outcome.plan
    expected = {name(number): address(number) for number in range(plan.nodes)}
    seen: set[str] = set()
    for dump in past:
        outcome.twice += dump.node in seen
        seen.add(dump.node)
        outcome.elsewhere += dump.addresses != (expected.get(dump.node),)
        outcome.not_over += dump.ended is None
        outcome.miscounted += dump.messages != plan.rounds
        outcome.recorded += dump.messages
    outcome.missing = len(expected.keys() - seen)
    outcome.strangers = len(seen - expected.keys())


def _sum_up(outcome: Outcome, past: list[Past], audience: _Audience, last: _Look) -> None:
    if past:
        first = min(dump.since for dump in past)
        outcome.read_after = max(dump.since for dump in past) - first
        if audience.complete is not None:
            outcome.reported_after = audience.complete - first
        begin = time.monotonic() - (time.time() - first)
    else:
        begin = last.when
    during = [look for look in audience.looks if begin - LOOK_EVERY <= look.when <= last.when]
    outcome.memory_last = last.resident
    for field, moment in (("memory_wave", 15.0), ("memory_half", (last.when - begin) / 2)):
        after = (look.resident for look in during if look.when >= begin + moment)
        setattr(outcome, field, next(after, last.resident))
    if during:
        outcome.processor = last.processor - during[0].processor
        outcome.seconds = last.when - during[0].when
    outcome.busiest = max(
        (
            (after.processor - before.processor) / (after.when - before.when)
            for before, after in zip(during, during[1:])
            if after.when - before.when > LOOK_EVERY / 2
        ),
        default=0.0,
    )

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Three daemons, a database and its replica, all of which are killed, cut off and slowed down.

The nodes are played by `kdumpfence storm`; each daemon hears a part of them. What a daemon's own
history has is the truth: all it ever told is in there. In the end the database must have all of
that, once, and its events must be those of its dumps. What may not be in this file: what a figure
ought to be.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from kdumpfence.client import ClientError
from kdumpfence.database import schema
from tests.daemon.running import Kdumpfenced, until
from tests.database.proxy import Proxy
from tests.support.postgres_cluster import Cluster

#: Seconds: longer than anything takes on the slowest machine.
PATIENCE = 600

#: Seconds; and how often a node speaks.
SILENCE = 8
INTERVAL = 2.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is played. The second daemon hears half of the nodes, the third a quarter."""

    nodes: int
    faults: int
    seed: int = 7410
    #: Seconds by which a slow database is late, and for which a network swallows everything.
    late: float = 0.2
    swallows: float = 1.0


@dataclasses.dataclass
class Outcome:
    """What came of it."""

    #: Faults by kind.
    faults: Counter[str]
    #: What daemons heard, all together; what the database made of it.
    reports: int
    dumps: int
    events: int
    #: Events after which a daemon's or the database's life ended and something was handed on anew.
    timelines: int
    #: What is wrong: nothing, if all is well.
    wrong: list[str]
    #: Seconds: the longest that a daemon's status took meanwhile; from the end of the last message
    #: until the database had everything.
    status: float
    caught_up: float


class Scene:
    """The database, its replica, the networks to them and three daemons."""

    def __init__(
        self, plan: Plan, folder: Path, template: Path, stack: contextlib.ExitStack
    ) -> None:
        self.plan = plan
        self.dice = random.Random(plan.seed)
        self.primary = stack.enter_context(Cluster(template))
        self.primary.start()
        schema.make(self.primary.url(), new=True)
        self.replica = stack.enter_context(self.primary.replica())
        self.replica.start()
        self.proxies = [
            stack.enter_context(Proxy(cluster.port)) for cluster in (self.primary, self.replica)
        ]
        ports = ",".join(f"127.0.0.1:{proxy.port}" for proxy in self.proxies)
        where = self.primary.url().replace(f"127.0.0.1:{self.primary.port}", ports)
        self.daemons = []
        for name in ("one", "two", "three"):
            (folder / name).mkdir()
            daemon = Kdumpfenced(folder / name)
            stack.callback(daemon.close)
            daemon.configure(
                f'networks = ["127.0.0.0/9"]\nnode = "{name}"\nsilence = {SILENCE}\nrepeat = 60',
                history=f'database = "{where}?target_session_attrs=read-write"',
            )
            self.daemons.append(daemon)
        self.status = 0.0
        self.failed_over = False

    @property
    def database(self) -> Cluster:
        """The one that is written to."""
        return self.replica if self.failed_over else self.primary

    def ask(self) -> None:
        """Each daemon that runs answers, whatever the database does."""
        for daemon in self.daemons:
            begun = time.monotonic()
            with contextlib.suppress(ClientError):
                daemon.status()
                self.status = max(self.status, time.monotonic() - begun)

    def kill_daemon(self) -> None:
        daemon = self.dice.choice(self.daemons)
        daemon.end(signal.SIGKILL)
        daemon.start(wait=False)

    def kill_database(self) -> None:
        self.database.kill()
        self.ask()
        self.database.start()

    def cut(self) -> None:
        for proxy in self.proxies:
            proxy.cut()

    def slow(self) -> None:
        for proxy in self.proxies:
            proxy.delay = self.plan.late
        self.pause(self.plan.swallows)
        for proxy in self.proxies:
            proxy.delay = 0.0

    def swallow(self) -> None:
        for proxy in self.proxies:
            proxy.passes.clear()
        self.pause(self.plan.swallows)
        for proxy in self.proxies:
            proxy.passes.set()

    def fail_over(self) -> None:
        """The replica, which may lack the last transactions, becomes the primary."""
        self.primary.kill()
        self.replica.sql("SELECT pg_promote()")
        self.failed_over = True

    def pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.ask()
            time.sleep(0.05)


def play(plan: Plan, folder: Path, template: Path) -> Outcome:
    """All of it, to the end."""
    with contextlib.ExitStack() as stack:
        scene = Scene(plan, folder, template, stack)
        for daemon in scene.daemons:
            daemon.start()
        storms = [
            daemon.storm(
                "--from=127.0.0.0/9",
                f"--nodes={plan.nodes >> number}",
                f"--interval={INTERVAL}",
                f"--panic-within={INTERVAL}",
            )
            for number, daemon in enumerate(scene.daemons)
        ]
        for storm in storms:
            stack.callback(_end, storm)
        kinds: list[Callable[[], None]] = [
            scene.kill_daemon, scene.kill_database, scene.cut, scene.slow, scene.swallow
        ]  # fmt: skip
        faults: Counter[str] = Counter()
        until(lambda: all(daemon.status().dumping for daemon in scene.daemons))
        for number in range(plan.faults):
            fault = scene.fail_over if number == plan.faults // 2 else scene.dice.choice(kinds)
            fault()
            faults[fault.__name__] += 1
            scene.pause(scene.dice.uniform(0, 1))
        until(lambda: all(map(_answers, scene.daemons)))
        # Whoever was killed hears all its nodes again before they fall silent.
        for number, daemon in enumerate(scene.daemons):
            until(lambda: daemon.status().dumping == plan.nodes >> number, PATIENCE)  # noqa: B023
        for storm in storms:
            _end(storm)
        ended = time.monotonic()
        until(lambda: not any(daemon.status().dumping for daemon in scene.daemons), PATIENCE)
        until(lambda: _has_all(scene), PATIENCE)
        caught_up = time.monotonic() - ended
        for daemon in scene.daemons:
            daemon.end()
        wrong = [line for daemon in scene.daemons for line in _lacks(scene.database, daemon)]
        wrong += _contradictions(scene.database)
        figures = scene.database.sql(
            "SELECT (SELECT count(*) FROM kdumpfence.report), count(DISTINCT dump), count(*), "
            "count(DISTINCT timeline) FROM kdumpfence.event"
        )
        reports, dumps, events, timelines = map(int, figures.split("|"))
        return Outcome(faults, reports, dumps, events, timelines, wrong, scene.status, caught_up)


def _end(storm: subprocess.Popen[bytes]) -> None:
    storm.terminate()
    storm.communicate()


def _answers(daemon: Kdumpfenced) -> bool:
    with contextlib.suppress(ClientError):
        daemon.status()
        return True
    return False


def _has_all(scene: Scene) -> bool:
    """Whether each outbox is in the database to its end, and everybody knows."""
    if any(daemon.status().troubles for daemon in scene.daemons):
        return False
    for daemon in scene.daemons:
        with contextlib.closing(sqlite3.connect(f"file:{daemon.history}?mode=ro", uri=True)) as db:
            # What was in there: by now it may have let go of it.
            (newest,) = db.execute(
                "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'"
            ).fetchone()
            (identity,) = db.execute("SELECT identity FROM listener").fetchone()
        found = scene.database.sql(
            "SELECT last_seq FROM kdumpfence.listener WHERE identity = :'it'", it=identity
        )
        if found != str(newest):
            return False
    return True


def _lacks(database: Cluster, daemon: Kdumpfenced) -> list[str]:
    """Where the reports of this daemon are not what its own history has."""
    with contextlib.closing(sqlite3.connect(f"file:{daemon.history}?mode=ro", uri=True)) as db:
        own = {
            f"{node}|{round(since * 1e6)}|{ended is not None:d}"
            for node, since, ended in db.execute("SELECT node, since, ended FROM dump")
        }
        (identity,) = db.execute("SELECT identity FROM listener").fetchone()
    found = database.sql(
        "SELECT node, since, (ended IS NOT NULL)::int FROM kdumpfence.report r "
        "JOIN kdumpfence.listener l ON l.id = r.listener WHERE identity = :'it'",
        it=identity,
    ).splitlines()
    wrong = []
    if len(set(found)) != len(found):
        wrong.append(f"{daemon.folder.name}: reports that are there twice")
    for what, some in (("missing", own - set(found)), ("not its own", set(found) - own)):
        if some:
            wrong.append(f"{daemon.folder.name}: {len(some)} {what}, as {sorted(some)[0]}")
    return wrong


def _contradictions(database: Cluster) -> list[str]:
    """Where events are not what dumps are, or dumps not what there can be."""
    checks = {
        "gaps in the numbers of events": (
            "SELECT count(*) FROM kdumpfence.event "
            "HAVING count(*) <> max(number) OR min(number) <> 1"
        ),
        "dumps that did not begin once": (
            "SELECT d.id FROM kdumpfence.dump d LEFT JOIN kdumpfence.event e ON e.dump = d.id "
            "AND e.kind = 'began' GROUP BY d.id HAVING count(e.number) <> 1"
        ),
        "events that say what the one before said": (
            "SELECT dump FROM (SELECT dump, kind, lag(kind) OVER "
            "(PARTITION BY dump ORDER BY number) AS before FROM kdumpfence.event) e "
            "WHERE kind = before"
        ),
        "dumps that are not what was said of them last": (
            "SELECT d.id FROM kdumpfence.dump d JOIN (SELECT DISTINCT ON (dump) dump, kind "
            "FROM kdumpfence.event ORDER BY dump, number DESC) e ON e.dump = d.id "
            "WHERE d.how <> e.kind"
        ),
        "dumps of a node that overlap": (
            "SELECT a.id FROM kdumpfence.dump a JOIN kdumpfence.dump b ON a.node = b.node "
            "AND a.id <> b.id AND b.began BETWEEN a.began AND a.last"
        ),
        "dumps without a report": (
            "SELECT id FROM kdumpfence.dump d WHERE NOT EXISTS "
            "(SELECT FROM kdumpfence.report r WHERE r.dump = d.id)"
        ),
    }
    wrong = []
    for what, query in checks.items():
        found = database.sql(f"SET search_path = kdumpfence; {query}").split()
        if found:
            wrong.append(f"{len(found)} {what}, as {found[0]}")
    return wrong


#: How much `make test` plays; `make scale` plays more.
SHORT = Plan(int(os.environ.get("KDUMPFENCE_CHAOS_NODES", "20000")), 9)

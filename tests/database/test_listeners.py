# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real daemons and one database: what any of them hears is one row, and nothing is told twice."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.daemon.running import Kdumpfenced, until
from tests.database.proxy import Proxy
from tests.support.postgres import Database

pytestmark = pytest.mark.slow

Start = Callable[..., Kdumpfenced]

NODE, OTHER = "127.7.0.1", "127.7.0.2"


def dumps(memory: Database) -> list[str]:
    return memory.sql(
        "SELECT node, how, listeners, observed FROM kdumpfence.dumps ORDER BY node, began"
    ).splitlines()


def events(memory: Database) -> list[str]:
    return memory.sql("SELECT node, kind FROM kdumpfence.events ORDER BY number").splitlines()


def test_a_dump_that_several_hear_is_one_row_until_the_last_falls_silent(
    memory: Database, start: Start
) -> None:
    one, two, three = (start(name, memory.url) for name in ("one", "two", "three"))

    def all_heard() -> bool:
        for daemon, node in ((one, NODE), (two, NODE), (three, OTHER)):
            daemon.hear(node)
        return dumps(memory) == [f"{NODE}||{{one,two}}|t", f"{OTHER}||{{three}}|t"]

    until(all_heard)
    until(lambda: dumps(memory) == [f"{NODE}|silent|{{one,two}}|t", f"{OTHER}|silent|{{three}}|t"])
    assert sorted(events(memory)) == [
        f"{node}|{kind}" for node in (NODE, OTHER) for kind in ("began", "silent")
    ]
    assert "connected, has all events" in one.said()
    assert "not-a-secret" not in one.said()


def test_what_happens_while_the_database_is_away_is_handed_on_later(
    memory: Database, start: Start
) -> None:
    daemon = start("one", memory.url)
    daemon.says("connected")
    memory.cluster.sql(f"ALTER DATABASE {memory.name} ALLOW_CONNECTIONS false")
    memory.cluster.sql(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{memory.name}'"
    )
    daemon.hears(NODE)
    daemon.says("events wait in")
    assert daemon.end() == 0
    daemon.start()
    until(lambda: not daemon.status().dumping)
    memory.cluster.sql(f"ALTER DATABASE {memory.name} ALLOW_CONNECTIONS true")
    until(lambda: events(memory) == [f"{NODE}|began", f"{NODE}|silent"])
    assert dumps(memory) == [f"{NODE}|silent|{{one}}|t"]
    until(lambda: not daemon.status().troubles)


def test_a_killed_daemon_goes_on_where_it_was(memory: Database, start: Start) -> None:
    daemon = start("one", memory.url)
    daemon.hears(NODE)
    until(lambda: events(memory))
    daemon.end(signal.SIGKILL)
    daemon.start()
    daemon.hear(NODE)
    until(lambda: dumps(memory) == [f"{NODE}|silent|{{one}}|t"])
    assert events(memory) == [f"{NODE}|began", f"{NODE}|silent"]
    assert memory.sql("SELECT count(*) FROM kdumpfence.listener") == "1"


def test_a_database_that_hangs_keeps_nobody_waiting(memory: Database, start: Start) -> None:
    with Proxy(memory.cluster.port) as proxy:
        daemon = start("one", proxy.url(memory.url), "silence = 60")
        daemon.says("connected")
        proxy.passes.clear()
        for number in range(1, 6):
            daemon.hear(f"127.7.1.{number}")
            until(lambda: daemon.status().dumping == number)  # noqa: B023
        assert daemon.is_well()
        assert daemon.get("/metrics")[0] == 200
        assert daemon.end() == 0  # with what systemd would take for a timely end
        assert len(daemon.past()) == 5
        assert events(memory) == []
        proxy.passes.set()
        proxy.cut()
        daemon.start()
        until(lambda: len(events(memory)) == 5)
    assert memory.sql("SELECT count(*) FROM kdumpfence.dumping") == "5"


def test_a_daemon_that_ends_says_so_and_its_dumps_go_on(memory: Database, start: Start) -> None:
    daemon = start("one", memory.url, "silence = 60")
    daemon.hears(NODE)
    assert daemon.end() == 0
    assert memory.sql("SELECT state, waiting FROM kdumpfence.listeners") == "stopped|0"
    assert dumps(memory) == [f"{NODE}||{{one}}|t"]
    daemon.start()
    until(lambda: memory.sql("SELECT state FROM kdumpfence.listeners") == "up")
    assert events(memory) == [f"{NODE}|began"]

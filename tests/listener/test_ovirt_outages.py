# SPDX-License-Identifier: LGPL-2.1-or-later
"""examples/ovirt_listener.py while its database is away, and when it is started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import psycopg
import pytest

from tests.conftest import unused_port
from tests.listener.conftest import PATIENCE, A, B, C, say, wait_for
from tests.listener.engine_database import EngineDatabase
from tests.listener.examples import EXAMPLES
from tests.listener.ovirt_adapter import (
    NETWORKS,
    Adapter,
    adapt,
    adapter,
    database,
    engine,
    postgres,
)
from tests.listener.test_states import status
from tests.support.postgres import template
from tests.support.postgres_cluster import Cluster

__all__ = ["adapt", "adapter", "database", "engine", "postgres"]


def test_while_the_database_is_away_nothing_is_lost(
    engine: EngineDatabase, adapter: Adapter
) -> None:
    hosts = {address: engine.host(address) for address in (A, B, C)}
    adapter.say(A, status("dumping", 1))
    adapter.step()
    engine.hang_up()
    adapter.away = True
    adapter.say(A, status("finished", 2))
    adapter.step()
    for payload in (status("dumping", 1), status("finished", 2)):
        adapter.say(B, payload)
        adapter.step()
    adapter.say(C)
    adapter.step()
    assert engine.states() == {hosts[A]: "dumping"}
    adapter.away = False
    adapter.step()
    assert engine.states() == {hosts[A]: "finished", hosts[B]: "finished", hosts[C]: "dumping"}


def test_nor_is_it_at_the_start(engine: EngineDatabase, adapter: Adapter) -> None:
    adapter.away = True
    host, over = engine.host(A), engine.host(B)
    for address, payload in (
        (A, status("dumping", 1)),
        (B, status("dumping", 1)),
        (B, status("finished", 2)),
    ):
        adapter.say(address, payload)
        adapter.step()
    adapter.away = False
    adapter.step()
    assert engine.states() == {host: "dumping", over: "finished"}


def test_after_a_restart_a_dump_goes_on(
    engine: EngineDatabase, adapt: Callable[..., Adapter]
) -> None:
    host = engine.host(A)
    first = adapt(engine.url)
    first.say(A)
    first.step()
    first.close()
    second = adapt(engine.url)
    second.step()
    assert A in second.listener
    second.say(A)
    second.step()
    assert engine.seen(host) == ["dumping"]


def test_after_a_restart_a_dump_of_which_nothing_more_comes_is_over(
    engine: EngineDatabase, adapt: Callable[..., Adapter]
) -> None:
    hosts = engine.hosts([(A,), (B,), (C,)])
    for host, address in zip(hosts, (f'["{A}", 1]', '["192.0.2.1", 7]', "nonsense")):
        engine.execute("SELECT UpsertKdumpStatus(%s, 'dumping', %s)", host, address)
    adapter = adapt(engine.url, silence_timeout=1.0)
    adapter.until(lambda: set(engine.states().values()) == {"finished"})


@pytest.mark.slow
def test_the_program_outlives_its_database(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Cluster(template(tmp_path_factory)) as cluster:
        cluster.start()
        engine = EngineDatabase(cluster.socket_url())
        hosts = {address: engine.host(address) for address in (A, B)}
        port = unused_port()
        program = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "ovirt_listener.py"), cluster.socket_url(), *NETWORKS],
            env={**os.environ, "KDUMP_PORT": str(port)},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            wait_for(lambda: engine.heartbeat() is not None)
            say(A, port)
            wait_for(lambda: engine.states() == {hosts[A]: "dumping"})
            engine.connection.close()
            cluster.stop()
            say(B, port)
            assert program.stderr is not None
            assert program.stderr.readline().startswith("database: ")
            cluster.start()
            engine.connection = psycopg.connect(cluster.socket_url(), autocommit=True)
            wait_for(lambda: engine.states() == dict.fromkeys(hosts.values(), "dumping"))
            program.send_signal(signal.SIGTERM)
            assert program.wait(PATIENCE) == 0
        finally:
            program.kill()
            program.communicate()
            engine.connection.close()

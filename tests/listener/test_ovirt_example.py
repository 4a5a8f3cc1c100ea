# SPDX-License-Identifier: GPL-2.0-or-later
"""examples/ovirt_listener.py: what the engine finds in its database, as docs/clouds.md has it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from kdumpfence import Listener
from tests.conftest import unused_port
from tests.listener.conftest import PATIENCE, A, B, C, say, wait_for
from tests.listener.engine_database import EngineDatabase
from tests.listener.examples import EXAMPLES, example
from tests.listener.test_states import status
from tests.support.postgres import database, postgres, template
from tests.support.postgres_cluster import Cluster, Database

__all__ = ["database", "postgres"]

ovirt: Any = example("ovirt_listener")

NETWORKS = ["127.0.0.0/8", "::1/128"]


@pytest.fixture
def engine(database: Database) -> Iterator[EngineDatabase]:
    """The engine's database, without hosts."""
    made = EngineDatabase(database.url)
    yield made
    made.connection.close()


class Adapter:
    """The example in this process, a step at a time."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.away = False
        self.listener = Listener(port=0, **{"networks": NETWORKS, **options})
        self.engine = ovirt.Engine(self.listener, self._connect)

    def _connect(self) -> Any:
        if self.away:
            raise ovirt.psycopg.OperationalError("away")
        return ovirt.psycopg.connect(self.url)

    def step(self) -> None:
        self.engine.take(self.listener.events(0))
        self.engine.sync()

    def until(self, happened: Callable[[], object]) -> None:
        def stepped() -> object:
            self.step()
            return happened()

        wait_for(stepped)

    def say(self, address: str, *payload: bytes) -> None:
        """Send that, and have it heard."""
        before = self.listener.counts["accepted"]
        say(address, self.listener.port, *payload)
        wait_for(lambda: self.listener.counts["accepted"] == before + 1)

    def close(self) -> None:
        self.listener.close()
        if self.engine.database is not None:
            self.engine.database.close()


@pytest.fixture
def adapt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Adapter]]:
    """Makes them, and closes them after the test."""
    monkeypatch.setattr(ovirt, "RETRY", 0.0)
    made: list[Adapter] = []

    def make(url: str, **options: Any) -> Adapter:
        made.append(Adapter(url, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def adapter(engine: EngineDatabase, adapt: Callable[..., Adapter]) -> Adapter:
    return adapt(engine.url)


def port_of(adapter: Adapter, address: str) -> int:
    """From which it was last heard."""
    dump = adapter.listener.dump(address)
    assert dump is not None
    return dump.port


def test_a_host_is_dumping_in_the_database_from_its_first_message_on(
    engine: EngineDatabase, adapter: Adapter
) -> None:
    host, _ = engine.host(A), engine.host(B)
    adapter.say(A)
    adapter.step()
    assert engine.states() == {host: "dumping"}
    assert json.loads(engine.address(host)) == [A, port_of(adapter, A)]
    adapter.say(A)
    adapter.step()
    assert engine.seen(host) == ["dumping"]


def test_the_engine_knows_that_the_listener_lives(
    engine: EngineDatabase, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter.step()
    first = engine.heartbeat()
    assert first == pytest.approx(time.time(), abs=60)
    adapter.step()
    assert engine.heartbeat() == first
    monkeypatch.setattr(ovirt, "HEARTBEAT", 0.0)
    adapter.engine.heartbeat_due = 0.0
    adapter.step()
    assert engine.heartbeat() != first


def test_silence_finishes_it(engine: EngineDatabase, adapt: Callable[..., Adapter]) -> None:
    adapter = adapt(engine.url, silence_timeout=1.0)
    host = engine.host(A)
    adapter.say(A)
    adapter.until(lambda: engine.states() == {host: "finished"})
    assert engine.seen(host)[-1] == "finished"


@pytest.mark.parametrize("end", ["finished", "failed"])
def test_so_does_a_host_that_says_so_and_what_is_left_of_that_dump_is_none(
    engine: EngineDatabase, adapter: Adapter, end: str
) -> None:
    host = engine.host(A)
    for payload in (status("dumping", 1), status(end, 2), status("dumping", 1)):
        adapter.say(A, payload)
        adapter.step()
    assert engine.seen(host) == ["dumping", "finished"]


@pytest.mark.parametrize("removed", [False, True])
def test_a_second_dump_is_one_whether_the_engine_took_note_of_the_first_or_not(
    engine: EngineDatabase, adapter: Adapter, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    monkeypatch.setattr("kdumpfence.listener.dumps.OVERTAKEN", -1.0)
    host = engine.host(A)
    for payload in (status("dumping", 1), status("finished", 2)):
        adapter.say(A, payload)
        adapter.step()
    if removed:
        engine.execute("DELETE FROM vds_kdump_status")
    adapter.say(A, status("started", 3))
    adapter.step()
    assert engine.states() == {host: "dumping"}


def test_a_host_with_two_addresses_dumps_as_long_as_one_of_them_is_heard(
    engine: EngineDatabase, adapter: Adapter
) -> None:
    host = engine.host(A, B)
    for address, payload in (
        (A, status("dumping", 1)),
        (B, status("dumping", 1)),
        (A, status("finished", 2)),
    ):
        adapter.say(address, payload)
        adapter.step()
    assert engine.seen(host) == ["dumping"]
    adapter.say(B, status("finished", 2))
    adapter.step()
    assert engine.seen(host) == ["dumping", "finished"]


def test_a_host_may_have_ipv6(engine: EngineDatabase, adapter: Adapter, ipv6: None) -> None:
    host = engine.host("0:0:0:0:0:0:0:1")
    adapter.say("::1")
    adapter.step()
    assert engine.states() == {host: "dumping"}
    assert json.loads(engine.address(host))[0] == "::1"


def test_an_address_that_two_hosts_have_is_neithers(
    engine: EngineDatabase, adapter: Adapter
) -> None:
    engine.host(A, B)
    engine.host(A, C)
    adapter.step()
    adapter.say(A)
    adapter.step()
    assert engine.states() == {}


def test_what_no_host_sends_from_does_no_harm(engine: EngineDatabase, adapter: Adapter) -> None:
    others = ("0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "240.0.0.1", "::", "ff02::1")
    host = engine.host(None, "", "?", *others, "fe80::1", "::ffff:192.0.2.1", A)
    adapter.say(A)
    adapter.step()
    assert engine.states() == {host: "dumping"}


def test_a_host_that_comes_into_the_database_later_is_found(
    engine: EngineDatabase, adapter: Adapter
) -> None:
    adapter.say(A)
    adapter.step()
    assert engine.states() == {}
    host = engine.host(A)
    adapter.step()
    assert engine.states() == {host: "dumping"}
    adapter.say(A, status("finished", 2))
    adapter.step()
    assert engine.seen(host) == ["dumping", "finished"]


def test_so_is_one_whose_dump_was_over_before_anybody_looked(
    engine: EngineDatabase, adapter: Adapter
) -> None:
    adapter.step()
    host = engine.host(A)
    adapter.say(A, status("dumping", 1))
    adapter.say(A, status("finished", 2))
    adapter.step()
    assert engine.states() == {host: "finished"}


def test_strangers_are_forgotten_when_they_are_silent(
    engine: EngineDatabase, adapt: Callable[..., Adapter]
) -> None:
    adapter = adapt(engine.url, silence_timeout=1.0)
    adapter.say(A)
    adapter.until(lambda: A not in adapter.listener)
    adapter.step()
    assert adapter.engine.strangers == {}


def test_strangers_take_no_more_room_than_they_may(
    engine: EngineDatabase, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ovirt, "MOST_STRANGERS", 1)
    adapter.away = True
    for address in (B, A):
        adapter.say(address)
        adapter.step()
    assert list(adapter.engine.strangers) == [A]


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


def test_a_host_that_was_removed_keeps_nobody_from_being_told_of(
    engine: EngineDatabase, adapter: Adapter
) -> None:
    gone, host = engine.hosts([(A,), (B,)])
    adapter.step()
    adapter.say(A)
    adapter.engine.take(adapter.listener.events(0))
    engine.execute("DELETE FROM vds_static WHERE vds_id = %s", gone)
    adapter.say(B)
    adapter.step()
    assert engine.states() == {host: "dumping"}


def test_a_burst_of_two_thousand_hosts_is_in_the_database(
    engine: EngineDatabase, adapter: Adapter
) -> None:
    addresses = [f"127.8.{number // 200}.{number % 200 + 1}" for number in range(2000)]
    hosts = engine.hosts([(address,) for address in addresses])
    adapter.step()
    for address in addresses:
        say(address, adapter.listener.port)
    adapter.until(lambda: engine.states() == dict.fromkeys(hosts, "dumping"))
    assert adapter.listener.counts["unread"] == 0


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

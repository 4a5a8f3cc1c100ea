# SPDX-License-Identifier: LGPL-2.1-or-later
"""examples/ovirt_listener.py: what the engine finds in its database, as docs/clouds.md has it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from tests.listener.conftest import A, B, C, say
from tests.listener.engine_database import EngineDatabase
from tests.listener.ovirt_adapter import Adapter, adapt, adapter, database, engine, ovirt, postgres
from tests.listener.test_states import status

__all__ = ["adapt", "adapter", "database", "engine", "postgres"]


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

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tells oVirt's engine which hosts are dumping, in its database, as its own listener does.

    examples/ovirt_listener.py CONNINFO [NETWORK...]

CONNINFO is the engine's database, as libpq has it; docs/clouds.md says what the engine sees there.
A host that the database does not have yet is heard if it is in one of the NETWORKs, by default
wherever it is. KDUMP_PORT in the environment sets another UDP port.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

try:
    import psycopg
except ImportError:  # oVirt has its predecessor, which will do
    import psycopg2 as psycopg  # type: ignore[import-not-found,import-untyped,no-redef,unused-ignore]

from kdumpfence import AnyEvent, Dump, Event, Listener, ListenerClosed

ENDS = ("finished", "failed", "silent")
HEARTBEAT = 30.0  # seconds; the engine gives the listener up after 90
RETRY = 5.0  # between two attempts to reach the database, or to find an unknown address in it
MOST_STRANGERS = 1 << 17
GATHER, ENOUGH = 0.1, 1000  # seconds and events: hosts that panic together share a statement
#: No node can have these, or not without its interface: a Listener refuses them.
NOBODYS = [
    ipaddress.ip_network(network)
    for network in ("0.0.0.0/8", "224.0.0.0/4", "255.255.255.255", "::", "fe80::/10", "ff00::/8")
]

HOSTS = "SELECT vds_id::text, addr, ipv6_address FROM vds_interface WHERE vds_id IS NOT NULL"
UNFINISHED = "SELECT vds_id::text, address FROM GetAllUnfinishedVdsKdumpStatus()"
ALIVE = "SELECT UpsertExternalVariable('fence-kdump-listener-heartbeat', NULL)"
SAVE = """
    SELECT count(UpsertKdumpStatus(host, state, address))
    FROM unnest(%s::uuid[], %s::varchar[], %s::varchar[]) AS heard (host, state, address)
    WHERE host IN (SELECT vds_id FROM vds_static)
"""


class Engine:
    """The engine's database. What it cannot be told yet waits until it can."""

    def __init__(self, listener: Listener, connect: Callable[[], Any]) -> None:
        self.listener = listener
        self.connect = connect
        self.database: Any = None  # a connection
        self.owners: dict[str, str] = {}  # address -> host; "": several hosts have it
        self.dumping: dict[str, str] = {}  # address -> host
        self.busy: dict[str, set[str]] = {}  # host -> addresses from which it is heard
        self.waiting: dict[str, tuple[str, str]] = {}  # host -> state and address, to be saved
        self.strangers: dict[str, Event] = {}  # address -> what happened to it last
        self.resumed = False
        self.heartbeat_due = self.look_due = self.try_due = 0.0

    def take(self, events: list[AnyEvent]) -> list[AnyEvent]:
        """What the Listener tells; the same."""
        for event in events:
            if event.kind == "overflow":
                logging.warning("%d were lost (%s)", event.messages, event.counter)
            else:
                self.note(event)
        return events

    def note(self, event: Event) -> None:
        """What happened to an address; of a host that has several only the whole counts."""
        address, over = event.node, event.kind in ENDS
        host = self.dumping.get(address) or self.owners.get(address)
        if not host:
            self.strangers.pop(address, None)
            self.strangers[address] = event
            if len(self.strangers) > MOST_STRANGERS:
                del self.strangers[next(iter(self.strangers))]
            return
        known = host in self.busy
        addresses = self.busy.setdefault(host, set())
        if over:
            addresses.discard(address)
            self.dumping.pop(address, None)
        else:
            addresses.add(address)
            self.dumping[address] = host
        if not addresses:
            del self.busy[host]
        if not addresses or not known:
            state = "dumping" if addresses else "finished"
            self.waiting[host] = state, json.dumps([address, event.port])

    def sync(self) -> None:
        """Bring the database up to date, if it can be reached."""
        now = time.monotonic()
        if now < self.try_due:
            return
        try:
            if self.database is None:
                self.database = self.connect()
                self.database.autocommit = True
            if now >= self.heartbeat_due or (self.strangers and now >= self.look_due):
                self.look_for_hosts()
                self.look_due = now + RETRY
            if not self.resumed:
                self.resume()
            if self.waiting:
                rows = [(host, *what) for host, what in self.waiting.items()]
                self.ask(SAVE, *(list(column) for column in zip(*rows)))
                self.waiting.clear()
            if now >= self.heartbeat_due:
                self.ask(ALIVE)
                self.heartbeat_due = now + HEARTBEAT
        except psycopg.Error as error:
            logging.warning("database: %s; will try again", " ".join(str(error).split()))
            if self.database is not None:
                self.database.close()
            self.database, self.try_due = None, time.monotonic() + RETRY

    def ask(self, query: str, *values: object) -> list[Any]:
        """What the database answers."""
        with self.database.cursor() as cursor:
            cursor.execute(query, values)
            return list(cursor.fetchall())

    def look_for_hosts(self) -> None:
        """Whose addresses are whose, and which of the strangers is one of them."""
        owners: dict[str, str] = {}
        for host, *addresses in self.ask(HOSTS):
            for address in filter(None, map(usable, addresses)):
                owners[address] = host if owners.get(address, host) == host else ""
        if owners != self.owners:
            self.listener.replace_nodes(owners.keys())
            self.owners = owners
        strangers, self.strangers = self.strangers, {}
        for event in strangers.values():
            if owners.get(event.node) or (event.node not in owners and event.kind not in ENDS):
                self.note(event)

    def resume(self) -> None:
        """What was under way when this program ended goes on, or is over if it stays silent."""
        now = time.time()
        for host, text in self.ask(UNFINISHED):
            if host in self.busy or host in self.waiting:
                continue
            self.waiting[host] = "finished", text  # unless it can still be heard
            with contextlib.suppress(ValueError, TypeError):
                address, port = json.loads(text)
                if address not in self.listener:
                    self.listener.restore([Dump(address, now, now, 1, (address,), port=port)])
                self.busy[host], self.dumping[address] = {address}, host
                del self.waiting[host]
        self.resumed = True


def usable(text: str | None) -> str | None:
    """The address, if a host can send from there: interfaces may have any, or none."""
    try:
        address = ipaddress.ip_address(text or "")
    except ValueError:
        return None
    return None if any(address in network for network in NOBODYS) else str(address)


def main() -> None:
    """Keep the database up to date until SIGTERM."""
    conninfo, *networks = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    port = int(os.environ.get("KDUMP_PORT", "7410"))
    with Listener(networks=networks or ["0.0.0.0/0", "::/0"], port=port) as listener:
        signal.signal(signal.SIGTERM, lambda *_: listener.close())
        engine = Engine(
            listener,
            lambda: psycopg.connect(conninfo, connect_timeout=5, tcp_user_timeout=10_000),  # s, ms
        )
        with contextlib.suppress(ListenerClosed):
            while not listener.closed:
                engine.sync()
                if len(engine.take(listener.events(1.0))) < ENOUGH:
                    engine.sync()
                    time.sleep(GATHER)


if __name__ == "__main__":
    main()

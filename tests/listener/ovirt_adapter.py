# SPDX-License-Identifier: LGPL-2.1-or-later
"""examples/ovirt_listener.py in this process, a step at a time, with a database of its own.

What may not be in this file: what the engine finds in the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kdumpfence import Listener
from tests.listener.conftest import say, wait_for
from tests.listener.engine_database import EngineDatabase
from tests.listener.examples import example
from tests.support.postgres import database, postgres
from tests.support.postgres_cluster import Database

__all__ = ["NETWORKS", "Adapter", "adapt", "adapter", "database", "engine", "ovirt", "postgres"]

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

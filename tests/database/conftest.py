# SPDX-License-Identifier: LGPL-2.1-or-later
"""A database with the schema, and daemons that hand on to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from kdumpfence.database import schema
from tests.daemon.running import PROGRAM, Kdumpfenced
from tests.support.postgres import Database, database, postgres

__all__ = ["database", "memory", "postgres", "start"]


@pytest.fixture
def memory(database: Database) -> Database:
    """A database that has the schema, made by its owner, who is no superuser."""
    owner = database.user()
    database.sql(f"ALTER DATABASE {database.name} OWNER TO {owner}")
    for role in (schema.WRITER, schema.READER):
        database.sql(
            f"DO $$ BEGIN CREATE ROLE {role}; "
            "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
    schema.make(database.url_of(owner), new=True)
    return database


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Kdumpfenced]]:
    """Start a daemon of that name that hands on to that URL."""
    made: list[Kdumpfenced] = []

    def begin(
        name: str,
        url: str,
        top: str = "silence = 10\nrepeat = 1",
        program: Sequence[str] = PROGRAM,
    ) -> Kdumpfenced:
        (tmp_path / name).mkdir()
        daemon = Kdumpfenced(tmp_path / name)
        made.append(daemon)
        daemon.configure(
            f'networks = ["127.0.0.0/8"]\nnode = "{name}"\n{top}', history=f'database = "{url}"'
        )
        daemon.start(program=program)
        return daemon

    yield begin
    for daemon in made:
        daemon.close()

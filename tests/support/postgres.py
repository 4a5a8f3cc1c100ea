# SPDX-License-Identifier: LGPL-2.1-or-later
"""PostgreSQL for tests: a database for each, on a cluster that all processes of a run share.

    from tests.support.postgres import Database, database, postgres

    def test_something(database: Database) -> None:
        psycopg.connect(database.url)

The fixture `database` is an empty database of its own. The cluster starts when the first process
of one run of pytest wants it and ends with the last one, however that ends. Who kills or copies a
cluster makes one of its own: `Cluster(template(tmp_path_factory))`. What may not be in this file:
what kdumpfence keeps in a database.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.conftest import cannot_run
from tests.support.once import once
from tests.support.postgres_cluster import PASSWORD, Cluster, Database, initdb, programs

__all__ = [
    "PASSWORD", "Cluster", "Database", "database", "postgres", "shared", "template"
]  # fmt: skip


def template(factory: pytest.TempPathFactory) -> Path:
    """What initdb made, for `Cluster(data)`."""
    programs()
    return once(factory, "postgres", initdb)


#: Keeps a cluster as long as anybody holds a lock on that file: argv is the lock, the template,
#: and where it says where it is.
_KEEPER = """
import fcntl, signal, sys
from pathlib import Path
from tests.support import postgres
signal.signal(signal.SIGINT, signal.SIG_IGN)
lock, data, place = sys.argv[1:]
with postgres.Cluster(Path(data)) as cluster:
    cluster.start()
    Path(place).write_text(postgres.place(cluster))
    print("ready", flush=True)
    held = open(lock)
    fcntl.flock(held, fcntl.LOCK_EX)
    Path(place).unlink()
"""


def place(cluster: Cluster) -> str:
    """Where it is, for `_found`."""
    return json.dumps([str(cluster.folder), cluster.port])


def _found(text: str) -> Cluster:
    """A cluster that another process keeps."""
    made = Cluster.__new__(Cluster)
    folder, made.port = json.loads(text)
    made.folder, made.process = Path(folder), None
    return made


def shared(factory: pytest.TempPathFactory) -> Cluster:
    """The cluster of this run of pytest; it is there until the last process of that has ended."""
    data = template(factory)
    lock, where = data.with_name("postgres.users"), data.with_name("postgres.place")
    with open(f"{lock}.first", "w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        # Open until this process ends. Where a keeper is on its way out already, this waits.
        users = _USERS.get(lock) or _USERS.setdefault(lock, open(lock, "w"))  # noqa: SIM115
        fcntl.flock(users, fcntl.LOCK_SH)
        if not where.exists():
            keeper = subprocess.Popen(
                [sys.executable, "-c", _KEEPER, lock, data, where],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).resolve().parents[2],
                start_new_session=True,
            )
            assert keeper.stdout is not None
            assert keeper.stderr is not None
            if keeper.stdout.readline() != "ready\n":
                cannot_run(f"no PostgreSQL: {keeper.stderr.read()}")
            _KEEPERS.append(keeper)
        return _found(where.read_text())


_USERS: dict[Path, IO[str]] = {}
_KEEPERS: list[subprocess.Popen[str]] = []


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The cluster of this run."""
    return shared(tmp_path_factory)


@pytest.fixture
def database(postgres: Cluster) -> Iterator[Database]:
    """An empty database of its own."""
    with postgres.database() as made:
        yield made

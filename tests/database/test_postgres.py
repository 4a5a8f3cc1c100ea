# SPDX-License-Identifier: LGPL-2.1-or-later
"""The PostgreSQL that tests use: one cluster for a run, and others that can be killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.postgres import Cluster, Database, database, postgres, shared, template

__all__ = ["database", "postgres"]

pytestmark = pytest.mark.slow


def test_a_database_is_empty_and_wants_a_password(database: Database) -> None:
    assert (
        database.sql("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        == "0"
    )
    import psycopg

    with psycopg.connect(database.url) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == (database.name,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(database.url_of("admin", "wrong"))
    user = database.user("pg_read_all_data")
    with psycopg.connect(database.url_of(user)) as connection:
        found = connection.execute("SELECT pg_has_role('pg_read_all_data', 'member')").fetchone()
        assert found == (True,)


def test_processes_of_one_run_share_a_cluster(
    postgres: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert shared(tmp_path_factory).folder == postgres.folder
    (pid,) = (postgres.data / "postmaster.pid").read_text().split()[:1]
    assert Path(f"/proc/{pid}").stat().st_uid != 0 or os.geteuid() != 0


def test_a_killed_cluster_starts_again_with_what_was_committed(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with Cluster(template(tmp_path_factory)) as cluster:
        cluster.start()
        cluster.sql("CREATE TABLE t AS SELECT 1 AS a")
        cluster.kill()
        assert not cluster.is_ready()
        cluster.start()
        assert cluster.sql("SELECT a FROM t") == "1"
        with cluster.replica() as replica:
            replica.start()
            assert replica.sql("SELECT pg_is_in_recovery()") == "t"
    assert not cluster.folder.exists()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What of the database of oVirt's engine a fence_kdump listener sees, as docs/clouds.md says.

Tables, columns and functions have the engine's names; what is in them is ours. What may not be in
this file: a listener.
"""

from __future__ import annotations

import uuid
from typing import Any

import psycopg

SCHEMA = """
    CREATE TABLE vds_static (vds_id uuid PRIMARY KEY);
    CREATE TABLE vds_interface (
        vds_id uuid REFERENCES vds_static ON DELETE CASCADE,
        addr varchar(20), ipv6_address varchar(50)
    );
    CREATE TABLE vds_kdump_status (
        vds_id uuid PRIMARY KEY REFERENCES vds_static ON DELETE CASCADE,
        status varchar(20) NOT NULL, address varchar(255) NOT NULL
    );
    CREATE TABLE external_variable (
        var_name varchar(100) PRIMARY KEY, var_value varchar(4000),
        _update_date timestamptz NOT NULL DEFAULT now()
    );
    -- All that a host's row has been, in its order.
    CREATE TABLE seen (number serial, vds_id uuid, status varchar(20));

    CREATE FUNCTION UpsertKdumpStatus(host uuid, state varchar(20), its varchar(255)) RETURNS int
    LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO seen (vds_id, status) VALUES (host, state);
        INSERT INTO vds_kdump_status VALUES (host, state, its)
            ON CONFLICT (vds_id) DO UPDATE SET status = excluded.status, address = excluded.address;
        RETURN 1;
    END $$;
    CREATE FUNCTION GetAllUnfinishedVdsKdumpStatus() RETURNS SETOF vds_kdump_status
    LANGUAGE sql STABLE AS $$ SELECT * FROM vds_kdump_status WHERE status <> 'finished' $$;
    CREATE FUNCTION UpsertExternalVariable(name varchar(100), value varchar(4000)) RETURNS void
    LANGUAGE sql AS $$
        INSERT INTO external_variable VALUES (name, value)
            ON CONFLICT (var_name) DO UPDATE SET var_value = value, _update_date = clock_timestamp()
    $$;
"""


class EngineDatabase:
    """The engine's side: its hosts, and what it reads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)
        self.connection.execute(SCHEMA)

    def host(self, *addresses: str | None) -> str:
        """A host that has these addresses; its id."""
        return self.hosts([addresses])[0]

    def hosts(self, addresses: list[tuple[str | None, ...]]) -> list[str]:
        """The same for many of them."""
        made = [str(uuid.uuid4()) for _ in addresses]
        with self.connection.cursor() as cursor:
            cursor.executemany("INSERT INTO vds_static VALUES (%s)", [(host,) for host in made])
            cursor.executemany(
                "INSERT INTO vds_interface VALUES (%s, %s, %s)",
                [
                    (host, None, its) if its and ":" in its else (host, its, None)
                    for host, several in zip(made, addresses)
                    for its in several
                ],
            )
        return made

    def states(self) -> dict[str, str]:
        """Host -> what its row says."""
        rows = self.connection.execute("SELECT vds_id::text, status FROM vds_kdump_status")
        return dict(rows.fetchall())

    def address(self, host: str) -> str:
        """The last column of a host's row."""
        query = "SELECT address FROM vds_kdump_status WHERE vds_id = %s"
        (row,) = self.connection.execute(query, [host]).fetchall()
        return str(row[0])

    def seen(self, host: str) -> list[str]:
        """All that its row has been."""
        query = "SELECT status FROM seen WHERE vds_id = %s ORDER BY number"
        return [row[0] for row in self.connection.execute(query, [host])]

    def heartbeat(self) -> float | None:
        """When the listener was last known to be alive: Unix time."""
        query = "SELECT extract(epoch FROM _update_date)::float FROM external_variable"
        where = " WHERE var_name = 'fence-kdump-listener-heartbeat'"
        row = self.connection.execute(query + where).fetchone()
        return None if row is None else float(row[0])

    def execute(self, query: str, *values: object) -> None:
        """The engine changes something."""
        self.connection.execute(query.encode(), values)

    def hang_up(self) -> None:
        """Ends everybody else's connections."""
        self.connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

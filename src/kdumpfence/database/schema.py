# SPDX-License-Identifier: LGPL-2.1-or-later
"""Making the schema, bringing it up to date, and looking whether it can be used.

Whoever does so needs no superuser: CREATE on the database, and for `init` either CREATEROLE or
that the two roles are there. What may not be in this file: what the tables are.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from kdumpfence.database import calls, merging, overview
from kdumpfence.database.connection import DatabaseError, connect, driver, explaining
from kdumpfence.database.tables import MIGRATIONS, VERSION
from kdumpfence.database.views import VIEWS

if TYPE_CHECKING:
    import psycopg

SCHEMA = "kdumpfence"
WRITER = "kdumpfence_writer"
READER = "kdumpfence_reader"

#: What a database can be encoded in: SQL_ASCII takes whatever bytes it is given.
_ENCODINGS = ("UTF8", "SQL_ASCII")

_NEWER = (
    "its schema is of a newer kdumpfence (version {}, this one knows {}): update kdumpfence here"
)
_OLDER = (
    "its schema is of version {}, and this kdumpfence needs {}: run `kdumpfence database upgrade`"
)
_EMPTY = "its schema kdumpfence is empty, as after a restore without data: drop it, and run "
_EMPTY += "`kdumpfence database init` as its owner"
_ENCODING = "its encoding is {}, which has no room for every name of a node: make the database "
_ENCODING += "with createdb -E UTF8 -T template0"
_NONE = "it has no schema kdumpfence: run `kdumpfence database init` as its owner"


def version(connection: psycopg.Connection[Any]) -> int:
    """Of the schema that is there; 0: there is none."""
    (there,) = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid "
        "WHERE n.nspname = 'kdumpfence' AND c.relname = 'meta')"
    ).fetchone()  # type: ignore[misc]
    if not there:
        return 0
    row = connection.execute("SELECT version FROM kdumpfence.meta").fetchone()
    if row is None:
        raise DatabaseError(_EMPTY, lasting=True)
    return int(row[0])


def need(connection: psycopg.Connection[Any]) -> None:
    """DatabaseError if the schema is not of this version."""
    found = version(connection)
    if found == 0:
        raise DatabaseError(_NONE, lasting=True)
    if found > VERSION:
        raise DatabaseError(_NEWER.format(found, VERSION), lasting=True)
    if found < VERSION:
        raise DatabaseError(_OLDER.format(found, VERSION), lasting=True)


def make(url: str, new: bool) -> tuple[int, int]:
    """Make the schema (`new`), or bring it up to date; the version before, 0 for none, and now.

    All of it or nothing. DatabaseError.
    """
    with explaining(url, owner=True), connect(url) as connection:
        # DDL waits for listeners that are in the middle of something, and they for it.
        connection.execute("SET lock_timeout = '30s'")
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtext('kdumpfence schema'))")
            before = version(connection)
            if before > VERSION:
                raise DatabaseError(_NEWER.format(before, VERSION), lasting=True)
            if before == 0 and not new:
                raise DatabaseError(_NONE, lasting=True)
            encoding = connection.info.parameter_status("server_encoding")
            if before == 0 and encoding not in _ENCODINGS:
                raise DatabaseError(_ENCODING.format(encoding), lasting=True)
            _roles(connection)
            connection.execute("CREATE SCHEMA IF NOT EXISTS kdumpfence")
            connection.execute("SET LOCAL search_path = kdumpfence, pg_temp")
            for number, statements in sorted(MIGRATIONS.items()):
                if number > before:
                    _run(connection, statements)
            connection.execute("UPDATE meta SET version = %s", (VERSION,))
            # In the order in which `overview` takes them: nobody waits for the other in a circle.
            for view in ("listeners", "dumping", "dumps", "events"):
                _run(connection, f"DROP VIEW IF EXISTS {view}")
            _run(connection, "SET LOCAL check_function_bodies = off")
            _run(connection, merging.FUNCTIONS)
            _run(connection, calls.FUNCTIONS)
            _run(connection, overview.FUNCTION)
            _run(connection, VIEWS)
            _grant(connection)
    return before, VERSION


def _run(connection: psycopg.Connection[Any], statements: str) -> None:
    connection.execute(statements.encode())


def _roles(connection: psycopg.Connection[Any]) -> None:
    for role in (WRITER, READER):
        found = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
        if found is None:
            (may,) = connection.execute(
                "SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user"
            ).fetchone()  # type: ignore[misc]
            if not may:
                raise DatabaseError(
                    f"there is no role {role}, and this user may not create it: let somebody who "
                    f"may run CREATE ROLE {WRITER}; CREATE ROLE {READER};",
                    lasting=True,
                )
            # Roles are the whole cluster's: that of another database may come at the same time.
            with contextlib.suppress(driver().errors.UniqueViolation), connection.transaction():
                _run(connection, f"CREATE ROLE {role}")


def _grant(connection: psycopg.Connection[Any]) -> None:
    """Nobody may do anything but what his role is for."""
    _run(connection, "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA kdumpfence FROM PUBLIC")
    _run(connection, f"GRANT USAGE ON SCHEMA kdumpfence TO {WRITER}, {READER}")
    _run(connection, f"GRANT SELECT ON meta TO {WRITER}")
    for function in (*calls.WRITERS, overview.SIGNATURE):
        _run(connection, f"GRANT EXECUTE ON FUNCTION {function} TO {WRITER}")
    _run(connection, f"GRANT SELECT ON ALL TABLES IN SCHEMA kdumpfence TO {READER}")
    # A superuser who upgrades owns the views then, and `overview` keeps the rights of its owner.
    _run(
        connection,
        "DO $$ BEGIN EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA kdumpfence TO %I', "
        "(SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'kdumpfence')); "
        "END $$",
    )


def keep(
    url: str, days: float | None, event_days: float | None, most: int | None
) -> tuple[float, float, int]:
    """Set for how long things are kept, None: as it is; what is so now. DatabaseError."""
    with explaining(url, owner=True), connect(url) as connection:
        need(connection)
        found = connection.execute(
            "UPDATE kdumpfence.meta SET keep_days = coalesce(%s, keep_days), "
            "keep_event_days = coalesce(%s, keep_event_days), "
            "most_dumps = coalesce(%s, most_dumps) "
            "RETURNING keep_days, keep_event_days, most_dumps",
            (days, event_days, most),
        ).fetchone()
    assert found is not None
    return float(found[0]), float(found[1]), int(found[2])


def forget(url: str, name: str) -> int:
    """Give up listeners of that name that are gone for good; how many they were. DatabaseError.

    What they were the only ones to see ends with the last message they heard.
    """
    with explaining(url, owner=True), connect(url) as connection:
        need(connection)
        with connection.transaction():
            connection.execute("SET LOCAL search_path = kdumpfence, pg_temp")
            connection.execute("SELECT FROM meta FOR UPDATE")
            found = connection.execute(
                "UPDATE listener SET up = false, stopped = true, seen = least(seen, now() - "
                "interval '1 hour') WHERE name = %s AND seen < now() - interval '30 s' "
                "RETURNING id",
                (name,),
            ).fetchall()
            ids = [one for (one,) in found]
            connection.execute(
                "WITH closed AS (UPDATE report SET ended = last, how = 'silent' "
                "WHERE listener = ANY (%s) AND ended IS NULL RETURNING dump) "
                "SELECT publish(settle(array_agg(dump), array_agg(0))) FROM closed",
                (ids,),
            )
    return len(ids)


def check(url: str) -> list[str]:
    """What is to be said of a database that can be used, a line each. DatabaseError if not."""
    with explaining(url), connect(url) as connection:
        need(connection)
        row = connection.execute(
            "SELECT current_user, current_setting('server_version'), pg_is_in_recovery(), "
            f"pg_has_role('{WRITER}', 'member'), pg_has_role('{READER}', 'member'), "
            "has_function_privilege('kdumpfence.trim_history()', 'execute'), "
            "has_table_privilege('kdumpfence.dumps', 'select'), "
            "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user), "
            "coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false), "
            "inet_server_addr() IS NULL OR host(inet_server_addr()) IN ('127.0.0.1', '::1')"
        ).fetchone()
    assert row is not None
    user, server, replica, _, _, writes, reads, superuser, ssl, local = row
    can = [what for what, may in (("write", writes), ("read", reads)) if may]
    lines = [
        f"PostgreSQL {server}, schema version {VERSION}"
        + (", a read-only replica" if replica else ""),
        f"user {user} can {' and '.join(can) or 'do nothing here'}"
        + ("; it is a superuser, which nothing here needs" if superuser else ""),
    ]
    if not ssl and not local:
        lines.append("the connection is not encrypted: add sslmode=verify-full to the URL")
    return lines

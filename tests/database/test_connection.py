# SPDX-License-Identifier: LGPL-2.1-or-later
"""How one gets in: libpq's own settings, TLS, and what is not shown of a URL."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from kdumpfence.daemon import main as daemon
from kdumpfence.database import connection, schema
from kdumpfence.database.connection import DatabaseError, connect, has_password, is_url, shown
from kdumpfence.database.tables import MIGRATIONS
from tests.support.postgres import PASSWORD, Cluster, Database, template
from tests.support.programs import ROOT


@pytest.mark.slow
def test_libpqs_own_settings_count(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "service").write_text(
        f"[dumps]\nhost=127.0.0.1\nport={database.cluster.port}\nuser=admin\ndbname={database.name}\n"
    )
    (tmp_path / "pass").write_text(f"*:*:*:*:{PASSWORD}\n")
    (tmp_path / "pass").chmod(0o600)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "service"))
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pass"))
    with connect("postgresql://?service=dumps") as opened:
        assert opened.info.dbname == database.name
    monkeypatch.setenv("PGSERVICE", "dumps")
    with connect("postgresql://") as opened:
        assert opened.info.dbname == database.name
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    with pytest.raises(DatabaseError, match="no password supplied"):
        connect("postgresql://")


@pytest.mark.slow
def test_a_server_is_verified_if_that_is_asked_for(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    with Cluster(template(tmp_path_factory)) as cluster:
        for name in ("server", "other"):
            subprocess.run(
                [
                    *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                    *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
                    *("-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.crt"),
                ],
                check=True,
                capture_output=True,
            )
        for part in ("key", "crt"):
            (cluster.data / f"server.{part}").write_bytes(
                (tmp_path / f"server.{part}").read_bytes()
            )
            (cluster.data / f"server.{part}").chmod(0o600)
        cluster.own()
        cluster.start(ssl="on")
        schema.make(cluster.url(), new=True)
        verified = {"sslmode": "verify-full", "sslrootcert": str(tmp_path / "server.crt")}
        with connect(cluster.url(**verified)) as opened:
            assert opened.execute(
                "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            ).fetchone()
        verified["sslrootcert"] = str(tmp_path / "other.crt")
        with pytest.raises(DatabaseError, match="certificate verify failed"):
            connect(cluster.url(**verified))


@pytest.mark.parametrize(
    ("url", "without"),
    [
        ("postgresql://", "postgresql://"),
        ("postgres://u@h/d", "postgres://u@h/d"),
        ("postgresql://u:p@h1:5432,h2/d?a=b", "postgresql://u@h1:5432,h2/d?a=b"),
        ("postgresql://u:p@[::1]:5432/d", "postgresql://u@[::1]:5432/d"),
        ("postgresql://h/d?password=p&a=b", "postgresql://h/d?password=...&a=b"),
        ("postgresql://h/d?sslpassword=p", "postgresql://h/d?sslpassword=..."),
        ("postgresql://u@%2Frun%2Fpostgresql/d", "postgresql://u@%2Frun%2Fpostgresql/d"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, without: str) -> None:
    assert is_url(url)
    assert shown(url) == without
    assert has_password(url) == (url != without)


@pytest.mark.parametrize(
    "url",
    [
        *("", "host=h password=secret", "mysql://h/d", "postgresql://u:sec@ret@h/d"),
        *("postgresql://u:sec/ret@h/d", "postgresql://u:sec ret@h/d", "postgresql://u:s\x1b@h/d"),
        *("postgresql://u:sec:ret#x@h/d", "postgresql://h:port/d", "postgresql://[h/d"),
    ],
)
def test_what_can_be_read_in_two_ways_is_no_url(url: str) -> None:
    assert not is_url(url)
    assert shown(url) == "postgresql://..."


def test_without_psycopg_it_is_said_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DatabaseError, match=r"pip install 'kdumpfence\[postgresql\]'"):
        connection.driver()
    settings = tmp_path / "settings"
    settings.write_text('networks = ["192.0.2.0/24"]\n[history]\ndatabase = "postgresql://db/d"\n')
    assert daemon.main(["--check", f"--config={settings}"]) == 0
    assert "note: database: Python package psycopg is missing" in capsys.readouterr().out


@pytest.mark.slow
def test_a_schema_is_upgraded_as_a_whole_or_not_at_all(
    memory: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = memory.sql(
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = :'it'", it=memory.name
    )
    url = memory.url_of(owner)
    monkeypatch.setattr(schema, "VERSION", 3)
    steps = {**MIGRATIONS, 2: "ALTER TABLE dump ADD COLUMN extra text", 3: "SELECT nonsense"}
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    with pytest.raises(DatabaseError, match="nonsense"):
        schema.make(url, new=False)
    assert memory.sql("SELECT version FROM kdumpfence.meta") == "1"
    columns = "SELECT count(*) FROM pg_attribute WHERE attname = 'extra'"
    assert memory.sql(columns) == "0"
    steps[3] = "ALTER TABLE dump ALTER COLUMN extra SET DEFAULT 'x'"
    assert schema.make(url, new=False) == (1, 3)
    assert memory.sql(columns) == "1"
    # Rights are as they should be after it.
    assert (
        memory.sql("SELECT has_table_privilege('kdumpfence_reader', 'kdumpfence.dumps', 'select')")
        == "t"
    )
    assert schema.make(url, new=False) == (3, 3)


def test_a_command_of_a_package_finds_psycopg_too() -> None:
    """Those run without site-packages; here psycopg is in an environment."""
    program = (
        "import site, sys; site.getsitepackages = lambda: [sys.argv[1]]; "
        "from kdumpfence.database.connection import driver; print(driver().__name__)"
    )
    places = [str(Path(psycopg.__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, "-S", "-c", program, *places],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert (done.stdout, done.stderr) == ("psycopg\n", "")

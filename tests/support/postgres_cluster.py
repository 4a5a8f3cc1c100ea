# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clusters of PostgreSQL, from Debian's programs, in folders that go away: to start, kill and copy.

They run as an ordinary user, since postgres refuses root; they listen on a Unix socket, which
trusts everybody, and on a port of 127.0.0.1, which wants passwords. Nothing is synced to the disk.
What may not be in this file: who shares a cluster, and what kdumpfence keeps in a database.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from tests.conftest import cannot_run, unused_port

#: Superuser of each cluster, and its password on the port.
ADMIN = "admin"
PASSWORD = "not-a-secret"

_SETTINGS = {
    # A power cut would end the run of the tests as well.
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "100",
    "shared_buffers": "16MB",
    "min_wal_size": "2MB",
    "max_wal_size": "128MB",
    "autovacuum_naptime": "10min",
    "listen_addresses": "127.0.0.1",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "fatal",
}
_ACCESS = """
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


@functools.lru_cache
def programs() -> Path:
    """The folder of postgres, initdb and psql: the newest of Debian's, or that in PATH."""
    versions = sorted(
        (path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")),
        key=lambda path: int("0" + "".join(filter(str.isdigit, path.parent.name))),
    )
    found = shutil.which("postgres")
    if not versions and found is None:
        cannot_run("PostgreSQL is missing: apt-get install postgresql")
    return versions[-1] if versions else Path(str(found)).resolve().parent


@functools.lru_cache
def _user() -> pwd.struct_passwd:
    """As whom a cluster runs."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


def _as_user(*options: str) -> tuple[str, ...]:
    if os.geteuid() == 0:
        user = _user()
        options += (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    return ("setpriv", *options) if options else ()


def initdb(target: Path) -> None:
    """Fill that with what initdb makes, once for all clusters of a run."""
    with tempfile.TemporaryDirectory(prefix="kdumpfence-") as name:
        os.chown(name, _user().pw_uid, _user().pw_gid)
        made = Path(name) / "data"
        password = Path(name) / "password"
        password.write_text(PASSWORD)
        options = ("--no-sync", "--wal-segsize=1", "-E", "UTF8", "--locale=C", "-A", "trust")
        who = ("-U", ADMIN, f"--pwfile={password}")
        done = subprocess.run(
            [*_as_user(), programs() / "initdb", *options, *who, "-D", made],
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=240,
        )
        if done.returncode:
            cannot_run(f"initdb: {done.stdout}")
        shutil.copytree(made, target, dirs_exist_ok=True)
    lines = [f"{name} = '{value}'\n" for name, value in _SETTINGS.items()]
    with (target / "postgresql.conf").open("a") as file:
        file.writelines(lines)
    (target / "pg_hba.conf").write_text(_ACCESS)


class Cluster:
    """A cluster in a folder of its own, which `close` removes; it is started by `start`."""

    def __init__(self, data: Path | None = None) -> None:
        """`data`: a copy of that folder, as `template` returns it; None: empty so far."""
        self.folder = Path(tempfile.mkdtemp(prefix="kdumpfence-"))
        self.port = unused_port()
        self.process: subprocess.Popen[bytes] | None = None
        if data is not None:
            shutil.copytree(data, self.data)
        self.own()

    @property
    def data(self) -> Path:
        """Its PGDATA."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "log"

    def own(self) -> None:
        """Everything in there belongs to the cluster's user; others may use its socket."""
        if os.geteuid() == 0:
            user = _user()
            for where, _, files in os.walk(self.folder):
                for name in ("", *files):
                    os.lchown(os.path.join(where, name), user.pw_uid, user.pw_gid)
        self.folder.chmod(0o755)
        if self.data.is_dir():
            self.data.chmod(0o700)

    def start(self, wait: bool = True, **settings: str) -> None:
        """Start the server, with more settings; return when it takes connections."""
        options = {"port": str(self.port), "unix_socket_directories": str(self.folder), **settings}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *_as_user("--pdeathsig=KILL"),
                    *(programs() / "postgres", "-D", self.data),
                    *(f"--{name}={value}" for name, value in options.items()),
                ],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            self.wait()

    def wait(self, seconds: float = 120) -> None:
        """Return when it takes connections."""
        end = time.monotonic() + seconds
        while not self.is_ready():
            assert self.process is None or self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def is_ready(self) -> bool:
        """Whether it takes connections."""
        ask = (programs() / "pg_isready", "-q", "-h", self.folder, "-p", str(self.port))
        return subprocess.run(ask, check=False, timeout=60).returncode == 0

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT fast, SIGQUIT at once as after a crash; return when it is gone."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(120)

    def kill(self) -> None:
        """Kill -9 for all its processes: nobody says good-bye to anybody."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)  # who replaces its children
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        orphans = [int(pid) for pid in children.read_text().split()]
        for pid in (self.process.pid, *orphans):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(120)
        # The next server refuses to start before the last of them is gone.
        while any(_is_alive(pid) for pid in orphans):
            time.sleep(0.01)

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process is not None and self.process.poll() is None:
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def replica(self) -> Cluster:
        """A streaming replica of this running cluster, not started yet: hot standby."""
        made = Cluster()
        copy = (programs() / "pg_basebackup", "-h", str(self.folder), "-p", str(self.port))
        options = ("-U", ADMIN, "-D", made.data, "-R", "-X", "stream", "-c", "fast", "--no-sync")
        subprocess.run([*_as_user(), *copy, *options], cwd="/", check=True, timeout=240)
        made.own()
        return made

    def url(
        self, database: str = "postgres", user: str = ADMIN, password: str = PASSWORD, **more: str
    ) -> str:
        """Over the port, where a password is needed."""
        tail = "&".join(f"{name}={quote(value, safe='')}" for name, value in more.items())
        who = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"postgresql://{who}@127.0.0.1:{self.port}/{database}" + (f"?{tail}" if tail else "")

    def socket_url(self, database: str = "postgres", user: str = ADMIN) -> str:
        """Over the Unix socket, which trusts everybody."""
        where = quote(str(self.folder), safe="")
        return f"postgresql://{quote(user, safe='')}@{where}:{self.port}/{database}"

    def sql(self, text: str, database: str = "postgres", **variables: str) -> str:
        """Run SQL as superuser, with psql; what it returns, a line a row, "|" between columns."""
        done = subprocess.run(
            [
                *(programs() / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1"),
                *(part for name, value in variables.items() for part in ("-v", f"{name}={value}")),
                *("-d", self.socket_url(database)),
            ],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")

    @contextlib.contextmanager
    def database(self, encoding: str = "UTF8") -> Iterator[Database]:
        """An empty database, which is dropped afterwards, whoever still uses it."""
        name = f"test_{secrets.token_hex(6)}"
        self.sql(f"CREATE DATABASE {name} ENCODING {encoding} TEMPLATE template0")
        try:
            yield Database(self, name)
        finally:
            self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Database(NamedTuple):
    """An empty database for one test."""

    cluster: Cluster
    name: str

    @property
    def url(self) -> str:
        """Of its superuser, over the port, with the password in it."""
        return self.cluster.url(self.name)

    def url_of(self, user: str, password: str = PASSWORD, **more: str) -> str:
        """The same of another user."""
        return self.cluster.url(self.name, user, password, **more)

    def sql(self, text: str, **variables: str) -> str:
        """Run SQL there as superuser; see `Cluster.sql`."""
        return self.cluster.sql(text, self.name, **variables)

    def user(self, *roles: str) -> str:
        """A new user with this module's password, who is a member of those roles.

        Users belong to clusters: this one stays until the cluster ends.
        """
        name = f"user_{secrets.token_hex(6)}"
        self.sql(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
        for role in roles:
            self.sql(f'GRANT "{role}" TO {name}')
        return name

# SPDX-License-Identifier: LGPL-2.1-or-later
"""How soon a client sees hosts that panic at once, and what that costs: tables of docs/clouds.md.

    python -m bench.clouds [--print] [--many 100000]

Two thousand hosts at once, as many within a second, and a hundred thousand within a second, each
with three messages a second apart: to the library, to the examples and to plain listeners of the
same purpose. Clients look fifty times a second: at a snapshot, at the engine's table in PostgreSQL,
at InstanceHA's dictionary. What may not be in this file: what the listeners do.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg

from bench import machine
from bench.clouds import hosts
from bench.clouds.subject import EXAMPLES, LOOK, NETWORK
from tests.conftest import unused_port
from tests.listener.engine_database import EngineDatabase
from tests.support.postgres_cluster import Cluster, initdb
from tools import markedtable

PAGE = markedtable.ROOT / "docs" / "clouds.md"
ROUNDS = 3
#: Seconds from the first message until the processor time is looked at, as a plain listener's
#: database is up to five seconds behind; and within which a host has to be seen.
REST = 12.0
PATIENCE = 30.0

SUBJECTS = {
    "the library": "library",
    "ovirt_listener.py": "engine",
    "plain, database": "plain-engine",
    "instanceha.py": "names",
    "plain, names": "plain-names",
}
_PLAIN = """
import sys
from bench.clouds.plain import to_database
to_database(sys.argv[1], int(sys.argv[2]))
"""
#: How a listener that tells a database is started, for that database and a port.
PROGRAMS: dict[str, Callable[[str, int], list[str]]] = {
    "engine": lambda url, _: [str(EXAMPLES / "ovirt_listener.py"), url, NETWORK],
    "plain-engine": lambda url, port: ["-c", _PLAIN, url, str(port)],
}


@dataclasses.dataclass
class Outcome:
    """Seconds, bytes."""

    #: From its first message until a client saw it, of each host that was seen.
    delays: list[float]
    missing: int
    #: Messages that the socket had no room for.
    dropped: int
    processor: float
    peak: int

    def cells(self) -> list[str]:
        """As the table has them."""
        late = sum(delay > 0.5 for delay in self.delays)
        return [
            f"{self.dropped:,}",
            f"{self.missing:,}",
            f"{statistics.median(self.delays):.2f} s" if self.delays else "",
            f"{max(self.delays):.2f} s" if self.delays else "",
            f"{late:,}",
            f"{self.processor:.2f} s",
            f"{self.peak / 1e6:.0f} MB",
        ]


ROWS = (
    "messages that its socket dropped",
    "hosts that no client saw",
    "seen after its first message: median",
    "the last of them",
    "hosts seen later than 0.5 s",
    "processor time",
    "memory at its peak",
)


def _processor(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _peak(pid: int) -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024


class Rows:
    """The client of the database: which hosts have had a row, and when that was seen."""

    def __init__(self, engine: EngineDatabase, names: dict[str, int]) -> None:
        self.engine, self.names = engine, names
        self.seen = array.array("d", bytes(8 * len(names)))
        self.last, self.number = 0, 0

    def look(self) -> None:
        query = "SELECT number, vds_id::text FROM seen WHERE number > %s ORDER BY number"
        rows = self.engine.connection.execute(query, [self.last]).fetchall()
        now = time.monotonic()
        for number, host in rows:
            self.last = number
            one = self.names[host]
            self.number += not self.seen[one]
            self.seen[one] = self.seen[one] or now


@contextlib.contextmanager
def _running(command: list[str], port: int, environment: dict[str, str]) -> Iterator[int]:
    process = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        table = Path("/proc/net/udp")
        while f":{port:04X} 00000000:0000" not in table.read_text():
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(1.0)  # it has read its hosts, and asks for messages
        yield process.pid
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def _dropped(port: int) -> int:
    lines = Path("/proc/net/udp").read_text().splitlines()
    return sum(int(line.split()[-1]) for line in lines if f":{port:04X} 00000000:0000" in line)


def measure(kind: str, number: int, seconds: float, cluster: Cluster, folder: Path) -> Outcome:
    """So many hosts, all of whom begin within these seconds."""
    port = unused_port()
    sent, told = folder / "sent", folder / "told"
    told.unlink(missing_ok=True)
    play = [sys.executable, "-m", "bench.clouds.hosts", str(port), str(number), str(ROUNDS)]
    play += [str(seconds), str(sent)]
    with contextlib.ExitStack() as stack:
        rows = None
        environment = {"KDUMP_PORT": str(port)}
        if kind.endswith("engine"):
            database = stack.enter_context(cluster.database())
            engine = EngineDatabase(cluster.socket_url(database.name))
            stack.callback(engine.connection.close)
            ids = engine.hosts([(hosts.address(one),) for one in range(number)])
            engine.execute("CREATE INDEX ON vds_interface (addr)")
            engine.connection.execute("ANALYZE")
            rows = Rows(engine, {host: one for one, host in enumerate(ids)})
            arguments = PROGRAMS[kind](engine.url, port)
        else:
            arguments = ["-m", "bench.clouds.subject", kind, str(port), str(number), str(told)]
        command = [sys.executable, *arguments]
        with _running(command, port, environment) as pid:
            before = _processor(pid)
            start = time.monotonic()
            player = subprocess.Popen(play)
            while (waited := time.monotonic() - start) < PATIENCE:
                if waited > REST and (rows.number == number if rows else told.exists()):
                    break
                time.sleep(LOOK)
                if rows:
                    rows.look()
            assert player.wait(60) == 0
            dropped, processor, peak = _dropped(port), _processor(pid) - before, _peak(pid)
        seen = rows.seen if rows else array.array("d", told.read_bytes())
        processor -= sum(seen[number:])
        began = array.array("d", sent.read_bytes())
        delays = [at - start for start, at in zip(began, seen) if at]
        return Outcome(delays, number - len(delays), dropped, processor, peak)


def table(outcomes: dict[str, Outcome]) -> str:
    """A column for each."""
    lines = ["| | " + " | ".join(outcomes) + " |", "|---|" + "---:|" * len(outcomes)]
    columns = [one.cells() for one in outcomes.values()]
    lines += [f"| {title} | " + " | ".join(cells) + " |" for title, *cells in zip(ROWS, *columns)]
    return "\n".join(lines)


def main() -> int:
    parser = markedtable.parser(__doc__)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--only", help="one of them: " + ", ".join(SUBJECTS.values()))
    options = parser.parse_args()
    subjects = {k: v for k, v in SUBJECTS.items() if options.only in (None, v)}
    about = machine.in_a_line(machine.machine())
    driver = f"{about}; psycopg {psycopg.__version__} ({psycopg.pq.__impl__})."
    plays = {"burst": (2000, 0.0), "second": (2000, 1.0), "many": (options.many, 1.0)}
    text = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        initdb(folder / "data")
        with Cluster(folder / "data") as cluster:
            cluster.start()
            for mark, (number, seconds) in plays.items():
                outcomes = {}
                for title, kind in subjects.items():
                    outcomes[title] = measure(kind, number, seconds, cluster, folder)
                    print(title, outcomes[title].cells(), file=sys.stderr, flush=True)
                text[f"clouds-{mark}"] = f"{driver}\n\n{table(outcomes)}"
    return markedtable.show(options, PAGE, text)


if __name__ == "__main__":
    sys.exit(main())

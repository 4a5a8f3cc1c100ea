# SPDX-License-Identifier: LGPL-2.1-or-later
"""How fast several listeners fill their database, and how fast it answers, for docs/database.md.

    python -m tools.databasetable [--nodes N] [--dumps N] [--print]

One listener and then three hand on what N nodes did that began to dump, went on and fell silent;
beside them the same in SQLite alone. Then a database with many dumps is asked. PostgreSQL confirms
each transaction on the disk, as it does by default. Five minutes. With --print the table goes to
stdout and the page stays as it is.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import machine
from kdumpfence.daemon import forwarder
from kdumpfence.daemon.history import History
from kdumpfence.database import schema
from kdumpfence.database.reader import Reader
from kdumpfence.listener.events import Event
from tests.support.postgres_cluster import Cluster, Database, initdb
from tools import markedtable
from tools.markedtable import ROOT

PAGE = ROOT / "docs" / "database.md"

#: Events that a daemon's main loop writes down at a time while many nodes panic.
GATHERED = 2000

#: Seconds within which a status is to be answered.
PROMPT = 0.1


def happened(nodes: int, name: str) -> list[Event]:
    """What one listener hears of them, in its order."""
    begun = round(time.time(), 6) - 100.0
    events = []
    for kind, last in (("began", 0.0), ("dumping", 40.0), ("silent", 60.0)):
        for at in range(nodes):
            since = begun + at / nodes
            when = since + last + 30.0 * (kind == "silent")
            events.append(
                Event(kind, f"node{at}", when, since, since + last, 7, (name,), last)  # type: ignore[arg-type]
            )
    return events


def written(path: Path, events: Sequence[Event], spool: bool) -> float:
    """Seconds that it takes to write them to a file."""
    with History(str(path), spool=spool) as history:
        begun = time.perf_counter()
        for at in range(0, len(events), GATHERED):
            history.record(events[at : at + GATHERED])
        return time.perf_counter() - begun


def _hand_on(url: str, path: str, name: str, number: int, start: object) -> None:
    with History(path, spool=True) as history:
        assert history.outbox is not None
        listener = forwarder.Listener(history.outbox.identity, name, 30.0)
        newest = history.outbox.newest
        start.wait()  # type: ignore[attr-defined]
        made = forwarder.Forwarder(url, path, lambda: listener)
        made.start()
        while made.handed_on < newest:
            made.look()
            time.sleep(0.005)
        made.finish(10)


def handed_on(cluster: Cluster, folder: Path, nodes: int, listeners: int) -> float:
    """Seconds until the database has what so many listeners have in their files."""
    with cluster.database() as database:
        schema.make(database.url, new=True)
        context = multiprocessing.get_context("fork")
        start = context.Event()
        processes = []
        for number in range(listeners):
            path = folder / f"{listeners}-{number}.sqlite"
            written(path, happened(nodes, f"192.0.2.{number + 1}"), spool=True)
            given = (database.url, str(path), f"listener{number}", number, start)
            processes.append(context.Process(target=_hand_on, args=given))
            processes[-1].start()
        time.sleep(1.0)
        begun = time.perf_counter()
        start.set()
        for process in processes:
            process.join()
            assert process.exitcode == 0
        took = time.perf_counter() - begun
        found = database.sql("SELECT count(*), min(how), max(how) FROM kdumpfence.dump")
        assert found == f"{nodes}|silent|silent", found
        told = database.sql("SELECT count(*), max(number) FROM kdumpfence.event")
        assert told == f"{2 * nodes}|{2 * nodes}", told
    return took


def fill(database: Database, dumps: int) -> None:
    """So many dumps over a year, 200 of them under way, heard by three listeners each."""
    database.sql(
        """
        INSERT INTO kdumpfence.listener (identity, name, version, life, silence)
        SELECT gen_random_uuid(), 'listener' || n, 'bench', '', '30 s' FROM generate_series(1, 3) n;
        INSERT INTO kdumpfence.dump
            (node, began, last, ended, how, messages, addresses, took, named)
        SELECT 'node' || n % 50000, began, began + '5 min',
            CASE WHEN n > 200 THEN began + '6 min' END,
            CASE WHEN n > 200 THEN 'silent' ELSE '' END, 30, ARRAY['192.0.2.1'], 300, true
        FROM (SELECT n, now() - n * interval '31 s' AS began FROM generate_series(1, :dumps) n) d
        ORDER BY began;
        INSERT INTO kdumpfence.report
        SELECT l.id, d.node, (extract(epoch FROM d.began) * 1000000)::bigint, d.id, d.began, d.last,
            d.ended, d.how, d.messages, d.addresses, d.took, '{}'
        FROM kdumpfence.dump d, kdumpfence.listener l;
        ANALYZE;
        """,
        dumps=str(dumps),
    )


def answers(url: str) -> dict[str, list[float]]:
    """Seconds that each question took."""
    taken: dict[str, list[float]] = {}
    with Reader(url) as reader:
        questions: dict[str, Callable[[], bool]] = {
            "status, 100 dumps": lambda: len(reader.state(100).dumps) == 100,
            "history, the last 100 dumps": lambda: len(reader.past(most=100)) == 100,
            "history of one node": lambda: len(reader.past("node7")) > 1,
            "time-out advice, 100,000 dumps": lambda: len(reader.past(most=100_000)) > 1000,
        }
        for what, ask in questions.items():
            for _ in range(3 if "advice" in what else 20):
                begun = time.perf_counter()
                assert ask()
                taken.setdefault(what, []).append(time.perf_counter() - begun)
    return taken


def measure(nodes: int, dumps: int) -> tuple[list[str], bool]:
    """The table's lines, and whether a status is prompt."""
    lines = ["| | figure |", "|---|---:|"]
    events = happened(nodes, "192.0.2.1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        initdb(folder / "template")
        (folder / "template/postgresql.auto.conf").write_text("fsync = on\nfull_page_writes = on\n")
        with Cluster(folder / "template") as cluster:
            cluster.start(shared_buffers="256MB", max_wal_size="1GB", autovacuum_naptime="1min")
            plain = written(folder / "plain.sqlite", events, spool=False)
            spooled = written(folder / "spooled.sqlite", events, spool=True)
            lines += [
                f"| SQLite alone, as without a database | {len(events) / plain:,.0f} events/s |",
                f"| SQLite with the outbox | {len(events) / spooled:,.0f} events/s |",
            ]
            for number, word in ((1, "one listener"), (3, "three listeners that hear the same")):
                took = handed_on(cluster, folder, nodes, number)
                rate = number * len(events) / took
                lines.append(f"| handed on to PostgreSQL, {word} | {rate:,.0f} events/s |")
            with cluster.database() as database:
                schema.make(database.url, new=True)
                fill(database, dumps)
                size = database.sql("SELECT pg_size_pretty(pg_database_size(current_database()))")
                lines.append(f"| {dumps:,} dumps, three reports each: size | {size} |")
                found = answers(database.url)
    for what, seconds in found.items():
        lines.append(
            f"| {what}, median (worst) | {statistics.median(seconds) * 1e3:,.1f} "
            f"({max(seconds) * 1e3:,.1f}) ms |"
        )
    return lines, max(found["status, 100 dumps"]) < PROMPT


def main(arguments: Sequence[str] | None = None) -> int:
    parser = markedtable.parser(__doc__)
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--dumps", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    about = machine.in_a_line(machine.machine())
    lines, prompt = measure(options.nodes, options.dumps)
    text = {"figures": "\n".join([*lines, "", about])}
    return markedtable.show(options, PAGE, text) or int(not prompt)


if __name__ == "__main__":
    sys.exit(main())

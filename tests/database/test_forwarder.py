# SPDX-License-Identifier: LGPL-2.1-or-later
"""The thread that hands on: what it does when the database cannot take anything, and afterwards."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from kdumpfence.daemon import forwarder, handing_on, outbox
from kdumpfence.daemon.forwarder import Forwarder
from kdumpfence.daemon.history import History
from kdumpfence.database import schema
from kdumpfence.database.reader import Cursor, Reader
from kdumpfence.listener.events import Event
from tests.daemon.running import until
from tests.database.proxy import Proxy
from tests.support.postgres import Cluster, Database, template

pytestmark = pytest.mark.slow

Forward = Callable[[str], "Handed"]


class Handed:
    """A history with an outbox, its forwarder, and what that says."""

    def __init__(self, url: str, path: Path) -> None:
        self.path = path
        self.history = History(str(path), spool=True)
        assert self.history.outbox is not None
        self.outbox = self.history.outbox
        listener = forwarder.Listener(self.outbox.identity, "one", 30.0)
        self.forwarder = Forwarder(url, str(path), lambda: listener)
        self.lines: list[str] = []
        self._numbers = itertools.count()
        self.forwarder.start()

    def happens(self, *kinds: str, node: str = "") -> None:
        """Something happens to a node, another one each time unless it is named."""
        name = node or f"node{next(self._numbers)}"
        now = round(time.time(), 6)
        self.history.record(
            [Event(kind, name, now, now, now, 1, ("192.0.2.1",)) for kind in kinds]  # type: ignore[arg-type]
        )
        self.forwarder.wake()

    def look(self) -> bool:
        """As the main loop does; False."""
        handing_on.look(self.forwarder, self, 0, "", self._say)  # type: ignore[arg-type]
        return False

    def _say(self, _: str, text: str) -> None:
        self.lines.append(text)

    def hand_over(self, upto: int, renumber: int, refused: Collection[int]) -> bool:
        """As the recorder does."""
        self.history.hand_over(upto, renumber, refused)
        return True

    def says(self, text: str) -> str:
        """Wait for a line with this text, and return it."""

        def found() -> str:
            self.look()
            return next((line for line in self.lines if text in line), "")

        try:
            return until(found)
        except AssertionError:
            raise AssertionError(f"{text!r} is not said: {self.lines}") from None

    def close(self) -> None:
        self.forwarder.finish(10)
        self.history.close()


@pytest.fixture
def forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Forward]:
    """Begin to hand on to that URL, without long breaks."""
    monkeypatch.setattr(forwarder, "RETRY_FIRST", 0.05)
    monkeypatch.setattr(forwarder, "RETRY_LAST", 0.1)
    made: list[Handed] = []

    def begin(url: str) -> Handed:
        made.append(Handed(url, tmp_path / f"history{len(made)}.sqlite"))
        return made[-1]

    yield begin
    for handed in made:
        handed.close()


def nodes(memory: Database) -> list[str]:
    return memory.sql(
        "SELECT node FROM kdumpfence.event WHERE kind = 'began' ORDER BY number"
    ).split()


def test_each_fault_is_one_line_and_over_when_it_is_repaired(
    database: Database, forward: Forward
) -> None:
    user = database.user()
    handed = forward(database.url_of(user))
    handed.happens("began")
    full_disk = """
        CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'could not extend file "base/1/2": No space left on device'
            USING ERRCODE = '53100';
        END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON kdumpfence.dump EXECUTE FUNCTION full_disk();
        UPDATE kdumpfence.meta SET version = 1
    """
    read_only = f"""
        DROP TRIGGER full_disk ON kdumpfence.dump;
        ALTER DATABASE {database.name} SET default_transaction_read_only = on;
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'
    """
    faults = {
        "SELECT 1": "it has no schema kdumpfence: run `kdumpfence database init` as its owner",
        "init": "permission denied for schema kdumpfence: grant this user the role "
        + schema.WRITER,
        f"GRANT {schema.WRITER} TO {user}; UPDATE kdumpfence.meta SET version = 99": (
            "its schema is of a newer kdumpfence (version 99, this one knows 1)"
        ),
        "UPDATE kdumpfence.meta SET version = -1": (
            "its schema is of version -1, and this kdumpfence needs 1: "
            "run `kdumpfence database upgrade`"
        ),
        full_disk: "No space left on device: its disk is full",
        read_only: "cannot execute",
    }
    for change, said in faults.items():
        if change == "init":
            schema.make(database.url, new=True)
        else:
            database.sql(change)
        line = handed.says(said)
        assert line.startswith("database postgresql://")
        assert line.endswith(f"; still listening, events wait in {handed.path}")
    assert "name the primary" in handed.lines[-1]
    database.sql(
        f"SET default_transaction_read_only = off; ALTER DATABASE {database.name} RESET ALL; "
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'"
    )
    handed.says("has all events")
    assert nodes(database) == ["node0"]
    # Once each, whatever the number of tries; a cut connection says so itself.
    assert len(set(handed.lines)) == len(handed.lines)
    assert not any("not-a-secret" in line for line in handed.lines)
    assert handed.forwarder.works


def test_a_wrong_password_and_a_server_that_is_not_there(
    memory: Database, forward: Forward
) -> None:
    handed = forward(memory.url_of("admin", "wrong-secret"))
    assert "wrong-secret" not in handed.says('password authentication failed for user "admin"')
    handed = forward("postgresql://u:wrong-secret@127.0.0.1:1/x")
    assert "wrong-secret" not in handed.says("Connection refused")


def test_a_network_that_swallows_everything_holds_up_nobody(
    memory: Database, forward: Forward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "STUCK", 0.2)
    with Proxy(memory.cluster.port) as proxy:
        handed = forward(proxy.url(memory.url))
        handed.says("connected")
        proxy.passes.clear()
        for _ in range(5):
            handed.happens("began", "silent")
        handed.says("still listening")
        proxy.cut()
        proxy.passes.set()
        handed.says("works again")
    assert nodes(memory) == [f"node{at}" for at in range(5)]


def test_what_was_taken_without_an_answer_is_not_taken_again(
    memory: Database, forward: Forward
) -> None:
    """The connection is cut at every place of an exchange, one after another."""
    with Proxy(memory.cluster.port) as proxy:
        handed = forward(proxy.url(memory.url))
        handed.says("connected")
        for number in range(20):
            proxy.delay = 0.002 * (number % 5)
            handed.happens("began", "finished", "failed")
            time.sleep(0.001 * number)
            proxy.cut()
        proxy.delay = 0.0
        until(lambda: len(nodes(memory)) == 20)
    assert nodes(memory) == [f"node{at}" for at in range(20)]
    assert memory.sql("SELECT count(*) FROM kdumpfence.event") == "60"


def test_a_database_that_is_too_slow_for_many_events_gets_fewer_at_a_time(
    memory: Database, forward: Forward
) -> None:
    memory.sql(
        """
        CREATE FUNCTION too_many() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF (SELECT count(*) FROM added) > 100 THEN
                RAISE EXCEPTION 'canceling statement due to statement timeout'
                USING ERRCODE = '57014';
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER too_many AFTER INSERT ON kdumpfence.dump REFERENCING NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION too_many();
        """
    )
    now = round(time.time(), 6)
    handed = forward(memory.url)
    handed.history.record(
        [Event("began", f"node{at}", now, now, now, 1, ("192.0.2.1",)) for at in range(300)]
    )
    handed.forwarder.wake()
    handed.says("it took too long")
    until(lambda: len(nodes(memory)) == 300)
    assert nodes(memory) == [f"node{at}" for at in range(300)]


def waits(handed: Handed, memory: Database, names: list[str]) -> None:
    """Until the database has these, and nothing but what was refused is lost."""
    until(lambda: handed.look() or len(nodes(memory)) >= len(names))
    assert nodes(memory) == names


def test_an_event_that_is_refused_is_set_aside_and_all_others_go_on(
    memory: Database, forward: Forward
) -> None:
    memory.sql("ALTER TABLE kdumpfence.dump ADD CONSTRAINT strange CHECK (node <> 'node150')")
    now = round(time.time(), 6)
    names = [f"node{at}" for at in range(300)]
    # Too long for an index, and a time that is none for PostgreSQL.
    names[7], names[299] = "".join(f"{number * number:x}" for number in range(9000)), "later"
    events = [Event("began", name, now, now, now, 1, ("192.0.2.1",)) for name in names]
    events[299] = events[299]._replace(since=-9e12, last=-9e12)
    again = events[150]._replace(kind="dumping")
    handed = forward(memory.url)
    handed.says("connected")
    handed.history.record([*events[:200], again, *events[200:]])
    handed.forwarder.wake()
    taken = [name for at, name in enumerate(names) if at not in (7, 150, 299)]
    handed.says("of node later: ")
    handed.happens("began", node="beyond")
    waits(handed, memory, [*taken, "beyond"])
    until(lambda: handed.look() or handed.outbox.lost == 4)
    refused = [line for line in handed.lines if "refuses '" in line]
    assert len(refused) == 3, "the dump of node150 is told of once"
    assert f"refuses 'began' of node {names[7][:100]}: index row" in refused[0]
    assert "refuses 'began' of node node150: new row for relation \"dump\" violates" in refused[1]
    assert "timestamp out of range" in refused[2]
    assert all(line.endswith(f"; lost there, the history in {handed.path} has it")
               for line in refused)  # fmt: skip
    assert (handed.forwarder.trouble, handed.forwarder.errors) == ("", 4)
    assert [dump.node for dump in handed.history.past(node="node150")] == ["node150"]
    # Whoever comes next does not try again.
    assert not any(
        one in outbox.read(str(handed.path), 0, 1000).text for one in ("node150", names[7])
    )


def test_what_was_refused_last_is_not_told_again_after_a_new_connection(
    memory: Database, forward: Forward
) -> None:
    memory.sql("ALTER TABLE kdumpfence.dump ADD CONSTRAINT strange CHECK (node <> 'node0')")
    with Proxy(memory.cluster.port) as proxy:
        handed = forward(proxy.url(memory.url))
        handed.happens("began")
        handed.says("of node node0")
        proxy.cut()
        handed.happens("began")
        waits(handed, memory, ["node1"])
    handed.look()
    assert (handed.outbox.lost, handed.forwarder.errors - len(handed.lines)) == (1, -2)


@pytest.mark.parametrize("state", ["53100", "40001", "57014", "55P03", "XX000", "42501"])
def test_what_is_refused_for_another_reason_than_its_data_waits(
    memory: Database, forward: Forward, state: str
) -> None:
    memory.sql(
        f"""
        CREATE FUNCTION busy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF new.node = 'node1' THEN RAISE EXCEPTION 'not now' USING ERRCODE = '{state}'; END IF;
            RETURN new;
        END $$;
        CREATE TRIGGER busy BEFORE INSERT ON kdumpfence.dump FOR EACH ROW EXECUTE FUNCTION busy();
        """
    )
    handed = forward(memory.url)
    for _ in range(3):
        handed.happens("began")
    handed.says("not now")
    until(lambda: handed.look() or handed.forwarder.errors >= 3)
    memory.sql("DROP TRIGGER busy ON kdumpfence.dump")
    waits(handed, memory, ["node0", "node1", "node2"])
    assert handed.outbox.lost == 0


def test_a_database_that_refuses_every_event_loses_none(memory: Database, forward: Forward) -> None:
    """A last number that was put back to an older one: each new event has one that is there."""
    handed = forward(memory.url)
    handed.happens("began")
    waits(handed, memory, ["node0"])
    memory.sql("UPDATE kdumpfence.meta SET last_event = 0")
    for _ in range(3):
        handed.happens("began")
    handed.says("duplicate key value violates unique constraint")
    until(lambda: handed.look() or handed.forwarder.errors >= 3)
    memory.sql("UPDATE kdumpfence.meta SET last_event = 1")
    waits(handed, memory, [f"node{at}" for at in range(4)])
    assert handed.outbox.lost == 0
    assert not any("refuses '" in line for line in handed.lines)


def test_what_it_does_not_need_any_more_leaves_the_outbox(
    memory: Database, forward: Forward, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed = forward(memory.url)
    for _ in range(3):
        handed.happens("began")
    until(lambda: len(nodes(memory)) == 3)
    handed.look()
    assert len(handed.outbox) == 3  # for a replica that becomes the primary
    monkeypatch.setattr(forwarder, "KEEP", -1.0)
    handed.happens("began")
    until(lambda: handed.look() or len(handed.outbox) == 0)
    # Numbers go on all the same.
    assert handed.outbox.newest == 4


def test_a_file_that_was_put_back_goes_on_with_numbers_that_are_new(
    memory: Database, forward: Forward
) -> None:
    handed = forward(memory.url)
    for _ in range(3):
        handed.happens("began")
    until(lambda: len(nodes(memory)) == 3)
    handed.forwarder.finish(10)
    # As it was before it was heard of any of those.
    with handed.history._file.transaction():
        handed.history._file.db.execute("DELETE FROM outbox")
        handed.history._file.db.execute("UPDATE sqlite_sequence SET seq = 0")
    handed.outbox._count = 0
    listener = forwarder.Listener(handed.outbox.identity, "one", 30.0)
    handed.happens("began")
    handed.forwarder = Forwarder(memory.url, str(handed.path), lambda: listener)
    handed.forwarder.start()
    until(lambda: handed.look() or len(nodes(memory)) == 4)
    assert nodes(memory) == [f"node{at}" for at in range(4)]


def test_after_a_failover_what_the_replica_lacked_is_handed_on_again(
    tmp_path_factory: pytest.TempPathFactory, forward: Forward
) -> None:
    with Cluster(template(tmp_path_factory)) as primary:
        primary.start()
        schema.make(primary.url(), new=True)
        with primary.replica() as replica:
            replica.start()
            both = primary.url().replace(
                f":{primary.port}/postgres",
                f":{primary.port},127.0.0.1:{replica.port}/postgres?target_session_attrs=read-write",
            )
            handed = forward(both)
            handed.happens("began")
            until(lambda: replica.sql("SELECT count(*) FROM kdumpfence.event") == "1")
            with Reader(replica.url()) as reader:  # a replica can be read
                first = reader.events(0)[0].cursor
                assert reader.state(1).dumps[0].node == "node0"
            # What comes now the replica does not get to know.
            replica.stop()
            for _ in range(3):
                handed.happens("began")
            until(lambda: primary.sql("SELECT count(*) FROM kdumpfence.event") == "4")
            with Reader(primary.url()) as reader:
                lost = reader.events(0)[-1].cursor
            handed.look()  # which may remove from the file what is not needed any more
            primary.kill()
            replica.start()
            replica.sql("SELECT pg_promote()")
            handed.happens("began")
            until(lambda: replica.sql("SELECT count(*) FROM kdumpfence.event") == "5")
            assert Database(replica, "postgres").sql(
                "SELECT node FROM kdumpfence.event ORDER BY number"
            ).split() == [f"node{at}" for at in range(5)]
            with Reader(replica.url()) as reader:
                # Who had dealt with an event that was lost is told again from where the new one
                # began; who had not misses nothing.
                assert reader.place(Cursor.of(lost)) == (1, 0)
                assert reader.place(Cursor.of(first)) == (1, 0)
                newest = reader.events(0)[-1].cursor
                assert reader.place(Cursor.of(newest)) == (5, 0)
        handed.forwarder.finish(10)


def test_the_outbox_says_what_happened_in_order_and_of_what_goes_on_the_newest(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "history.sqlite")
    with History(path, spool=True) as history:
        begun = Event("began", "n", 1.0, 1.0, 1.0, 1, ("192.0.2.1",))
        history.record([begun])
        for at in range(3):
            history.record([begun._replace(kind="dumping", last=2.0 + at)])
        history.record([begun._replace(kind=kind) for kind in ("dumping", "finished", "failed")])
        assert history.outbox is not None
        assert len(history.outbox) == 4
        identity = history.outbox.identity
    batch = outbox.read(path, 0, 100)
    assert (batch.last, batch.newest) == (6, 6)
    kinds = [one["kind"] for one in json.loads(batch.text)]
    assert kinds == ["began", "dumping", "finished", "failed"]
    assert outbox.read(path, 4, 1)[1:] == (5, 6)
    assert outbox.read(path, 6, 1) == ("", 6, 6)
    # A file that is taken away while it is open is put back with all of it.
    with History(path, spool=True) as history:
        Path(path).unlink()
        history.look()
        assert history.outbox is not None
        assert (history.outbox.identity, len(history.outbox)) == (identity, 4)
        assert history.outbox.newest == 6
        # Too many: those of strangers go first, then the oldest.
        for at in range(20):
            history.record([begun._replace(node=f"n{at}")], 4, {"n3"})
        assert len(history.outbox) == 8
        assert history.outbox.lost == 16
    text = outbox.read(path, 0, 100).text
    assert '"n3"' in text
    assert '"n19"' in text
    assert '"n10"' not in text

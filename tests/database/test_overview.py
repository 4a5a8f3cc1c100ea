# SPDX-License-Identifier: LGPL-2.1-or-later
"""The status page of one listener says how the others are, and what only they hear."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdumpfence.daemon import forwarder, neighbours
from kdumpfence.daemon.forwarder import Forwarder
from kdumpfence.daemon.history import History
from kdumpfence.daemon.neighbours import Around, Neighbours
from kdumpfence.daemon.page.html import page
from kdumpfence.database import overview, schema
from kdumpfence.database.overview import DUMPS, Overview
from kdumpfence.database.schema import WRITER
from kdumpfence.listener.events import Event
from tests.daemon.page_views import HOSTILE, view
from tests.daemon.running import Kdumpfenced, patched, until
from tests.daemon.test_page import ELEMENTS, cells, parsed, words
from tests.database.handing import Listener, event
from tests.support.postgres import Database

pytestmark = pytest.mark.slow

NODE = "127.7.0.1"

#: A daemon that comes to the database more often.
EAGER = patched("from kdumpfence.daemon import neighbours\nforwarder.BEAT = neighbours.BEAT = 0.2")


def shown(daemon: Kdumpfenced, path: str = "/") -> Any:
    return parsed(daemon.get(path)[1].encode())


def asked(listener: Listener) -> Overview:
    """What this one is told, with its own rights."""
    row = listener.connection.execute(
        b"SELECT kdumpfence.overview(%s)", (listener.identity,)
    ).fetchone()
    assert row is not None
    return overview.read(row[0])


def test_a_dump_that_another_hears_and_a_listener_that_was_killed(
    memory: Database, start: Callable[..., Kdumpfenced]
) -> None:
    user = memory.user(WRITER)
    url = memory.url_of(user)
    one, two = (start(name, url, "silence = 600", EAGER) for name in ("one", "two"))
    two.hears(NODE)
    until(lambda: cells(shown(one), "elsewhere"))
    document = shown(one)
    assert words(document, "headline") == "1 node is dumping, 1 heard by other listeners only"
    (row,) = cells(document, "elsewhere")[1:]
    assert (row[0], row[1], row[-1]) == (NODE, "dumping", "two")
    assert "by the word of two" in words(shown(one, f"/?node={NODE}"), "found")
    assert [row[:2] for row in cells(document, "others")[1:]] == [["two", "well"]]
    # Who hears it himself has it in his own table only.
    assert words(shown(two), "headline") == "1 node is dumping"
    assert not cells(shown(two), "elsewhere")

    two.end(signal.SIGKILL)
    memory.sql("UPDATE kdumpfence.listener SET seen = seen - interval '1 min' WHERE name = 'two'")
    until(lambda: "two: gone, it came to the database last 1 min" in words(shown(one), "troubles"))
    assert cells(shown(one), "others")[1][1] == "gone"
    assert cells(shown(one), "elsewhere")[1][1] == "not known: all who heard it are gone"

    memory.cluster.sql(f"ALTER DATABASE {memory.name} ALLOW_CONNECTIONS false")
    memory.cluster.sql(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{memory.name}'"
    )
    until(lambda: " ago: " in words(shown(one), "others-as-of"))
    assert "two" in words(shown(one), "others")


def test_what_others_wrote_is_bounded_and_stays_text(memory: Database) -> None:
    names = [one for one in HOSTILE if "\x00" not in one and "\ud800" not in one]
    user = memory.user(WRITER)
    now = time.time()
    with Listener(memory.url_of(user), "one") as one:
        for name in names:
            with Listener(memory.url_of(user), name) as evil:
                evil.hand_on(
                    {**event("began", name[:300], now), "addresses": name[:300]},
                    *(event("began", f"{len(name)}{name[:9]}{n}", now - n) for n in range(30)),
                )
                evil.connection.execute(
                    b"SELECT kdumpfence.beat(%s, %s, 0, 0, 0, 0, %s, false)",
                    (evil.identity, evil.life, name),
                )
        one.hand_on(event("began", "mine", now))
        found = asked(one)
    assert len(found.listeners) == found.listening == len(names)
    assert len(found.dumps) == DUMPS
    assert found.dumping == 31 * len(names)
    assert "mine" not in [dump.node for dump in found.dumps]
    document = parsed(page(view(around=Around(found, 1.0, ""))))
    assert {
        element.tag.rpartition("}")[2]
        for element in document.iter()
        if isinstance(element.tag, str)
    } <= ELEMENTS
    assert HOSTILE[0] in words(document, "others")
    assert HOSTILE[0] in words(document, "elsewhere")


def test_a_dump_that_this_one_took_for_over_is_still_told(memory: Database) -> None:
    now = time.time()
    with Listener(memory.url, "one") as one, Listener(memory.url, "two") as two:
        for listener in (one, two):
            listener.hand_on(event("began", "node1", now))
        assert not asked(one).dumps
        one.hand_on(event("silent", "node1", now))
        (dump,) = asked(one).dumps
        assert dump.node == "node1"
        assert dump.listeners == ("one", "two")
        assert asked(two).dumping == 0


@pytest.fixture
def handing(
    memory: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Forwarder, History]]:
    """A forwarder that was not started, with its history."""
    monkeypatch.setattr(forwarder, "BEAT", 0.05)
    monkeypatch.setattr(neighbours, "AGAIN", 0.05)
    path = str(tmp_path / "history.sqlite")
    with History(path, spool=True) as history:
        assert history.outbox is not None
        listener = forwarder.Listener(history.outbox.identity, "one", 30.0)
        made = Forwarder(memory.url_of(memory.user(WRITER)), path, lambda: listener, shows=True)
        yield made, history
        made.finish(10)


SLOW = """
    CREATE OR REPLACE FUNCTION kdumpfence.overview(the_identity uuid) RETURNS json
    LANGUAGE sql SECURITY DEFINER AS 'SELECT pg_sleep(600); SELECT json_build_object()'
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DROP FUNCTION kdumpfence.overview", "does not exist: run `kdumpfence database upgrade`"),
        (f"REVOKE EXECUTE ON FUNCTION kdumpfence.overview FROM {WRITER}",
         "grant this user the role kdumpfence_writer"),
        (SLOW, "it took too long"),
    ],
    ids=("older", "forbidden", "slow"),
)  # fmt: skip
def test_that_it_cannot_be_had_is_one_line_and_stops_nothing(
    memory: Database,
    handing: tuple[Forwarder, History],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    said: str,
) -> None:
    monkeypatch.setattr(neighbours, "PATIENCE", 0.1)
    made, history = handing
    tries: list[str] = []
    failed = Neighbours._failed

    def counted(self: Neighbours, text: str) -> str:
        tries.append(text)
        return failed(self, text)

    monkeypatch.setattr(Neighbours, "_failed", counted)
    memory.sql(change)
    lines: list[str] = []
    made.start()

    def looked(found: Callable[[], Any]) -> Any:
        lines.extend(text for _, text in made.look())
        return found()

    until(lambda: looked(lambda: any("shows this one alone" in line for line in lines)))
    now = round(time.time(), 6)
    history.record([Event("began", "node1", now, now, now, 1, ("192.0.2.1",))])
    made.wake()
    until(lambda: memory.sql("SELECT node FROM kdumpfence.dumping") == "node1")
    until(lambda: len(tries) > 3)
    looked(lambda: True)
    (line,) = [line for line in lines if "other listeners" in line]
    assert said in line
    assert made.works
    around = made.around()
    assert around is not None
    assert around.overview is None
    assert said in around.trouble
    # And when it can be had again, it is.
    schema.make(memory.url, new=False)
    until(lambda: made.around().overview)  # type: ignore[union-attr]
    assert made.around().trouble == ""  # type: ignore[union-attr]

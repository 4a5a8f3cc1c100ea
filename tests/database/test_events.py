# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs that follow events, and are killed, miss none and see none twice; people see lines."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kdumpfence.cli.main import main
from kdumpfence.cli.memory import _listeners_changed
from kdumpfence.database import reader, schema
from kdumpfence.database.reader import Cursor, Event, Reader
from tests.cli.commands import COMMAND
from tests.daemon.running import until
from tests.database.handing import Listener, event
from tests.support.postgres import Cluster, Database, template

pytestmark = pytest.mark.slow


class Follower:
    """`kdumpfence events --json` as a service runs it, which keeps the last cursor."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.cursor = "0"
        self.seen: list[dict[str, Any]] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, "events", "--json", f"--after={self.cursor}", f"--database={self._url}"],
            bufsize=0,  # select has to know of all that is there
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def read(self, number: int) -> list[str]:
        """Wait until it has seen so many; their nodes."""
        assert self._process is not None
        assert self._process.stdout is not None
        until_then = time.monotonic() + 60
        while len(self.seen) < number:
            assert time.monotonic() < until_then, self.seen
            if select.select([self._process.stdout], [], [], 0.1)[0]:
                line = self._process.stdout.readline()
                assert line, self._process.stderr
                self.seen.append(json.loads(line))
                self.cursor = self.seen[-1]["cursor"]
        return [one["node"] for one in self.seen]

    def kill(self) -> None:
        """Whatever it had printed and nobody had read is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def follower() -> Iterator[list[Follower]]:
    made: list[Follower] = []
    yield made
    for one in made:
        one.kill()


def test_a_service_that_is_killed_goes_on_after_what_it_dealt_with(
    memory: Database, follower: list[Follower]
) -> None:
    follower.append(Follower(memory.url))
    follows = follower[0]
    with Listener(memory.url, "one") as listener:
        listener.hand_on(*(event("began", f"node{at}") for at in range(4)))
        follows.start()
        follows.read(3)  # the fourth may be printed, and is not dealt with
        follows.kill()
        listener.hand_on(event("began", "node4"))
        follows.start()
        follows.read(5)
        listener.hand_on(event("began", "node5"))  # while it waits
        assert follows.read(6) == [f"node{at}" for at in range(6)]
    assert [one["number"] for one in follows.seen] == [1, 2, 3, 4, 5, 6]


def test_a_service_follows_through_a_crash_and_a_failover(
    tmp_path_factory: pytest.TempPathFactory, follower: list[Follower]
) -> None:
    with Cluster(template(tmp_path_factory)) as primary:
        primary.start()
        schema.make(primary.url(), new=True)
        with primary.replica() as replica:
            replica.start()
            hosts = f"127.0.0.1:{primary.port},127.0.0.1:{replica.port}"
            url = primary.url().replace(f"127.0.0.1:{primary.port}", hosts)
            follower.append(Follower(f"{url}?target_session_attrs=read-write"))
            follows = follower[0]
            follows.start()
            with Listener(primary.url(), "one") as listener:
                listener.hand_on(event("began", "node0"))
            follows.read(1)
            primary.kill()
            primary.start()
            with Listener(primary.url(), "one", listener.identity) as listener:
                listener.hand_on(event("began", "node1"))
                until(lambda: replica.sql("SELECT count(*) FROM kdumpfence.event") == "2")
                follows.read(2)
                replica.stop()
                listener.hand_on(event("began", "node2"))  # which the replica lacks
                assert follows.read(3) == ["node0", "node1", "node2"]
            primary.kill()
            replica.start()
            replica.sql("SELECT pg_promote()")
            with Listener(replica.url(), "one", listener.identity) as listener:
                assert listener.seq == 2
                listener.hand_on(event("began", "node2"), event("began", "node3"))
            # What was lost is told again under a number of the new timeline.
            assert follows.read(5)[3:] == ["node2", "node3"]
            assert [one["cursor"] for one in follows.seen] == ["1-1", "2-1", "3-1", "3-2", "4-2"]


def test_what_happens_during_a_question_is_not_waited_for(
    memory: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notification comes with the answer, and the answer does not have the event."""
    monkeypatch.setattr(reader, "QUIET", 10**6)
    with Listener(memory.url, "one") as listener, Reader(memory.url) as opened:
        ask = opened.events

        def meanwhile(after: int, most: int = 1000) -> list[Event]:
            found = ask(after, most)
            if not listener.seq:
                listener.hand_on(event("began", "node0"))
                until(lambda: ask(after, most))  # psycopg takes the notification here
            return found

        monkeypatch.setattr(opened, "events", meanwhile)
        told = (one for one in opened.follow(Cursor(0)) if one is not None)
        assert isinstance(found := next(told), Event)
        assert found.node == "node0"


def test_events_that_were_removed_are_said_to_be_missed(
    memory: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    with Listener(memory.url, "one") as listener:
        listener.hand_on(*(event("began", f"node{at}") for at in range(5)))
    memory.sql("DELETE FROM kdumpfence.event WHERE number <= 3")
    assert main(["events", "--json", "--once", "--after=1", f"--database={memory.url}"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[0] == {"kind": "missed", "number": 2}
    assert [one["node"] for one in told[1:]] == ["node3", "node4"]
    assert main(["events", "--once", "--after=x", f"--database={memory.url}"]) == 1
    assert "not the number of an event, or a cursor" in capsys.readouterr().err


def test_who_watches_is_not_told_of_what_a_listener_was_before(memory: Database) -> None:
    known: dict[tuple[str, int], tuple[str, str]] = {}
    with Reader(memory.url) as reader, Listener(memory.url, "one") as old:
        old.beat()
        assert list(_listeners_changed(known, reader.state(0))) == ["listener one is up"]
        memory.sql("UPDATE kdumpfence.listener SET up = false, seen = now() - interval '1 hour'")
        assert list(_listeners_changed(known, reader.state(0))) == ["listener one is gone"]
        with Listener(memory.url, "one") as new:  # its history file was removed
            new.beat()
            assert list(_listeners_changed(known, reader.state(0))) == ["listener one is up"]
            assert list(_listeners_changed(known, reader.state(0))) == []


def test_watch_prints_a_line_for_each_change(memory: Database) -> None:
    with Listener(memory.url, "one") as one, Listener(memory.url, "two"):
        one.hand_on(event("began", "node0"))
        with subprocess.Popen(
            [*COMMAND, "watch", f"--database={memory.url}"], stdout=subprocess.PIPE, text=True
        ) as watching:
            assert watching.stdout is not None
            lines = [watching.stdout.readline() for _ in range(3)]
            assert "listener one is up" in lines[0]
            assert "listener two is up" in lines[1]
            assert "node0 has been dumping since" in lines[2]
            one.hand_on(event("began", "no\x1bde1"), event("failed", "no\x1bde1"))
            assert r"no\x1bde1 has been dumping since" in watching.stdout.readline()
            assert r"no\x1bde1 failed to dump" in watching.stdout.readline()
            watching.send_signal(signal.SIGINT)
            watching.wait(60)
        assert watching.returncode == 0

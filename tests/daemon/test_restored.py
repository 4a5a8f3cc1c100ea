# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a daemon makes of the dumps that were in progress when it last ran."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdumpfence.client import Client
from kdumpfence.daemon import loop, privileges, systemd
from kdumpfence.daemon.history import History
from kdumpfence.daemon.log import Journal
from kdumpfence.daemon.settings import Settings
from kdumpfence.listener.events import Event
from tests.conftest import unused_port

SINCE = 1.7e9


def dumping(node: str, since: float = SINCE, last: float = SINCE + 9, took: float = 9.0) -> Event:
    return Event("dumping", node, last, since, last, 7, ("192.0.2.1",), took)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        nodes={"node1": ("192.0.2.1",)},
        networks=("127.7.4.0/24",),
        address=("127.0.0.1",),
        port=unused_port(),
        history_path=str(tmp_path / "history.sqlite"),
        control_path=str(tmp_path / "control"),
    )


@pytest.fixture
def start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], loop.Daemon]]:
    """Starts a daemon in this process, which is ended after the test."""
    monkeypatch.setattr(privileges, "drop", lambda: None)
    quiet = os.open(os.devnull, os.O_WRONLY)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, quiet)

        def make() -> loop.Daemon:
            daemon = loop.Daemon(settings, systemd.Notify({}), Journal(fd=quiet))
            undo.callback(daemon.close)
            return daemon

        yield make


def test_dumps_go_on_but_those_of_nodes_that_it_does_not_listen_for(
    settings: Settings, start: Callable[[], loop.Daemon]
) -> None:
    with History(settings.history_path) as history:
        history.record([dumping("node1"), dumping("node2"), dumping("127.7.4.7")])
        history.record([dumping("192.0.2.7")])
        # The clock was set back while it dumped, and an old file does not say how long it took.
        history.record([dumping("127.7.4.8", SINCE, SINCE - 50, 40.0), dumping("127.7.4.9")])
        history._file.db.execute("UPDATE dump SET last = since - 1, took = 0 WHERE node LIKE '%.9'")
    daemon = start()
    daemon.round()
    with Client(settings.control_path) as client:
        dumps = [dump.node for dump in client.dumps()]
        ends = [(event.node, event.kind, event.since) for event in client.status().ended]
        known = {
            node: client.ask({"ask": "node", "node": node})["known"]
            for node in ("node1", "node2", "127.7.4.99", "192.0.2.7")
        }
    assert sorted(dumps) == ["127.7.4.7", "127.7.4.8", "node1"]
    gone = ["127.7.4.9", "192.0.2.7", "node2"]
    assert sorted(ends) == [(node, "silent", SINCE) for node in gone]
    assert known == {"node1": True, "node2": False, "127.7.4.99": True, "192.0.2.7": False}
    with History(settings.history_path, writable=False) as history:
        assert sorted(past.node for past in history.past() if past.ended is not None) == gone
        assert len(history.past()) == 6


def test_it_listens_where_the_settings_say(
    settings: Settings, start: Callable[[], loop.Daemon]
) -> None:
    daemon = start()
    sockets = daemon.listener._in_use._sockets
    assert [sock.getsockname() for sock in sockets] == [("127.0.0.1", settings.port)]
    assert any("over IPv4 and IPv6 at 127.0.0.1," in line for line in settings.meaning())

# SPDX-License-Identifier: LGPL-2.1-or-later
"""First written down, then told: looked at from within, at the moment of the writing.

What test_killed.py does from outside hits that moment only now and then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from kdumpfence.client import Client
from kdumpfence.daemon import loop, privileges, systemd
from kdumpfence.daemon.history import History
from kdumpfence.daemon.log import Journal
from kdumpfence.daemon.settings import Settings
from kdumpfence.listener.dumps import Dump, Event
from kdumpfence.listener.listener import Snapshot
from tests.conftest import unused_port


class Played:
    """In place of a Listener."""

    def __init__(self) -> None:
        self.known: list[Dump] = []
        self.ready: list[Event] = []
        self.port = 7410
        self._bell = os.pipe()

    def begin(self, dump: Dump) -> None:
        """That node begins to dump."""
        self.known = [dump]
        self.ready = [Event("began", dump.node, dump.since, *dump[1:])]

    def events(self, timeout: float | None = None) -> list[Event]:
        taken, self.ready = self.ready, []
        return taken

    def snapshot(self, fresh: bool = True, dumps: bool = True) -> Snapshot:
        return Snapshot(1.0, self.known, 1, [], {"accepted": 1, "unread": 0}, [], [])

    def dumps(self, nodes: Iterable[str], fresh: bool = True) -> list[Dump | None]:
        return [next((one for one in self.known if one.node == node), None) for node in nodes]

    def figures(self) -> bytes:
        return b""

    def listens_for(self, node: str) -> bool:
        return True

    def restore(self, dumps: list[Dump], ended: list[Event]) -> None:
        assert not dumps
        assert not ended

    def fileno(self) -> int:
        return self._bell[0]

    def close(self) -> None:
        for fd in self._bell:
            os.close(fd)


def test_nobody_is_told_of_a_dump_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        nodes={"node1": ("192.0.2.1",)},
        family="ipv4",
        port=unused_port(),
        history_path=str(tmp_path / "history.sqlite"),
        control_path=str(tmp_path / "control"),
    )
    log = tmp_path / "log"
    told: list[tuple[int, bool]] = []

    def look() -> None:
        with Client(settings.control_path) as client:
            told.append((client.status().dumping, "began" in log.read_text()))

    write = History.record

    def record(self: History, events: Iterable[Event], *more: Any) -> None:
        look()
        write(self, events, *more)
        look()

    played = Played()
    monkeypatch.setattr(loop, "Listener", lambda *_, **__: played)
    monkeypatch.setattr(loop, "PULSE", 0.0)  # it tells what there is in every round
    monkeypatch.setattr(privileges, "drop", lambda: None)
    monkeypatch.setattr(History, "record", record)
    with log.open("wb", buffering=0) as out:
        works = loop.Daemon(settings, systemd.Notify({}), Journal(fd=out.fileno()))
        try:
            works.round()
            played.begin(Dump("node1", 1.0, 1.0, 1, ("192.0.2.1",)))
            works.round()
            look()
        finally:
            works.close()
    assert told == [(0, False), (0, False), (1, True)]

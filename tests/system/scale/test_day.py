# SPDX-License-Identifier: LGPL-2.1-or-later
"""A day's worth of dumps, in virtual time, leaves nothing behind in the daemon but its history."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdumpfence.daemon import loop as daemon
from kdumpfence.daemon import privileges, systemd, teller
from kdumpfence.daemon.history import History
from kdumpfence.daemon.log import Journal
from kdumpfence.listener.dumps import Event
from tests.system.scale import day

NODES = 200

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory, if possible: the day has 8,640 transactions."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


def hours(folder: Path, *arguments: int) -> list[dict[str, Any]]:
    """What is told of each hour."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.system.scale.day", str(folder), *map(str, arguments)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_after_a_day_it_keeps_no_more_than_after_six_hours(folder: Path) -> None:
    told = hours(folder, NODES)
    assert len(told) == 24
    # It was no idle day: all nodes crashed in every ten minutes, and the strangers came.
    assert told[-1]["dumps"] >= 24 * 6 * NODES + 24 * 360 * day.NEW - 2 * NODES
    assert all(one["dumping"] > NODES * day.DUMP / day.PERIOD for one in told)
    for kept in ("._under_way", "._events"):
        assert all(any(way.endswith(kept) for way in one["lengths"]) for one in told)
    assert day.grown(told) == []


def test_a_round_ends_though_something_happens_all_the_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(day.Played):
        def events(self, timeout: float | None = None) -> list[Event]:
            assert time.monotonic() < end
            node = str(next(numbers))
            return [Event("began", node, 1.0, 1.0, 1.0, 1, ("192.0.2.1",))]

    numbers = itertools.count()
    played = Endless(1, 0)
    monkeypatch.setattr(daemon, "Listener", lambda *_, **__: played)
    monkeypatch.setattr(privileges, "drop", lambda: None)
    monkeypatch.setattr(teller, "BATCH", 10**9)
    settings = dataclasses.replace(day.settings(folder, 1), history_most=10**7)
    quiet = os.open(os.devnull, os.O_WRONLY)
    works = daemon.Daemon(settings, systemd.Notify({}), Journal(fd=quiet))
    end = time.monotonic() + 20
    works.round()
    heard = next(numbers)
    end = time.monotonic() + 20
    works.close()
    os.close(quiet)
    with contextlib.closing(History(settings.history_path, writable=False)) as history:
        assert len(history.past(most=10**9)) >= heard > 10


def test_a_leak_of_one_dump_in_fifty_is_found_out(folder: Path) -> None:
    told = hours(folder, NODES, 9, 50)
    found = day.grown(told)
    assert any("listener._kept: " in one for one in found)
    assert any(one.startswith("blocks: ") for one in found)

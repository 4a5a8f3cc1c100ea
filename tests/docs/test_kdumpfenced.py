# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfenced(8) has the daemon's settings, metrics, numbers, paths and columns."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

import pytest

from kdumpfence import wire
from kdumpfence.daemon import (
    api,
    control,
    forwarder,
    history,
    history_file,
    http,
    loop,
    metrics,
    recorder,
    settings,
    status,
    status_server,
    told,
)
from kdumpfence.listener import port_rivals
from tests.docs import manpage

PAGE = "kdumpfenced"


def test_every_setting_is_explained_with_its_default() -> None:
    explained = manpage.entries(PAGE, "SETTINGS")
    names = {settings.key_name(key.table, key.name): key for key in settings.KEYS}
    assert set(explained) == {*names, "[nodes]"}
    default = settings.Settings()
    for name, key in names.items():
        value = getattr(default, key.attribute)
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        modes = {"control_mode": "0666", "history_mode": "0600"}
        words = {"queue": "64M", "networks": "none", "answer": "true", "node": "that of uname -n"}
        words |= {"address": "[]", "metrics_page": "true", "history_database": "none"}
        shown = {**words, **modes}.get(
            key.attribute, "none" if key.attribute in ("metrics_port", "http_port") else shown
        )
        assert re.search(rf"Default: {re.escape(shown)}[.,]", explained[name]), name
    assert default.queue == 64 << 20
    assert (default.control_mode, default.history_mode) == (0o666, 0o600)


def test_what_takes_effect_at_once_is_told() -> None:
    told = re.search(r"\[nodes\], ([^.]*) take effect at once", manpage.whole(PAGE))
    assert told is not None
    for key in settings.KEYS:
        if not key.restart:
            assert key.name in told[1] or (key.table == "log" and "[log]" in told[1]), key.name


def test_every_metric_is_explained_and_no_other() -> None:
    page = metrics.Metrics(lambda: "").page().decode()
    exported = set(re.findall(r"(?m)^# HELP (\w+) ", page))
    exported = {name for name in exported if not name.endswith("_created")}
    explained = manpage.entries(PAGE, "METRICS")
    assert set(explained) == exported
    verdicts = {*wire.REASONS, "accepted", "unread"}
    assert verdicts - set(re.findall(r"\w+", explained["kdumpfence_datagrams_total"])) == set()


@pytest.mark.parametrize(
    ("real", "said", "sentence"),
    [
        (recorder.MOST_HELD, recorder.MOST_HELD, f"of {recorder.MOST_HELD} dumps at most"),
        (recorder.HOLD, 2, "held back for two seconds"),
        (recorder.RETRY_LAST, 10, "finally every ten seconds"),
        (
            http.RETRY,
            10,
            "If the TCP port is taken, the daemon retries every ten seconds",
        ),
        (loop.LOOK_EVERY, 1, "Every second, and before any report, the daemon checks"),
        (port_rivals.EVERY, 5, "Every five seconds the daemon checks"),
        (forwarder.BATCH, 1000, "hands on, 1000 events at a time"),
        (forwarder.STUCK, 30, "A connection that does not answer for 30 seconds is cut"),
        (forwarder.KEEP, 600, "Events are kept for 600 seconds after they were handed on"),
        (loop.LAST_HANDED_ON, 2, "At its end the daemon hands on for two seconds more"),
        (history_file.PATIENCE_WRITING, 0.5, "waits half a second for one"),
        (told.MOST_EVENTS, 131_072, "131072 beginnings and ends are kept"),
        (status.MOST, 1000, "in the order in which they began, 1000 at most"),
        (status.MOST_ENDED, 100, "with 1000 dumps and 100 ends at most"),
        (status_server.LIMITS.clients, 64, "64 clients are served at a time"),
        (status_server.LIMITS.question, 524288, "A question has at most 524288 bytes"),
        (control.MOST_NODES, 5000, "in their order; 5000 at most"),
        (control.MOST_WAIT, 60, "before there is an event, for 60 seconds at most"),
        (api.LIMITS.clients, 64, "64 clients are served at a time over TCP, too"),
        (http.LIMITS.quiet, 5, f"within five seconds; {http.LIMITS.clients} are served"),
    ],
)
def test_the_numbers_are_the_real_ones(real: float, said: float, sentence: str) -> None:
    assert real == said
    assert sentence in manpage.whole(PAGE)


def test_every_question_over_the_control_socket_is_explained() -> None:
    assert tuple(manpage.entries(PAGE, "CONTROL SOCKET")) == control.QUESTIONS


def test_the_paths_are_the_real_ones() -> None:
    files = manpage.read(PAGE)["FILES"].text
    default = settings.Settings()
    for path in (settings.DEFAULT_PATH, default.history_path, default.control_path):
        assert path in files


def test_every_column_of_the_history_is_explained(tmp_path: Path) -> None:
    path = str(tmp_path / "history")
    history.History(path).close()
    tables = {"dump", "file"}
    with contextlib.closing(sqlite3.connect(path)) as db:
        columns = {row[1] for table in tables for row in db.execute(f"PRAGMA table_info({table})")}
    text = set(re.findall(r"\w+", manpage.read(PAGE)["FILES"].text))
    assert (columns | tables) - {"id"} - text == set()

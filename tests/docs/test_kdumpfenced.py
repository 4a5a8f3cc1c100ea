# SPDX-License-Identifier: GPL-2.0-or-later
"""kdumpfenced(8) says what the daemon does: its settings, metrics and lines."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

from kdumpfence import wire
from kdumpfence.daemon import history, history_file, http, loop, metrics, recorder, settings
from kdumpfence.daemon import main as daemon
from kdumpfence.listener import port_owners
from tests.docs import manpage, said

PAGE = "kdumpfenced"
SOURCES = (
    *(f"daemon/{path.name}" for path in (said.SOURCE / "daemon").glob("*.py")),
    "listener/port_owners.py",
    "listener/reader.py",
)


def test_every_option_is_explained_and_no_other() -> None:
    headings = [entry.heading for entry in manpage.read(PAGE)["OPTIONS"].entries]
    documented = {name for heading in headings for name in re.findall(r"--[a-z]+", heading)}
    real = {
        name
        for action in daemon.parser()._actions
        for name in action.option_strings
        if name.startswith("--")
    }
    assert documented == real


def entries(section: str) -> dict[str, str]:
    return {
        entry.heading: " ".join(entry.text.split()) for entry in manpage.read(PAGE)[section].entries
    }


def test_every_setting_is_explained_with_its_default() -> None:
    explained = entries("SETTINGS")
    names = {settings.key_name(key.table, key.name): key for key in settings.KEYS}
    assert set(explained) == {*names, "[nodes]"}
    default = settings.Settings()
    for name, key in names.items():
        value = getattr(default, key.attribute)
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        modes = {"control_mode": "0666", "history_mode": "0600"}
        shown = {"queue": "64M", "networks": "none", **modes}.get(
            key.attribute, "none" if key.attribute == "metrics_port" else shown
        )
        assert re.search(rf"Default: {re.escape(shown)}[.,]", explained[name]), name
    assert default.queue == 64 << 20
    assert (default.control_mode, default.history_mode) == (0o666, 0o600)


def test_what_counts_at_once_is_told() -> None:
    text = " ".join(manpage.read(PAGE)["SETTINGS"].text.split())
    told = text.partition("the log says why. ")[2].partition(" count at once")[0]
    for key in settings.KEYS:
        if not key.restart:
            assert key.name in told or (key.table == "log" and "[log]" in told), key.name


def test_every_metric_is_explained_and_no_other() -> None:
    made = metrics.Metrics(lambda: "")
    page = made.page().decode()
    exported = set(re.findall(r"(?m)^# HELP (\w+) ", page))
    exported = {name for name in exported if not name.endswith("_created")}
    assert set(entries("METRICS")) == exported


def test_every_verdict_is_explained() -> None:
    text = entries("METRICS")["kdumpfence_datagrams_total"]
    assert {*wire.REASONS, "accepted", "unread"} - set(re.findall(r"\w+", text)) == set()


def test_the_numbers_are_the_real_ones() -> None:
    text = " ".join(" ".join(section.text.split()) for section in manpage.read(PAGE).values())
    assert f"of {recorder.MOST_HELD} dumps at most" in text
    assert (recorder.HOLD, recorder.RETRY_LAST, http.LIMITS.quiet) == (2.0, 10.0, 5.0)
    assert (port_owners.EVERY, loop.LOOK_EVERY, http.RETRY) == (5.0, 1.0, 10.0)
    assert "Every five seconds it looks" in text
    assert "Every second, and before anything is told" in text
    assert history_file.PATIENCE_WRITING == 0.5
    assert "waits half a second for a lock" in text
    assert "held back for two seconds" in text
    assert "every ten seconds in the end" in text
    assert f"A client has five seconds, and {http.LIMITS.clients} are served" in text


def test_every_line_that_is_explained_can_be_said() -> None:
    real = said.everything(*SOURCES)
    for entry in manpage.read(PAGE)["WHAT THE LINES MEAN"].entries:
        assert any(len(piece) > 5 for piece in entry.bold), f"nothing fixed in {entry.heading!r}"
        for piece in entry.bold:
            words = piece.split(" ")
            cuts = [(" ".join(words[:at]), " ".join(words[at:])) for at in range(len(words))]
            assert any(
                all(any(part.strip(" '():;,") in text for text in real) for part in cut)
                for cut in cuts
            ), f"nobody says {piece!r}"


def test_every_event_that_can_be_told_is_explained() -> None:
    text = " ".join(manpage.read(PAGE)["WHAT THE LINES MEAN"].text.split())
    spoken = said.everything("daemon/log.py")
    for piece in ("began to dump: first message", "fell silent: dumped for", "has been dumping for",
                  "was dumping before the restart", "not in the history yet"):  # fmt: skip
        assert any(piece in one for one in spoken)
        assert piece in text


def test_the_paths_are_the_real_ones() -> None:
    files = manpage.read(PAGE)["FILES"].text
    default = settings.Settings()
    for path in (settings.DEFAULT_PATH, default.history_path, default.control_path):
        assert path in files


def test_every_column_of_the_history_is_explained(tmp_path: Path) -> None:
    path = str(tmp_path / "history")
    history.History(path).close()
    tables = {"dump", "file"}
    with contextlib.closing(sqlite3.connect(path)) as opened:
        columns = {
            row[1] for table in tables for row in opened.execute(f"PRAGMA table_info({table})")
        }
    text = set(re.findall(r"\w+", manpage.read(PAGE)["FILES"].text))
    assert (columns | tables) - {"id"} - text == set()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence watch shows it live, with rich and without, and leaves the terminal as it was."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kdumpfence.cli import watch
from kdumpfence.cli.changes import Changes
from kdumpfence.client import Client
from kdumpfence.daemon.control import Answers, Sources
from kdumpfence.daemon.questions import Questions
from kdumpfence.daemon.status_server import Server
from kdumpfence.daemon.told import Told
from kdumpfence.listener.events import Event, Kind
from tests.cli.commands import (
    COMMAND,
    ENVIRONMENT,
    ESCAPED,
    HOSTILE,
    STAMP,
    WITHOUT_RICH,
    StatusAlone,
    status,
)
from tests.cli.terminal import CURSOR_OFF, CURSOR_ON, SCREEN_OFF, SCREEN_ON, Terminal, plain


def watching(
    path: str, lines: int = 24, columns: int = 100, command: list[str] = COMMAND
) -> Terminal:
    """The command on a terminal of that size."""
    return Terminal([*command, "watch", "--socket", path], lines, columns, ENVIRONMENT)


def test_watch_shows_live_who_is_dumping_and_ends_with_q(server: Server) -> None:
    with watching(server.path) as terminal:
        terminal.await_text(re.escape(SCREEN_ON))
        terminal.await_text(rf"2 nodes are dumping.*node1.*{STAMP}.*192\.0\.2\.1.*node2")
        assert not terminal.is_as_before()
        server.publish(status("node3", HOSTILE))
        drawn = terminal.await_text(r"node3.*q quits")[0]
        assert "\u202e" not in drawn
        assert ESCAPED in drawn
        terminal.press(b"xq")
        assert terminal.end() == 0
        assert terminal.text.rindex(SCREEN_OFF) > terminal.text.rfind(SCREEN_ON)
        assert terminal.text.rindex(CURSOR_ON) > terminal.text.rfind(CURSOR_OFF)
        assert terminal.is_as_before()


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_watch_leaves_the_terminal_as_it_was_whatever_ends_it(
    server: Server, number: int, expected: int
) -> None:
    with watching(server.path) as terminal:
        terminal.await_text("q quits")
        if number == signal.SIGINT:
            terminal.press(b"\x03")  # Ctrl-C
        else:
            terminal.program.send_signal(number)
        assert terminal.end() == expected
        assert SCREEN_OFF in terminal.text
        assert CURSOR_ON in terminal.text
        assert "Traceback" not in terminal.text
        assert terminal.is_as_before()


@pytest.mark.slow
def test_watch_says_that_the_daemon_is_gone_and_finds_it_again(tmp_path: Path) -> None:
    path = str(tmp_path / "control")
    with watching(path, columns=200) as terminal:
        terminal.await_text(r"no daemon at .*asking every second")
        with Server(path, questions=StatusAlone()) as server:
            server.publish(status("node1"))
            terminal.await_text("1 node is dumping.*node1")
        terminal.await_text("no daemon at .*showing the state of .* ago.*node1")
        with Server(path, questions=StatusAlone()) as server:
            server.publish(status("node5"))
            drawn = terminal.await_text("1 node is dumping.*node5.*q quits")[0]
            assert "no daemon" not in drawn.rpartition("1 node is dumping")[2]
        terminal.press(b"q")
        assert terminal.end() == 0


@pytest.mark.slow
def test_watch_shows_the_rate_of_datagrams_by_reason(server: Server) -> None:
    first = status()
    with watching(server.path) as terminal:
        terminal.await_text("1,234 accepted, 5 magic")
        counts = {"accepted": 1234, "magic": 45, "short": 600}
        server.publish(first._replace(up=first.up + 2, counts=counts))
        terminal.await_text(r"1,234 accepted, 45 magic \(\+20/s\), 600 short \(\+300/s\)")
        server.publish(first._replace(up=1.0, counts={"accepted": 0, "magic": 7}))  # a new one
        terminal.await_text(r"0 accepted, 7 magic +\r?\n?")
        terminal.press(b"q")
        assert terminal.end() == 0


@pytest.mark.parametrize(("lines", "columns"), [(24, 100), (10, 40), (5, 80), (2, 10), (1, 1)])
@pytest.mark.slow
def test_watch_draws_no_more_than_the_window_holds(
    server: Server, lines: int, columns: int
) -> None:
    server.publish(status(*(f"node{n}" for n in range(1000)), dumping=5000))
    with watching(server.path, lines, columns) as terminal:
        deadline = time.monotonic() + 60
        while terminal.text.count("\x1b[H") < 2:  # from the second on it listens to keys
            assert time.monotonic() < deadline, terminal.text
            terminal.read(0.1)
        terminal.press(b"q")
        assert terminal.end() == 0
        screens = terminal.text.split(SCREEN_OFF)[0].split("\x1b[H")[1:]
        drawn = [plain(screen) for screen in screens if plain(screen).strip()]
        assert drawn
        for screen in drawn:
            assert len(screen.splitlines()) <= lines
            assert max(len(line.rstrip("\r")) for line in screen.splitlines()) <= columns
        if lines == 24:
            shown = len(re.findall(r"node\d+ ", drawn[-1]))
            assert shown >= 15
            assert f"and {5000 - shown:,} more" in drawn[-1]
        assert "Traceback" not in terminal.text


def test_watch_follows_a_window_that_changes_its_size(server: Server) -> None:
    server.publish(status(*(f"node{n}" for n in range(100))))
    with watching(server.path, lines=12) as terminal:
        terminal.await_text(r"and 9\d more")
        terminal.resize(50, 100)
        terminal.await_text(r"and [56]\d more")
        terminal.press(b"Q")
        assert terminal.end() == 0


class Lines:
    """watch without a terminal: its lines as they come."""

    def __init__(self, path: str, command: list[str]) -> None:
        self.program = subprocess.Popen(
            [*command, "watch", "--socket", path],
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.program.kill()
        self.program.communicate()

    def next(self) -> str:
        assert self.program.stdout is not None
        line = self.program.stdout.readline().rstrip("\n")
        assert re.match(rf"{STAMP} ", line), line
        return line[20:]

    def end(self) -> tuple[int, str]:
        self.program.send_signal(signal.SIGINT)
        rest, _ = self.program.communicate(timeout=30)
        return self.program.returncode, rest


@pytest.mark.slow
def test_watch_without_a_terminal_prints_a_line_for_each_change(
    tmp_path: Path, command: list[str]
) -> None:
    path = str(tmp_path / "control")
    with Lines(path, command) as lines:
        assert lines.next().startswith(f"no daemon at {path}: ")
        with Server(path, questions=StatusAlone()) as server:
            first = status("node1", HOSTILE)
            server.publish(first)
            line = lines.next()
            if line != "the daemon answers again":  # it may ask between these two
                line = lines.next()
            assert line == "the daemon answers again"
            assert lines.next() == "kdumpfenced 0.1.0, up for 1 d 01 h; knows 1,000 nodes"
            assert lines.next().startswith(f"{ESCAPED} has been dumping since ")
            assert re.fullmatch(
                rf"node1 has been dumping since {STAMP}, from 192.0.2.1 2001:db8::1", lines.next()
            )
            server.publish(first._replace(troubles=("history: full",), counts={"magic": 17}))
            assert lines.next() == "trouble: history: full"
            assert lines.next() == "datagrams not counted as messages: 12 magic"
            server.publish(first._replace(dumps=first.dumps[1:], dumping=1, counts={"magic": 17}))
            assert lines.next() == "over: history: full"
            assert re.fullmatch(
                r"node1 fell silent, 1 min 02 s after its first message; heard 12 messages or more",
                lines.next(),
            )
        line = lines.next()
        assert line.startswith(("no daemon at ", "the daemon at "))
        code, rest = lines.end()
        assert code == 0
        assert "Traceback" not in rest


@pytest.mark.slow
def test_watch_leaves_out_nothing_that_came_and_went_between_two_looks(tmp_path: Path) -> None:
    path, told = str(tmp_path / "control"), Told()
    started = event("node0", "began")
    told.tell(started)
    answers = Answers(told, Sources(lambda nodes: [None for _ in nodes], lambda _: True))
    with Server(path, questions=Questions(answers)) as server:
        server.publish(status())
        with Lines(path, COMMAND) as lines:
            assert lines.next().startswith("kdumpfenced 0.1.0")
            assert lines.next().startswith("node0 has been dumping since ")
            # More than an answer holds, and a node that crashed twice.
            expected = []
            for number in range(1500):
                for when in (1.0, 2.0) if number == 7 else (1.0,):
                    told.tell(event(f"node{number}", "began", when))
                    told.tell(event(f"node{number}", "finished", when))
                    expected += [f"node{number} has been dumping since "] * (number > 0)
                    expected.append(f"node{number} finished its dump")
            for start in expected:
                assert lines.next().startswith(start)


def test_watch_follows_a_daemon_that_was_started_again() -> None:
    changes = Changes()
    first, second = Played(), Played()
    for node in ("node1", "node2"):
        first.told.tell(event(node, "began"))
    assert len(list(changes.follow(first))) == 2
    first.told.tell(event("node1", "silent"))
    assert [line.split(",")[0] for line in changes.follow(first)] == ["node1 fell silent"]
    second.told.tell(event("node3", "dumping"))
    lines = list(changes.follow(second))
    assert lines[0].startswith("node3 has been dumping since ")
    assert lines[1].startswith("node2 fell silent, ")
    assert lines[1].endswith(" or more")
    assert list(changes.follow(second)) == []


def test_watch_says_how_much_the_daemon_did_not_keep() -> None:
    changes, client = Changes(), Played(Told(most=4))
    assert list(changes.follow(client)) == []
    for number in range(6):
        client.told.tell(event(f"node{number}", "silent"))
    lines = list(changes.follow(client))
    assert lines[0] == "2 beginnings and ends were too many to be shown"
    assert [line.split()[0] for line in lines[1:]] == ["node2", "node3", "node4", "node5"]


class Played(Client):
    """A client of a daemon without a socket between them."""

    def __init__(self, told: Told | None = None) -> None:
        self.told = Told() if told is None else told
        super().__init__()
        figures = Sources(lambda nodes: [None for _ in nodes], lambda _: True)
        self._answers = Answers(self.told, figures)

    def ask(self, question: Mapping[str, Any], wait: float = 0.0) -> dict[str, Any]:
        answer = self._answers.answer(question)
        assert isinstance(answer, str)
        found: dict[str, Any] = json.loads(answer)
        return found


def event(node: str, kind: Kind, since: float = 1.0) -> Event:
    return Event(kind, node, since, since, since, 1, ("192.0.2.1",))


def test_watch_on_a_terminal_without_rich_prints_lines_as_well(server: Server) -> None:
    with watching(server.path, command=WITHOUT_RICH) as terminal:
        terminal.await_text(rf"{STAMP} node1 has been dumping since")
        assert "\x1b" not in terminal.text
        terminal.press(b"\x03")
        assert terminal.end() == 0
        assert terminal.is_as_before()


def test_watch_tells_no_end_of_a_dump_that_an_answer_had_no_room_for() -> None:
    changes = Changes()
    whole = status(*(f"node{n}" for n in range(3)))
    assert len(changes.seen(whole)) == 4
    # Two more began; an answer has room for three.
    newer = [
        one._replace(node=f"new{n}", since=one.since + 100) for n, one in enumerate(whole.dumps)
    ]
    cut = whole._replace(dumping=5, dumps=[*newer[:2], whole.dumps[0]])
    lines = changes.seen(cut)
    assert [line.split()[0] for line in lines] == ["new1", "new0", "5"]
    assert lines[-1] == "5 nodes dumping; showing the newest 3"
    # One that has room in it is over when it is not there.
    gone = whole._replace(dumping=4, dumps=[newer[1], whole.dumps[0], whole.dumps[1]])
    lines = changes.seen(gone)
    assert any(line.startswith("new0 fell silent") for line in lines)
    assert not any("node2 fell" in line for line in lines)


def test_a_rate_needs_two_looks_at_the_same_daemon() -> None:
    first = status()
    later = first._replace(up=first.up + 4, counts={"accepted": 1334, "magic": 3})
    assert watch.rates(None, first) == {}
    assert watch.rates(first, later) == {"accepted": 25.0, "magic": 0.0}
    assert watch.rates(later, first) == {}

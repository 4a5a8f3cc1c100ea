# SPDX-License-Identifier: GPL-2.0-or-later
"""status, watch and history show what there is: to people, to programs, on any terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.cli import window
from kdumpfence.daemon.history import History
from kdumpfence.daemon.status_server import Server
from kdumpfence.listener.dumps import Event
from tests.cli.commands import (
    COMMAND,
    ENVIRONMENT,
    ESCAPED,
    HOSTILE,
    WITHOUT_RICH,
    complaint,
    run,
    status,
)
from tests.cli.terminal import CURSOR_OFF, CURSOR_ON, SCREEN_OFF, SCREEN_ON, Terminal, plain

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(str(tmp_path / "control")) as opened:
        opened.publish(status("node1", "node2"))
        yield opened


# --- status ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [COMMAND, WITHOUT_RICH], ids=["rich", "plain"])
def test_status_is_a_table_of_who_is_dumping(server: Server, command: list[str]) -> None:
    done = run("status", "--socket", server.path, command=command)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "kdumpfenced 0.1.0, up for 1 d 01 h; knows 1,000 nodes"
    assert lines[1] == "2 nodes are dumping"
    assert lines[2].split() == ["NODE", "SINCE", "LASTS", "LAST", "MESSAGE", "MESSAGES", "FROM"]
    row = rf"node1  {STAMP}  1 min \d\d s +\d+ s ago +12  192.0.2.1 2001:db8::1"
    assert re.fullmatch(row, lines[3])
    assert lines[4].startswith("node2 ")
    assert lines[5:] == ["datagrams: 1,234 accepted, 5 magic"]


def test_status_with_nobody_dumping_is_no_failure(server: Server) -> None:
    server.publish(status())
    done = run("status", "--socket", server.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == [
        "no node is dumping",
        "datagrams: 1,234 accepted, 5 magic",
    ]


def test_status_tells_programs_everything(server: Server) -> None:
    server.publish(status("node1", HOSTILE, unresolved=("node7",), troubles=("full",)))
    done = run("status", "--json", "--socket", server.path)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    found = json.loads(done.stdout)
    assert found["age"] < 20
    assert [dump["node"] for dump in found["dumps"]] == ["node1", HOSTILE]
    assert set(found["dumps"][0]) == {"node", "since", "last", "messages", "addresses", "took"}
    assert (found["nodes"], found["dumping"], found["up"]) == (1000, 2, 90061.0)
    assert found["counts"] == {"accepted": 1234, "magic": 5, "unread": 0}
    assert (found["unresolved"], found["troubles"]) == (["node7"], ["full"])


def test_status_says_what_is_wrong(server: Server) -> None:
    names = tuple(f"node{n}" for n in range(8))
    server.publish(status(unresolved=names, troubles=("history: no space left for it",)))
    lines = run("status", "--socket", server.path).stdout.splitlines()
    what = "nodes with a name that has no address, so not heard by it: "
    assert what + "node0, node1, node2, node3, node4 and 3 more" in lines
    assert "trouble: history: no space left for it" in lines
    server.publish(status(unresolved=names, unresolved_nodes=3000))
    lines = run("status", "--socket", server.path).stdout.splitlines()
    assert what + "node0, node1, node2, node3, node4 and 2,995 more" in lines


def test_status_shows_as_many_as_it_is_asked_for_and_counts_the_others(server: Server) -> None:
    server.publish(status(*(f"node{n}" for n in range(1000)), dumping=100_000))
    lines = run("status", "--socket", server.path).stdout.splitlines()
    assert len(lines) == 3 + window.SHOWN + 2
    assert lines[-2] == "and 99,900 more"
    lines = run("status", "--most", "3", "--socket", server.path).stdout.splitlines()
    assert [line.split()[0] for line in lines[3:6]] == ["node0", "node1", "node2"]
    assert lines[6] == "and 99,997 more"
    lines = run("status", "--most", "1000", "--socket", server.path).stdout.splitlines()
    assert lines[-2] == "and 99,000 more"


@pytest.mark.parametrize("command", [COMMAND, WITHOUT_RICH], ids=["rich", "plain"])
def test_no_name_reaches_the_terminal_as_anything_but_text(
    server: Server, command: list[str]
) -> None:
    server.publish(status(HOSTILE, unresolved=(HOSTILE,), troubles=(HOSTILE,), version=HOSTILE))
    argv = [*command, "status", "--socket", server.path]
    with Terminal(argv, columns=200, environment=ENVIRONMENT) as terminal:
        assert terminal.end() == 0
        assert "\x1b[2J" not in terminal.text
        assert "\u202e" not in terminal.text
        assert plain(terminal.text).count(ESCAPED) == 4


def test_a_table_on_a_narrow_terminal_is_cut_at_its_right_edge(server: Server) -> None:
    server.publish(status("a-rather-long-name-of-a-node", "node2"))
    argv = [*COMMAND, "status", "--socket", server.path]
    with Terminal(argv, columns=60, environment=ENVIRONMENT) as terminal:
        assert terminal.end() == 0
        assert "\x1b[" in terminal.text  # rich's
        lines = plain(terminal.text).splitlines()
    row = next(line for line in lines if line.startswith("a-rather"))
    assert re.match(rf"a-rather-long-name-of-a-node  {STAMP}", row)
    assert len(row) <= 60
    assert row.endswith("\u2026")


@pytest.mark.parametrize("command", ["status", "watch"])
def test_nonsense_on_the_command_line_is_refused_in_one_line(command: str) -> None:
    assert complaint(run(command, "--colour")) == (
        "unrecognized arguments: --colour; see kdumpfence --help"
    )


@pytest.mark.parametrize("number", ["0", "-1", "x", "1000001", "9" * 9999, "\u0663"])
def test_a_number_that_is_none_is_refused_in_one_line(number: str) -> None:
    assert "not a whole number from 1 to 1000000" in complaint(run("status", f"--most={number}"))


def test_without_a_daemon_it_is_said_in_one_line(tmp_path: Path) -> None:
    missing = f"{tmp_path}/control"
    reason = f"no daemon at {missing}: is kdumpfenced running?"
    assert complaint(run("status", "--socket", missing)) == reason
    assert complaint(run("status", "--json", "--socket", missing)) == reason


def test_a_reader_that_leaves_early_is_no_reason_to_complain(server: Server) -> None:
    server.publish(status(*(f"node{n}" for n in range(1000))))
    argv = [*COMMAND, "status", "--most", "1000", "--socket", server.path]
    environment = {**os.environ, **ENVIRONMENT}
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        argv, env=environment, stdout=write, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


# --- history --------------------------------------------------------------------------------

START = 1_795_000_000.0  # 2026-11-18 11:06:40 UTC


def dump(node: str, since: float, took: float, over: bool = True) -> Event:
    last = since + took
    messages = int(took / 10) + 1
    return Event(
        "silent" if over else "dumping", node, last + 30, since, last, messages, ("192.0.2.1",)
    )


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = str(tmp_path / "history")
    with History(path) as opened:
        opened.record(
            [
                dump("node1", START, 120),
                dump("node2", START + 1000, 240.5),
                dump("node1", START + 2000, 4),
                dump(HOSTILE, START + 3000, 60, over=False),
            ]
        )
    return path


@pytest.mark.parametrize("command", [COMMAND, WITHOUT_RICH], ids=["rich", "plain"])
def test_history_draws_each_dump_as_long_as_it_took(file: str, command: list[str]) -> None:
    done = run("history", "--file", file, command=command)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    head = "NODE BEGAN TOOK MESSAGES UP TO 4 min 00 s FROM"
    assert lines[0].split() == head.split()
    rows = {line.split("  ")[0]: line for line in lines[1:5]}
    assert set(rows) == {"node1", "node2", ESCAPED}
    assert re.search(r"2026-11-18 11:23:20 +4 min 00 s +25 ", rows["node2"])
    assert "> 1 min 00 s" in rows[ESCAPED]
    bars = [line.count("\u2588") for line in lines[1:5]]
    assert bars == [7, 1, 30, 15]


def test_bars_are_drawn_with_what_the_terminal_has(file: str) -> None:
    done = run("history", "--file", file, PYTHONIOENCODING="ascii")
    assert [line.count("#") for line in done.stdout.splitlines()[1:5]] == [7, 1, 30, 15]


def test_history_says_how_long_power_must_stay_on_for_each_node_and_all(file: str) -> None:
    text = run("history", "--file", file).stdout
    figures = [" ".join(line.split()) for line in text.splitlines()]
    assert "node2 1 4 min 01 s - 4 min 11 s" in figures
    assert "node1 2 2 min 00 s - 2 min 10 s" in figures
    assert "all 4 4 min 01 s - 4 min 11 s" in figures
    prose = " ".join(text.split())
    assert "Power has to stay on for 4 min 11 s or longer after a node's first message" in prose
    assert "A longer dump needs no longer timeout." in prose
    assert "1 of these dumps was over less than 11 s after the first message." in prose
    text = " ".join(run("history", "--file", file, "--interval", "60.5").stdout.split())
    assert "Power has to stay on for 5 min 01 s or longer" in text


@pytest.mark.slow
def test_history_of_one_node_or_from_one_time_on(file: str) -> None:
    def nodes(*arguments: str) -> list[str]:
        done = run("history", "--json", "--file", file, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return [one["node"] for one in json.loads(done.stdout)["dumps"]]

    assert nodes("--node", "node1") == ["node1", "node1"]
    assert nodes("--since", "2026-11-18 11:23") == [HOSTILE, "node1", "node2"]
    assert nodes("--since", "2026-11-18T11:23:21") == [HOSTILE, "node1"]
    assert nodes("--since", "2026-11-19") == []
    assert nodes("--most", "2") == [HOSTILE, "node1"]
    plain = run("history", "--file", file, "--node", "x\x1b", "--since", "2026-11-19").stdout
    assert plain == "no dump of x\\x1b since 2026-11-19 00:00:00\n"


def test_figures_are_of_all_dumps_and_not_of_those_shown(file: str) -> None:
    found = json.loads(run("history", "--json", "--file", file, "--most", "1").stdout)
    assert len(found["dumps"]) == 1
    assert (found["considered"], found["older"], found["quick"]) == (4, False, 1)
    assert found["all"] == {
        "node": None, "dumps": 4, "longest": 240.5, "percentile95": None, "power": 250.5
    }  # fmt: skip
    assert [one["node"] for one in found["nodes"]] == ["node2", "node1", HOSTILE]
    assert "and 3 older ones (--most)" in run("history", "--file", file, "--most", "1").stdout


def test_history_tells_programs_times_as_they_were_recorded(file: str) -> None:
    found = json.loads(run("history", "--json", "--file", file, "--node", "node2").stdout)
    assert found["dumps"] == [
        {
            "node": "node2",
            "since": START + 1000,
            "last": START + 1240.5,
            "ended": START + 1270.5,
            "took": 240.5,
            "messages": 25,
            "addresses": ["192.0.2.1"],
        }
    ]


@pytest.mark.parametrize("command", [COMMAND, WITHOUT_RICH], ids=["rich", "plain"])
def test_a_closed_stdout_is_no_reason_to_complain(file: str, command: list[str]) -> None:
    wrapper = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    done = run("history", "--file", file, command=wrapper)
    assert (done.returncode, done.stderr) == (0, "")


def test_history_before_anything_was_recorded(tmp_path: Path) -> None:
    path = f"{tmp_path}/history"
    reason = f"no history at {path}: kdumpfenced has not written one there"
    assert complaint(run("history", "--file", path)) == reason
    History(path).close()
    assert run("history", "--file", path).stdout == "no dump\n"
    assert json.loads(run("history", "--json", "--file", path).stdout)["all"] is None


def test_a_file_that_is_no_history_is_told_of_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("rubbish" * 1000)
    assert "damaged (file is not a database)" in complaint(run("history", "--file", str(path)))


@pytest.mark.parametrize(
    "text", ["", "yesterday", "5", "2026-13-01", "7 d", "1e3s", "-1d", "\u0665d"]
)
@pytest.mark.slow
def test_a_time_that_is_none_is_refused_in_one_line(file: str, text: str) -> None:
    done = run("history", "--file", file, f"--since={text}")
    assert "neither a time (2026-11-20, " in complaint(done)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "x", "86401"])
def test_an_interval_that_is_none_is_refused_in_one_line(text: str) -> None:
    done = run("history", f"--interval={text}")
    assert "not a number of seconds above 0, up to a day" in complaint(done)


def test_how_long_ago_is_counted_from_now() -> None:
    now = 1e9
    for text, seconds in (("90m", 5400), ("24h", 86400), ("7d", 604800), ("2w", 1209600)):
        assert window.moment(text, now) == now - seconds


def test_history_on_a_terminal_of_eighty_columns_keeps_the_names(file: str) -> None:
    argv = [*COMMAND, "history", "--file", file]
    with Terminal(argv, columns=80, environment=ENVIRONMENT) as terminal:
        assert terminal.end() == 0
        lines = plain(terminal.text).splitlines()
    assert "\x1b[2J" not in terminal.text
    rows = [line for line in lines if "\u2588" in line]
    assert len(rows) == 4
    assert all(len(line) <= 80 for line in lines)
    assert rows[2].startswith("node2 ")


# --- watch ----------------------------------------------------------------------------------


def test_watch_shows_live_who_is_dumping_and_ends_with_q(server: Server) -> None:
    with Terminal(
        [*COMMAND, "watch", "--socket", server.path], environment=ENVIRONMENT
    ) as terminal:
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
    with Terminal(
        [*COMMAND, "watch", "--socket", server.path], environment=ENVIRONMENT
    ) as terminal:
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
    argv = [*COMMAND, "watch", "--socket", path]
    with Terminal(argv, columns=200, environment=ENVIRONMENT) as terminal:
        terminal.await_text(r"no daemon at \S+: is kdumpfenced running\?.*asking every second")
        with Server(path) as server:
            server.publish(status("node1"))
            terminal.await_text("1 node is dumping.*node1")
        terminal.await_text("no daemon at .*what follows was so .* ago.*node1")
        with Server(path) as server:
            server.publish(status("node5"))
            drawn = terminal.await_text("1 node is dumping.*node5.*q quits")[0]
            assert "no daemon" not in drawn.rpartition("1 node is dumping")[2]
        terminal.press(b"q")
        assert terminal.end() == 0


@pytest.mark.slow
def test_watch_shows_the_rate_of_datagrams_by_reason(server: Server) -> None:
    first = status()
    with Terminal(
        [*COMMAND, "watch", "--socket", server.path], environment=ENVIRONMENT
    ) as terminal:
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
    argv = [*COMMAND, "watch", "--socket", server.path]
    with Terminal(argv, lines, columns, environment=ENVIRONMENT) as terminal:
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
    argv = [*COMMAND, "watch", "--socket", server.path]
    with Terminal(argv, 12, 100, environment=ENVIRONMENT) as terminal:
        terminal.await_text(r"and 9\d more")
        terminal.resize(50, 100)
        terminal.await_text(r"and [56]\d more")
        terminal.press(b"Q")
        assert terminal.end() == 0


class Lines:
    """watch without a terminal: its lines as they come."""

    def __init__(self, path: str, command: list[str] = COMMAND) -> None:
        self.program = subprocess.Popen(
            [*command, "watch", "--socket", path],
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )

    def next(self) -> str:
        assert self.program.stdout is not None
        stamp, _, rest = self.program.stdout.readline().rstrip("\n").partition("Z ")
        line = stamp + rest
        assert re.match(rf"{STAMP} ", line), line
        return line[20:]

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        self.program.send_signal(number)
        rest, _ = self.program.communicate(timeout=30)
        return self.program.returncode, rest


@pytest.mark.parametrize("command", [COMMAND, WITHOUT_RICH], ids=["rich", "plain"])
@pytest.mark.slow
def test_watch_without_a_terminal_prints_a_line_for_each_change(
    tmp_path: Path, command: list[str]
) -> None:
    path = str(tmp_path / "control")
    lines = Lines(path, command)
    assert lines.next() == f"no daemon at {path}: is kdumpfenced running?"
    with Server(path) as server:
        first = status("node1", HOSTILE)
        server.publish(first)
        line = lines.next()
        if "only just been started" in line:  # it may ask between these two
            line = lines.next()
        assert line == "the daemon answers again"
        assert lines.next() == "kdumpfenced 0.1.0, up for 1 d 01 h; knows 1,000 nodes"
        assert lines.next().startswith(f"{ESCAPED} is dumping since ")
        assert re.fullmatch(
            rf"node1 is dumping since {STAMP}, from 192.0.2.1 2001:db8::1", lines.next()
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


def test_watch_on_a_terminal_without_rich_prints_lines_as_well(server: Server) -> None:
    with Terminal(
        [*WITHOUT_RICH, "watch", "--socket", server.path], environment=ENVIRONMENT
    ) as terminal:
        terminal.await_text(rf"{STAMP} node1 is dumping since")
        assert "\x1b" not in terminal.text
        terminal.press(b"\x03")
        assert terminal.end() == 0
        assert terminal.is_as_before()


def test_watch_tells_no_end_of_a_dump_that_an_answer_had_no_room_for() -> None:
    changes = window.Changes()
    whole = status(*(f"node{n}" for n in range(3)))
    assert len(changes.seen(whole)) == 4
    # Two more began; an answer has room for three.
    newer = [
        one._replace(node=f"new{n}", since=one.since + 100) for n, one in enumerate(whole.dumps)
    ]
    cut = whole._replace(dumping=5, dumps=[*newer[:2], whole.dumps[0]])
    lines = changes.seen(cut)
    assert [line.split()[0] for line in lines] == ["new1", "new0", "5"]
    assert lines[-1] == "5 nodes dumping; the newest 3 are told of"
    # One that has room in it is over when it is not there.
    gone = whole._replace(dumping=4, dumps=[newer[1], whole.dumps[0], whole.dumps[1]])
    lines = changes.seen(gone)
    assert any(line.startswith("new0 fell silent") for line in lines)
    assert not any("node2 fell" in line for line in lines)


def test_a_rate_needs_two_looks_at_the_same_daemon() -> None:
    first = status()
    later = first._replace(up=first.up + 4, counts={"accepted": 1334, "magic": 3})
    assert window.rates(None, first) == {}
    assert window.rates(first, later) == {"accepted": 25.0, "magic": 0.0}
    assert window.rates(later, first) == {}

# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence history shows past dumps and what they say about time-outs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kdumpfence.cli import CommandError
from kdumpfence.cli.history import moment
from kdumpfence.daemon.history import History
from kdumpfence.listener.events import Event, Kind
from tests.cli.commands import COMMAND, ENVIRONMENT, ESCAPED, HOSTILE, complaint, ok, run_program
from tests.cli.terminal import Terminal, plain

START = 1_795_000_000.0  # 2026-11-18 11:06:40 UTC


def dump(node: str, since: float, took: float, kind: Kind = "silent") -> Event:
    last = since + took
    messages = int(took / 10) + 1
    return Event(kind, node, last + 30, since, last, messages, ("192.0.2.1",))


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = str(tmp_path / "history")
    with History(path) as opened:
        opened.record(
            [
                dump("node1", START, 120),
                dump("node2", START + 1000, 240.5),
                dump("node1", START + 2000, 4),
                dump(HOSTILE, START + 3000, 60, "dumping"),
            ]
        )
    return path


def test_history_draws_each_dump_as_long_as_it_took(file: str, command: list[str]) -> None:
    lines = ok("history", "--file", file, command=command).splitlines()
    head = "NODE BEGAN TOOK END MESSAGES UP TO 4 min 00 s FROM"
    assert lines[0].split() == head.split()
    rows = {line.split("  ")[0]: line for line in lines[1:5]}
    assert set(rows) == {"node1", "node2", ESCAPED}
    assert re.search(r"2026-11-18 11:23:20 +4 min 00 s +silent +25 ", rows["node2"])
    assert "> 1 min 00 s" in rows[ESCAPED]
    assert [line.count("\u2588") for line in lines[1:5]] == [7, 1, 30, 15]
    # Bars are drawn with what the terminal has.
    lines = ok("history", "--file", file, PYTHONIOENCODING="ascii").splitlines()
    assert [line.count("#") for line in lines[1:5]] == [7, 1, 30, 15]


def test_history_says_how_long_power_must_stay_on_for_each_node_and_all(file: str) -> None:
    text = ok("history", "--file", file)
    figures = [" ".join(line.split()) for line in text.splitlines()]
    assert "node2 1 0 4 min 01 s - 4 min 11 s" in figures
    assert "node1 2 0 2 min 00 s - 2 min 10 s" in figures
    assert "all 4 0 4 min 01 s - 4 min 11 s" in figures
    assert "stay on for at least 4 min 11 s" in " ".join(text.split())
    text = ok("history", "--file", file, "--interval", "60.5")
    assert "stay on for at least 5 min 01 s" in " ".join(text.split())


def test_history_says_how_dumps_ended_and_leaves_those_that_failed_out_of_the_figures(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "history")
    with History(path) as opened:
        opened.record([dump("node1", START, 120, "finished"), dump("node2", START, 900, "failed")])
    text = ok("history", "--file", path)
    assert re.search(r"node1 .* 2 min 00 s +finished +13 ", text)
    assert re.search(r"node2 .*15 min 00 s +failed +91 ", text)
    figures = [" ".join(line.split()) for line in text.splitlines()]
    assert "node1 1 0 2 min 00 s - 2 min 00 s" in figures
    assert "node2 0 1 - - -" in figures
    assert "all 1 1 2 min 00 s - 2 min 00 s" in figures
    found = json.loads(ok("history", "--json", "--file", path))
    assert {one["node"]: one["end"] for one in found["dumps"]} == {
        "node1": "finished", "node2": "failed",
    }  # fmt: skip
    assert found["nodes"][1] == {
        "node": "node2", "dumps": 0, "failed": 1, "longest": None, "percentile95": None,
        "power": None,
    }  # fmt: skip


@pytest.mark.slow
def test_history_of_one_node_or_from_one_time_on(file: str) -> None:
    for arguments, nodes in (
        (("--node", "node1"), ["node1", "node1"]),
        (("--since", "2026-11-18 11:23"), [HOSTILE, "node1", "node2"]),
        (("--since", "2026-11-18T11:23:21"), [HOSTILE, "node1"]),
        (("--since", "2026-11-19"), []),
        (("--most", "2"), [HOSTILE, "node1"]),
    ):
        found = json.loads(ok("history", "--json", "--file", file, *arguments))
        assert [one["node"] for one in found["dumps"]] == nodes
    text = ok("history", "--file", file, "--node", "x\x1b", "--since", "2026-11-19")
    assert text == "no dump of x\\x1b since 2026-11-19 00:00:00\n"


def test_figures_are_of_all_dumps_and_not_of_those_shown(file: str) -> None:
    found = json.loads(ok("history", "--json", "--file", file, "--most", "1"))
    assert len(found["dumps"]) == 1
    assert (found["considered"], found["older"], found["quick"]) == (4, False, 1)
    assert found["all"] == {
        "node": None, "dumps": 4, "failed": 0, "longest": 240.5, "percentile95": None,
        "power": 250.5,
    }  # fmt: skip
    assert [one["node"] for one in found["nodes"]] == ["node2", "node1", HOSTILE]
    assert "and 3 older ones (--most)" in ok("history", "--file", file, "--most", "1")


def test_history_tells_programs_times_as_they_were_recorded(file: str) -> None:
    found = json.loads(ok("history", "--json", "--file", file, "--node", "node2"))
    assert found["dumps"] == [
        {
            "node": "node2",
            "since": START + 1000,
            "last": START + 1240.5,
            "ended": START + 1270.5,
            "took": 240.5,
            "end": "silent",
            "messages": 25,
            "addresses": ["192.0.2.1"],
        }
    ]


def test_history_before_anything_was_recorded(tmp_path: Path) -> None:
    path = f"{tmp_path}/history"
    assert complaint("history", "--file", path).startswith(f"no history at {path}: ")
    History(path).close()
    assert ok("history", "--file", path) == "no dump\n"
    assert json.loads(ok("history", "--json", "--file", path))["all"] is None
    Path(path).write_text("rubbish" * 1000)
    assert "damaged (file is not a database)" in complaint("history", "--file", path)


@pytest.mark.parametrize(
    ("option", "texts"),
    [
        ("since", ["", "yesterday", "5", "2026-13-01", "7 d", "1e3s", "-1d", "\u0665d"]),
        ("interval", ["0", "-1", "nan", "inf", "x", "86401"]),
    ],
)
@pytest.mark.slow
def test_what_is_no_time_is_refused_in_one_line(file: str, option: str, texts: list[str]) -> None:
    for text in texts:
        said = complaint("history", "--file", file, f"--{option}={text}")
        assert f"--{option}" in said
        assert "neither a time (2026-11-20, " in said or "not a number of seconds (more " in said


def test_how_long_ago_is_counted_from_now() -> None:
    now = 1e9
    for text, seconds in (("90m", 5400), ("24h", 86400), ("7d", 604800), ("2w", 1209600)):
        assert moment(text, now) == now - seconds
    assert moment("36500d", now) == now - 36500 * 86400
    for text in ("36501d", "3153600001s", "99999999w", "999999999w"):
        with pytest.raises(CommandError) as refused:
            moment(text, now)
        assert str(refused.value) == f"--since '{text}': too long ago (at most 36500d)"


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


def test_a_closed_stdout_is_no_reason_to_complain(file: str, command: list[str]) -> None:
    wrapper = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    assert ok("history", "--file", file, command=wrapper) == ""


def test_the_other_commands_do_without_sqlite() -> None:
    done = run_program(
        "import sys; sys.modules['sqlite3'] = None\n"
        "from kdumpfence.cli.main import main\n"
        "sys.exit(main(['install-sender', '--root', '/', '--distribution', 'none']))"
    )
    assert (done.returncode, done.stderr[:39]) == (1, "kdumpfence: --distribution 'none': not ")

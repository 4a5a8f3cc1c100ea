# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence status shows who is dumping: to people, to programs, on any terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from kdumpfence.cli import tables
from kdumpfence.daemon.control import Answers, Sources
from kdumpfence.daemon.questions import Questions
from kdumpfence.daemon.status_server import Server
from kdumpfence.daemon.told import Told
from kdumpfence.listener.events import Dump, Event, Kind
from tests.cli.commands import (
    COMMAND,
    ENVIRONMENT,
    ESCAPED,
    HOSTILE,
    STAMP,
    StatusAlone,
    complaint,
    ok,
    status,
)
from tests.cli.terminal import Terminal, plain


def test_status_is_a_table_of_who_is_dumping(server: Server, command: list[str]) -> None:
    lines = ok("status", "--socket", server.path, command=command).splitlines()
    assert lines[0] == "kdumpfenced 0.1.0, up for 1 d 01 h; knows 1,000 nodes"
    assert lines[1] == "2 nodes are dumping"
    assert lines[2].split() == ["NODE", "SINCE", "LASTS", "LAST", "MESSAGE", "MESSAGES", "FROM"]
    row = rf"node1  {STAMP}  1 min \d\d s +\d+ s ago +12  192.0.2.1 2001:db8::1"
    assert re.fullmatch(row, lines[3])
    assert lines[4].startswith("node2 ")
    assert lines[5:] == ["datagrams: 1,234 accepted, 5 magic"]
    server.publish(status())
    lines = ok("status", "--socket", server.path, command=command).splitlines()
    assert lines[1:] == ["no node is dumping", "datagrams: 1,234 accepted, 5 magic"]


def test_status_shows_as_many_dumps_as_it_is_asked_for(tmp_path: Path) -> None:
    told = Told()
    for number in range(2500):
        told.tell(Event("began", f"node{number}", 1.0, 1.0, 1.0, 1, ("192.0.2.1",)))
    answers = Answers(told, Sources(lambda nodes: [None for _ in nodes], lambda _: True))
    newest = [
        Dump(f"node{number}", 1.0, 1.0, 1, ("192.0.2.1",)) for number in range(2499, 1499, -1)
    ]
    for pages, most, shown in ((answers, "2400", 2400), (answers, "7", 7), (None, "2400", 1000)):
        path = str(tmp_path / "control")
        with Server(path, questions=Questions(pages) if pages else StatusAlone()) as server:
            server.publish(status(dumping=2500, dumps=newest))
            found = json.loads(ok("status", "--json", "--most", most, "--socket", path))
        nodes = [dump["node"] for dump in found["dumps"]]
        assert nodes == [f"node{number}" for number in range(2499, 2499 - shown, -1)]


def test_status_tells_how_dumps_of_the_last_hour_ended(server: Server) -> None:
    now = time.time()
    kinds: tuple[Kind, ...] = ("finished", "failed", "silent", "finished")
    ends = [
        Event(kind, f"node{at}", now - 60 * at, now - 400, now - 100, 7, ("192.0.2.1",), 300.0)
        for at, kind in enumerate(kinds)
    ]
    ends.append(ends[0]._replace(node=HOSTILE, when=now - 4000))
    server.publish(status(ended=ends[1:]))
    lines = ok("status", "--socket", server.path).splitlines()
    assert lines[2:5] == [
        "node1 failed to dump, 5 min 00 s after its first message, 1 min 00 s ago",
        "node2 fell silent, 5 min 00 s after its first message, 2 min 00 s ago",
        "node3 finished its dump, 5 min 00 s after its first message, 3 min 00 s ago",
    ]
    assert lines[5].startswith("datagrams")
    server.publish(status(ended=[ends[0]] * 7))
    lines = ok("status", "--socket", server.path).splitlines()
    assert lines[7] == "and 2 more ended within the last hour"
    found = json.loads(ok("status", "--json", "--socket", server.path))
    assert found["ended"][0] == {
        "node": "node0", "since": now - 400, "last": now - 100, "messages": 7,
        "addresses": ["192.0.2.1"], "took": 300.0, "port": 0, "end": "finished", "ended": now,
    }  # fmt: skip


def test_status_tells_programs_everything(server: Server) -> None:
    server.publish(status("node1", HOSTILE, unresolved=("node7",), troubles=("full",)))
    told = ok("status", "--json", "--socket", server.path)
    assert told.count("\n") == 1
    found = json.loads(told)
    assert found["age"] < 20
    assert [dump["node"] for dump in found["dumps"]] == ["node1", HOSTILE]
    members = {"node", "since", "last", "messages", "addresses", "took", "port"}
    assert set(found["dumps"][0]) == members
    assert (found["nodes"], found["dumping"], found["up"]) == (1000, 2, 90061.0)
    assert found["counts"] == {"accepted": 1234, "magic": 5, "unread": 0}
    assert (found["unresolved"], found["troubles"]) == (["node7"], ["full"])


def test_status_says_what_is_wrong(server: Server) -> None:
    names = tuple(f"node{n}" for n in range(8))
    for known, others in ((0, "3"), (3000, "2,995")):
        server.publish(status(unresolved=names, unresolved_nodes=known, troubles=("it is full",)))
        lines = ok("status", "--socket", server.path).splitlines()
        (line,) = (line for line in lines if "unresolved" in line)
        assert line.endswith(f": node0, node1, node2, node3, node4 and {others} more")
        assert "trouble: it is full" in lines


def test_status_shows_as_many_as_it_is_asked_for_and_counts_the_others(server: Server) -> None:
    server.publish(status(*(f"node{n}" for n in range(1000)), dumping=100_000))
    for options, shown in (((), tables.SHOWN), (("--most=3",), 3), (("--most=1000",), 1000)):
        lines = ok("status", *options, "--socket", server.path).splitlines()
        assert [line.split()[0] for line in lines[3:-2]] == [f"node{n}" for n in range(shown)]
        assert lines[-2] == f"and {100_000 - shown:,} more"


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


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("status", "--colour"), "unrecognized arguments: --colour; see kdumpfence status --help"),
        (("watch", "--colour"), "unrecognized arguments: --colour; see kdumpfence watch --help"),
        *(
            (("status", f"--most={number}"), r".*: not a number of dumps \(1 to 1000000\); see .*")
            for number in ("0", "-1", "x", "1000001", "9" * 9999, "\u0663")
        ),
    ],
)
@pytest.mark.slow
def test_nonsense_on_the_command_line_is_refused_in_one_line(
    arguments: tuple[str, ...], reason: str
) -> None:
    assert re.fullmatch(reason, complaint(*arguments))


def test_without_a_daemon_it_is_said_in_one_line(tmp_path: Path) -> None:
    missing = f"{tmp_path}/control"
    for options in ((), ("--json",)):
        assert complaint("status", *options, "--socket", missing).startswith(
            f"no daemon at {missing}: "
        )


def test_a_path_may_be_one_from_here(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.publish(status("node1"))
    folder, _, name = server.path.rpartition("/")
    monkeypatch.chdir(folder)
    assert "node1" in ok("status", "--socket", name)
    for command in ("status", "watch"):
        assert complaint(command, "--socket", "http://[::1").startswith(
            "argument --socket: 'http://[::1': Invalid IPv6 URL"
        )
        assert (
            complaint(command, "--socket", name, "--database", "postgresql://")
            == "--socket and --database: give one of them"
        )


def test_a_reader_that_leaves_early_is_no_reason_to_complain(server: Server) -> None:
    server.publish(status(*(f"node{n}" for n in range(1000))))
    argv = [*COMMAND, "status", "--most", "1000", "--socket", server.path]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        argv,
        env={**os.environ, **ENVIRONMENT},
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")

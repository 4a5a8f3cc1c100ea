# SPDX-License-Identifier: LGPL-2.1-or-later
"""The examples do what they say, with real messages; and what the page about them says is so."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

import kdumpfence
from kdumpfence.listener import dumps, event_queue, hearing, nodes, reader
from kdumpfence.listener.arguments import RENAMED
from kdumpfence.listener.events import Counter, Kind
from tests.conftest import unused_port
from tests.listener.conftest import PATIENCE, A, B, C, say, wait_for

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "listener.md").read_text()

Start = Callable[..., "subprocess.Popen[str]"]

#: Runs a program whose Listener waits for a second where it would for half a minute.
HASTY = """
import runpy, sys, kdumpfence
kdumpfence.Listener.__init__.__kwdefaults__["silence_timeout"] = 1.0
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def port() -> int:
    return unused_port()


@pytest.fixture
def start(port: int) -> Iterator[Start]:
    """Runs an example on that port, and ends it after the test."""
    started: list[subprocess.Popen[str]] = []

    def make(name: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HASTY, str(ROOT / "examples" / name), *arguments],
            env={**os.environ, "KDUMP_PORT": str(port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        table = Path(f"/proc/{process.pid}/net/udp")
        wait_for(lambda: f":{port:04X} 00000000:0000" in table.read_text())
        return process

    yield make
    for process in started:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    return output


def test_the_fencing_service_is_told_to_hold_and_to_release(
    start: Start, port: int, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    program = tmp_path / "fencing"
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    program.chmod(0o755)
    calls.touch()
    process = start("cloud_fencing.py", str(program), f"compute1={A},{B}", f"compute2={C}")
    say(B, port)
    wait_for(lambda: calls.read_text().startswith("hold compute1 60\n"))
    say(C, port)
    wait_for(lambda: "hold compute2 60\n" in calls.read_text())
    say("127.7.4.9", port)
    wait_for(lambda: calls.read_text().count("release") == 2)
    # The second may have begun after the first was over: only the order of each is certain.
    for node in ("compute1", "compute2"):
        said = [line for line in calls.read_text().splitlines() if node in line]
        assert said == [f"hold {node} 60", f"release {node}"]
    assert len(calls.read_text().splitlines()) == 4
    assert end(process) == ("", "")


def test_a_call_that_fails_does_not_end_the_example(
    start: Start, port: int, tmp_path: Path
) -> None:
    process = start("cloud_fencing.py", str(tmp_path / "missing"), f"compute1={A}")
    say(A, port)
    assert process.stderr is not None
    assert "No such file" in process.stderr.readline()
    assert end(process) == ("", "")


@pytest.mark.slow
def test_the_watching_example_does_other_work_as_well(start: Start, port: int) -> None:
    process = start("async_watch.py", "127.7.0.0/16")
    assert process.stdout is not None
    assert process.stdout.readline() == "0 dumping, 0 datagrams rejected\n"
    say(A, port)
    assert re.fullmatch(rf"[\d:]{{8}}  {A}  began  1 messages\n", process.stdout.readline())
    say(A, port, b"rubbish!")
    assert process.stdout.readline() == "1 dumping, 1 datagrams rejected\n"
    assert end(process)[1] == ""


# --------------------------------------------------------------------------------- the page


def test_the_code_on_the_page_is_that_of_the_example() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 2
    example = (ROOT / "examples" / "cloud_fencing.py").read_text()
    loop = example[example.index("    with Listener(") : example.index("\n\nif __name__")]
    assert any(loop in block for block in blocks)
    for block in blocks:
        compile(textwrap.dedent(block), "docs/listener.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_what_the_page_says_about_restarts_works(tmp_path: Path) -> None:
    (recipe,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
                 if "def restore(" in block)  # fmt: skip
    names: dict[str, Any] = {"json": json, "kdumpfence": kdumpfence, "os": os, "time": time}
    exec(recipe, names)
    path = str(tmp_path / "stored")
    nodes = {"node1": [A], "node2": [B], "node3": [C]}
    with kdumpfence.Listener(nodes, port=0) as listener:
        say(A, listener.port)
        say(C, listener.port)
        wait_for(lambda: listener.counts["accepted"] == 2)
        now = time.time()
        over = kdumpfence.Event("failed", "node2", now, now - 90, now, 3, (B,), 90.0)
        old = over._replace(node="node1", when=now - 100_000)
        names["store"](listener, {"node1": old, "node2": over}, path)
        before = {dump.node: dump.since for dump in listener.snapshot().dumps}
    del nodes["node3"]
    with kdumpfence.Listener(nodes, port=0) as listener:
        names["restore"](listener, path)
        (dump,) = listener.snapshot().dumps
        assert (dump.node, dump.since) == ("node1", before["node1"])
        say(B, listener.port)
        wait_for(lambda: listener.counts["accepted"] == 1)
        assert listener.dump("node2") is None


def test_the_page_has_the_parameters_and_their_defaults() -> None:
    said = PAGE[PAGE.index("    Listener(nodes, networks,") :].partition(")\n")[0]
    given = ast.parse(" ".join(said.split()) + ")", mode="eval").body
    assert isinstance(given, ast.Call)
    written = {one.arg: ast.literal_eval(one.value) for one in given.keywords}
    parameters = inspect.signature(kdumpfence.Listener).parameters.values()
    assert written == {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


def test_every_option_event_and_count_is_explained() -> None:
    code = kdumpfence.Listener.__init__.__code__
    options = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    assert "silence_timeout" in options
    methods = [name for name in dir(kdumpfence.Listener) if not name.startswith("_")]
    stated = (kdumpfence.Event, kdumpfence.Overflow, kdumpfence.Snapshot)
    fields = [name for kind in stated for name in kind._fields]
    words = {*options, *methods, *fields, *kdumpfence.REASONS, "accepted", "unread"}
    words |= {*get_args(Kind), *get_args(Counter), "overflow", *RENAMED, *RENAMED.values()}
    said = set(re.findall(r"(?<=`)\w+|(?<=listener\.)\w+|(?<=snapshot\(\)\.)\w+", PAGE))
    assert words - said == set()


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("silence_timeout=30.0", f"silence_timeout={dumps.SILENCE}"),
        ("repeat_interval=10.0", f"repeat_interval={dumps.REPEAT}"),
        ("every 5 minutes", f"every {nodes.REFRESH / 60:.0f} minutes"),
        ("not read for 5 seconds", f"not read for {event_queue.READING:.0f} seconds"),
        ("every 5 seconds", f"every {reader.OVERFLOW_REPEAT:.0f} seconds"),
        ("for 30 seconds", f"for {reader.FENCE:.0f} seconds"),
        ("at most 2,048", f"at most {hearing.MOST:,}"),
        ("(65,536 at least)", f"({event_queue.MOST_WAITING:,} at least)"),
    ],
)
def test_the_numbers_on_the_page_are_those_of_the_source(what: str, value: str) -> None:
    assert what == value
    assert what in " ".join(PAGE.split())

# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/sidecar.md: every command and every program in it, run beside a real daemon."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.daemon import control, openapi
from tests.conftest import cannot_run
from tests.daemon.running import NODE, Kdumpfenced, until

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "sidecar.md").read_text()


def blocks(language: str) -> list[str]:
    """What is in the page in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Each command, in one line."""
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kdumpfenced]:
    """One that knows node1, which is dumping, and node2, which is not."""
    made = Kdumpfenced(tmp_path_factory.mktemp("sidecar"))
    made.configure(top="", nodes=f'node1 = ["{NODE}"]\nnode2 = ["127.3.0.8"]', http=True)
    with contextlib.closing(made):
        made.start()
        made.hear(NODE)
        until(lambda: made.dumping() == {"node1"})
        yield made


def here(text: str, daemon: Kdumpfenced) -> str:
    """The same, of this daemon."""
    text = text.replace("/run/kdumpfenced/control", str(daemon.control))
    return text.replace("127.0.0.1:9742", f"127.0.0.1:{daemon.http_port}")


@pytest.mark.parametrize("command", commands())
def test_every_command_is_answered(daemon: Kdumpfenced, command: str) -> None:
    if shutil.which("curl") is None:
        cannot_run("curl is missing")
    stream = "event-stream" in command
    command = here(command, daemon)
    if stream:  # until Ctrl-C
        command = command.replace("curl ", "curl --max-time 2 ")
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    if stream:
        assert "event: began\ndata: {" in ran.stdout
        return
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "error" not in json.loads(ran.stdout)


def test_the_answer_that_is_shown_has_the_members_of_a_real_one() -> None:
    (shown,) = map(json.loads, blocks("json"))
    assert list(shown) == openapi.SCHEMAS["Node"]["required"]
    assert list(shown["dump"]) == openapi.SCHEMAS["Dump"]["required"]


def test_the_program_says_what_it_should(daemon: Kdumpfenced) -> None:
    program = here(blocks("python")[0], daemon)
    for node, said in (
        ("node1", "dumping, last heard "),
        ("node2", "not dumping"),
        ("node3", "node 'node3': "),
    ):
        ran = subprocess.run(
            [sys.executable, "-c", program.replace('"node1"', f'"{node}"')],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.startswith(said)


def test_the_loop_holds_who_is_dumping(daemon: Kdumpfenced) -> None:
    program = (
        "from kdumpfence.client import Client\n"
        f"client = Client('http://127.0.0.1:{daemon.http_port}')\n"
        + blocks("python")[1].replace(
            "    for event in events:\n",
            "    print(held, flush=True)\n    for event in events:\n",
        )
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "{'node1'}\n"
        process.kill()


def test_the_numbers_are_the_real_ones() -> None:
    assert (control.MOST_NODES, "five thousand at most" in PAGE) == (5000, True)

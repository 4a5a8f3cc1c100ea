# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs the command, and says what a daemon might say."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from kdumpfence.client import Status
from kdumpfence.daemon.control import Answers
from kdumpfence.daemon.questions import Questions
from kdumpfence.listener.dumps import Dump

SRC = Path(__file__).resolve().parents[2] / "src"
COMMAND = [sys.executable, "-m", "kdumpfence.cli"]
#: The same where rich is not installed.
WITHOUT_RICH = [
    sys.executable,
    "-c",
    "import sys; sys.modules['rich'] = None; from kdumpfence.cli.main import script; script()",
]
ENVIRONMENT = {"PYTHONPATH": str(SRC), "TZ": "UTC"}

#: How times are told.
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"

#: A name that would clear the screen and be red, if anybody let it.
HOSTILE = "n[red]\x1b[2Jx\n\u202e"
ESCAPED = r"n[red]\x1b[2Jx\n\u202e"


class StatusAlone(Questions):
    """Those that a daemon of an older version answers."""

    def ready(self) -> Answers:
        raise ValueError("not known")


def run_program(program: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run this text as a Python program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", program, *argv],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run(
    *arguments: str, command: list[str] = COMMAND, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; stdout is no terminal."""
    return subprocess.run(
        [*command, *arguments],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def ok(*arguments: str, command: list[str] = COMMAND, **environment: str) -> str:
    """What the command prints; it must succeed, and complain of nothing."""
    done = run(*arguments, command=command, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def complaint(*arguments: str) -> str:
    """The one line with which the command fails."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.startswith("kdumpfence: ")
    assert done.stderr.count("\n") == 1
    return done.stderr[len("kdumpfence: ") : -1]


def status(*nodes: str, dumping: int | None = None, **changes: Any) -> Status:
    """A status in which these nodes are dumping, the first since 65 s."""
    now = time.time()
    dumps = [
        Dump(node, now - 65 - at, now - 3, 12, ("192.0.2.1", "2001:db8::1"))
        for at, node in enumerate(nodes)
    ]
    counts = {"accepted": 1234, "magic": 5, "unread": 0}
    whole = Status("0.1.0", 90061.0, now, 1000, (), len(nodes), dumps, counts)
    if dumping is not None:
        whole = whole._replace(dumping=dumping)
    return whole._replace(**changes)

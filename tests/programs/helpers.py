# SPDX-License-Identifier: GPL-2.0-or-later
"""Running the installed programs as a cluster would."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent
AGENT, SENDER = str(BIN / "fence_kdump"), str(BIN / "fence_kdump_send")


def environment(core_name: str) -> dict[str, str]:
    """The environment that chooses this core."""
    return {**os.environ, "KDUMPFENCE_PURE": "1" if core_name == "pure" else "0"}


def start(argv: list[str], core_name: str, **options: object) -> subprocess.Popen[str]:
    """One of our programs with pipes for its output."""
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(core_name),
        **options,
    )


def wait_for_line(process: subprocess.Popen[str], text: str, seconds: float = 30) -> str:
    """Its stdout up to the line that begins with this text; "" at its end."""
    assert process.stdout is not None
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([process.stdout], [], [], 0.1)[0]:
            line = process.stdout.readline()
            if not line or line.startswith(text):
                return line
    raise AssertionError(f"no line {text!r} within {seconds} s")


def agent_waits(process: subprocess.Popen[str]) -> None:
    """Return as soon as the agent listens."""
    assert wait_for_line(process, "[debug]: waiting for"), process.communicate()

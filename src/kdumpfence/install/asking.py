# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ask a program of this machine, which may be missing or hang: nobody is to wait for its answer."""

from __future__ import annotations

import subprocess

_SECONDS = 10


def ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    """How the program ended, and what it said; None where it is missing or says nothing in time."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def ip(*arguments: str) -> str:
    """What ip (iproute2) says, a line for each thing; nothing where it cannot be asked or fails."""
    said = ask("ip", "-o", *arguments)
    return said.stdout if said else ""

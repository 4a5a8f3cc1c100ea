#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tries the installed programs on loopback: is this installation a working one?

    python tools/selfcheck.py compiled|pure

Both programs, those beside this interpreter, have to name the core that is expected. Then the
agent has to say yes when the sender sends, and no when nobody does. Ten seconds at most on a
slow machine; no right is needed and port 7410 is left alone.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
AGENT, SENDER = PROGRAMS / "fence_kdump", PROGRAMS / "fence_kdump_send"
NODE = "127.0.0.1"
PATIENCE = 120  # seconds: wheels are also tried on emulated processors


def free_port() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((NODE, 0))
        return str(sock.getsockname()[1])


def names_core(program: Path, core: str) -> None:
    said = subprocess.run(
        [program, "-V"], check=True, capture_output=True, text=True, timeout=PATIENCE
    ).stdout
    print(said, end="", flush=True)
    if f"{core} core" not in said:
        sys.exit(f"{program.name} -V does not name the {core} core")


def agent_says(wanted: int, timeout: int, *, sending: bool) -> None:
    port = free_port()
    sender = None
    if sending:
        sender = subprocess.Popen([SENDER, "-p", port, "-i", "1", NODE])
    try:
        status = subprocess.run(
            [AGENT, "-n", NODE, "-p", port, "-t", str(timeout)],
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE,
        ).returncode
    finally:
        if sender is not None:
            sender.kill()
            sender.wait()
    if status != wanted:
        what = "a node that sends" if sending else "a silent node"
        sys.exit(f"the agent's exit status for {what} is {status}, not {wanted}")


def main() -> None:
    (core,) = sys.argv[1:] or ["compiled"]
    os.environ.pop("KDUMPFENCE_PURE", None)
    for program in (AGENT, SENDER):
        names_core(program, core)
    agent_says(0, 60, sending=True)
    agent_says(1, 1, sending=False)
    print(f"both programs work, on the {core} core")


if __name__ == "__main__":
    main()

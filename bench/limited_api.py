#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the limited C API would cost: one core built twice, and the two compared.

    python bench/limited_api.py [PYTHON ...]

For each Python given (3.11 or newer; this one if none is) the core is built for that version
alone and against the limited API, below build/limited_api, and both are measured in turns, in
processes of their own. Of each figure the best of all rounds is shown: what else the machine
does can only make it larger. docs/building.md has the decision that rests on it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "limited_api"
SOURCES = ("src", "docs", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
VARIANTS = {"version": "0", "limited": "1"}  # KDUMPFENCE_LIMITED_API
ROUNDS = 7
IMPORTS = 15  # a round
QUEUE = 200  # datagrams that fit into a socket's queue whatever its limits

IMPORT = """
import sys, time, os, _socket
sys.path.insert(0, sys.argv[1])
started = time.perf_counter()
import kdumpfence._kdumpwire
print(time.perf_counter() - started)
"""


def build(python: str, variant: str) -> Path:
    """Install the package for that Python into a folder of its own."""
    ask = "import sys; print(sys.version.split()[0])"
    name = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout
    target = WORK / name.strip() / variant
    tree = target.with_name(f"{variant}-tree")  # a copy: two builds in one would share objects
    for folder in (target, tree):
        shutil.rmtree(folder, ignore_errors=True)
    for item in SOURCES:
        source, copy = ROOT / item, tree / item
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.so", "*.egg-info"))
        else:
            shutil.copy(source, copy)
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(tree)],
        env={
            **os.environ,
            "KDUMPFENCE_COMPILE": "require",
            "KDUMPFENCE_LIMITED_API": VARIANTS[variant],
        },
        check=True,
    )
    return target


def said(python: str, *arguments: str) -> str:
    command = [python, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def best(call: Callable[[], object], number: int) -> float:
    """Nanoseconds a call."""
    return min(timeit.repeat(call, number=number, repeat=5)) / number * 1e9


def drain(core: Any, known: bool) -> float:
    """Nanoseconds a datagram, for emptying a full queue of valid messages."""
    message = core.encode("little")
    with contextlib.ExitStack() as stack:
        listener, sender = (
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in "12"
        )
        listener.bind(("127.0.0.1", 0))
        sources = core.Sources()
        sources.add(b"\x7f\0\0\1" if known else b"\x0a\0\0\1")
        receiver = core.Receiver(sources)
        receiver.add_socket(listener)
        fastest = float("inf")
        for _ in range(30):
            for _ in range(QUEUE):
                sender.sendto(message, listener.getsockname())
            started = time.perf_counter_ns()
            receiver.take(batches=QUEUE)
            fastest = min(fastest, time.perf_counter_ns() - started)
        counts = receiver.counts
        assert counts["accepted" if known else "stranger"] == 30 * QUEUE, counts
    return fastest / QUEUE


def measure(target: str) -> dict[str, float]:
    """Every figure of one variant; runs in a process of its own."""
    sys.path.insert(0, target)
    from kdumpfence import _kdumpwire as core

    message = core.encode("little")
    packed = message * 8192
    sources = core.Sources()
    sources.add(b"\x0a\0\0\1")
    return {
        "encode(), ns": best(lambda: core.encode("little"), 20000),
        "decode(), ns": best(lambda: core.decode(message), 20000),
        "decode().byteorder, ns": best(lambda: core.decode(message).byteorder, 20000),
        "validate(64 KiB), ns": best(lambda: core.validate(packed), 500),
        "Sources.find(), ns": best(lambda: sources.find(b"\x0a\0\0\1"), 20000),
        "receive a stranger's, ns": drain(core, False),
        "receive and report, ns": drain(core, True),
        "size of the .so, KiB": Path(core.__file__).stat().st_size / 1024,
    }


def import_time(python: str, target: Path) -> float:
    """Microseconds for the core and what it imports; the median of some processes."""
    times = [float(said(python, "-S", "-c", IMPORT, str(target))) for _ in range(IMPORTS)]
    return 1e6 * statistics.median(times)


def main() -> None:
    for python in sys.argv[1:] or [sys.executable]:
        targets = {variant: build(python, variant) for variant in VARIANTS}
        figures: dict[str, dict[str, float]] = {variant: {} for variant in VARIANTS}
        for _ in range(ROUNDS):
            for variant, target in targets.items():
                found = {"import, µs": import_time(python, target)}
                found.update(json.loads(said(python, __file__, "--measure", str(target))))
                for what, value in found.items():
                    figures[variant][what] = min(value, figures[variant].get(what, value))
        print(f"\n{python}\n{'':26}{'version':>10}{'limited':>10}{'ratio':>8}")
        for what, value in figures["version"].items():
            limited = figures["limited"][what]
            print(f"{what:26}{value:10.1f}{limited:10.1f}{limited / value:8.2f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        main()

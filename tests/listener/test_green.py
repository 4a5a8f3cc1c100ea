# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Listener works under eventlet and gevent, whose threads are none of the system's."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import cannot_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("patched", ["first", "later"])
@pytest.mark.parametrize("library", ["eventlet", "gevent"])
def test_it_works_and_others_have_their_turn(
    library: str, patched: str, core_name: str, counting: str
) -> None:
    if importlib.util.find_spec(library) is None:
        cannot_run(f"no {library}")
    program = str(ROOT / "tests" / "listener" / "green_program.py")
    done = subprocess.run(
        [sys.executable, program, library, patched, counting],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "KDUMPFENCE_PURE": "1" if core_name == "pure" else "",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    steps = [f"{what} {number}" for number in (0, 1) for what in ("events", "looks", "closed")]
    assert done.stdout.split("\n")[:-1] == steps

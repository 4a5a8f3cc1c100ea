# SPDX-License-Identifier: LGPL-2.1-or-later
"""A short run of the fuzz targets finds nothing, and a fault that was planted is found."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import cannot_run, load_core
from tests.support.kernel import need_kernel_counting
from tests.support.programs import as_user

RUN = Path(__file__).resolve().parents[2] / "fuzz" / "run.py"
TARGETS = ("codec", "packets", "sources", "stdin", "argv", "kernel")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def atheris() -> None:
    if importlib.util.find_spec("atheris") is None:
        version = ".".join(map(str, sys.version_info[:2]))
        cannot_run(f"no atheris for this Python {version}, and nothing else is guided by coverage")
    load_core("compiled")
    need_kernel_counting()


def run(*options: str, plant: bool = False) -> tuple[int, str]:
    """Exit status of fuzz/run.py, and what it printed."""
    ran = subprocess.run(
        [sys.executable, str(RUN), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=280,
        env={**os.environ, "KDUMPFENCE_FUZZ_PLANT": "1" if plant else "0"},
    )
    print(ran.stdout)
    return ran.returncode, ran.stdout


def executions(output: str, verdict: str) -> dict[str, int]:
    """How often each target was executed that ended with this verdict."""
    lines = re.findall(
        rf"^(\w+): {verdict} in (\d+) executions, .* edges covered$", output, re.MULTILINE
    )
    return {target: int(number) for target, number in lines}


def test_a_short_run_finds_nothing() -> None:
    status, output = run("--seconds", "15")
    done = executions(output, "nothing found")
    assert status == 0
    assert set(done) == set(TARGETS)
    assert min(done.values()) > 200
    if "the installed one" in output:
        cannot_run("the compiled core was not built with coverage: " + output)
    checked = re.findall(r"^(\w+): nothing found in \d+ .* AddressSanitizer$", output, re.MULTILINE)
    assert checked == ["codec", "packets", "sources"]


def test_a_planted_fault_is_found_in_every_target() -> None:
    # Each run ends with its finding, most of them within seconds.
    status, output = run("--seconds", "90", "--installed", plant=True)
    assert status == 1
    assert set(executions(output, "FINDING")) == set(TARGETS)
    assert output.count("crash-") >= len(TARGETS)


def test_without_the_right_the_target_of_the_kernel_is_left_out(root: None) -> None:
    options = ("--target", "kernel", "--seconds", "1")
    ran = subprocess.run(
        [*as_user(), sys.executable, str(RUN), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert (ran.returncode, ran.stderr) == (
        2, "kernel: left out: bpf: EPERM: Operation not permitted\n"
    )  # fmt: skip

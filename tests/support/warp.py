# SPDX-License-Identifier: LGPL-2.1-or-later
"""Time that passes at once, for a pytest of its own: both cores ask the C library for the time."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import cannot_run

ROOT = Path(__file__).resolve().parents[2]

_SOURCE = r"""
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long long passed;

void warp(long long nanoseconds)
{
    passed += nanoseconds;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && clock == CLOCK_MONOTONIC) {
        long long all = now->tv_nsec + passed;
        now->tv_sec += all / 1000000000;
        now->tv_nsec = all % 1000000000;
    }
    return result;
}
"""


def run(folder: Path, *arguments: str) -> None:
    """Run pytest with these arguments where `later` works; it must pass."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        cannot_run("no C compiler")
    source, made = folder / "warp.c", folder / "warp.so"
    source.write_text(_SOURCE)
    subprocess.run([str(compiler), "-shared", "-fPIC", "-o", str(made), str(source)], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT, env={**os.environ, "LD_PRELOAD": str(made)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def later(seconds: float) -> None:
    """So much time passes now: CLOCK_MONOTONIC is that much further."""
    ctypes.CDLL(None).warp(ctypes.c_longlong(round(seconds * 1e9)))

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine without randomness whose clocks stand still, for programs of the C library's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.conftest import cannot_run

_SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

pid_t getpid(void)
{
    return MOVES_pid ? (pid_t)syscall(SYS_getpid) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (clock == CLOCK_REALTIME ? MOVES_realtime : MOVES_monotonic)
        return (int)syscall(SYS_clock_gettime, clock, now);
    now->tv_sec = now->tv_nsec = 0;
    return 0;
}

ssize_t getrandom(void *data, size_t length, unsigned flags)
{
    if (MOVES_random)
        return syscall(SYS_getrandom, data, length, flags);
    if (!(flags & GRND_NONBLOCK))   /* it would wait for ever */
        abort();
    errno = EAGAIN;
    return -1;
}
"""

#: What a program can tell its starts apart by.
SOURCES = ("random", "realtime", "monotonic", "pid")


def library(folder: Path, moves: str = "") -> str:
    """Make what LD_PRELOAD is to name: all of SOURCES but this one say 0, or nothing."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        cannot_run("no C compiler")
    source, made = folder / "frozen.c", folder / f"frozen{moves}.so"
    source.write_text(_SOURCE)
    told = [f"-DMOVES_{one}={int(one == moves)}" for one in SOURCES]
    subprocess.run(
        [str(compiler), "-shared", "-fPIC", *told, "-o", str(made), str(source)], check=True
    )
    return str(made)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A kernel that lacks a socket option, for programs of the C library's: one that cannot tell which
messages left, or takes no filters.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.conftest import cannot_run

_SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
    if (level == SOL_SOCKET && name == OPTION) {
#ifdef WHILE_THERE_IS
        if (access(WHILE_THERE_IS, F_OK) != 0)
            return (int)syscall(SYS_setsockopt, fd, level, name, value, length);
#endif
        if (REFUSE) {
            errno = EINVAL;
            return -1;
        }
        return 0;
    }
    return (int)syscall(SYS_setsockopt, fd, level, name, value, length);
}
"""


def library(folder: Path, refuse: bool | Path, option: str = "SO_TIMESTAMPING") -> str:
    """Make what LD_PRELOAD is to name: the option is refused, or taken and does nothing.

    `refuse`: a path has it refused as long as there is such a file, and work before.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        cannot_run("no C compiler")
    source, made = folder / "mute.c", folder / "mute.so"
    source.write_text(_SOURCE)
    defined = [f"-DREFUSE={int(bool(refuse))}", f"-DOPTION={option}"]
    if isinstance(refuse, Path):
        defined.append(f'-DWHILE_THERE_IS="{refuse}"')
    subprocess.run(
        [str(compiler), "-shared", "-fPIC", *defined, "-o", str(made), str(source)], check=True
    )
    return str(made)

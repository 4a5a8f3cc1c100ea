# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs that are killed: done in a child, which leaves for good before one of its changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdumpfence.install.sysroot import Sysroot

KILLED = 9
_CHANGING = ("write", "rename", "link", "symlink", "unlink", "mkdir", "rmdir", "fchmod")


def ends(root: Path, run: Callable[[Sysroot], None], dies_at: int) -> bool:
    """Do it in a child, which dies before its first, second, third... change; 0: it does not.

    Whether it came to its end. A write is done by half before.
    """
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, KILLED)
        return status == 0
    try:
        with pytest.MonkeyPatch.context() as patched:
            _die_at(dies_at, patched)
            with Sysroot(str(root)) as opened:
                run(opened)
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)


def _die_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [number]

    def counted(real: Callable[..., Any], halves: bool) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                if halves:
                    real(args[0], args[1][: len(args[1]) // 2])
                os._exit(KILLED)
            return real(*args, **named)

        return call

    for name in _CHANGING:
        monkeypatch.setattr(os, name, counted(getattr(os, name), name == "write"))
    monkeypatch.setattr(os, "fsync", lambda _: None)  # it is a process that dies, not a machine


def silent(_: str) -> None:
    """Say nothing."""

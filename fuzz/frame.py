# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every fuzz target does: tell a finding, plant a fault for the fuzzer's own test, and run."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

atheris: Any = importlib.import_module("atheris")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
#: Messages and packets, written a second time.
judge: Any = importlib.import_module("tests.support.judge")
packets: Any = importlib.import_module("tests.support.packets")

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p


class Finding(Exception):
    """What must not be."""


def require(condition: bool, what: str, given: object) -> None:
    if not condition:
        raise Finding(f"{what}: {given!r}")


def plant(owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
    """Put a fault in the place of `owner.name`, if the test of the fuzzer asks for it.

    The fault is given what it takes the place of, and then the arguments of a call.
    """

    def put(fault: Callable[..., Any]) -> None:
        if os.environ.get("KDUMPFENCE_FUZZ_PLANT") == "1":
            real, guided = getattr(owner, name), atheris.instrument_func(fault)
            setattr(owner, name, lambda *given: guided(real, *given))

    return put


@contextmanager
def alone(data: bytes) -> Iterator[Any]:
    """The same bytes in a block of their own, so that a sanitizer sees reads behind them."""
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(len(data))))
    try:
        ctypes.memmove(block, data, len(data))
        yield (ctypes.c_ubyte * len(data)).from_address(block.value or 0)
    finally:
        libc.free(block)


def run(check: Callable[[bytes], None]) -> None:
    """Give inputs to `check`: whatever it raises is a finding."""
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()

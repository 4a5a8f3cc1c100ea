# SPDX-License-Identifier: LGPL-2.1-or-later
"""Why kdumpfenced cannot work: one line for people."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class DaemonError(Exception):
    """Why it cannot work; one line."""


@contextlib.contextmanager
def starting_threads() -> Iterator[None]:
    """A thread that cannot be had is a DaemonError."""
    try:
        yield
    except RuntimeError as error:
        raise DaemonError(
            f"{error}: not allowed to start another thread (RLIMIT_NPROC, TasksMax=)"
        ) from None

# SPDX-License-Identifier: GPL-2.0-or-later
"""Ends another thread's wait in poll(2): a pipe that becomes readable."""

from __future__ import annotations

import contextlib
import os


class Wakeup:
    """Register it for reading with a poller; `wake` ends the wait, `clear` allows the next one."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """What is to be polled."""
        return self._read

    def wake(self) -> None:
        """From any thread, and from signal handlers."""
        with contextlib.suppress(BlockingIOError):  # full: the wait ends anyway
            os.write(self._write, b".")

    def clear(self) -> None:
        """Forget all calls of `wake` so far."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)

    def close(self) -> None:
        """Nobody waits any more."""
        os.close(self._read)
        os.close(self._write)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the reading thread rings when somebody is to look, and what wakes that thread.

Through `posix`: eventlet's `os.read` waits where this one says that there is nothing. What may not
be in this file: what there is to see.
"""

from __future__ import annotations

import contextlib
import posix
from collections.abc import Iterator


class Bell:
    """A pipe that is readable when somebody is to look; whoever uses it keeps it open.

    No lock is held, so that it can be rung and closed from a signal handler: adding to a set
    and taking from a list are one step each.
    """

    def __init__(self) -> None:
        self.closed = False
        self._users: set[object] = set()
        self._ends: list[int] = []
        self._ends += posix.pipe2(posix.O_NONBLOCK | posix.O_CLOEXEC)
        self.readable, self.writable = self._ends

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Its descriptors stay open meanwhile; False if they are closed already."""
        user = object()
        # First this, then the look: whoever closes does it the other way round.
        self._users.add(user)
        try:
            yield not self.closed
        finally:
            self._users.discard(user)
            self._dispose()

    def ring(self) -> None:
        """Have whoever waits for it look."""
        with self.held() as usable:
            if usable:
                self._write()

    def _write(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full, so it can be read
            posix.write(self.writable, b"12345678")

    def hush(self) -> None:
        """Be silent until it is rung again."""
        with self.held() as usable:
            if not usable:
                return
            with contextlib.suppress(BlockingIOError):
                while len(posix.read(self.readable, 65536)) == 65536:
                    pass
            if self.closed:
                self._write()  # the last ring is for all who wait, and may just have been read

    def close(self) -> None:
        """Ring for the last time, and close it as soon as nobody uses it."""
        with self.held() as usable:
            self.closed = True
            if usable:
                self._write()

    def __del__(self) -> None:
        self.closed = True
        self._dispose()

    def _dispose(self) -> None:
        while self.closed and not self._users:
            try:
                posix.close(self._ends.pop())
            except IndexError:
                break

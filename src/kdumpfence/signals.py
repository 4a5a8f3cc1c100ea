# SPDX-License-Identifier: LGPL-2.1-or-later
"""What ends a program, or a wait of it.

Signals that end a program become an exception, so that it can say so and clean up (the daemon's
own handlers stand in daemon/main.py). A `Wakeup`
ends a wait in poll(2).

`_signal` instead of `signal`: the latter's enums cost a third of the interpreter's
start-up time, and an agent starts while a cluster waits for it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found,unused-ignore]
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_ENDING = {
    int(_signal.SIGTERM): "SIGTERM",
    int(_signal.SIGINT): "SIGINT",
    int(_signal.SIGHUP): "SIGHUP",
}


class Ended(BaseException):
    """A signal asks the program to end; the text is the signal's name."""

    def __init__(self, number: int) -> None:
        super().__init__(_ENDING[number])
        self.number = number


def _raise(number: int, frame: FrameType | None) -> None:
    # Once is enough: a second signal must not break the clean-up of the first.
    for other in _ENDING:
        _signal.signal(other, _signal.SIG_IGN)
    raise Ended(number)


def install() -> None:
    """From now on SIGTERM, SIGINT and SIGHUP raise `Ended` in the main thread.

    One that the parent process had ignored (nohup) stays ignored. A terminal that is not to be
    written to from the background does not stop the program.
    """
    _signal.signal(_signal.SIGTTOU, _signal.SIG_IGN)
    for number in _ENDING:
        if _signal.getsignal(number) is not _signal.SIG_IGN:
            _signal.signal(number, _raise)


class Wakeup:
    """A pipe that becomes readable: register it with a poller."""

    def __init__(self) -> None:
        self._read, self._write = posix.pipe2(posix.O_NONBLOCK | posix.O_CLOEXEC)

    def fileno(self) -> int:
        """What is to be polled."""
        return self._read

    def wake(self) -> None:
        """End the wait; from any thread, and from signal handlers."""
        try:
            posix.write(self._write, b".")
        except BlockingIOError:
            pass  # full, so it can be read: that is all it is for

    def clear(self) -> None:
        """Forget all calls of `wake` so far; those behind some thousands end another wait."""
        try:
            posix.read(self._read, 4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Nobody waits any more."""
        posix.close(self._read)
        posix.close(self._write)

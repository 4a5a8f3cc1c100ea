# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals that end a program become an exception, so that it can say so and clean up.

`_signal` instead of `signal`: the latter's enums cost a third of the interpreter's
start-up time, and an agent starts while a cluster waits for it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found,unused-ignore]

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

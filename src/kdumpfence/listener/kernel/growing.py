# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which table in the kernel a `Listener` has, and a larger one when there are more nodes.

To make one needs a right that a program may have given up meanwhile: then it keeps the one that it
has, and who finds no place there is read from the queue as ever. What may not be in this file: how
a table comes into use (`reader`), and what is in it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from kdumpfence.listener.kernel import SIGNED, CannotCountError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kdumpfence.listener.dumps import Dumps
    from kdumpfence.listener.kernel.counting import Counting

#: A larger one is for so many times the sources that there are then.
GROWTH = 2


class Growing:
    """Tables for these sockets. `how` is one of WAYS; `room`: sources that networks may admit."""

    def __init__(self, how: str, sockets: Iterable[socket.socket], room: int, dumps: Dumps) -> None:
        self._how = how
        self._sockets = list(sockets)
        self._admitted = room
        self._dumps = dumps
        self._room = 0

    def first(self, places: int, signed: bool) -> Counting | None:
        """For so many addresses of nodes. None if nothing is to count in the kernel; OSError if
        nothing can, but is to.
        """
        if self._how == "user":
            return None
        try:
            if signed:
                raise CannotCountError(SIGNED)
            return self._load(places)
        except CannotCountError as error:
            if self._how == "auto":
                return None
            raise OSError(error.errno, f"cannot count in the kernel: {error}") from None

    def larger(self, places: int) -> Counting | None:
        """Another one, if there are more addresses now than there is room for; None: no."""
        if not self._room or places + self._admitted <= self._room:
            return None
        try:
            return self._load(GROWTH * places)
        except CannotCountError:
            self._room = 0  # so it will be the next time
            return None

    def _load(self, places: int) -> Counting:
        from kdumpfence.listener.kernel.counting import load  # and ctypes with it

        made = load(self._sockets, places + self._admitted, self._dumps.silence, self._dumps.repeat)
        self._room = made.room
        return made

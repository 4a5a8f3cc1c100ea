# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the kernel counts messages for kdumpfenced: tried while it has the right, and said.

What may not be in this file: how the kernel does so (`kdumpfence.listener.kernel`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Literal, Union

from kdumpfence.daemon.settings import Settings
from kdumpfence.listener.kernel import SIGNED, CannotCountError

if TYPE_CHECKING:
    from kdumpfence.listener.kernel.counting import Counting

USER: Final = "user"

#: What a `Listener` takes.
Way = Union["Counting", Literal["user"]]


def load(
    settings: Settings, sockets: Iterable[socket.socket], say: Callable[[str, str], None]
) -> Way:
    """What the settings ask for, as far as it can be had for these sockets."""
    if settings.counting == USER:
        return USER
    try:
        if settings.auth != "none":
            raise CannotCountError(SIGNED)
        counting = _load(sockets, _places(settings), settings.silence, settings.repeat)
    except CannotCountError as error:
        level = "info" if settings.counting == "auto" else "warning"
        say(level, f"not counting in the kernel: {error}")
        return USER
    say("info", "counting in the kernel: repeated messages are not read one by one")
    return counting


def check_room(way: Way, settings: Settings, say: Callable[[str, str], None]) -> None:
    """Say so if there are more nodes by now than the kernel can count for."""
    if not isinstance(way, str) and _places(settings) > way.room:
        say(
            "warning",
            f"the kernel counts for {way.room:,} addresses, and there are {_places(settings):,}: "
            "restart kdumpfenced, else each message of some is read",
        )


def _places(settings: Settings) -> int:
    """How many sources there may be."""
    places = sum(len(addresses) or 1 for addresses in settings.nodes.values())
    return places + settings.room if settings.networks else places


def _load(sockets: Iterable[socket.socket], places: int, silence: float, repeat: float) -> Counting:
    from kdumpfence.listener.kernel.counting import load as loaded  # and ctypes with it

    return loaded(sockets, places, silence, repeat)


def possible() -> str:
    """Whether this process could have it, in words."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            _load([sock], 1, 30.0, 10.0).close()
    except CannotCountError as error:
        return f"cannot count in the kernel: {error}"
    return "can count in the kernel"

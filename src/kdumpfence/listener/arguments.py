# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a `Listener` is given, checked: every fault raises TypeError or ValueError with one line.

What may not be in this file: what is done with it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Union

from kdumpfence.addresses import FAMILIES, Address
from kdumpfence.listener.cluster_keys import AUTHS
from kdumpfence.listener.kernel import SIGNED, WAYS
from kdumpfence.listener.nodes import AnyAddress, as_text
from kdumpfence.listener.sockets import parsed_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    class OldNames(TypedDict, total=False):
        """What parameters were called at first."""

        silence: float
        repeat: float
        room: int
        queue: int
        answer: str | None


#: Nodes, as users give them: names with addresses, or names that are addresses themselves.
GivenNodes = Union[Mapping[str, Iterable[AnyAddress]], Iterable[AnyAddress]]

#: What numbers the core and the kernel take.
MOST_ROOM = (1 << 32) - 1
MOST_QUEUE = 1 << 30

#: What parameters were called at first, and are called now.
RENAMED = {
    "silence": "silence_timeout",
    "repeat": "repeat_interval",
    "room": "max_admitted",
    "queue": "receive_buffer",
    "answer": "answer_as",
}


def current_names(given: Mapping[str, object], names: Mapping[str, object]) -> list[Any]:
    """The values of RENAMED's parameters, in that order: of `names`, or as `given` by old names.

    Warns of those (DeprecationWarning). TypeError for any other name.
    """
    for name in given:
        if name not in RENAMED:
            raise TypeError(f"Listener() got an unexpected keyword argument {name!r}")
        what = f"Listener: {name!r} is called {RENAMED[name]!r} now"
        warnings.warn(what, DeprecationWarning, stacklevel=3)
    return [given.get(old, names[new]) for old, new in RENAMED.items()]


def check_words(family: str, auth: str, counting: object) -> None:
    """ValueError if one of them is none of those that there are, or they contradict each other.

    `counting` may be no word, but what counts. TypeError if it is neither.
    """
    if family not in FAMILIES:
        raise ValueError(f"family {family!r}: must be one of {', '.join(FAMILIES)}")
    if auth not in AUTHS:
        raise ValueError(f"auth {auth!r}: must be one of {', '.join(AUTHS)}")
    if not isinstance(counting, str):
        from kdumpfence.listener.kernel.counting import Counting  # and ctypes with it

        if not isinstance(counting, Counting):
            raise TypeError(
                f"counting {counting!r}: expected a string or what kernel.counting.load made"
            )
        if auth != "none":
            raise ValueError(f"counting: {SIGNED}")
    elif counting not in WAYS:
        raise ValueError(f"counting {counting!r}: must be one of {', '.join(WAYS)}")


def check_times(silence_timeout: float, repeat_interval: float) -> None:
    """ValueError or TypeError unless they are seconds that can be waited for."""
    for what, seconds in (
        ("silence_timeout", silence_timeout),
        ("repeat_interval", repeat_interval),
    ):
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
            raise TypeError(f"{what} {seconds!r}: expected a number of seconds")
        if not math.isfinite(seconds) or seconds < 0:
            raise ValueError(f"{what} {seconds}: must be a number of seconds, 0 or more")
    if not silence_timeout:
        raise ValueError(f"silence_timeout {silence_timeout}: must be more than 0 seconds")


def check_numbers(port: int, max_admitted: int, receive_buffer: int) -> None:
    """ValueError if one of them is out of its range, TypeError if it is no whole number."""
    for what, number, least, most, unit in (
        ("port", port, 0, 65535, ""),
        ("max_admitted", max_admitted, 0, MOST_ROOM, ""),
        ("receive_buffer", receive_buffer, 1, MOST_QUEUE, " bytes"),
    ):
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError(f"{what} {number!r}: expected a whole number")
        if not least <= number <= most:
            raise ValueError(f"{what} {number}: must be {least} to {most}{unit}")


def pairs(nodes: GivenNodes) -> Iterator[tuple[str, Iterable[AnyAddress]]]:
    """Names and addresses of nodes. TypeError for what is neither a mapping nor a list."""
    if isinstance(nodes, (str, bytes)) or not isinstance(nodes, Iterable):
        raise TypeError(f"nodes: expected a list or a mapping, not {type(nodes).__name__}")
    if isinstance(nodes, Mapping):
        return ((as_text(name), addresses) for name, addresses in nodes.items())
    return ((as_text(name), ()) for name in nodes)


def parsed_hosts(host: AnyAddress | Iterable[AnyAddress] | None, family: int) -> Sequence[Address]:
    """The addresses to listen on, each once; none: all of this machine's."""
    if host is None:
        return ()
    given: Iterable[AnyAddress]
    if isinstance(host, str) or not isinstance(host, Iterable):
        given = [host]
    else:
        given = host
    hosts = list(dict.fromkeys(parsed_host(one, family) for one in given))
    if not hosts:
        raise ValueError("host: at least one address is required, or None for all")
    return hosts

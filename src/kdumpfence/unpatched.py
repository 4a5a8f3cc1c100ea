# SPDX-License-Identifier: LGPL-2.1-or-later
"""What Python itself has where gevent or eventlet have put something of their own in its place.

With `monkey_patch` a "thread" is a piece of the one thread that there is, and its turn ends only
where it waits in Python. What waits in the core would stop the whole program, so its threads, and
the locks and waits that they use, have to be those of the system. What may not be in this file: an
import of either, which has to be the program's own decision.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_found: dict[tuple[str, str], Any] = {}


def original(module: str, name: str) -> Any:  # noqa: ANN401 - whatever is there
    """`module.name` as Python has it, whatever that name leads to at the moment."""
    found = _found.get((module, name))
    if found is not None:
        return found
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.already_patched:
        found = getattr(patcher.original(module), name)
    elif "gevent.monkey" in sys.modules:
        found = sys.modules["gevent.monkey"].get_original(module, name)
    else:
        return getattr(__import__(module), name)  # not kept: it may be patched later
    _found[module, name] = found
    return found


def is_patched() -> bool:
    """Whether what Python calls a thread is none of the system's."""
    return original("_thread", "start_new_thread") is not __import__("_thread").start_new_thread


class Threads:
    """Python's own `_thread`, as far as `kdumpfence.addresses.Resolver` needs it."""

    def __init__(self) -> None:
        self.allocate_lock = original("_thread", "allocate_lock")
        self.start_new_thread = original("_thread", "start_new_thread")

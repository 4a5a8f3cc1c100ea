# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence: a crashed cluster node tells the others that it is dumping.

The public interface, and nothing else. The programs are `kdumpfence.agent`
(fence_kdump) and `kdumpfence.sender` (fence_kdump_send).

>>> import kdumpfence
>>> kdumpfence.decode(bytes.fromhex("402a301b01000000"))
Message(version=1, byteorder='little', trailer=b'')
"""

from __future__ import annotations

from kdumpfence.wire import (
    IMPLEMENTATION,
    MAGIC,
    MESSAGE_SIZE,
    PORT,
    REASONS,
    VERSION,
    Arrival,
    Message,
    Receiver,
    Rejected,
    Sources,
    Transmitter,
    decode,
    encode,
    validate,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kdumpfence._version import __version__
    from kdumpfence.listener.dumps import Dumps
    from kdumpfence.listener.events import AnyEvent, Dump, Event, Overflow
    from kdumpfence.listener.listener import Listener, ListenerClosed, Snapshot

#: What is imported when it is first asked for, and from where. The agent and the sender
#: import this package too, and start while a cluster waits for them.
_LATER = {
    "AnyEvent": "listener.events",
    "Dump": "listener.events",
    "Dumps": "listener.dumps",
    "Event": "listener.events",
    "Listener": "listener.listener",
    "ListenerClosed": "listener.listener",
    "Overflow": "listener.events",
    "Snapshot": "listener.listener",
    "__version__": "_version",
}

__all__ = [
    "IMPLEMENTATION",
    "MAGIC",
    "MESSAGE_SIZE",
    "PORT",
    "REASONS",
    "VERSION",
    "AnyEvent",
    "Arrival",
    "Dump",
    "Dumps",
    "Event",
    "Listener",
    "ListenerClosed",
    "Message",
    "Overflow",
    "Receiver",
    "Rejected",
    "Snapshot",
    "Sources",
    "Transmitter",
    "__version__",
    "decode",
    "encode",
    "validate",
]


if not TYPE_CHECKING:  # for a type checker only what is named above is there

    def __getattr__(name: str) -> object:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found: object = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

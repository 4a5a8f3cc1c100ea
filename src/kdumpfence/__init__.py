# SPDX-License-Identifier: GPL-2.0-or-later
"""kdumpfence: a crashed cluster node tells the others that it is dumping.

The public interface, and nothing else. The programs are `kdumpfence.agent`
(fence_kdump) and `kdumpfence.sender` (fence_kdump_send).

>>> import kdumpfence
>>> kdumpfence.decode(bytes.fromhex("402a301b01000000"))
Message(version=1, byteorder='little', trailer=b'')
"""

from kdumpfence._version import __version__
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

__all__ = [
    "IMPLEMENTATION",
    "MAGIC",
    "MESSAGE_SIZE",
    "PORT",
    "REASONS",
    "VERSION",
    "Arrival",
    "Message",
    "Receiver",
    "Rejected",
    "Sources",
    "Transmitter",
    "__version__",
    "decode",
    "encode",
    "validate",
]

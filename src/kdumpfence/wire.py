# SPDX-License-Identifier: LGPL-2.1-or-later
"""The one door to the core: compiled if there is one, else pure Python.

Only this file knows that there are two. ``KDUMPFENCE_PURE=1`` in the environment
chooses the pure one; so does, silently but for `FALLBACK_REASON`, a compiled one
that cannot be imported. The interface is documented in `kdumpfence._purewire`.
"""

from __future__ import annotations

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

#: Registered by nobody and used by everybody in this field; /etc/services has no name for it.
PORT = 7410
MAGIC = 0x1B302A40
VERSION = 1
MESSAGE_SIZE = 8

#: Why the compiled core is not in use although nobody asked for that; else "".
FALLBACK_REASON = ""

# `os` costs more start-up time than any module of the agent, which does without. But what a
# program that has it put into its `environ` counts: `posix` does not see that.
if "os" in sys.modules:
    _asked = sys.modules["os"].environ.get("KDUMPFENCE_PURE", "")
else:
    _asked = posix.environ.get(b"KDUMPFENCE_PURE", b"").decode("latin-1")

if TYPE_CHECKING or _asked not in ("", "0"):
    from kdumpfence import _purewire as core
else:
    try:
        from kdumpfence import _kdumpwire as core
    except ImportError as error:
        FALLBACK_REASON = str(error)
        from kdumpfence import _purewire as core

#: "compiled" or "pure"
IMPLEMENTATION: str = core.IMPLEMENTATION
REASONS = core.REASONS
LATE_NETWORK_NS = core.LATE_NETWORK_NS
PACKET_BYTES = core.PACKET_BYTES
STATES = core.STATES

Arrival = core.Arrival
Message = core.Message
Packet = core.Packet
Questions = core.Questions
Receiver = core.Receiver
Rejected = core.Rejected
Schedule = core.Schedule
Signed = core.Signed
Sources = core.Sources
Transmitter = core.Transmitter
attach_filter = core.attach_filter
decode = core.decode
decode_packet = core.decode_packet
encode = core.encode
encode_packet = core.encode_packet
find_route = core.find_route
is_packet_name = core.is_packet_name
mac = core.mac
packet_fits = core.packet_fits
validate = core.validate

#: The message of this machine, in its own byte order as the stock programs send it.
OWN_MESSAGE = encode(sys.byteorder)


def signing_core() -> ModuleType:
    """The core whose `Signed`, `Sources` and `Receiver` a listener with keys takes: the one in use,
    or the pure one if that was built without HMAC-SHA256.
    """
    if core.SIGNS:
        return core
    from kdumpfence import _purewire

    return _purewire

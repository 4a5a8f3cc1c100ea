# SPDX-License-Identifier: LGPL-2.1-or-later
"""What this sender says of its node: the packets, and whose name and key they have.

A key that cannot be used keeps nothing from being sent: the packets are not signed then. What may
not be in this file: whom they are sent to, and when.
"""

from __future__ import annotations

import os
import time

from kdumpfence.text import shown
from kdumpfence.wire import OWN_MESSAGE, Packet, encode_packet, is_packet_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kdumpfence.keys import Keys
    from kdumpfence.sender.options import SenderOptions

UNSOLICITED = bytes(16)


class Status:
    """The node that speaks. What is wrong with its key or name joins the options' complaints."""

    def __init__(self, options: SenderOptions) -> None:
        self._options = options
        self._session = 0
        self._sequence = 0
        #: Of the key that packets are signed with; 0 and b"" if they are not.
        self.key_id = 0
        self.key = b""
        self.name = options.node
        keys = self._keys()
        if keys is not None and keys.node:
            if options.node not in ("", keys.node):
                self._complain(
                    f"node {shown(options.node)}: the key is that of node {shown(keys.node)}; "
                    f"using {shown(keys.node)}"
                )
            self.name = keys.node
        if not self.name:
            self.name = self._host_name()
        if keys is not None:
            own = keys.of(self.name)
            assert own is not None
            self.key_id, self.key = own.signs

    def _complain(self, text: str) -> None:
        self._options.complaints.append(text)

    def _keys(self) -> Keys | None:
        path = self._options.key_file
        if not path:
            return None
        from kdumpfence import keys

        try:
            found = keys.read(path, hint="")
        except keys.KeyFileError as error:
            self._complain(f"{error}; not signing")
            return None
        if not found.node:
            self._complain(
                f"key file {shown(path)}: the cluster's key does not belong in a crash image; "
                "'kdumpfence key derive' makes the node's own"
            )
        return found

    def _host_name(self) -> str:
        name = os.uname().nodename
        if is_packet_name(name):
            return name
        if self._options.packets:
            self._complain(
                f"host name {shown(name)}: not 1 to 64 ASCII characters without blanks; "
                "using unknown"
            )
        return "unknown"

    def __str__(self) -> str:
        signed = f"signed with key {self.key_id:08x}" if self.key else "not signed"
        return f"node {shown(self.name)}: {self._options.state}, {signed}"

    def message(self) -> bytes:
        """What is sent unasked: a packet if an option was given that is about packets."""
        return self.packet() if self._options.packets else OWN_MESSAGE

    def packet(self, nonce: bytes = UNSOLICITED) -> bytes:
        """The next packet of the session, with the nonce of the question that it answers."""
        self._session = self._session or _session()
        self._sequence += 1
        packet = Packet(
            "status",
            self.name,
            state=self._options.state,
            key_id=self.key_id,
            interval=min(self._options.interval * 1000, 2**32 - 1),
            session=self._session,
            sequence=self._sequence,
            nonce=nonce,
        )
        return encode_packet(packet, self.key)


def _session() -> int:
    """64 random bits that are not all 0.

    A crash kernel may not have any yet, and does not wait for them. Then there are its clocks.
    """
    mixed = 0
    for number in (time.monotonic_ns(), time.time_ns(), os.getpid()):
        mixed = (mixed + number) * 0x9E3779B97F4A7C15 % 2**64
        mixed ^= mixed >> 32
    try:
        mixed ^= int.from_bytes(os.getrandom(8, os.GRND_NONBLOCK), "big")
    except OSError:
        pass
    return mixed or 1

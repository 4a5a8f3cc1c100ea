# SPDX-License-Identifier: LGPL-2.1-or-later
"""The decision: is this node in its crash kernel?

A plain object without sockets, clock or name service: it is told what was heard, what
resolved and what time it is, and says yes, no or nothing. Everything that decides over a
fencing must live here, in this file.

Yes is said for one reason only, and it is never taken back. Without signatures: a whole valid
message came from an address of the node while the wait lasted, to the port or, with the nonce of
this wait, as an answer. When exactly the address became known does not matter; a message
that came first still counts. An address that is this machine's own by then proves nothing.
With signatures: a status with the nonce of this wait came that the node's key signed; from where
does not matter. What has another nonce may have been recorded, and is a reason to ask, no more.

No is said for one reason only: for so many seconds as its administrator allows the node has
answered, without a gap, that it is alive. docs/protocol.md says what counts as that.
"""

from __future__ import annotations

from kdumpfence.wire import decode_packet, encode, is_packet_name, packet_fits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kdumpfence.addresses import Address
    from kdumpfence.keys import Keys
    from kdumpfence.wire import Message, Packet

#: A node has answered without a gap if no two answers are more seconds apart.
GAP = 1.0

#: What is said of a packet that is not the node's.
_WHY = {
    "unsigned": ", unsigned",
    "key id": ", which the key file does not have",
    "name": ": that is no name of the node",
    "MAC": ": not signed with the key that this node has",
    "loopback": ", which was not given as an address of the node",
}


class Signatures:
    """Tells whether the node signed a packet, with one of the keys of one of its names."""

    def __init__(self, keys: Keys, names: Iterable[str]) -> None:
        slots = (keys.signs, keys.accepts)
        self._ids = {slot[0] for slot in slots if slot is not None}
        self._keys = keys
        #: The names that there are keys of.
        self.names = [name for name in names if is_packet_name(name) and keys.node in ("", name)]
        #: Of each name in a packet its keys, once they were needed.
        self._of: dict[bytes, Keys | None] = {name.encode(): None for name in self.names}

    def of(self, name: str) -> Keys:
        """The keys of this one of `names`."""
        known = self._of[name.encode()]
        if known is None:
            known = self._of[name.encode()] = self._keys.of(name)
            assert known is not None
        return known

    def why_not(self, data: bytes) -> str:
        """Why the node did not sign this; "" if it is a packet that it signed.

        The looks that are cheap come first, the MAC last.
        """
        number = int.from_bytes(data[16:20], "big")
        if not number:
            return "unsigned"
        if number not in self._ids:
            return "key id"
        name = data[56:120].rstrip(b"\0")
        if name not in self._of:
            return "name"
        key = self.of(name.decode()).by_id(number)
        return "" if key is not None and packet_fits(data, key) else "MAC"


class Watch:
    """Waits for proof that the node with these names is dumping.

    `nonce`: of this wait. `called`: what the node is called, where that is known. `signatures`:
    without them any message from an address of the node counts. `grace`: seconds for which it
    has to answer that it is alive until that is believed; -1: it never is. `ignores` is told,
    once for each reason, whose packet is not believed and why.
    """

    def __init__(
        self,
        names: Iterable[str],
        is_own: Callable[[Address], bool] = lambda _: False,
        *,
        nonce: bytes = bytes(16),
        called: Iterable[str] = (),
        signatures: Signatures | None = None,
        grace: int = -1,
        ignores: Callable[[str], None] = lambda _: None,
    ) -> None:
        #: Name -> its addresses, () as long as it has none.
        self.names: dict[str, tuple[Address, ...]] = dict.fromkeys(names, ())
        #: The address that the proof came from.
        self.proof: Address | None = None
        #: The signed status that is the proof; None if no signature was asked for.
        self.signed: Packet | None = None
        #: Why the node is not dumping; "" if nothing says so.
        self.alive = ""
        #: By which of its names the node has answered that it is alive; "" if it has not.
        self.said_alive = ""
        #: Names that can never have an address.
        self.hopeless: set[str] = set()
        #: How many packets with the nonce came, whether they are believed or not.
        self.answers = 0
        #: By reason, and whether it was to say that the node is alive, what was not believed.
        self.ignored: dict[tuple[str, bool], str] = {}
        #: Where a status came from that the node signed, but with no nonce of this wait.
        self.unasked: Address | None = None
        self._is_own = is_own
        self._nonce = nonce
        self._called = {name.lower() for name in called}
        self._signatures = signatures
        self._grace = grace
        self._ignores = ignores
        #: Since when it has answered without a gap, and when last.
        self._alive_since = self._alive_last = float("-inf")

    @property
    def can_succeed(self) -> bool:
        """Whether there is anything to be heard, now or when a name resolves."""
        return self.hopeless != set(self.names)

    @property
    def decided(self) -> bool:
        """Whether there is an answer, yes or no."""
        return self.proof is not None or bool(self.alive)

    def name_of(self, address: Address) -> str | None:
        """The node's name that has this address; None for a stranger."""
        for name, addresses in self.names.items():
            if address in addresses:
                return name
        return None

    def resolved(
        self,
        name: str,
        addresses: Iterable[Address],
        heard_before: Callable[[Address], bool] = lambda _: False,
    ) -> list[Address]:
        """The node's name has these addresses; which of them are news.

        `heard_before` tells whether a valid message came from an address during this
        wait, when nobody knew yet that it is the node's.
        """
        new = [address for address in addresses if self.name_of(address) is None]
        self.names[name] = tuple(addresses)
        for address in new:
            self._heard_before(address, heard_before)
        return new

    def moved(
        self,
        addresses: Mapping[Address, Address],
        heard_before: Callable[[Address], bool] = lambda _: False,
    ) -> None:
        """These addresses are others now: their interfaces got another index."""
        for name, its in self.names.items():
            self.names[name] = tuple(addresses.get(one, one) for one in its)
        for after in addresses.values():
            if self.name_of(after) is not None:
                self._heard_before(after, heard_before)

    def _heard_before(self, address: Address, heard_before: Callable[[Address], bool]) -> None:
        if heard_before(address):
            self._proven(address)

    def unresolvable(self, name: str) -> None:
        """The node's name will never have an address."""
        self.hopeless.add(name)

    def heard(self, address: Address, message: Message) -> bool:
        """A valid message came to the port from there.

        Returns whether its sender is to be asked: the node signed it, but nobody knows when.
        """
        if self._signatures is None:
            if self.name_of(address) is not None:
                self._proven(address)
            return False
        packet = self._packet(address, encode(message.byteorder) + message.trailer)
        if packet is None:
            return False
        if packet.nonce == self._nonce:
            self.answers += 1
            self._proven(address, packet)
            return False
        self.unasked = address
        return True

    def answered(self, address: Address, data: bytes, now: float) -> None:
        """What came from there, to where the questions come from; `now` in seconds."""
        self.answers += 1
        packet = self._packet(address, data)
        if packet is None or packet.nonce != self._nonce:
            return
        if packet.kind == "status":
            self._proven(address, packet)
        elif packet.kind == "alive":
            self._is_alive(packet.name, now)

    def _packet(self, address: Address, data: bytes) -> Packet | None:
        """The packet that these bytes are, if it comes from the node."""
        if self._signatures is None:
            known = self.name_of(address) is not None and not self._is_own(address)
            return decode_packet(data) if known else None
        why = self._signatures.why_not(data)
        if not why and address.loopback and self.name_of(address) is None:
            why = "loopback"
        if why:
            self._ignore(why, address, data)
            return None
        return decode_packet(data)

    def _proven(self, address: Address, packet: Packet | None = None) -> None:
        if self.proof is not None:
            return
        if self._signatures is None:
            if self._is_own(address):
                return
        elif packet is None:  # what nobody signed
            return
        else:
            self.signed = packet
        self.proof = address

    def _is_alive(self, name: str, now: float) -> None:
        if self.decided:
            return
        # Without a signature another node may say so that took the address over.
        if self._signatures is None and self._called and name.lower() not in self._called:
            self._note(("name", True), f"'{name}', which is alive: that is no name of the node")
            return
        self.said_alive = name
        if self._grace < 0:
            return
        if now - self._alive_last > GAP:
            self._alive_since = now
        self._alive_last = now
        if now - self._alive_since >= self._grace:
            how = f"answered for {self._grace} s" if self._grace else "answered"
            self.alive = f"node '{name}' is alive: it has {how}, so it is not dumping"

    def _ignore(self, why: str, address: Address, data: bytes) -> None:
        """Note this, which is not the node's; no more than the first is looked at for that."""
        # What a running kdumpfenced said must not hide what the crash kernel says later.
        reason = (why, data.startswith(b"KDFALIVE"))
        if reason in self.ignored:
            return
        packet = decode_packet(data)
        if packet is None:
            text = f"an unsigned message from {address}"
        else:
            text = f"{packet.kind} of '{packet.name}' from {address}"
            if why in ("key id", "MAC"):
                text += f" with key id {packet.key_id:08x}"
            text += _WHY[why]
        self._note(reason, text)

    def _note(self, reason: tuple[str, bool], text: str) -> None:
        if reason not in self.ignored:
            self.ignored[reason] = text
            self._ignores(text)

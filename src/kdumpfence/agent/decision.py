# SPDX-License-Identifier: GPL-2.0-or-later
"""The decision: is this node in its crash kernel?

A plain object without sockets, clock or name service: it is told what was heard, what
resolved and what time it is, and says yes or nothing. Everything that decides over a
fencing must live here, in this file.

Yes is said for one reason only: a whole valid message came from an address of the node
while the wait lasted. When exactly the address became known does not matter; a message
that came first still counts. An address that is this machine's own by then proves nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kdumpfence.addresses import Address
    from kdumpfence.wire import Message


class Watch:
    """Waits for proof that the node with these names is dumping."""

    def __init__(
        self, names: Iterable[str], is_own: Callable[[Address], bool] = lambda _: False
    ) -> None:
        #: Name -> its addresses, () as long as it has none.
        self.names: dict[str, tuple[Address, ...]] = dict.fromkeys(names, ())
        #: The address that the proof came from.
        self.proof: Address | None = None
        self._is_own = is_own
        #: Names that can never have an address.
        self.hopeless: set[str] = set()

    @property
    def can_succeed(self) -> bool:
        """Whether there is anything to be heard, now or when a name resolves."""
        return self.hopeless != set(self.names)

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
        if self.proof is None and heard_before(address) and not self._is_own(address):
            self.proof = address

    def unresolvable(self, name: str) -> None:
        """The node's name will never have an address."""
        self.hopeless.add(name)

    def heard(self, address: Address, message: Message) -> bool:
        """A valid message came from there; whether that is the proof."""
        known = self.proof is None and self.name_of(address) is not None
        if known and not self._is_own(address):
            self.proof = address
        return self.proof is not None

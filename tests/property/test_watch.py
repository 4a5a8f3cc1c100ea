# SPDX-License-Identifier: LGPL-2.1-or-later
"""Yes is said for one reason only: a message came from an address of the node."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kdumpfence import wire
from kdumpfence.addresses import Address
from kdumpfence.agent.decision import Watch

NAMES = ["node1", "node1-ring1", "10.0.0.1"]
#: Few, so that they meet; some of them the same in another dress, some nearly the same.
ADDRESSES = [
    (b"\x0a\0\0\1", 0),
    (bytes(10) + b"\xff\xff\x0a\0\0\1", 0),
    (b"\x0a\0\0\2", 0),
    (b"\xfd" + bytes(14) + b"\1", 0),
    (b"\xfe\x80" + bytes(13) + b"\1", 2),
    (b"\xfe\x80" + bytes(13) + b"\1", 3),
]
addresses = st.sampled_from(ADDRESSES).map(lambda one: Address(*one))
messages = st.sampled_from(["little", "big"]).map(lambda order: wire.Message(1, order, b""))


class Waiting(RuleBasedStateMachine):
    """Names resolve and messages come, in any order."""

    @initialize(names=st.lists(st.sampled_from(NAMES), unique=True))
    def begin(self, names: list[str]) -> None:
        self.watch = Watch(names)
        self.current: dict[str, set[Address]] = {name: set() for name in names}
        self.ever: set[Address] = set()
        self.heard: set[Address] = set()
        self.hopeless: set[str] = set()
        self.proof: Address | None = None

    def known(self) -> set[Address]:
        return set().union(*self.current.values())

    @rule(number=st.integers(0, 2), found=st.lists(addresses, max_size=4, unique=True))
    def resolves(self, number: int, found: list[Address]) -> None:
        if not self.current:
            return
        name = list(self.current)[number % len(self.current)]
        news = [address for address in found if address not in self.known()]
        assert self.watch.resolved(name, found, lambda a: a in self.heard) == news
        self.current[name] = set(found)
        self.ever |= set(found)

    @rule(number=st.integers(0, 2))
    def never_resolves(self, number: int) -> None:
        if self.current:
            name = list(self.current)[number % len(self.current)]
            self.watch.unresolvable(name)
            self.hopeless.add(name)

    @rule(address=addresses, message=messages)
    def hears(self, address: Address, message: wire.Message) -> None:
        self.heard.add(address)
        assert not self.watch.heard(address, message), "nobody is asked without a key"

    @invariant()
    def yes_has_a_reason(self) -> None:
        if self.watch.proof is not None:
            assert self.watch.proof in self.heard
            assert self.watch.proof in self.ever

    @invariant()
    def a_reason_is_a_yes(self) -> None:
        if self.known() & self.heard:
            assert self.watch.proof is not None

    @invariant()
    def yes_is_not_taken_back(self) -> None:
        if self.proof is not None:
            assert self.watch.proof == self.proof
        self.proof = self.watch.proof

    @invariant()
    def names_and_addresses_belong_together(self) -> None:
        for packed, scope in ADDRESSES:
            name = self.watch.name_of(Address(packed, scope))
            if name is None:
                assert Address(packed, scope) not in self.known()
            else:
                assert Address(packed, scope) in self.current[name]

    @invariant()
    def hope_ends_with_the_last_name(self) -> None:
        assert self.watch.can_succeed is bool(set(self.current) - self.hopeless)


TestWaiting = Waiting.TestCase

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of known sources, against a dict: any sequence of changes, on both cores at once.

The compiled one is an open-addressing table without tombstones, so what goes wrong there
goes wrong when it grows and when something is taken out from between others. Hence hundreds
of entries at a time, and removals in every order.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.property.cores import Cores

MAPPED = bytes(10) + b"\xff\xff"
LINK_LOCAL = b"\xfe\x80" + bytes(13) + b"\1"
Key = tuple[bytes, int]

packed_addresses = st.one_of(
    st.integers(0, 60).map(lambda number: b"\x0a\0\0" + bytes([number])),
    st.integers(0, 60).map(lambda number: MAPPED + b"\x0a\0\0" + bytes([number])),
    st.integers(0, 9).map(lambda number: b"\xfe\x80" + bytes(13) + bytes([number])),
    st.binary(min_size=4, max_size=4),
    st.binary(min_size=16, max_size=16),
    # Close to an IPv4-mapped one, but none.
    st.binary(min_size=4, max_size=4).map(lambda tail: bytes(9) + b"\1\xff\xff" + tail),
    st.binary(min_size=4, max_size=4).map(lambda tail: bytes(12) + tail),
)
scopes = st.sampled_from([0, 0, 1, 2, 2**32 - 1])
nodes = st.integers(-(2**31), 2**31 - 1)


def unmapped(packed: bytes) -> bytes:
    """The address that is meant, by somebody else's reading of RFC 4291."""
    if len(packed) == 16:
        inner = ipaddress.IPv6Address(packed).ipv4_mapped
        if inner is not None:
            return inner.packed
    return packed


def numbered(number: int) -> bytes:
    """One of many addresses, by turns IPv4 and IPv6."""
    if number % 2:
        return (0x0B000000 + number).to_bytes(4, "big")
    return b"\xfd" + bytes(11) + number.to_bytes(4, "big")


class Sources(RuleBasedStateMachine):
    """Both cores' Sources and a dict, treated alike."""

    cores: Cores

    @initialize()
    def begin(self) -> None:
        self.both: list[Any] = [core.Sources() for core in self.cores]
        self.model: dict[Key, int] = {}

    @rule(packed=packed_addresses, scope=scopes, node=nodes)
    def add(self, packed: bytes, scope: int, node: int) -> None:
        for sources in self.both:
            sources.add(packed, scope, node)
        self.model[unmapped(packed), scope] = node

    @rule(packed=packed_addresses, scope=scopes)
    def discard(self, packed: bytes, scope: int) -> None:
        known = self.model.pop((unmapped(packed), scope), None) is not None
        for sources in self.both:
            assert sources.discard(packed, scope) is known

    @rule(packed=packed_addresses, scope=scopes)
    def release(self, packed: bytes, scope: int) -> None:
        for sources in self.both:
            assert sources.release(packed, scope) is False  # none of them was admitted

    @rule(packed=packed_addresses, scope=scopes)
    def find(self, packed: bytes, scope: int) -> None:
        for sources in self.both:
            assert sources.find(packed, scope) == self.model.get((unmapped(packed), scope))

    @rule(start=st.integers(0, 1000), number=st.integers(1, 300), node=nodes)
    def add_many(self, start: int, number: int, node: int) -> None:
        for one in range(start, start + number):
            for sources in self.both:
                sources.add(numbered(one), 0, node)
            self.model[numbered(one), 0] = node

    @rule(packed=st.sampled_from([LINK_LOCAL, b"\x0a\0\0\1"]), number=st.integers(1, 60))
    def add_on_many_interfaces(self, packed: bytes, number: int) -> None:
        for scope in range(1, number):
            for sources in self.both:
                sources.add(packed, scope, scope)
            self.model[packed, scope] = scope
        self.find(packed, number)

    @precondition(lambda self: len(self.model) > 8)
    @rule(random=st.randoms(use_true_random=False), share=st.floats(0.05, 1))
    def discard_many(self, random: Any, share: float) -> None:
        leaving = random.sample(sorted(self.model), int(len(self.model) * share))
        for packed, scope in leaving:
            del self.model[packed, scope]
            for sources in self.both:
                assert sources.discard(packed, scope) is True
                assert sources.discard(packed, scope) is False

    @precondition(lambda self: self.model)
    @rule()
    def find_all(self) -> None:
        for (packed, scope), node in self.model.items():
            for sources in self.both:
                assert sources.find(packed, scope) == node
                if len(packed) == 4:
                    assert sources.find(MAPPED + packed, scope) == node

    @invariant()
    def same_entries(self) -> None:
        # The order is not promised once something was taken out.
        for sources in self.both:
            assert len(sources) == len(self.model)
            listed = list(sources)
            assert len(listed) == len(self.model)
            assert set(listed) == set(self.model)


def test_any_sequence_of_changes_leaves_what_a_dict_would_hold(cores: Cores) -> None:
    machine = type("SourcesOfBoth", (Sources,), {"cores": cores})
    run_state_machine_as_test(  # type: ignore[no-untyped-call,unused-ignore]
        machine, settings=settings(max_examples=30, stateful_step_count=25)
    )

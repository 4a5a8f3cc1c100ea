# SPDX-License-Identifier: LGPL-2.1-or-later
"""What becomes of the decision when addresses move; tests/property/test_watch.py has the rest."""

from __future__ import annotations

import socket

from kdumpfence.addresses import Address
from kdumpfence.agent.decision import Watch
from kdumpfence.wire import OWN_MESSAGE, decode

MESSAGE = decode(OWN_MESSAGE)


def address(host: str, scope: int = 0) -> Address:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return Address(socket.inet_pton(family, host), scope)


FIRST = address("10.0.0.1")


def test_a_node_whose_interface_was_made_anew_has_another_address() -> None:
    before, after = address("fe80::1", 2), address("fe80::1", 5)
    watch = Watch(["node1"])
    watch.resolved("node1", [FIRST, before])
    watch.moved({before: after})
    assert watch.proof is None
    watch.heard(before, MESSAGE)
    assert watch.proof is None
    watch.heard(after, MESSAGE)
    assert watch.proof == after


def test_what_came_over_it_before_that_was_noticed_counts() -> None:
    before, after = address("fe80::1", 2), address("fe80::1", 5)
    watch = Watch(["node1"])
    watch.resolved("node1", [before])
    watch.moved({before: after}, lambda a: a == after)
    assert watch.proof == after


def test_a_stranger_may_move_as_it_likes() -> None:
    watch = Watch(["node1"])
    watch.resolved("node1", [FIRST])
    watch.moved({address("fe80::9", 2): address("fe80::9", 5)}, lambda _: True)
    assert watch.proof is None


def test_interfaces_may_change_places() -> None:
    two, five = address("fe80::1", 2), address("fe80::1", 5)
    watch = Watch(["node1"])
    watch.resolved("node1", [two, five])
    watch.moved({two: five, five: two})
    assert watch.name_of(two) == watch.name_of(five) == "node1"


def test_an_address_of_this_machine_proves_nothing_however_it_became_known() -> None:
    before, after = address("fe80::1", 2), address("fe80::1", 5)
    watch = Watch(["node1"], is_own=lambda _: True)
    watch.resolved("node1", [FIRST, before], lambda _: True)
    watch.moved({before: after}, lambda _: True)
    watch.heard(FIRST, MESSAGE)
    assert watch.proof is None

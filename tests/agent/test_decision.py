# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's decision, without sockets or clock."""

from __future__ import annotations

import socket

from kdumpfence.addresses import Address
from kdumpfence.agent.decision import Watch
from kdumpfence.wire import OWN_MESSAGE, decode

MESSAGE = decode(OWN_MESSAGE)


def address(host: str, scope: int = 0) -> Address:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return Address(socket.inet_pton(family, host), scope)


FIRST, SECOND, STRANGER = address("10.0.0.1"), address("fd00::1"), address("10.0.0.9")


def test_a_message_from_any_address_of_any_name_is_the_proof() -> None:
    for source in (FIRST, SECOND):
        watch = Watch(["node1", "node1-ring1"])
        watch.resolved("node1", [FIRST])
        watch.resolved("node1-ring1", [SECOND])
        assert watch.heard(source, MESSAGE)
        assert watch.proof == source


def test_a_stranger_proves_nothing() -> None:
    watch = Watch(["node1"])
    watch.resolved("node1", [FIRST])
    assert not watch.heard(STRANGER, MESSAGE)
    assert watch.proof is None


def test_a_name_without_an_address_proves_nothing() -> None:
    watch = Watch(["node1"])
    assert not watch.heard(FIRST, MESSAGE)


def test_the_same_address_on_another_interface_is_a_stranger() -> None:
    watch = Watch(["node1"])
    watch.resolved("node1", [address("fe80::1", 2)])
    assert not watch.heard(address("fe80::1", 3), MESSAGE)
    assert watch.heard(address("fe80::1", 2), MESSAGE)


def test_a_message_that_came_before_the_name_resolved_counts() -> None:
    watch = Watch(["node1"])
    assert watch.resolved("node1", [FIRST, SECOND], lambda a: a == SECOND) == [FIRST, SECOND]
    assert watch.proof == SECOND


def test_a_node_whose_interface_was_made_anew_has_another_address() -> None:
    before, after = address("fe80::1", 2), address("fe80::1", 5)
    watch = Watch(["node1"])
    watch.resolved("node1", [FIRST, before])
    watch.moved({before: after})
    assert watch.proof is None
    assert not watch.heard(before, MESSAGE)
    assert watch.heard(after, MESSAGE)


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


def test_only_news_are_told() -> None:
    watch = Watch(["a", "b"])
    assert watch.resolved("a", [FIRST, SECOND]) == [FIRST, SECOND]
    assert watch.resolved("b", [SECOND, STRANGER]) == [STRANGER]
    assert watch.name_of(SECOND) == "a"
    assert watch.name_of(STRANGER) == "b"


def test_the_first_proof_stays() -> None:
    watch = Watch(["node1"])
    watch.resolved("node1", [FIRST, SECOND])
    watch.heard(FIRST, MESSAGE)
    assert watch.heard(SECOND, MESSAGE)
    assert watch.proof == FIRST


def test_it_is_hopeless_only_when_no_name_can_ever_resolve() -> None:
    watch = Watch(["a", "b"])
    watch.unresolvable("a")
    assert watch.can_succeed
    watch.unresolvable("b")
    assert not watch.can_succeed

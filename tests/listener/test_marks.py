# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was heard since a moment is told from what had come before, and was read later."""

from __future__ import annotations

import time
from ipaddress import ip_address

import pytest

from kdumpfence.listener.listener import ListenerClosed
from tests.listener.conftest import NETWORK, A, B, C, MakeListener, TrialListener, wait_for
from tests.support.answerer import packet


def mark(listening: TrialListener) -> float:
    """A moment before which all that had come is read."""
    asked = time.monotonic()
    wait_for(lambda: listening.has_read(asked))
    return time.monotonic()


def heard(listening: TrialListener, since: float) -> bool:
    dump = listening.latest("node1")
    return dump is not None and dump.heard > since


def test_a_message_before_the_mark_is_not_behind_it_and_the_next_one_is(
    listen: MakeListener,
) -> None:
    listening = listen({"node1": [A]})
    for _ in range(5):
        listening.say(A)
        then = mark(listening)
        assert listening.latest("node1") is not None
        assert not heard(listening, then)
        listening.say(A)
        wait_for(lambda: heard(listening, then))  # noqa: B023


def test_a_moment_that_is_to_come_is_not_read_yet(listen: MakeListener) -> None:
    listening = listen({"node1": [A]})
    assert not listening.has_read(time.monotonic() + 3600)
    mark(listening)
    assert not listening.has_read(time.monotonic() + 3600)


def test_what_comes_after_the_nodes_own_end_is_heard_as_well(listen: MakeListener) -> None:
    listening = listen({"node1": [A]})
    listening.say(A, packet("status", key=None, state="finished"))
    wait_for(lambda: listening.latest("node1") is not None)
    wait_for(lambda: listening.dump("node1") is None)
    then = mark(listening)
    listening.say(A, packet("status", key=None, state="finished", sequence=2))
    wait_for(lambda: heard(listening, then))
    assert listening.dump("node1") is None


def test_without_a_look_it_is_as_of_the_last_one(listen: MakeListener) -> None:
    listening = listen({"node1": [A]})
    listening.say(A)
    listening.wait_for_count("accepted", 1)
    assert listening.latest("node1", fresh=False) is None
    assert listening.latest("node1") == listening.latest("node1", fresh=False)


def test_a_node_is_known_by_its_name_and_by_addresses_that_it_alone_has(
    listen: MakeListener,
) -> None:
    listening = listen({"node1": [A, B], "node2": [B]}, [NETWORK])
    assert listening.node_of("node1") == "node1"
    assert listening.node_of(A) == "node1"
    assert listening.node_of(ip_address(A)) == "node1"
    for other in (B, C, "node3", "", "127.7.4", "fe80::1%nowhere"):
        assert listening.node_of(other) is None
    listening.remove("node2")
    assert listening.node_of(B) == "node1"


def test_who_asks_a_closed_one_is_told(listen: MakeListener) -> None:
    listening = listen({"node1": [A]})
    listening.close()
    for ask in (
        lambda: listening.latest("node1"),
        lambda: listening.has_read(0.0),
        lambda: listening.node_of("node1"),
    ):
        with pytest.raises(ListenerClosed):
            ask()

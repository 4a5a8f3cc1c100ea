# SPDX-License-Identifier: LGPL-2.1-or-later
"""An address that a network had admitted becomes a node's: its dump goes on, under one name."""

from __future__ import annotations

import ipaddress
import time
from typing import Any

import pytest

from kdumpfence.listener import reader
from kdumpfence.listener.dumps import Dumps
from kdumpfence.listener.events import Dump, Event
from tests.listener.conftest import NETWORK, A, B, C, MakeListener, about_nodes, kinds
from tests.listener.test_states import status


@pytest.mark.parametrize("given", [A, ipaddress.ip_address(A)], ids=["text", "ipaddress"])
def test_a_dump_goes_on_under_the_name_of_the_node(listen: MakeListener, given: Any) -> None:
    listening = listen(networks=[NETWORK], repeat_interval=0.0)
    began = listening.after_message(A)
    listening.add("node1", [given])
    silent, dumping = about_nodes(listening.several(2))
    assert (silent[:2], dumping[:2]) == (("silent", A), ("dumping", "node1"))
    assert silent[3:] == dumping[3:] == began[3:]
    assert [dump[:2] for dump in listening.snapshot().dumps] == [("node1", began.since)]
    again = listening.after_message(A)
    assert (again[:2], again.since, again.messages) == (("dumping", "node1"), began.since, 2)


def test_so_it_does_if_nobody_took_the_events_before(listen: MakeListener) -> None:
    listening = listen(networks=[NETWORK])
    listening.say(A)
    listening.wait_for_count("accepted", 1)
    assert A in listening
    listening.add("node1", [A])
    assert [event[:2] for event in listening.events(0)] == [
        ("began", A),
        ("silent", A),
        ("dumping", "node1"),
    ]


@pytest.mark.parametrize("way", ["replace", "name"])
def test_so_it_does_whatever_gives_the_address_to_the_node(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "name":
        from kdumpfence.addresses import Address

        found = [Address(bytes(map(int, A.split("."))))]
        monkeypatch.setattr(reader, "look_up_node", lambda *_: found)
    listening = listen(networks=[NETWORK])
    began = listening.after_message(A)
    if way == "name":
        listening.add("node1", ["host1.example"])
    else:
        listening.replace_nodes({"node1": [A]})
    events = about_nodes(listening.several(2))
    assert [event[:2] for event in events] == [("silent", A), ("dumping", "node1")]
    assert events[1].since == began.since


def test_two_addresses_of_one_node_become_one_dump(listen: MakeListener) -> None:
    listening = listen(networks=[NETWORK])
    first = listening.after_message(A)
    listening.after_message(B)
    listening.add("node1", [A, B])
    events = about_nodes(listening.several(3))
    assert [event[:2] for event in events] == [("silent", A), ("dumping", "node1"), ("silent", B)]
    (dump,) = listening.snapshot().dumps
    assert (dump.node, dump.since, dump.messages) == ("node1", first.since, 2)
    assert dump.addresses == (A, B)


@pytest.mark.parametrize("ended", [False, True], ids=["dumping", "finished"])
def test_nothing_happens_to_an_address_that_becomes_a_node_of_that_name(
    listen: MakeListener, ended: bool
) -> None:
    listening = listen(networks=[NETWORK])
    began = listening.after_message(A)
    if ended:
        listening.say(A, status("finished", 1))
        assert listening.only_event().kind == "finished"
    listening.replace_nodes([A])
    listening.say(A)
    listening.wait_for_count("accepted", 3 if ended else 2)
    dump = listening.dump(A)
    assert (dump is None) == ended
    assert dump is None or (dump.since, dump.messages) == (began.since, 2)
    assert listening.events(0) == []


def test_an_address_of_two_nodes_is_nobodys(listen: MakeListener) -> None:
    listening = listen(networks=[NETWORK])
    listening.after_message(A)
    listening.replace_nodes({"node1": [A], "node2": [A]})
    assert next(listening)[:2] == ("silent", A)
    listening.say(A)
    listening.wait_for_count("accepted", 2)
    assert A not in listening


def test_what_is_left_of_a_dump_that_is_over_begins_none_under_the_new_name(
    listen: MakeListener,
) -> None:
    listening = listen(networks=[NETWORK])
    listening.say(A, status("finished", 1))
    assert kinds(listening.several(2)) == ["began", "finished"]
    listening.add("node1", [A])
    listening.say(A)
    listening.wait_for_count("accepted", 2)
    assert listening.events(0.1) == []
    assert listening.snapshot().dumps == []


def test_the_room_of_the_network_is_free_again(listen: MakeListener) -> None:
    listening = listen(networks=[NETWORK], max_admitted=1)
    listening.after_message(A)
    listening.add("node1", [A])
    listening.several(2)
    assert listening.after_message(B)[:2] == ("began", B)


def test_a_restored_dump_goes_on_under_the_name_that_its_address_has_now(
    listen: MakeListener,
) -> None:
    listening = listen({"node1": [A]}, [NETWORK], silence_timeout=1.0)
    ahead = time.time() + 3600  # the clock was set back meanwhile
    old = Dump(A, ahead - 60, ahead, 5, (A,), 60.0)
    listening.restore([old])
    silent, dumping, over = listening.several(3)
    for event, kind, node in (
        (silent, "silent", A),
        (dumping, "dumping", "node1"),
        (over, "silent", "node1"),
    ):
        assert (event[:2], event.since, event.last) == ((kind, node), old.since, old.last)
    assert listening.after_message(C)[:2] == ("began", C)


def test_it_is_the_new_name_that_falls_silent() -> None:
    dumps = Dumps(silence=30, repeat=10)
    dumps.heard(A, A, 100.0)
    assert kinds(dumps.rename(A, "node1", 110.0)) == ["silent", "dumping"]
    assert dumps.tick(129.9) == []
    assert [event[:2] for event in dumps.tick(130.0)] == [("silent", "node1")]
    began = dumps.heard("node1", A, 131.0)
    assert began is not None
    assert (began.kind, began.since) == ("began", 131.0)


def test_nothing_is_left_of_the_old_name() -> None:
    dumps = Dumps(silence=30, repeat=10)
    dumps.heard(A, A, 100.0)
    dumps.heard("node2", B, 100.0)
    assert dumps.rename(A, "node2", 110.0) == [Event("silent", A, 110.0, 100.0, 100.0, 1, (A,))]
    assert dumps.snapshot() == [Dump("node2", 100.0, 100.0, 2, (B, A))]
    assert dumps.rename(A, "node1", 111.0) == []
    assert kinds(dumps.rename("node2", None, 112.0)) == ["silent"]
    assert dumps.next_due is None
    assert not any(len(value) for value in vars(dumps).values() if hasattr(value, "__len__"))

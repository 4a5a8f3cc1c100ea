# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a program stored of its dumps is restored as a whole or not at all."""

from __future__ import annotations

import json
import math
import re
import time
from typing import Any

import pytest

from kdumpfence.listener.dumps import Dumps
from kdumpfence.listener.events import Dump, Event
from tests.listener.conftest import NETWORK, A, B, C, MakeListener, kinds
from tests.listener.test_states import status

D = "127.7.4.4"

NOW = 1.7e9
GOOD = Dump("node1", NOW - 60, NOW, 5, (A,), 60.0)
OVER = Event("finished", "node2", NOW, NOW - 90, NOW, 3, (B,), 90.0, (7,))


def changed(**values: Any) -> Dump:
    """`GOOD` with other values, of whatever types."""
    return GOOD._replace(**values)


FAULTS: list[tuple[list[Any], list[Any], str]] = [
    ([GOOD, GOOD], [], "'node1': is there twice"),
    ([GOOD], [OVER._replace(node="node1")], "'node1': is there twice"),
    ([], [OVER, OVER], "'node2': is there twice"),
    ([GOOD._replace(since=NOW + 1, took=0.0)], [], "since .* is later than last"),
    ([GOOD._replace(node="node7")], [], "'node7': neither one of the nodes nor in a network"),
    ([GOOD._replace(node="192.0.2.1")], [], "'192.0.2.1': neither"),
    ([], [OVER._replace(node="node7")], "'node7': neither one of the nodes nor in a network"),
    ([GOOD._replace(node="")], [], "node '': must be a name"),
    ([GOOD._replace(messages=0)], [], "messages 0"),
    ([GOOD._replace(messages=True)], [], "messages True"),
    ([changed(addresses=A)], [], "addresses .*: must be a list of addresses"),
    *(
        ([changed(addresses=(A, one))], [], re.escape(f"address {one!r}: not an IP address"))
        for one in ("", "node1", "192.0.2", "192.0.2.1%eth0", f"{A} ", 5, None, b"\x7f\0\0\1")
    ),
    ([], [OVER._replace(addresses=("nonsense",))], "address 'nonsense': not an IP address"),
    ([changed(sessions=("7",))], [], "sessions .*: must be a list of whole numbers"),
    ([GOOD._replace(port=65536)], [], "port 65536"),
    ([], [OVER._replace(kind="silent")], "kind 'silent': must be finished or failed"),
    *(
        ([changed(**{what: value})], [], re.escape(f"{what} {value!r}: "))
        for what in ("since", "last", "took")
        for value in (math.nan, math.inf, -math.inf, -1.0, 1e300, "0", None)
    ),
    ([], [OVER._replace(when=math.nan)], "when nan"),
    ([], [OVER._replace(last=math.nan)], "last nan"),
]


@pytest.mark.parametrize(("dumps", "ended", "why"), FAULTS)
def test_what_cannot_be_is_refused_and_nothing_is_restored(
    listen: MakeListener, dumps: list[Any], ended: list[Any], why: str
) -> None:
    listening = listen({"node1": [A], "node2": [B], "node3": [C]})
    other, over = GOOD._replace(node="node3"), OVER._replace(node="node4")
    listening.add("node4", [D])
    with pytest.raises(ValueError, match=why):
        listening.restore([other, *dumps], [over, *ended])
    assert listening.snapshot().dumps == []
    # No end of them is known either.
    for host in (A, B, D):
        assert listening.after_message(host).kind == "began"
    listening.restore([other])
    assert other in listening.snapshot().dumps


def test_the_end_of_the_others_is_told_after_something_was_refused(listen: MakeListener) -> None:
    listening = listen({"node1": [A], "node2": [B]}, silence_timeout=0.2)
    with pytest.raises(ValueError, match="is there twice"):
        listening.restore([GOOD, GOOD])
    assert listening.events(0.3) == []
    assert listening.after_message(B).kind == "began"
    assert listening.only_event()[:2] == ("silent", "node2")


def test_a_node_that_is_dumping_already_keeps_its_dump(listen: MakeListener) -> None:
    listening = listen({"node1": [A], "node2": [B]})
    began = listening.after_message(A)
    with pytest.raises(ValueError, match="'node1' is dumping already"):
        listening.restore([GOOD._replace(node="node2"), GOOD])
    assert [dump[:2] for dump in listening.snapshot().dumps] == [("node1", began.since)]


def test_the_end_of_what_was_restored_is_told_though_nothing_is_heard(
    listen: MakeListener,
) -> None:
    listening = listen({"node1": [A]}, silence_timeout=0.2)
    listening.restore([GOOD])
    assert listening.only_event()[:2] == ("silent", "node1")


def test_what_was_written_as_json_can_be_restored(listen: MakeListener) -> None:
    before = listen({"node1": [A], "node2": [B]})
    before.say(A)
    before.several(1)
    stored = json.dumps([before.snapshot().dumps, [OVER]])
    before.close()
    listening = listen({"node1": [A], "node2": [B]}, repeat_interval=0.0)
    dumps, ended = json.loads(stored)
    listening.restore([Dump(*one) for one in dumps], [Event(*one) for one in ended])
    dumping = listening.after_message(A)
    assert (dumping.kind, dumping.messages, dumping.addresses) == ("dumping", 2, (A,))
    assert dumping.since == dumps[0][1]
    listening.say(B, status("dumping", 7))
    listening.wait_for_count("accepted", 2)
    assert listening.events(0) == [], "what is left of a dump that was over begins no other"


def test_a_dump_during_which_the_clock_was_set_back_is_one(listen: MakeListener) -> None:
    """Its times contradict each other, and what was measured says why."""
    listening = listen({"node1": [A]})
    strange = Dump("node1", NOW, NOW - 3600, 9, (A,), 42.0)
    listening.restore([strange])
    assert listening.dump("node1") == strange


def test_a_node_of_a_network_is_listened_for_and_can_be_restored(listen: MakeListener) -> None:
    listening = listen({"node1": [B]}, [NETWORK, "2001:db8::/64"])
    for node, known in (
        ("node1", True), (A, True), ("2001:db8::7", True), ("2001:db8:0:1::7", False),
        ("192.0.2.1", False), ("node7", False), ("", False), ("::ffff:127.7.4.9", False),
    ):  # fmt: skip
        assert listening.listens_for(node) == known, node
    listening.restore([GOOD._replace(node=A)])
    listening.say(A)
    listening.wait_for_count("accepted", 1)
    dump = listening.dump(A)
    assert dump is not None
    assert (dump.since, dump.messages) == (GOOD.since, 6)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_the_decision_refuses_times_that_have_no_order(wrong: float) -> None:
    dumps = Dumps()
    for what in ("since", "last", "took"):
        with pytest.raises(ValueError, match="is not a time"):
            dumps.restore(changed(**{what: wrong}))
        with pytest.raises(ValueError, match="is not a time"):
            dumps.restore_end(changed(**{what: wrong}), "finished", NOW, NOW)
    with pytest.raises(ValueError, match="is not a time"):
        dumps.restore(GOOD, wrong)
    with pytest.raises(ValueError, match="is not a time"):
        dumps.restore_end(GOOD, "finished", NOW, wrong)
    assert (len(dumps), dumps.next_due) == (0, None)


def test_an_address_whose_interface_is_gone_can_be_restored(listen: MakeListener) -> None:
    listening = listen({"node1": [A]})
    dump = GOOD._replace(addresses=("fe80::1%gone!0", "2001:db8::7", A))
    listening.restore([dump])
    assert listening.snapshot().dumps == [dump]


def test_how_old_a_restored_dump_is_only_the_system_clock_can_tell(listen: MakeListener) -> None:
    listening = listen({"node1": [A]})
    listening.restore([GOOD._replace(since=time.time() - 200, last=time.time() - 100)])
    dump = listening.dump("node1")
    assert dump is not None
    assert dump.age == pytest.approx(100, abs=30)
    assert kinds(listening.events(0)) == []

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Listener whose kernel counts notices who falls silent, whatever becomes of nodes and tables."""

from __future__ import annotations

import mmap
import struct
from types import ModuleType

import pytest

from kdumpfence.listener import reader as module
from kdumpfence.listener.kernel import CannotCountError, counting
from kdumpfence.listener.reader import Reader
from kdumpfence.own_addresses import OwnAddresses
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import udp
from tests.core.scene import status
from tests.listener.conftest import NETWORK, A, B, C, MakeListener, TrialListener, kinds, wait_for
from tests.support.kernel import need_kernel_counting

SILENCE = 1.0


@pytest.fixture(params=["kernel"], name="counting")
def _counting(request: pytest.FixtureRequest) -> str:
    need_kernel_counting()
    return str(request.param)


def repeat(listening: TrialListener, host: str, times: int = 10) -> None:
    """Messages that the kernel counts, since one was read; wait until they are."""
    before = listening.counts["accepted"]
    with udp(host) as sock:
        for _ in range(times):
            sock.sendto(OWN_MESSAGE, ("127.0.0.1", listening.port))
    wait_for(lambda: listening.counts["accepted"] == before + times)


def pass_in_the_kernel(listening: TrialListener, host: str, seconds: float) -> None:
    """The last message of that host that the kernel counted is so much longer ago."""
    table = listening._in_use._counting
    assert table is not None
    memory = table._table.memory
    for at in range(0, len(memory), 32):
        if memory[at + 12 : at + 16] == bytes(map(int, host.split("."))):
            (last,) = struct.unpack_from("=q", memory, at + 16)
            struct.pack_into("=q", memory, at + 16, last - round(seconds * 1e9))
            return
    raise AssertionError(f"{host} has no entry")


def test_who_does_not_want_to_hear_that_dumps_go_on_is_told_only_of_their_ends(
    listen: MakeListener,
) -> None:
    listening = listen({"a": [A]}, silence_timeout=SILENCE, repeat_interval=0, tell_repeats=False)
    assert not listening.tell_repeats
    listening.after_message(A)
    repeat(listening, A)
    (dump,) = listening.dumps(["a"], fresh=False)
    assert dump is not None
    assert dump.messages == 11
    event = listening.only_event()
    assert (event.kind, event.messages, event.last) == ("silent", 11, dump.last)
    assert event.when - event.last >= SILENCE


def test_another_address_and_another_session_are_told_of_all_the_same(
    listen: MakeListener, core: ModuleType
) -> None:
    listening = listen({"a": [A, B]}, silence_timeout=60, repeat_interval=3600, tell_repeats=False)
    assert listening.after_message(A).addresses == (A,)
    event = listening.after_message(B)
    assert (event.kind, event.addresses, event.sessions) == ("dumping", (A, B), ())
    for session in (5, 6):
        listening.say(A, status(core, session, "dumping"))
        event = listening.only_event()
        assert (event.kind, event.messages, event.sessions[-1]) == ("dumping", session - 2, session)
    listening.say(A, status(core, 5, "dumping"))
    listening.wait_for_count("accepted", 5)
    assert listening.dump("a") is not None
    assert listening.events(0) == []


def test_that_can_be_wanted_later(listen: MakeListener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SWEEP_MOST", 3600.0)
    listening = listen({"a": [A]}, silence_timeout=3600, repeat_interval=0, tell_repeats=False)
    listening.after_message(A)
    repeat(listening, A)
    listening.tell_repeats = True
    listening.until(lambda events: bool(events) and events[-1].messages == 11)


def test_figures_are_of_all_addresses_that_the_kernel_counts(listen: MakeListener) -> None:
    listening = listen({"a": [A]}, [NETWORK], tell_repeats=False)
    for host, times in ((A, 10), (B, 20)):
        listening.after_message(host)
        repeat(listening, host, times)
    found = {
        address[12:]: (scope, messages)
        for address, scope, messages, _ in struct.iter_unpack("=16sIId", listening.figures())
    }
    hosts = [bytes(map(int, host.split("."))) for host in (A, B)]
    assert found == {hosts[0]: (0, 11), hosts[1]: (0, 21)}
    lasts = {last for *_, last in struct.iter_unpack("=16sIId", listening.figures())}
    assert lasts == {dump.last for dump in listening.snapshot().dumps}  # to the last digit


def test_a_node_is_not_silent_as_long_as_one_of_its_addresses_is_not(listen: MakeListener) -> None:
    listening = listen({"a": [A, B]}, silence_timeout=60, repeat_interval=3600, tell_repeats=False)
    listening.after_message(A)
    listening.say(B)
    listening.wait_for_count("accepted", 2)
    assert listening.dump("a") is not None
    for host in (A, B):
        repeat(listening, host)
    pass_in_the_kernel(listening, A, 61)
    dump = listening.dump("a")
    assert dump is not None
    assert (dump.messages, dump.addresses) == (22, (A, B))
    pass_in_the_kernel(listening, B, 61)
    # The time of its last message that was given out stays what it was.
    assert listening.dump("a") is not None
    assert kinds(listening.events(0)) == ["dumping"]  # of the second address


def test_before_a_node_is_silent_what_the_kernel_counted_at_its_other_address_is_looked_at(
    listen: MakeListener,
) -> None:
    listening = listen({"a": [A, B]}, silence_timeout=60, repeat_interval=3600, tell_repeats=False)
    queue = listening._events
    listening.after_message(A)
    assert listening.after_message(B).kind == "dumping"
    for host in (A, B):
        repeat(listening, host)
    pass_in_the_kernel(listening, A, 61)
    queue._reader._sources.sweep(-1)
    wait_for(lambda: listening.events(0) == [] and "a" in queue._dumps._due._queued)
    due = queue._dumps._due._queued["a"]
    queue._clock.base += 61  # all that was told so far is as much longer ago
    repeat(listening, B)
    wait_for(lambda: listening.events(0) == [] and queue._dumps._due._queued.get("a", 0) != due)
    dump = listening.dump("a")
    assert dump is not None
    assert dump.messages == 32


def test_who_is_given_out_without_a_message_begins_no_dump(listen: MakeListener) -> None:
    listening = listen({"a": [A]})
    packed = bytes(map(int, A.split(".")))
    listening._events._hearing._hear([(1, packed, 0, 0, 1, 1, 0, ())])
    assert (listening.events(0), listening.dump("a")) == ([], None)


def test_what_was_counted_at_an_address_that_moves_is_its_node_s(listen: MakeListener) -> None:
    listening = listen({"a": [A]}, silence_timeout=SILENCE, repeat_interval=3600)
    listening.tell_repeats = False
    listening.after_message(A)
    repeat(listening, A)
    listening.add("a", [B])
    dump = listening.dump("a")
    assert dump is not None
    assert dump.messages == 11
    listening.add("c", [A])
    event = listening.only_event()
    assert (event.node, event.kind, event.messages) == ("a", "silent", 11)
    began = listening.after_message(A)
    assert (began.node, began.kind) == ("c", "began")


def test_the_end_of_a_node_that_is_removed_tells_of_all_that_was_counted(
    listen: MakeListener,
) -> None:
    listening = listen({"a": [A], "b": [B]}, repeat_interval=3600, tell_repeats=False)
    for host in (A, B):
        listening.after_message(host)
        repeat(listening, host)
    listening.remove("a")
    event = listening.only_event()
    assert (event.node, event.kind, event.messages) == ("a", "silent", 11)
    listening.replace_nodes({"c": [C]})
    event = listening.only_event()
    assert (event.node, event.kind, event.messages) == ("b", "silent", 11)


def test_an_address_that_two_nodes_have_by_now_speaks_for_none_and_the_dump_ends(
    listen: MakeListener,
) -> None:
    listening = listen({"a": [A]}, silence_timeout=SILENCE, repeat_interval=3600)
    listening.after_message(A)
    repeat(listening, A)
    listening.add("b", [A])
    listening.say(A)
    event = listening.only_event()
    assert (event.node, event.kind, event.messages) == ("a", "silent", 11)


def test_an_address_that_is_this_machine_s_own_by_now_speaks_for_none_and_the_dump_ends(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = listen({"a": [A]}, silence_timeout=SILENCE, repeat_interval=3600)
    listening.after_message(A)
    packed = bytes(map(int, A.split(".")))
    monkeypatch.setattr(OwnAddresses, "__contains__", lambda _, key: key == (packed, 0))
    repeat(listening, A)
    event = listening.only_event()
    assert (event.node, event.kind, event.messages) == ("a", "silent", 1)


def test_a_dump_that_goes_on_under_another_name_ends_there(listen: MakeListener) -> None:
    listening = listen(
        networks=[NETWORK], silence_timeout=SILENCE, repeat_interval=3600, tell_repeats=False
    )
    listening.after_message(A)
    repeat(listening, A)
    listening.add("a", [A])
    assert kinds(listening.several(2)) == ["silent", "dumping"]
    listening.say(A)
    event = listening.only_event()
    assert (event.node, event.kind, event.messages) == ("a", "silent", 12)


def test_whose_entry_another_one_gets_is_looked_after_all_the_same(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table with eight entries in two buckets: so each can be in any of them."""
    monkeypatch.setattr(counting, "LEAST_ENTRIES", 8)
    monkeypatch.setattr(counting, "SPARE", 0.01)
    monkeypatch.setattr(mmap, "PAGESIZE", 256)
    hosts = [f"127.7.4.{number}" for number in range(10, 30)]
    listening = listen(networks=[NETWORK], max_admitted=20, silence_timeout=60, tell_repeats=False)
    monkeypatch.undo()
    for host in hosts[:10]:
        listening.after_message(host)
    for host in hosts[:10]:
        try:
            pass_in_the_kernel(listening, host, 58)  # so the next is news, but it is not silent
        except AssertionError:
            continue
    for host in hosts[10:]:
        listening.after_message(host)
    assert {dump.node for dump in listening.snapshot().dumps} == set(hosts)
    due = listening._events._dumps._due
    assert due._watched < set(hosts)
    assert due._watched | due._queued.keys() == set(hosts)


# ------------------------------------------------------------------------------ larger tables


def test_with_more_nodes_than_a_table_has_room_for_there_is_a_larger_one(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "LEAST_ENTRIES", 128)
    listening = listen({"a": [A]}, silence_timeout=60, repeat_interval=3600)
    reader = listening._in_use
    first = reader._counting
    assert first is not None
    assert first.room == 115
    listening.after_message(A)
    repeat(listening, A)
    for number in range(100):
        listening.add(f"node{number}", [f"127.7.5.{number}"])
    assert reader._counting is first
    for number in range(100, 200):
        listening.add(f"node{number}", [f"127.7.5.{number}"])
    wait_for(lambda: reader._counting is not first)
    repeat(listening, A)
    for number in range(200):
        began = listening.after_message(f"127.7.5.{number}")
        assert (began.node, began.kind) == (f"node{number}", "began")
    assert reader._sources.shared == 201
    dump = listening.dump("a")
    assert dump is not None
    assert dump.messages == 21
    assert listening.counted() == {"accepted": 221}


def test_who_may_not_have_a_larger_one_keeps_what_there_is_and_hears_the_others_as_ever(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "LEAST_ENTRIES", 128)
    listening = listen({"a": [A]}, repeat_interval=3600)
    tries = []

    def refuse(*_: object) -> None:
        tries.append(1)
        raise CannotCountError("no right to load the program: it needs CAP_BPF")

    monkeypatch.setattr(counting, "load", refuse)
    for number in range(200):
        listening.add(f"node{number}", [f"127.7.5.{number}"])
    for number in range(200):
        assert listening.after_message(f"127.7.5.{number}").kind == "began"
    assert tries == [1]
    assert 115 <= listening._in_use._sources.shared <= 128
    assert listening.snapshot().counting == "kernel"


def test_a_table_that_is_too_late_is_closed(
    listen: MakeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    listening = listen({"a": [A]})
    reader: Reader = listening._in_use

    class Late:
        def close(self) -> None:
            closed.append(1)

    listening.close()
    reader.count_with(Late())  # type: ignore[arg-type]
    assert closed == [1]

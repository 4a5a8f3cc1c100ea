# SPDX-License-Identifier: LGPL-2.1-or-later
"""What counting leaves in the table of sources, on both cores. Loopback only."""

from __future__ import annotations

import os
import random
import select
import socket
import threading
import time
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import fill, load_core, udp
from tests.core.scene import LITTLE, NODE, Scene, numbered, pack, soon, status


def node(number: int) -> bytes:
    return pack(numbered(number))


def count(scene: Scene, *hosts: str | int, bell: int = -1) -> int:
    """Have a message of each of these hosts counted."""
    scene.send(*hosts)
    return scene.receiver.count(0, bell=bell)  # type: ignore[no-any-return]


def heard(scene: Scene, most: int = 100) -> list[tuple[int, int]]:
    """(number of the node, messages)"""
    return [(one[0], one[6]) for one in scene.sources.heard(most)]


def rings(pipe: tuple[int, int]) -> bool:
    """Whether the bell was rung, once."""
    if not select.select(pipe[:1], [], [], 0)[0]:
        return False
    assert os.read(pipe[0], 100) == (1).to_bytes(8, "little")
    return True


def test_who_was_heard_is_given_out_once_with_all_that_is_known(scene: Scene) -> None:
    scene.sources.add(node(1), node=7)
    sender = scene.keep(udp(numbered(1)))
    before = time.monotonic_ns()
    for _ in range(3):
        sender.sendto(LITTLE, scene.listener.getsockname())
    assert scene.receiver.count(0) == 3
    ((number, packed, scope, port, first, last, messages, told),) = scene.sources.heard()
    assert (number, packed, scope, messages, told) == (7, node(1), 0, 3, ())
    assert port == sender.getsockname()[1]
    assert before <= first <= last <= time.monotonic_ns()
    assert scene.sources.heard() == []


@pytest.mark.parametrize(("host", "at"), [("::1", "::1"), (NODE, "::")])
def test_an_ipv6_address_is_given_out_as_such_and_a_mapped_one_as_ipv4(
    scene: Scene, host: str, at: str
) -> None:
    scene.sources.add(pack(host), node=4)
    scene.listen(at)
    scene.send(host)
    assert scene.receiver.count(0) == 1
    assert scene.sources.heard()[0][:3] == (4, pack(host), 0)


def test_the_first_time_is_that_since_it_was_last_given_out(scene: Scene) -> None:
    scene.sources.add(node(1))
    for _ in range(2):
        before = time.monotonic_ns()
        count(scene, 1)
        between = time.monotonic_ns()
        count(scene, 1)
        first, last = scene.sources.heard()[0][4:6]
        assert before <= first <= between <= last


# --------------------------------------------------------------------- admitted by networks


def test_a_network_admits_its_sources_while_there_is_room(scene: Scene) -> None:
    scene.sources.admit(pack("127.1.0.0"), 24, node=9)
    assert count(scene, 1, 2, 300, 3, 4, 5, 1, 5) == 5
    assert heard(scene) == [(9, 2), (9, 1), (9, 1), (9, 1)]
    assert scene.counts() == {"accepted": 5, "stranger": 1, "crowded": 2}
    assert scene.sources.discard(node(2))
    count(scene, 5, 2)
    assert scene.sources.find(node(5)) == 9
    assert scene.sources.find(node(2)) is None
    assert len(scene.sources) == 4


def test_of_networks_that_overlap_the_first_counts(scene: Scene) -> None:
    scene.sources.admit(pack("127.1.1.0"), 24, node=1)
    scene.sources.admit(pack("::ffff:127.0.0.0"), 104, node=2)
    scene.sources.admit(pack("0.0.0.0"), 0, node=3)
    count(scene, 0x0101, 0x0201)
    assert heard(scene) == [(1, 1), (2, 1)]


def test_no_ipv6_network_admits_an_ipv4_address(scene: Scene) -> None:
    for prefix in (0, 80, 95):
        scene.sources.admit(bytes(16), prefix, node=6)
    count(scene, 1, 2)
    assert scene.counts() == {"stranger": 2}
    scene.sources.admit(pack("::ffff:127.0.0.0"), 104, node=4)  # which is 127.0.0.0/8
    count(scene, 1)
    assert heard(scene) == [(4, 1)]


def test_a_network_beyond_loopback_admits_no_loopback_address(scene: Scene) -> None:
    for network in ("0.0.0.0/0", "126.0.0.0/7", "::/0", "::/127", "::ffff:0.0.0.0/96"):
        host, _, prefix = network.partition("/")
        scene.sources.admit(pack(host), int(prefix), node=6)
    scene.listen("::")
    count(scene, "::1", 1)
    scene.sources.admit(pack("::1"), 128, node=7)
    scene.sources.admit(pack("127.0.0.0"), 8, node=8)
    count(scene, "::1", 1)
    assert scene.counts() == {"accepted": 2, "stranger": 2}
    assert heard(scene) == [(7, 1), (8, 1)]


def test_admitted_sources_arrive_as_others_do(scene: Scene) -> None:
    scene.sources.admit(node(5), 32, node=9)
    scene.send(4, 5)
    (arrival,) = scene.receiver.receive(soon())
    assert (arrival.node, arrival.packed) == (9, node(5))


@pytest.mark.parametrize(
    ("packed", "prefix", "complaint"),
    [
        (bytes(4), -1, "prefix -1: 0 to 32 are allowed"),
        (bytes(4), 33, "prefix 33: 0 to 32 are allowed"),
        (bytes(16), 129, "prefix 129: 0 to 128 are allowed"),
        (bytes(5), 8, "address of 5 bytes: 4 or 16 are allowed"),
        (b"\x7f\0\0\1", 31, "network with bits set behind its prefix"),
        (bytes(15) + b"\1", 127, "network with bits set behind its prefix"),
    ],
)
def test_what_is_no_network_is_refused(
    core: ModuleType, packed: bytes, prefix: int, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        core.Sources().admit(packed, prefix)


@pytest.mark.parametrize("room", [-1, 1 << 32])
def test_a_room_that_cannot_be_is_refused(core: ModuleType, room: int) -> None:
    with pytest.raises(OverflowError):
        core.Sources(room=room)


def test_any_order_of_messages_and_changes_is_given_out_alike(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    """Against a model that keeps a plain list of who was heard."""
    dice = random.Random(4)
    scene = Scene(core, sockets, room=40, batch=16)
    scene.sources.admit(pack("127.1.1.0"), 24, node=-1)
    known: dict[int, int] = {}
    admitted: set[int] = set()
    row: list[int] = []
    messages: dict[int, int] = {}

    def any_number() -> int:
        return dice.choice((0, 256)) + dice.randrange(120)

    for step in range(600):
        action = dice.random()
        number = any_number()
        if action < 0.2:
            scene.sources.add(node(number), node=step)
            known[number] = step
            admitted.discard(number)
        elif action < 0.3:
            free = number in admitted and number not in row
            assert scene.sources.release(node(number)) == free
            if free:
                del known[number]
                admitted.discard(number)
        elif action < 0.4:
            assert scene.sources.discard(node(number)) == (number in known)
            if known.pop(number, None) is not None and number in row:
                at = row.index(number)
                newest = row.pop()
                if newest != number:
                    row[at] = newest
                messages[number] = 0
            admitted.discard(number)
        elif action < 0.8:
            batch = [any_number() for _ in range(1 + dice.randrange(40))]
            count(scene, *batch)
            for one in batch:
                if one not in known and one >= 256 and len(admitted) < 40:
                    known[one] = -1
                    admitted.add(one)
                if one in known:
                    messages[one] = messages.get(one, 0) + 1
                    if one not in row:
                        row.append(one)
        else:
            most = dice.randrange(300)
            expected = [(known[one], node(one), messages.pop(one)) for one in row[:most]]
            del row[:most]
            given = scene.sources.heard(most)
            assert [(one[0], one[1], one[6]) for one in given] == expected
        assert len(scene.sources) == len(known)
        messages = {one: number for one, number in messages.items() if number}


# ----------------------------------------------------------------------------- what statuses say


def told(scene: Scene) -> list[list[tuple[int, str, int]]]:
    """(session, state, messages) of each source that was heard."""
    return [[(one[0], one[1], one[3]) for one in source[7]] for source in scene.sources.heard()]


def say(scene: Scene, *statuses: tuple[int, str], host: int = 1) -> None:
    """A host sends these statuses, (session, state), and they are counted."""
    for session, state in statuses:
        scene.send(host, data=status(scene.core, session, state))
    scene.receiver.count(0)


def test_of_each_session_the_first_status_and_its_ends_are_told(scene: Scene) -> None:
    scene.sources.add(node(1), node=7)
    before = time.monotonic_ns()
    say(scene, (5, "started"), (5, "dumping"), (2**64 - 1, "finished"), (5, "dumping"))
    scene.send(1)
    say(scene, (2**64 - 1, "finished"), (6, "dumping"))
    ((*_, first, last, messages, said),) = scene.sources.heard()
    assert messages == 7
    assert [(session, state, number) for session, state, _, number in said] == [
        (5, "started", 1),
        (2**64 - 1, "finished", 3),
        (6, "dumping", 7),
    ]
    assert before <= first == said[0][2] <= said[1][2] <= said[2][2] == last
    count(scene, 1)
    assert told(scene) == [[]]  # each is told once


def test_a_status_of_either_byte_order_counts_as_a_message_and_is_told(scene: Scene) -> None:
    scene.sources.add(node(1))
    for session, byteorder in enumerate(("little", "big")):
        scene.send(1, data=status(scene.core, session, "dumping", byteorder=byteorder))
    assert scene.receiver.count(0) == 2
    assert told(scene) == [[(0, "dumping", 1), (1, "dumping", 2)]]


def test_of_too_many_statuses_the_last_end_is_still_told(scene: Scene) -> None:
    scene.sources.add(node(1))
    say(scene, *((number, "dumping") for number in range(1, 9)))
    say(scene, (9, "failed"), (10, "dumping"), (11, "finished"), (12, "dumping"))
    expected = [(1, "dumping", 1), (2, "dumping", 2), (3, "dumping", 3), (11, "finished", 11)]
    assert told(scene) == [expected]


def test_two_ends_of_one_session_are_both_told(scene: Scene) -> None:
    scene.sources.add(node(1))
    say(scene, (3, "failed"), (3, "finished"), (3, "failed"))
    assert told(scene) == [[(3, "failed", 1), (3, "finished", 2)]]


@pytest.mark.parametrize("change", ["longer", "shorter", "state", "name"])
def test_a_message_with_an_unknown_trailer_is_a_message_and_says_nothing_more(
    scene: Scene, change: str
) -> None:
    scene.sources.add(node(1))
    data = bytearray(status(scene.core, 5, "finished"))
    if change == "longer":
        data += b"\0"
    elif change == "shorter":
        del data[-1]
    else:
        data[{"state": 15, "name": 119}[change]] = 5
    scene.send(1, data=bytes(data))
    assert scene.receiver.count(0) == 1
    assert told(scene) == [[]]


def test_a_receiver_that_cannot_see_the_end_of_a_packet_knows_none(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    scene = Scene(core, sockets, size=core.PACKET_BYTES)
    scene.sources.add(node(1))
    say(scene, (5, "finished"))
    assert told(scene) == [[]]


def test_what_was_told_stays_with_its_source_however_others_come_and_go(scene: Scene) -> None:
    for number in range(1, 8):
        scene.sources.add(node(number), node=number)
        say(scene, (number, "finished"), host=number)
    for number in (2, 5, 1):
        scene.sources.discard(node(number))
    for number in range(8, 200):  # the table grows
        scene.sources.add(node(number), node=number)
    scene.sources.add(node(2), node=2)
    count(scene, 2)
    given = {one[0]: [said[0] for said in one[7]] for one in scene.sources.heard()}
    assert given == {2: [], 3: [3], 4: [4], 6: [6], 7: [7]}


# ------------------------------------------------------------------------ the bell, a rest


def test_the_bell_rings_when_there_is_something_after_there_was_nothing(
    scene: Scene, pipe: tuple[int, int]
) -> None:
    for number in (1, 2):
        scene.sources.add(node(number), node=number)
    count(scene, 3, bell=pipe[1])
    assert not rings(pipe)
    count(scene, 1, 2, bell=pipe[1])
    assert rings(pipe)
    count(scene, 1, bell=pipe[1])  # it rang for what is still to be had
    assert not rings(pipe)
    assert heard(scene) == [(1, 2), (2, 1)]
    count(scene, 2, bell=pipe[1])
    assert rings(pipe)


def test_the_bell_rings_for_news_that_come_while_somebody_takes_the_old(
    sockets: list[socket.socket], pipe: tuple[int, int]
) -> None:
    """In plain Python, where another thread may come between any two steps."""
    pure: Any = load_core("pure")

    class Late(pure.Receiver):  # type: ignore[misc]
        def _read_batch(self, *arguments: Any) -> int:
            self._sources.heard()  # as another thread would, just before
            return int(super()._read_batch(*arguments))

    scene = Scene(pure, sockets)
    for number in (1, 2):
        scene.sources.add(node(number), node=number)
    count(scene, 1)
    late = Late(scene.sources)
    late.add_socket(scene.listener)
    scene.send(2)
    late.count(0, bell=pipe[1])
    assert rings(pipe)
    assert heard(scene) == [(2, 1)]


def test_a_bell_that_is_full_or_gone_does_not_stop_the_reading(
    scene: Scene, pipe: tuple[int, int]
) -> None:
    scene.sources.add(node(1))
    fill(pipe[1])
    os.set_blocking(pipe[1], False)
    assert count(scene, 1, bell=pipe[1]) == 1
    assert scene.receiver.errors == 0
    heard(scene)
    assert count(scene, 1, bell=1 << 20) == 1
    assert scene.receiver.errors == 1


def test_counting_ends_at_the_deadline_not_at_a_message(scene: Scene) -> None:
    scene.sources.add(node(1))
    scene.send(1)
    deadline = soon(0.2)
    assert scene.receiver.count(deadline) == 1
    assert time.monotonic_ns() >= deadline


def test_nodes_come_go_and_are_given_out_while_another_thread_counts_and_none_is_lost(
    scene: Scene, pipe: tuple[int, int]
) -> None:
    wake, woken = os.pipe()
    counted: list[int] = []

    def count_all() -> None:
        counted.append(scene.receiver.count(None, (wake,), bell=pipe[1]))

    thread = threading.Thread(target=count_all)
    thread.start()
    total = 0
    deadline = time.monotonic() + 20
    for number in range(80):  # they fit into the queue, however slow the reader is
        scene.sources.add(node(number), node=number)
        scene.send(number, times=3)
        if number % 3 == 0:
            with pytest.raises(RuntimeError, match="another thread"):
                scene.receiver.take()
    while total < 240 and time.monotonic() < deadline:
        if select.select(pipe[:1], [], [], 0.1)[0]:
            os.read(pipe[0], 4096)
            for number, messages in heard(scene, 1000):
                assert 1 <= messages <= 3, number
                total += messages
    os.write(woken, b"!")
    thread.join(10)
    os.close(wake)
    os.close(woken)
    assert (total, counted) == (240, [240])


def test_a_rest_reads_more_at_a_time_and_ends_with_the_wait(
    scene: Scene, pipe: tuple[int, int]
) -> None:
    """What comes during the rest is read after it, and neither end of the wait is missed."""
    scene.sources.add(node(1))
    scene.send(1)

    def play() -> None:
        time.sleep(0.1)
        scene.send(1, 1)
        time.sleep(0.1)
        os.write(pipe[1], b"!")

    thread = threading.Thread(target=play)
    started = time.monotonic()
    thread.start()
    assert scene.receiver.count(soon(20), pipe[:1], rest_ns=999_999_999) == 3
    assert 0.2 <= time.monotonic() - started < 10
    thread.join()
    took = []
    for _ in range(3):  # a rest that outlasts the wait would do so each time
        scene.send(1)
        started_ns = time.monotonic_ns()
        assert scene.receiver.count(started_ns + 100_000_000, rest_ns=999_999_999) == 1
        took.append(time.monotonic_ns() - started_ns)
    assert 100_000_000 <= min(took) < 900_000_000


@pytest.mark.parametrize("rest", [-1, 10**9])
def test_a_rest_that_cannot_be_is_refused(scene: Scene, rest: int) -> None:
    with pytest.raises(ValueError, match=f"rest of {rest} ns: 0 to 999999999 are allowed"):
        scene.receiver.count(0, rest_ns=rest)

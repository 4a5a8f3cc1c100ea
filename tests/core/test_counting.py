# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages counted in the table of sources, on both cores. Loopback only."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import load_core, udp

LITTLE = b"\x40\x2a\x30\x1b\x01\x00\x00\x00"
BIG = b"\x1b\x30\x2a\x40\x00\x00\x00\x01"


def pack(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


def node(number: int) -> bytes:
    return pack(f"127.1.{number >> 8}.{number & 255}")


class Scene:
    """A receiver on loopback, and a transmitter that plays any source."""

    def __init__(self, core: ModuleType, sockets: list[socket.socket], room: int = 4) -> None:
        self.core = core
        self.sources, self.strangers = core.Sources(room=room), core.Sources()
        self.receiver = core.Receiver(self.sources, self.strangers, batch=16)
        self.listener, self.sender = udp(), udp("0.0.0.0")
        sockets += [self.listener, self.sender]
        self.receiver.add_socket(self.listener)
        self.read, self.write = os.pipe()

    def send(self, *numbers: int, data: bytes = LITTLE) -> None:
        transmitter = self.core.Transmitter(self.sender, data)
        port = self.listener.getsockname()[1]
        for number in numbers:
            transmitter.add(pack("127.0.0.1"), port, source=node(number))
        assert not any(transmitter.send())

    def heard(self, most: int = 100) -> list[tuple[int, int]]:
        """(number of the node, messages)"""
        return [(one[0], one[6]) for one in self.sources.heard(most)]

    def rejected(self) -> dict[str, int]:
        return {name: number for name, number in self.receiver.counts.items() if number}


@pytest.fixture
def scene(core: ModuleType, sockets: list[socket.socket]) -> Iterator[Scene]:
    scene = Scene(core, sockets)
    yield scene
    os.close(scene.read)
    os.close(scene.write)


def test_who_was_heard_is_given_out_once_with_all_that_is_known(scene: Scene) -> None:
    scene.sources.add(node(1), node=7)
    before = time.monotonic_ns()
    scene.send(1, 1, 1)
    assert scene.receiver.count(0) == 3
    ((number, packed, scope, port, first, last, messages),) = scene.sources.heard()
    assert (number, packed, scope, messages) == (7, node(1), 0, 3)
    assert port == scene.sender.getsockname()[1]
    assert before <= first <= last <= time.monotonic_ns()
    assert scene.sources.heard() == []
    assert scene.rejected() == {"accepted": 3}


def test_the_first_time_is_that_since_it_was_last_given_out(scene: Scene) -> None:
    scene.sources.add(node(1))
    times = []
    for _ in range(2):
        before = time.monotonic_ns()
        scene.send(1)
        scene.receiver.count(0)
        between = time.monotonic_ns()
        scene.send(1)
        scene.receiver.count(0)
        times.append((before, between, scene.sources.heard()[0][4:6]))
    for before, between, (first, last) in times:
        assert before <= first <= between <= last


def test_those_heard_first_come_first_and_no_more_than_asked_for(scene: Scene) -> None:
    for number in range(10):
        scene.sources.add(node(number), node=number)
    scene.send(5, 3, 5, 9, 3, 5)
    scene.receiver.count(0)
    assert scene.heard(0) == []
    assert scene.heard(2) == [(5, 3), (3, 2)]
    scene.send(5)
    scene.receiver.count(0)
    assert scene.heard() == [(9, 1), (5, 1)]


def test_everything_else_is_counted_by_reason_and_not_given_out(scene: Scene) -> None:
    scene.sources.add(node(1))
    for data in (b"", LITTLE[:7], b"\0" * 8, LITTLE[:4] + b"\2\0\0\0"):
        scene.send(1, data=data)
    scene.send(2, 2, 2)
    assert scene.receiver.count(0) == 0
    assert scene.heard() == []
    assert scene.rejected() == {"short": 2, "magic": 1, "version": 1, "stranger": 3}
    assert list(scene.strangers) == [(node(2), 0)]


def test_both_byte_orders_and_trailers_count(scene: Scene) -> None:
    scene.sources.add(node(1))
    scene.send(1, data=BIG)
    scene.send(1, data=LITTLE + b"trailer")
    assert scene.receiver.count(0) == 2


def test_ipv6_sources_are_counted(core: ModuleType, sockets: list[socket.socket]) -> None:
    listener, sender = (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in "12")
    sockets += [listener, sender]
    listener.bind(("::1", 0))
    sources = core.Sources()
    sources.add(pack("::1"), node=4)
    receiver = core.Receiver(sources)
    receiver.add_socket(listener)
    transmitter = core.Transmitter(sender, LITTLE)
    transmitter.add(pack("::1"), listener.getsockname()[1], source=pack("::1"))
    transmitter.send()
    assert receiver.count(0) == 1
    assert sources.heard()[0][:3] == (4, pack("::1"), 0)


def test_a_mapped_address_on_a_socket_for_both_families_is_the_ipv4_address(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    listener, sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM), udp("127.1.0.1")
    sockets += [listener, sender]
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::", 0))
    sources = core.Sources()
    sources.add(node(1), node=4)
    receiver = core.Receiver(sources)
    receiver.add_socket(listener)
    sender.sendto(LITTLE, ("127.0.0.1", listener.getsockname()[1]))
    assert receiver.count(0) == 1
    assert sources.heard()[0][:3] == (4, node(1), 0)


def test_a_network_admits_its_sources_while_there_is_room(scene: Scene) -> None:
    scene.sources.admit(pack("127.1.0.0"), 24, node=9)
    scene.send(1, 2, 300, 3, 4, 5, 1, 5)
    assert scene.receiver.count(0) == 5
    assert scene.heard() == [(9, 2), (9, 1), (9, 1), (9, 1)]
    assert scene.rejected() == {"accepted": 5, "stranger": 1, "crowded": 2}
    assert scene.sources.discard(node(2))
    scene.send(5, 2)
    scene.receiver.count(0)
    assert scene.sources.find(node(5)) == 9
    assert scene.sources.find(node(2)) is None
    assert len(scene.sources) == 4


def test_what_was_added_needs_no_room(scene: Scene) -> None:
    scene.sources.admit(pack("127.1.0.0"), 16)
    scene.send(1, 2, 3, 4)
    scene.receiver.count(0)
    for number in (3, 10, 11):
        scene.sources.add(node(number), node=number)
    scene.send(10, 11, 12, 13)  # 3 is none of the admitted any more: there is room for one
    scene.receiver.count(0)
    assert len(scene.sources) == 7
    assert scene.rejected()["crowded"] == 1


def test_of_networks_that_overlap_the_first_counts(scene: Scene) -> None:
    scene.sources.admit(pack("127.1.1.0"), 24, node=1)
    scene.sources.admit(pack("::ffff:127.0.0.0"), 104, node=2)
    scene.sources.admit(pack("0.0.0.0"), 0, node=3)
    scene.send(0x0101, 0x0201)
    scene.receiver.count(0)
    assert scene.heard() == [(1, 1), (2, 1)]


def test_no_ipv6_network_admits_an_ipv4_address(scene: Scene) -> None:
    for prefix in (0, 80, 95):
        scene.sources.admit(bytes(16), prefix, node=6)
    scene.send(1, 2)
    scene.receiver.count(0)
    assert scene.rejected() == {"stranger": 2}
    scene.sources.admit(pack("::ffff:127.0.0.0"), 104, node=4)  # which is 127.0.0.0/8
    scene.send(1)
    scene.receiver.count(0)
    assert scene.heard() == [(4, 1)]


def test_a_network_beyond_loopback_admits_no_loopback_address(scene: Scene) -> None:
    for network in ("0.0.0.0/0", "126.0.0.0/7", "::/0", "::/127", "::ffff:0.0.0.0/96"):
        host, _, prefix = network.partition("/")
        scene.sources.admit(pack(host), int(prefix), node=6)
    listener = udp("::1")
    scene.receiver.add_socket(listener)
    with udp("::1") as sender:
        for _ in range(2):
            scene.send(1)
            sender.sendto(LITTLE, listener.getsockname())
            scene.receiver.count(0)
            scene.sources.admit(pack("::1"), 128, node=7)
            scene.sources.admit(pack("127.0.0.0"), 8, node=8)
    assert scene.rejected() == {"accepted": 2, "stranger": 2}
    assert sorted(scene.heard()) == [(7, 1), (8, 1)]
    scene.receiver.discard_socket(listener)
    listener.close()


def test_a_source_is_released_if_it_was_admitted_and_nothing_of_it_waits(scene: Scene) -> None:
    scene.sources.admit(pack("127.1.0.0"), 24, node=9)
    scene.sources.add(node(300), node=7)
    scene.send(1, 2, 300)
    scene.receiver.count(0)
    assert not scene.sources.release(node(1))  # its message would be lost
    assert scene.heard() == [(9, 1), (9, 1), (7, 1)]
    scene.sources.add(node(2), node=8)
    assert [scene.sources.release(node(number)) for number in (1, 1, 2, 300, 400)] == [
        *(True, False),
        *(False, False, False),
    ]
    assert sorted(scene.sources) == [(node(2), 0), (node(300), 0)]
    scene.send(11, 12, 13, 14, 15)  # there is room for four again
    scene.receiver.count(0)
    assert scene.rejected() == {"accepted": 7, "crowded": 1}


def test_admitted_sources_arrive_as_others_do(scene: Scene) -> None:
    scene.sources.admit(node(5), 32, node=9)
    scene.send(4, 5)
    (arrival,) = scene.receiver.receive(time.monotonic_ns() + 5 * 10**9)
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
    scene = Scene(core, sockets, room=40)
    scene.sources.admit(pack("127.1.1.0"), 24, node=-1)
    known: dict[int, int] = {}
    admitted: set[int] = set()
    row: list[int] = []
    messages: dict[int, int] = {}
    for step in range(600):
        action = dice.random()
        number = dice.choice((0, 256)) + dice.randrange(120)
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
            batch = [dice.choice((0, 256)) + dice.randrange(120) for _ in range(dice.randrange(40))]
            scene.send(*batch)
            scene.receiver.count(0)
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
    os.close(scene.read)
    os.close(scene.write)


def test_the_bell_rings_when_there_is_something_after_there_was_nothing(scene: Scene) -> None:
    for number in (1, 2):
        scene.sources.add(node(number), node=number)
    scene.send(3)
    scene.receiver.count(0, bell=scene.write)
    assert select.select([scene.read], [], [], 0)[0] == []
    scene.send(1, 2)
    scene.receiver.count(0, bell=scene.write)
    assert os.read(scene.read, 100) == (1).to_bytes(8, "little")
    scene.send(1)
    scene.receiver.count(0, bell=scene.write)  # it rang for what is still to be had
    assert select.select([scene.read], [], [], 0)[0] == []
    assert scene.heard() == [(1, 2), (2, 1)]
    scene.send(2)
    scene.receiver.count(0, bell=scene.write)
    assert len(os.read(scene.read, 100)) == 8


def test_the_bell_rings_for_news_that_come_while_somebody_takes_the_old(
    sockets: list[socket.socket],
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
    scene.send(1)
    scene.receiver.count(0)
    late = Late(scene.sources)
    late.add_socket(scene.listener)
    scene.send(2)
    late.count(0, bell=scene.write)
    assert select.select([scene.read], [], [], 0)[0] == [scene.read]
    assert scene.heard() == [(2, 1)]
    os.close(scene.read)
    os.close(scene.write)


def test_a_bell_that_is_full_or_gone_does_not_stop_the_reading(scene: Scene) -> None:
    scene.sources.add(node(1))
    os.set_blocking(scene.write, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(scene.write, bytes(4096)):
            pass
    scene.send(1)
    assert scene.receiver.count(0, bell=scene.write) == 1
    assert scene.receiver.errors == 0
    scene.heard()
    scene.send(1)
    assert scene.receiver.count(0, bell=1 << 20) == 1
    assert scene.receiver.errors == 1


def test_counting_ends_at_the_deadline_not_at_a_message(scene: Scene) -> None:
    scene.sources.add(node(1))
    scene.send(1)
    started = time.monotonic_ns()
    assert scene.receiver.count(started + 200_000_000) == 1
    assert time.monotonic_ns() - started >= 200_000_000


def test_a_descriptor_ends_the_counting_in_another_thread(scene: Scene) -> None:
    """And all the while nodes come, go and are given out, and none is lost."""
    wake, woken = os.pipe()
    counted: list[int] = []

    def count() -> None:
        counted.append(scene.receiver.count(None, (wake,), bell=scene.write))

    thread = threading.Thread(target=count)
    thread.start()
    total = 0
    deadline = time.monotonic() + 20
    for number in range(80):  # they fit into the queue, however slow the reader is
        scene.sources.add(node(number), node=number)
        scene.send(*[number] * 3)
        if number % 3 == 0:
            with pytest.raises(RuntimeError, match="another thread"):
                scene.receiver.take()
    while total < 240 and time.monotonic() < deadline:
        if select.select([scene.read], [], [], 0.1)[0]:
            os.read(scene.read, 4096)
            for number, messages in scene.heard(1000):
                assert 1 <= messages <= 3, number
                total += messages
    os.write(woken, b"!")
    thread.join(10)
    os.close(wake)
    os.close(woken)
    assert (total, counted) == (240, [240])


@pytest.mark.slow
def test_a_rest_reads_more_at_a_time_and_ends_with_the_wait(scene: Scene) -> None:
    """What comes during the rest is read after it, and neither end of the wait is missed."""
    scene.sources.add(node(1))
    scene.send(1)

    def play() -> None:
        time.sleep(0.2)
        scene.send(1, 1)
        time.sleep(0.2)
        os.write(scene.write, b"!")

    started = time.monotonic()
    thread = threading.Thread(target=play)
    thread.start()
    deadline = time.monotonic_ns() + 20 * 10**9
    counted = scene.receiver.count(deadline, (scene.read,), rest_ns=999_999_999)
    assert 0.4 <= time.monotonic() - started < 10
    thread.join()
    assert counted == 3
    took = []
    for _ in range(3):  # a rest that outlasts the wait would do so each time
        scene.send(1)
        started_ns = time.monotonic_ns()
        assert scene.receiver.count(started_ns + 200_000_000, rest_ns=999_999_999) == 1
        took.append(time.monotonic_ns() - started_ns)
    assert 200_000_000 <= min(took) < 900_000_000


@pytest.mark.parametrize("rest", [-1, 10**9])
def test_a_rest_that_cannot_be_is_refused(scene: Scene, rest: int) -> None:
    with pytest.raises(ValueError, match=f"rest of {rest} ns: 0 to 999999999 are allowed"):
        scene.receiver.count(0, rest_ns=rest)


def test_signal_handlers_run_while_counting_without_a_bell(scene: Scene) -> None:
    class Rung(Exception):
        pass

    def ring(*_: Any) -> None:
        raise Rung

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(Rung):
            scene.receiver.count(time.monotonic_ns() + 10 * 10**9)
    finally:
        signal.signal(signal.SIGALRM, before)
    scene.sources.add(node(1))
    scene.send(1)
    assert scene.receiver.count(0) == 1


def test_a_time_out_of_the_socket_holds_nothing_up_and_stays(scene: Scene) -> None:
    scene.listener.settimeout(0.2)
    scene.sources.add(node(1))
    for read in (lambda: scene.receiver.count(0), lambda: len(scene.receiver.take())):
        scene.send(1)
        assert read() == 1
        assert scene.listener.gettimeout() == 0.2
    assert scene.receiver.errors == 0


def test_a_closed_socket_is_an_error(scene: Scene) -> None:
    scene.listener.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        scene.receiver.count(0)

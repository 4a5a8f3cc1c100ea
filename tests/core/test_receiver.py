# SPDX-License-Identifier: LGPL-2.1-or-later
"""The receive loop on UDP sockets: how long it waits, what it reads, what arrives.

What `receive` and `count` have in common is tested with both. What `count` leaves in the table
of sources is in test_counting, raw sockets are in test_raw.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest

from kdumpfence import _purewire
from tests.conftest import udp
from tests.core.scene import (
    BIG,
    IP_RECVERR,
    LITTLE,
    NO_MESSAGES,
    NODE,
    OTHER,
    Scene,
    closed_port,
    pack,
    soon,
)

IP_PKTINFO = 8
SO_MEMINFO = 55
SO_TIMESTAMPING = 37
STAMPS = 1 << 3 | 1 << 4

#: Reads until the deadline or until a descriptor can be read; returns the number of messages.
Read = Callable[..., int]


def knowing(core: ModuleType, sockets: list[socket.socket], **options: Any) -> Scene:
    """A scene in which NODE is known as number 7."""
    scene = Scene(core, sockets, **options)
    scene.sources.add(pack(NODE), node=7)
    return scene


@pytest.fixture
def scene(core: ModuleType, sockets: list[socket.socket]) -> Scene:
    return knowing(core, sockets)


@pytest.fixture(params=["receive", "count"])
def read(request: pytest.FixtureRequest, scene: Scene) -> Read:
    """Both ways to read what comes to the scene."""

    def read(deadline: int | None, wake: Sequence[int] = ()) -> int:
        result = getattr(scene.receiver, request.param)(deadline, wake)
        return result if isinstance(result, int) else len(result)

    return read


@contextlib.contextmanager
def alarm(seconds: float, handler: Callable[..., object]) -> Iterator[None]:
    """A signal in so many seconds, for this handler."""
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


class Rung(Exception):
    pass


def ring(*_: object) -> None:
    raise Rung


# ------------------------------------------------------------------- both ways of reading


def test_what_is_no_message_of_a_node_is_counted_by_reason_and_never_believed(
    scene: Scene, read: Read
) -> None:
    scene.send(OTHER, times=3)
    assert read(0) == 0
    # What those left in the buffers counts for nobody.
    for data, _ in NO_MESSAGES:
        scene.send(data=data)
    assert read(0) == 0
    reasons = collections.Counter(reason for _, reason in NO_MESSAGES)
    assert scene.counts() == {**reasons, "stranger": 3}
    assert list(scene.strangers) == [(pack(OTHER), 0)]


@pytest.mark.parametrize(
    ("host", "at"),
    [
        (NODE, "127.0.0.1"),
        ("::1", "::1"),
        (NODE, "::"),  # there it has a mapped address
    ],
)
def test_messages_in_both_byte_orders_are_heard_over_both_families(
    scene: Scene, read: Read, host: str, at: str
) -> None:
    scene.sources.add(pack(host))
    scene.listen(at)  # beside the first
    for data in (BIG, LITTLE + b"trailer"):
        scene.send(host, data=data)
        assert read(soon(0.05)) == 1
    assert scene.counts() == {"accepted": 2}


def test_the_wait_ends_at_the_deadline_and_not_before(scene: Scene, read: Read) -> None:
    deadline = soon(0.2)
    assert read(deadline) == 0
    assert time.monotonic_ns() >= deadline


def test_what_lay_in_the_queue_at_the_deadline_came_in_time(scene: Scene, read: Read) -> None:
    scene.send(OTHER, data=b"junkjunk", times=100)
    scene.send()
    assert read(0) == 1


def test_a_descriptor_ends_the_wait_after_what_lies_in_the_queue(
    scene: Scene, read: Read, pipe: tuple[int, int]
) -> None:
    os.write(pipe[1], b"!")
    assert read(None, [pipe[0]]) == 0
    scene.send()
    assert read(None, [pipe[0]]) == 1


def test_signal_handlers_run_during_the_wait_and_it_goes_on(scene: Scene, read: Read) -> None:
    seen: list[int] = []
    deadline = soon(0.2)
    with alarm(0.05, lambda number, _: seen.append(number)):
        assert read(deadline) == 0
    assert seen == [signal.SIGALRM]
    assert time.monotonic_ns() >= deadline


def test_what_a_signal_handler_raises_ends_the_wait(scene: Scene, read: Read) -> None:
    with alarm(0.1, ring), pytest.raises(Rung):
        read(soon(10))
    scene.send()
    assert read(0) == 1


def test_a_flood_keeps_off_neither_the_deadline_nor_a_signal(scene: Scene, read: Read) -> None:
    stop = threading.Event()

    def flood() -> None:
        with udp(OTHER) as sock:
            while not stop.is_set():
                sock.sendto(LITTLE, ("127.0.0.1", scene.port))

    threads = [threading.Thread(target=flood) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            # Two bounds, both generous: it came back, and it did not come back early.
            deadline = soon(0.1)
            assert read(deadline) == 0
            assert 0 <= time.monotonic_ns() - deadline < 10e9
        with alarm(0.2, ring), pytest.raises(Rung):
            read(soon(30))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_an_icmp_error_does_not_end_the_wait(scene: Scene, read: Read) -> None:
    # A socket that sends to a closed port gets the ICMP error on its next read.
    scene.listener.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    scene.listener.sendto(b"x", ("127.0.0.1", closed_port()))
    time.sleep(0.05)
    scene.send()
    assert read(soon(0.1)) == 1
    assert scene.receiver.errors >= 1


def test_a_closed_socket_is_an_error_not_a_silent_wait(scene: Scene, read: Read) -> None:
    scene.listener.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        read(soon(1))


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_a_socket_that_is_closed_meanwhile_ends_the_wait_and_can_be_discarded(
    scene: Scene, read: Read, timeout: float | None
) -> None:
    scene.listener.settimeout(timeout)
    closes = alarm(0.1, lambda *_: scene.listener.close())
    with closes, pytest.raises(OSError, match="Bad file descriptor"):
        read(soon())
    scene.receiver.discard_socket(scene.listener)
    scene.listen()
    assert read(0) == 0


def test_a_time_out_of_the_socket_holds_nothing_up_and_stays(scene: Scene, read: Read) -> None:
    scene.listener.settimeout(0.2)
    scene.send()
    assert read(0) == 1
    assert scene.listener.gettimeout() == 0.2
    assert scene.receiver.errors == 0


# --------------------------------------------------------------------------- what arrives


def test_an_arrival_says_who_sent_what_when_and_from_which_port(scene: Scene) -> None:
    sender = scene.keep(udp(NODE))
    before = time.monotonic_ns()
    sender.sendto(BIG + b"trailer", scene.listener.getsockname())
    (arrival,) = scene.receiver.receive(soon())
    assert (arrival.node, arrival.packed, arrival.scope) == (7, pack(NODE), 0)
    assert arrival.port == sender.getsockname()[1]
    assert before <= arrival.when_ns <= time.monotonic_ns()
    assert (arrival.message.byteorder, arrival.message.trailer) == ("big", b"trailer")
    assert arrival.interface == 0  # the socket does not tell


def test_the_interface_is_told_if_the_socket_tells(scene: Scene) -> None:
    scene.listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, STAMPS)
    scene.listener.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    scene.receiver.discard_socket(scene.listener)
    scene.receiver.add_socket(scene.listener)
    scene.send(NODE, OTHER)
    (arrival,) = scene.receiver.receive(soon())
    assert arrival.interface == socket.if_nametoindex("lo")
    assert f"interface={arrival.interface}, " in repr(arrival)
    assert list(scene.strangers) == [(pack(OTHER), arrival.interface)]


def test_strangers_with_a_message_are_remembered_up_to_the_limit(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    scene = knowing(core, sockets, stranger_room=3)
    scene.send(20, 21, 22, 23, 24, times=2)
    scene.send(OTHER, data=b"junkjunk")
    scene.receiver.take()
    assert scene.counts() == {"stranger": 10, "magic": 1}
    assert [host for host, _ in scene.strangers] == [pack(f"127.1.0.{n}") for n in (20, 21, 22)]


def test_a_batch_arrives_together_in_order_and_more_over_several_calls(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    scene = knowing(core, sockets, batch=4)
    for number in range(10):
        scene.send(data=LITTLE + bytes([number]))
    batches = [scene.receiver.receive(soon()) for _ in range(3)]
    assert [[arrival.message.trailer[0] for arrival in batch] for batch in batches] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
    scene.send(times=10)
    assert len(scene.receiver.take(batches=2)) == 8
    assert len(scene.receiver.take(batches=5)) == 2


def test_a_long_datagram_is_cut_at_the_buffer_but_believed(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    scene = knowing(core, sockets, size=64)
    scene.send(data=LITTLE + b"x" * 9000)
    (arrival,) = scene.receiver.receive(soon())
    assert arrival.message.trailer == b"x" * 56


def test_the_tables_can_be_changed_while_another_thread_reads_them(
    scene: Scene, pipe: tuple[int, int]
) -> None:
    arrived: list[Any] = []
    thread = threading.Thread(
        target=lambda: arrived.extend(scene.receiver.receive(soon(10), pipe[:1]))
    )
    thread.start()
    time.sleep(0.2)
    try:
        for use in (lambda: scene.receiver.receive(0), scene.receiver.take):
            with pytest.raises(RuntimeError, match="another thread"):
                use()
        scene.sources.add(pack(OTHER), node=8)
        assert scene.sources.find(pack(OTHER)) == 8
        assert sorted(scene.sources) == [(pack(NODE), 0), (pack(OTHER), 0)]
        scene.sources.discard(pack(NODE))
        scene.send(NODE, OTHER)
    finally:
        thread.join(10)
        os.write(pipe[1], b"!")
        thread.join()
    assert [arrival.node for arrival in arrived] == [8]
    assert list(scene.strangers) == [(pack(NODE), 0)]


# ------------------------------------------------------------------- sockets and their drops


def test_a_socket_that_is_discarded_is_read_no_more_and_its_drops_still_count(
    scene: Scene,
) -> None:
    first = scene.listener
    first.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    scene.send(OTHER, times=200)
    assert scene.receiver.receive(0) == []
    heard = scene.receiver.counts["stranger"]
    assert heard < 200
    assert scene.receiver.dropped == 200 - heard
    scene.send()
    scene.receiver.discard_socket(first)
    first.close()
    assert scene.receiver.take() == []
    assert scene.receiver.dropped == 200 - heard
    scene.listen()
    scene.send()
    assert len(scene.receiver.receive(soon())) == 1
    with pytest.raises(ValueError, match="not a socket of this receiver"):
        scene.receiver.discard_socket(first)


class Dropping(socket.socket):
    """A socket of which the kernel says that it has dropped so many."""

    told = 0

    def getsockopt(self, level: int, option: int, length: int = 0) -> Any:
        if option == SO_MEMINFO:
            return struct.pack("=9I", *[0] * 8, self.told & 0xFFFFFFFF)
        return super().getsockopt(level, option, *[length] * bool(length))


def test_drops_are_counted_on_when_the_kernels_count_begins_anew() -> None:
    # Of the core in Python alone: the other one asks the kernel itself.
    receiver = _purewire.Receiver(_purewire.Sources())
    with Dropping(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        receiver.add_socket(sock)
        # The fourth: somebody else asked later, and was answered earlier.
        for told in (0xFFFFFFF0, 0x1_0000_0010, 0x1_7FFFFFFF, 0x1_7FFFFFFE, 0x1_FFFFFFF0, 1 << 33):
            sock.told = told
            receiver.dropped  # noqa: B018
        assert receiver.dropped == 1 << 33


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"batch": 0}, "batch 0: 1 to 1024"),
        ({"batch": 1025}, "batch 1025: 1 to 1024"),
        ({"size": 63}, "size 63: 64 to 65535"),
        ({"size": 65536}, "size 65536: 64 to 65535"),
    ],
)
def test_sizes_out_of_range_are_refused(
    core: ModuleType, options: dict[str, int], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        core.Receiver(core.Sources(), **options)


def test_a_closed_socket_cannot_be_added(core: ModuleType) -> None:
    sock = udp()
    sock.close()
    with pytest.raises(ValueError, match="the socket is closed"):
        core.Receiver(core.Sources()).add_socket(sock)


# -------------------------------------------------------------------- the end, and stamps


def stamped(scene: Scene) -> Scene:
    """The kernel stamps what its socket hears: it begins a moment after it was asked to."""
    probe = scene.keep(udp())
    scene.receiver.discard_socket(scene.listener)
    for sock in (scene.listener, probe):
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, STAMPS)
    scene.receiver.add_socket(scene.listener)
    while True:
        probe.sendto(b"", probe.getsockname())
        if probe.recvmsg(1, 200)[1]:
            return scene


def test_what_came_before_the_end_arrives_whenever_it_is_read(scene: Scene) -> None:
    stamped(scene)
    scene.send()
    scene.receiver.end(soon(0.2))
    time.sleep(0.4)
    assert len(scene.receiver.receive(0)) == 1
    scene.receiver.end(None)
    scene.send()
    assert len(scene.receiver.take()) == 1


def test_what_came_after_the_end_is_as_if_it_had_not_come(scene: Scene) -> None:
    stamped(scene)
    scene.receiver.end(time.monotonic_ns())
    scene.send(NODE, OTHER)
    scene.send(data=b"rubbish!")
    assert scene.receiver.receive(soon(0.1)) == []
    assert scene.receiver.take() == []
    assert scene.counts() == {}
    assert list(scene.strangers) == []


def test_without_stamps_what_is_read_after_the_end_is_late(scene: Scene) -> None:
    scene.receiver.end(soon(0.2))
    scene.send()
    assert len(scene.receiver.receive(soon(0.1))) == 1
    scene.send()
    time.sleep(0.3)
    assert scene.receiver.receive(0) == []


def test_the_end_is_none_of_what_only_counts(scene: Scene) -> None:
    scene.receiver.end(time.monotonic_ns())
    scene.send()
    assert scene.receiver.count(0) == 1


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_clock_that_was_set_makes_no_late_datagram_early(
    sockets: list[socket.socket], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Of the compiled core in a guest, see tests/system/guest: here nobody may set the clock."""
    scene = stamped(knowing(_purewire, sockets))
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - step * 10**9)
    scene.receiver.end(time.monotonic_ns())
    monkeypatch.setattr(time, "time_ns", real)  # which is set by so much now
    scene.send()
    assert scene.receiver.receive(soon(0.1)) == []


def test_nor_does_one_that_is_set_while_it_lies_in_the_queue(
    sockets: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = stamped(knowing(_purewire, sockets))
    real = time.time_ns
    scene.receiver.end(time.monotonic_ns())
    scene.send()
    monkeypatch.setattr(time, "time_ns", lambda: real() + 3600 * 10**9)
    assert scene.receiver.receive(0) == []

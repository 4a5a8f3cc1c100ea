# SPDX-License-Identifier: GPL-2.0-or-later
"""The receive loop on real sockets, on both cores. Loopback only."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from kdumpfence import _purewire
from tests.conftest import udp

LITTLE = b"\x40\x2a\x30\x1b\x01\x00\x00\x00"
BIG = b"\x1b\x30\x2a\x40\x00\x00\x00\x01"
NODE, OTHER = "127.0.0.11", "127.0.0.12"
IP_RECVERR = 11


def pack(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


def soon(seconds: float = 5.0) -> int:
    return time.monotonic_ns() + round(seconds * 1e9)


class Scene:
    """A receiver on loopback that knows NODE as number 7, and hosts that send to it."""

    def __init__(self, core: ModuleType, sockets: list[socket.socket], **options: Any) -> None:
        self.sockets = sockets
        self.sources, self.strangers = core.Sources(), core.Sources()
        self.sources.add(pack(NODE), node=7)
        self.receiver = core.Receiver(self.sources, self.strangers, **options)
        self.listener = self.keep(udp())
        self.port = self.listener.getsockname()[1]
        self.receiver.add_socket(self.listener)

    def keep(self, sock: socket.socket) -> socket.socket:
        self.sockets.append(sock)
        return sock

    def send(self, data: bytes, host: str = NODE, times: int = 1) -> None:
        sock = udp(host)
        for _ in range(times):
            sock.sendto(data, ("127.0.0.1", self.port))
        sock.close()

    def rejected(self) -> dict[str, int]:
        return {name: number for name, number in self.receiver.counts.items() if number}


@pytest.fixture
def scene(core: ModuleType, sockets: list[socket.socket]) -> Scene:
    return Scene(core, sockets)


def test_a_message_of_a_known_source_arrives(scene: Scene) -> None:
    before = time.monotonic_ns()
    scene.send(BIG + b"trailer")
    (arrival,) = scene.receiver.receive(soon())
    assert arrival.node == 7
    assert arrival.packed == pack(NODE)
    assert arrival.scope == 0
    assert 0 < arrival.port < 65536
    assert before <= arrival.when_ns <= time.monotonic_ns()
    assert (arrival.message.byteorder, arrival.message.trailer) == ("big", b"trailer")
    assert scene.rejected() == {"accepted": 1}


def test_everything_else_is_counted_by_reason_and_never_arrives(scene: Scene) -> None:
    for data in (b"", LITTLE[:7], b"\0" * 8, LITTLE[:4] + b"\2\0\0\0", b"long junk" * 1000):
        scene.send(data)
    scene.send(LITTLE, OTHER, times=3)
    assert scene.receiver.receive(soon(0.05)) == []
    assert scene.rejected() == {"short": 2, "magic": 2, "version": 1, "stranger": 3}


def test_an_empty_datagram_after_a_message_is_still_no_message(scene: Scene) -> None:
    scene.send(LITTLE, OTHER)
    scene.send(b"", NODE)
    assert scene.receiver.receive(soon(0.05)) == []


def test_strangers_with_a_message_are_remembered_up_to_the_limit(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    scene = Scene(core, sockets, stranger_room=3)
    for number in range(20, 25):
        scene.send(LITTLE, f"127.0.0.{number}", times=2)
    scene.send(b"junkjunk", OTHER)
    scene.receiver.take()
    assert scene.rejected() == {"stranger": 10, "magic": 1}
    assert [host for host, _ in scene.strangers] == [pack(f"127.0.0.{n}") for n in (20, 21, 22)]


def test_a_batch_of_messages_arrives_together_in_order(scene: Scene) -> None:
    for number in range(5):
        scene.send(LITTLE + bytes([number]))
    arrivals = scene.receiver.receive(soon())
    assert [arrival.message.trailer for arrival in arrivals] == [b"%c" % n for n in range(5)]


def test_more_than_a_batch_is_read_over_several_calls(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    scene = Scene(core, sockets, batch=4)
    scene.send(LITTLE, times=10)
    assert [len(scene.receiver.receive(soon())) for _ in range(3)] == [4, 4, 2]
    scene.send(LITTLE, times=10)
    assert len(scene.receiver.take(batches=2)) == 8
    assert len(scene.receiver.take(batches=5)) == 2


def test_a_long_datagram_is_cut_at_the_buffer_but_believed(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    scene = Scene(core, sockets, size=64)
    scene.send(LITTLE + b"x" * 9000)
    (arrival,) = scene.receiver.receive(soon())
    assert arrival.message.trailer == b"x" * 56


def test_the_wait_ends_at_the_deadline_and_not_before(scene: Scene) -> None:
    deadline = soon(0.2)
    assert scene.receiver.receive(deadline) == []
    assert time.monotonic_ns() >= deadline


def test_what_lay_in_the_queue_at_the_deadline_came_in_time(scene: Scene) -> None:
    scene.send(b"junkjunk", OTHER, times=100)
    scene.send(LITTLE)
    assert len(scene.receiver.receive(0)) == 1


def test_a_descriptor_in_wake_ends_the_wait(scene: Scene) -> None:
    read, write = os.pipe()
    os.write(write, b"!")
    assert scene.receiver.receive(None, [read]) == []
    os.close(read)
    os.close(write)


def test_a_message_comes_before_the_descriptor_that_wakes(scene: Scene) -> None:
    read, write = os.pipe()
    os.write(write, b"!")
    scene.send(LITTLE)
    assert len(scene.receiver.receive(None, [read])) == 1
    os.close(read)
    os.close(write)


def test_signal_handlers_run_during_the_wait_and_it_goes_on(scene: Scene) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        deadline = soon(0.2)
        assert scene.receiver.receive(deadline) == []
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen == [signal.SIGALRM]
    assert time.monotonic_ns() >= deadline


def test_what_a_signal_handler_raises_ends_the_wait(scene: Scene) -> None:
    def handler(number: int, frame: object) -> None:
        raise RuntimeError("handled")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(RuntimeError, match="handled"):
            scene.receiver.receive(None)
    finally:
        signal.signal(signal.SIGALRM, before)
    scene.send(LITTLE)
    assert len(scene.receiver.receive(soon())) == 1


@contextlib.contextmanager
def flood(scene: Scene, senders: int) -> Iterator[None]:
    """Strangers' valid messages as fast as Python can send them."""
    stop = threading.Event()

    def send() -> None:
        sock = udp(OTHER)
        while not stop.is_set():
            sock.sendto(LITTLE, ("127.0.0.1", scene.port))
        sock.close()

    threads = [threading.Thread(target=send) for _ in range(senders)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_signal_is_handled_during_a_flood_as_well(scene: Scene) -> None:
    def handler(number: int, frame: object) -> None:
        raise RuntimeError("handled")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with flood(scene, senders=1):
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(RuntimeError, match="handled"):
                scene.receiver.receive(soon(30))
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_flood_cannot_keep_the_wait_alive_behind_its_deadline(scene: Scene) -> None:
    with flood(scene, senders=2):
        for _ in range(5):
            # Two bounds, both generous: it came back, and it did not come back early.
            deadline = soon(0.1)
            assert scene.receiver.receive(deadline) == []
            assert 0 <= time.monotonic_ns() - deadline < 10e9


def test_an_icmp_error_does_not_end_the_wait(scene: Scene) -> None:
    # A socket that sends to a closed port gets the ICMP error on its next read.
    scene.listener.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    closed = udp()
    target = closed.getsockname()
    closed.close()
    scene.listener.sendto(b"x", target)
    time.sleep(0.05)
    scene.send(LITTLE)
    assert len(scene.receiver.receive(soon())) == 1
    scene.listener.sendto(b"x", target)
    assert scene.receiver.receive(soon(0.05)) == []
    assert scene.receiver.errors >= 1


def test_a_closed_socket_is_an_error_not_a_silent_wait(scene: Scene) -> None:
    scene.listener.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        scene.receiver.receive(soon(1))


def test_what_the_queue_could_not_take_is_counted(scene: Scene) -> None:
    scene.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    scene.send(LITTLE, OTHER, times=200)
    assert scene.receiver.receive(soon(0.05)) == []
    heard = scene.receiver.counts["stranger"]
    assert heard < 200
    assert scene.receiver.dropped == 200 - heard


class Dropping(socket.socket):
    """A socket of which the kernel says that it has dropped so many."""

    told = 0

    def getsockopt(self, level: int, option: int, length: int = 0) -> Any:
        if option == 55:  # SO_MEMINFO
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


def test_several_sockets_of_both_families_are_heard(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    scene = Scene(core, sockets)
    second = scene.keep(udp("::1"))
    scene.receiver.add_socket(second)
    scene.sources.add(pack("::1"), node=8)
    sender = scene.keep(udp("::1"))
    sender.sendto(LITTLE, second.getsockname())
    (arrival,) = scene.receiver.receive(soon())
    assert (arrival.node, arrival.packed) == (8, pack("::1"))
    scene.send(LITTLE)
    (arrival,) = scene.receiver.receive(soon())
    assert arrival.node == 7


def test_an_ipv4_node_is_recognised_on_a_socket_of_both_families(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    dual = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sockets.append(dual)
    dual.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    dual.bind(("::", 0))
    sources = core.Sources()
    sources.add(pack(NODE), node=7)
    receiver = core.Receiver(sources)
    receiver.add_socket(dual)
    sender = udp(NODE)
    sockets.append(sender)
    sender.sendto(LITTLE, ("127.0.0.1", dual.getsockname()[1]))
    (arrival,) = receiver.receive(soon())
    assert (arrival.node, arrival.packed) == (7, pack(NODE))


def test_the_tables_can_be_changed_while_another_thread_reads_them(scene: Scene) -> None:
    read, write = os.pipe()
    arrived: list[Any] = []

    def receive() -> None:
        arrived.extend(scene.receiver.receive(soon(10), [read]))

    thread = threading.Thread(target=receive)
    thread.start()
    time.sleep(0.5)
    try:
        for use in (lambda: scene.receiver.receive(0), scene.receiver.take):
            with pytest.raises(RuntimeError, match="another thread"):
                use()
        scene.sources.add(pack(OTHER), node=8)
        assert scene.sources.find(pack(OTHER)) == 8
        assert sorted(scene.sources) == [(pack(NODE), 0), (pack(OTHER), 0)]
        scene.sources.discard(pack(NODE))
        scene.send(LITTLE, NODE)
        scene.send(LITTLE, OTHER)
    finally:
        thread.join(10)
        os.write(write, b"!")
        thread.join()
        os.close(read)
        os.close(write)
    assert [arrival.node for arrival in arrived] == [8]
    assert list(scene.strangers) == [(pack(NODE), 0)]


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


# ------------------------------------------------------------------- raw sockets


def checksum(source: bytes, destination: bytes, udp_datagram: bytes) -> int:
    data = source + destination + struct.pack(">xBH", 17, len(udp_datagram)) + udp_datagram
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total or 0xFFFF


class RawScene:
    """A receiver on a raw socket, and a raw sender that writes any UDP header."""

    def __init__(self, core: ModuleType, sockets: list[socket.socket], family: int) -> None:
        self.family = family
        six = family == socket.AF_INET6
        # What other tests send on loopback at the same time must not fill its queue.
        number = os.getpid() & 0xFFFF
        self.node, self.here = (
            ("::1", "::1") if six else (NODE, f"127.89.{number >> 8}.{number & 255}")
        )
        self.sources = core.Sources()
        self.sources.add(pack(self.node), node=7)
        # A port that no other program gets, whose datagrams a raw socket would hear too.
        holder = udp(self.here)
        self.port = holder.getsockname()[1]
        listener = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_UDP)
        if six:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        listener.bind((self.here, 0))
        self.receiver = core.Receiver(self.sources, port=self.port)
        self.receiver.add_socket(listener)
        self.sender = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_UDP)
        self.sender.bind((self.node, 0))
        sockets += [holder, listener, self.sender]

    def send(
        self,
        payload: bytes,
        length: int | None = None,
        check: int | None = None,
        cut: int | None = None,
    ) -> None:
        size = 8 + len(payload) if length is None else length
        head = struct.pack(">HHHH", 9, self.port, size, 0)
        if check is None:
            check = checksum(pack(self.node), pack(self.here), head + payload)
        head = struct.pack(">HHHH", 9, self.port, size, check)
        self.sender.sendto((head + payload)[:cut], (self.here, 0))

    def heard(self) -> tuple[int, dict[str, int]]:
        arrivals = self.receiver.receive(soon(0.1))
        counts = self.receiver.counts
        return len(arrivals), {k: n for k, n in counts.items() if n}


@pytest.fixture(params=["ipv4", "ipv6"])
def raw(
    core: ModuleType, sockets: list[socket.socket], root: None, request: pytest.FixtureRequest
) -> RawScene:
    family = socket.AF_INET if request.param == "ipv4" else socket.AF_INET6
    return RawScene(core, sockets, family)


def test_a_raw_socket_hears_a_message_with_the_right_checksum(raw: RawScene) -> None:
    raw.send(LITTLE + b"odd")
    assert raw.heard() == (1, {"accepted": 1})


def test_a_raw_socket_hears_what_a_plain_udp_socket_on_this_machine_sends(raw: RawScene) -> None:
    # Its checksum is left to a network card that loopback does not have.
    sender = udp(raw.node)
    sender.sendto(LITTLE, (raw.here, raw.port))
    sender.close()
    assert raw.heard() == (1, {"accepted": 1})


def test_a_wrong_checksum_is_never_believed(raw: RawScene) -> None:
    raw.send(LITTLE, check=0x1234)
    assert raw.heard() == (0, {"checksum": 1})


def test_no_checksum_is_legal_over_ipv4_only(raw: RawScene) -> None:
    raw.send(LITTLE, check=0)
    expected = (1, {"accepted": 1}) if raw.family == socket.AF_INET else (0, {"checksum": 1})
    assert raw.heard() == expected


def test_bytes_behind_the_udp_length_are_not_part_of_the_datagram(raw: RawScene) -> None:
    raw.send(LITTLE, length=8, check=0)
    raw.send(LITTLE, length=15, check=0)
    assert raw.heard() == (0, {"short": 2})


@pytest.mark.parametrize("length", [0, 7, 17, 65535])
def test_a_udp_length_that_cannot_be_is_malformed(raw: RawScene, length: int) -> None:
    raw.send(LITTLE, length=length)
    assert raw.heard() == (0, {"malformed": 1})


def test_a_packet_too_short_for_its_udp_header_is_malformed(raw: RawScene) -> None:
    raw.send(LITTLE, cut=7)
    assert raw.heard() == (0, {"malformed": 1})


def test_a_datagram_for_another_port_is_not_even_counted(raw: RawScene) -> None:
    sender = udp(raw.node)
    sender.sendto(LITTLE, (raw.here, raw.port ^ 1))
    sender.close()
    assert raw.heard() == (0, {})


def test_strangers_are_strangers_on_a_raw_socket_too(
    core: ModuleType, sockets: list[socket.socket], root: None
) -> None:
    raw = RawScene(core, sockets, socket.AF_INET)
    sender = udp(OTHER)
    sender.sendto(LITTLE, (raw.here, raw.port))
    sender.close()
    assert raw.heard() == (0, {"stranger": 1})


def test_ip_options_do_not_shift_the_message(
    core: ModuleType, sockets: list[socket.socket], root: None
) -> None:
    raw = RawScene(core, sockets, socket.AF_INET)
    sender = udp(NODE)
    sockets.append(sender)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01" * 7 + b"\x00")
    sender.sendto(LITTLE, (raw.here, raw.port))
    assert raw.heard() == (1, {"accepted": 1})


# ----------------------------------------------------------- when it came, and through what

SO_TIMESTAMPING = 37
STAMPS = 1 << 3 | 1 << 4
IP_PKTINFO, IPV6_RECVPKTINFO = 8, 49


def stamped(scene: Scene) -> Scene:
    """With one more socket in place of the first: the kernel stamps what it hears."""
    sock = scene.keep(udp())
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, STAMPS)
    scene.receiver.discard_socket(scene.listener)
    scene.receiver.add_socket(sock)
    scene.port = sock.getsockname()[1]
    until_stamped(scene)
    return scene


def until_stamped(scene: Scene) -> None:
    """The kernel begins to stamp a moment after it was asked to."""
    probe = scene.keep(udp())
    probe.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, STAMPS)
    while True:
        probe.sendto(b"", probe.getsockname())
        if probe.recvmsg(1, 200)[1]:
            return


def test_what_came_before_the_end_arrives_whenever_it_is_read(scene: Scene) -> None:
    stamped(scene)
    scene.send(LITTLE)
    scene.receiver.end(soon(0.2))
    time.sleep(0.4)
    assert len(scene.receiver.receive(0)) == 1
    scene.receiver.end(None)
    scene.send(LITTLE)
    assert len(scene.receiver.take()) == 1


def test_what_came_after_the_end_is_as_if_it_had_not_come(scene: Scene) -> None:
    stamped(scene)
    scene.receiver.end(time.monotonic_ns())
    scene.send(LITTLE)
    scene.send(LITTLE, OTHER)
    scene.send(b"rubbish!")
    assert scene.receiver.receive(soon(0.1)) == []
    assert scene.receiver.take() == []
    assert scene.rejected() == {}
    assert list(scene.strangers) == []


def test_without_stamps_what_is_read_after_the_end_is_late(scene: Scene) -> None:
    scene.receiver.end(soon(0.2))
    scene.send(LITTLE)
    assert len(scene.receiver.receive(soon(0.1))) == 1
    scene.send(LITTLE)
    time.sleep(0.3)
    assert scene.receiver.receive(0) == []


def test_the_end_is_none_of_what_only_counts(scene: Scene) -> None:
    scene.receiver.end(time.monotonic_ns())
    scene.send(LITTLE)
    assert scene.receiver.count(0) == 1


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_clock_that_was_set_makes_no_late_datagram_early(
    sockets: list[socket.socket], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Of the compiled core in a guest, see tests/system/guest: here nobody may set the clock."""
    scene = stamped(Scene(_purewire, sockets))
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - step * 10**9)
    scene.receiver.end(time.monotonic_ns())
    monkeypatch.setattr(time, "time_ns", real)  # which is set by so much now
    scene.send(LITTLE)
    assert scene.receiver.receive(soon(0.1)) == []


def test_the_interface_is_told_if_the_socket_tells(core: ModuleType, scene: Scene) -> None:
    scene.listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, STAMPS)
    scene.listener.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    scene.receiver.discard_socket(scene.listener)
    scene.receiver.add_socket(scene.listener)
    scene.send(LITTLE)
    scene.send(LITTLE, OTHER)
    (arrival,) = scene.receiver.receive(soon())
    assert arrival.interface == socket.if_nametoindex("lo")
    assert f"interface={arrival.interface}, " in repr(arrival)
    assert list(scene.strangers) == [(pack(OTHER), arrival.interface)]


def test_it_is_not_told_if_the_socket_does_not(scene: Scene) -> None:
    scene.send(LITTLE)
    (arrival,) = scene.receiver.receive(soon())
    assert arrival.interface == 0


def test_a_socket_that_is_discarded_is_read_no_more(scene: Scene) -> None:
    other = scene.keep(udp())
    scene.receiver.add_socket(other)
    scene.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    scene.send(LITTLE, times=50)
    dropped = scene.receiver.dropped
    assert dropped > 0
    scene.receiver.discard_socket(scene.listener)
    scene.listener.close()
    assert scene.receiver.take() == []
    assert scene.receiver.dropped == dropped
    sender = scene.keep(udp(NODE))
    sender.sendto(LITTLE, other.getsockname())
    assert len(scene.receiver.receive(soon())) == 1
    with pytest.raises(ValueError, match="not a socket of this receiver"):
        scene.receiver.discard_socket(scene.listener)

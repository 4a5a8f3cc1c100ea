# SPDX-License-Identifier: GPL-2.0-or-later
"""The send loop on real sockets, on both cores. Loopback only."""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
import threading
import time
from types import ModuleType

import pytest

from tests.conftest import udp

PAYLOAD = b"\x40\x2a\x30\x1b\x01\x00\x00\x00"
IP_RECVERR = 11
SO_ATTACH_FILTER = 26


def pack(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


@pytest.fixture
def sender(sockets: list[socket.socket]) -> socket.socket:
    sock = udp()
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    sockets.append(sock)
    return sock


def received(sock: socket.socket) -> list[bytes]:
    got = []
    try:
        while True:
            got.append(sock.recv(100, socket.MSG_DONTWAIT))
    except BlockingIOError:
        return got


def test_everybody_gets_the_payload_over_one_socket(
    core: ModuleType, sender: socket.socket, sockets: list[socket.socket]
) -> None:
    transmitter = core.Transmitter(sender, PAYLOAD)
    nodes = [udp(f"127.0.0.{number}") for number in range(2, 252)]
    sockets += nodes
    for number, node in enumerate(nodes):
        host, port = node.getsockname()
        assert transmitter.add(pack(host), port) == number
    assert len(transmitter) == 250
    assert transmitter.send() == [0] * 250
    assert [received(node) for node in nodes] == [[PAYLOAD]] * 250


def test_only_the_chosen_get_it_in_the_order_chosen(
    core: ModuleType, sender: socket.socket, sockets: list[socket.socket]
) -> None:
    transmitter = core.Transmitter(sender, PAYLOAD)
    nodes = [udp() for _ in range(4)]
    sockets += nodes
    for node in nodes:
        transmitter.add(pack("127.0.0.1"), node.getsockname()[1])
    assert transmitter.send([3, 1]) == [0, 0]
    assert [len(received(node)) for node in nodes] == [0, 1, 0, 1]
    assert transmitter.send([]) == []


def test_one_destination_that_fails_does_not_stop_the_others(
    core: ModuleType, sender: socket.socket, sockets: list[socket.socket]
) -> None:
    # A socket bound to loopback cannot send anywhere else: EINVAL, each time.
    transmitter = core.Transmitter(sender, PAYLOAD)
    node = udp()
    sockets.append(node)
    good = transmitter.add(pack("127.0.0.1"), node.getsockname()[1])
    bad = transmitter.add(pack("192.0.2.1"), 7410)
    outcomes = transmitter.send([bad, good, bad, good])
    assert [outcomes[1], outcomes[3]] == [0, 0]
    assert outcomes[0] == outcomes[2] != 0
    assert len(received(node)) == 2


def test_an_older_datagrams_error_is_not_charged_to_the_next_destination(
    core: ModuleType, sender: socket.socket, sockets: list[socket.socket]
) -> None:
    transmitter = core.Transmitter(sender, PAYLOAD)
    node, closed = udp(), udp()
    sockets.append(node)
    dead_port = closed.getsockname()[1]
    closed.close()
    dead = transmitter.add(pack("127.0.0.1"), dead_port)
    good = transmitter.add(pack("127.0.0.1"), node.getsockname()[1])
    for _ in range(20):
        # The ICMP error of the first becomes the pending error of the socket.
        assert transmitter.send([dead, good, good]) == [0, 0, 0]
    assert len(received(node)) == 40


def test_what_came_back_is_told_with_destination_and_reporter(
    core: ModuleType, sender: socket.socket
) -> None:
    transmitter = core.Transmitter(sender, PAYLOAD)
    closed = udp("127.0.0.9")
    port = closed.getsockname()[1]
    closed.close()
    transmitter.add(pack("127.0.0.9"), port)
    assert transmitter.news() == []
    assert transmitter.send() == [0]
    time.sleep(0.05)
    assert transmitter.news() == [(pack("127.0.0.9"), 0, errno.ECONNREFUSED, pack("127.0.0.9"))]
    assert transmitter.news() == []


def test_what_came_back_over_ipv6_is_told_as_well(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    sock = udp("::1")
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_IPV6, 25, 1)
    closed = udp("::1")
    port = closed.getsockname()[1]
    closed.close()
    sockets.append(sock)
    transmitter = core.Transmitter(sock, PAYLOAD)
    transmitter.add(pack("::1"), port)
    assert transmitter.send() == [0]
    time.sleep(0.05)
    assert transmitter.news() == [(pack("::1"), 0, errno.ECONNREFUSED, pack("::1"))]


def test_no_more_news_are_told_than_asked_for(core: ModuleType, sender: socket.socket) -> None:
    transmitter = core.Transmitter(sender, PAYLOAD)
    closed = udp()
    port = closed.getsockname()[1]
    closed.close()
    transmitter.add(pack("127.0.0.1"), port)
    for _ in range(3):
        transmitter.send()
    time.sleep(0.05)
    assert [len(transmitter.news(most=2)), len(transmitter.news())] == [2, 1]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_left_is_told_with_its_destination(
    core: ModuleType, sockets: list[socket.socket], host: str
) -> None:
    node, sock = udp(host), udp(host)
    sock.setblocking(False)
    sockets += [node, sock]
    transmitter = core.Transmitter(sock, PAYLOAD)
    assert transmitter.watch()
    transmitter.add(pack(host), node.getsockname()[1])
    assert transmitter.send() == [0]
    assert transmitter.news() == []  # it was not asked for
    for which in ([0, 0], None):
        outcomes = transmitter.send(which, told=True)
        found = transmitter.news()
        assert [(packed, code, by) for packed, _, code, by in found] == [
            (pack(host), 0, None) for _ in outcomes
        ]
        assert found[0][1] == (socket.if_nametoindex("lo") if ":" in host else 0)
    assert received(node) == [PAYLOAD] * 4


def test_a_socket_that_cannot_tell_says_so(core: ModuleType) -> None:
    class Deaf:
        family, type = socket.AF_INET, socket.SOCK_DGRAM

        def fileno(self) -> int:
            return pipe[0]

        def setsockopt(self, *_: object) -> None:
            raise OSError(errno.ENOTSOCK, "")

    pipe = os.pipe()
    assert core.Transmitter(Deaf(), PAYLOAD).watch() is False
    os.close(pipe[0])
    os.close(pipe[1])


def test_a_full_send_buffer_is_waited_for_but_not_for_ever(core: ModuleType) -> None:
    # A datagram socket pair stands for a device that does not drain its queue.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)

    class Narrow:
        """Looks like the UDP socket that the interface asks for."""

        family, type = socket.AF_INET, socket.SOCK_DGRAM

        def fileno(self) -> int:
            return ours.fileno()

        def sendto(self, data: bytes, flags: int, address: object) -> int:
            return ours.send(data, flags)

    try:
        while True:
            ours.send(b"x" * 1000)
    except BlockingIOError:
        pass
    transmitter = core.Transmitter(Narrow(), PAYLOAD)
    transmitter.add(pack("127.0.0.1"), 7410)
    before = time.monotonic()
    if core.IMPLEMENTATION == "compiled":
        # It names the destination itself, which a connected pair refuses at once.
        assert transmitter.send(patience_ns=50_000_000)[0] != 0
    else:
        assert transmitter.send(patience_ns=50_000_000) == [errno.EAGAIN]
        assert time.monotonic() - before >= 0.05
    ours.close()
    theirs.close()


@pytest.mark.slow
def test_it_cannot_be_used_while_it_sends_in_another_thread(core: ModuleType) -> None:
    sock = udp()
    sock.setblocking(False)
    transmitter = core.Transmitter(sock, PAYLOAD)
    for _ in range(200_000):
        transmitter.add(pack("127.0.0.1"), 9)
    refused: list[str] = []

    def send() -> None:
        transmitter.send()

    thread = threading.Thread(target=send)
    thread.start()
    while thread.is_alive() and not refused:
        try:
            transmitter.add(pack("127.0.0.1"), 9)
        except RuntimeError as error:
            refused.append(str(error))
    thread.join()
    assert refused == ["this transmitter is in use in another thread"]
    sock.close()


def test_nothing_is_pending_on_a_network_that_takes_everything(
    core: ModuleType, sender: socket.socket, sockets: list[socket.socket]
) -> None:
    node = udp()
    sockets.append(node)
    transmitter = core.Transmitter(sender, PAYLOAD)
    transmitter.add(pack("127.0.0.1"), node.getsockname()[1])
    transmitter.send()
    received(node)
    assert transmitter.pending == 0


def test_ten_thousand_destinations_need_one_descriptor(
    core: ModuleType, sender: socket.socket, sockets: list[socket.socket]
) -> None:
    node = udp("0.0.0.0")
    node.setsockopt(socket.SOL_SOCKET, 33 if os.geteuid() == 0 else socket.SO_RCVBUF, 32 << 20)
    sockets.append(node)
    port = node.getsockname()[1]
    transmitter = core.Transmitter(sender, PAYLOAD)
    for number in range(10_000):
        transmitter.add(struct.pack(">I", (127 << 24) + (1 << 16) + number), port)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Nothing may be opened any more.
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), hard))
    try:
        outcomes = transmitter.send()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert outcomes == [0] * 10_000


@pytest.mark.parametrize(
    ("packed", "port", "complaint"),
    [
        (bytes(16), 7410, "address of 16 bytes: this socket's family has 4"),
        (b"", 7410, "address of 0 bytes"),
        (bytes(4), 0, "port 0: 1 to 65535"),
        (bytes(4), 65536, "port 65536: 1 to 65535"),
    ],
)
def test_a_bad_destination_is_refused(
    core: ModuleType, sender: socket.socket, packed: bytes, port: int, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        core.Transmitter(sender, PAYLOAD).add(packed, port)


def test_a_choice_out_of_range_sends_nothing(
    core: ModuleType, sender: socket.socket, sockets: list[socket.socket]
) -> None:
    node = udp()
    sockets.append(node)
    transmitter = core.Transmitter(sender, PAYLOAD)
    transmitter.add(pack("127.0.0.1"), node.getsockname()[1])
    transmitter.add(pack("127.0.0.1"), node.getsockname()[1])
    for choice in ([0, 2], [0, -1]):
        with pytest.raises(IndexError, match="0 to 1 are allowed"):
            transmitter.send(choice)
    assert received(node) == []


def test_a_filter_decides_what_enters_the_queue(
    core: ModuleType, sender: socket.socket, sockets: list[socket.socket]
) -> None:
    node = udp()
    sockets.append(node)
    core.attach_filter(node, struct.pack("=HBBI", 0x06, 0, 0, 0))  # ret 0: drop
    sender.sendto(PAYLOAD, node.getsockname())
    core.attach_filter(node, struct.pack("=HBBI", 0x06, 0, 0, 0xFFFFFFFF))
    sender.sendto(PAYLOAD, node.getsockname())
    assert received(node) == [PAYLOAD]


def test_a_bad_filter_is_refused(core: ModuleType, sender: socket.socket) -> None:
    with pytest.raises(ValueError, match="filter of 7 bytes"):
        core.attach_filter(sender, b"1234567")
    with pytest.raises(OSError, match="Invalid argument"):
        core.attach_filter(sender, b"\xff" * 8)


def test_a_destination_may_have_a_source_and_a_payload_of_its_own(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    listener, sender = udp(), udp("0.0.0.0")
    sockets += [listener, sender]
    port = listener.getsockname()[1]
    transmitter = core.Transmitter(sender, PAYLOAD)
    expected = []
    for number in range(1, 200):
        source = f"127.3.0.{number}" if number % 3 else "127.0.0.1"
        payload = b"%d" % (number % 7) if number % 2 else None
        packed = pack(source) if number % 3 else b""
        index = transmitter.add(pack("127.0.0.1"), port, source=packed, payload=payload)
        assert index == number - 1
        expected.append((PAYLOAD if payload is None else payload, source))
    for which in (None, range(199)):
        assert transmitter.send(which) == [0] * 199
        got = [listener.recvfrom(100, socket.MSG_DONTWAIT) for _ in range(199)]
        assert [(data, address[0]) for data, address in got] == expected


def test_an_ipv6_destination_may_have_a_source_of_its_own(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    listener, sender = (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in "12")
    sockets += [listener, sender]
    listener.bind(("::1", 0))
    transmitter = core.Transmitter(sender, PAYLOAD)
    port = listener.getsockname()[1]
    transmitter.add(pack("::1"), port, source=pack("::1"), payload=b"")
    transmitter.add(pack("::1"), port, source=pack("fd77::7777"))
    assert transmitter.send() in ([0, errno.EINVAL], [0, errno.EADDRNOTAVAIL])
    assert listener.recvfrom(100)[:2] == (b"", ("::1", sender.getsockname()[1], 0, 0))


def test_a_source_that_is_none_of_this_machine_is_refused_alone(
    core: ModuleType, sender: socket.socket, sockets: list[socket.socket]
) -> None:
    listener = udp()
    sockets.append(listener)
    port = listener.getsockname()[1]
    transmitter = core.Transmitter(sender, PAYLOAD)
    transmitter.add(pack("127.0.0.1"), port, source=pack("192.0.2.77"))
    transmitter.add(pack("127.0.0.1"), port, source=pack("127.0.0.9"))
    first, second = transmitter.send()
    assert (bool(first), second) == (True, 0)
    assert received(listener) == [PAYLOAD]


def test_a_source_of_the_wrong_family_is_refused(core: ModuleType, sender: socket.socket) -> None:
    transmitter = core.Transmitter(sender, PAYLOAD)
    with pytest.raises(ValueError, match="source of 16 bytes: this socket's family has 4"):
        transmitter.add(pack("127.0.0.1"), 7410, source=pack("::1"))
    assert len(transmitter) == 0

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The send loop on real sockets, on both cores. Loopback only."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import udp
from tests.core.scene import IP_RECVERR, IPV6_RECVERR, NODE, closed_port, pack
from tests.core.scene import LITTLE as PAYLOAD

RETURN = 0x06  # of a filter: how much to keep


@pytest.fixture
def sender(sockets: list[socket.socket]) -> socket.socket:
    sock = udp("0.0.0.0")
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    sockets.append(sock)
    return sock


@pytest.fixture
def transmitter(core: ModuleType, sender: socket.socket) -> Any:
    return core.Transmitter(sender, PAYLOAD)


@pytest.fixture
def node(sockets: list[socket.socket]) -> socket.socket:
    """One that is sent to."""
    sockets.append(udp())
    return sockets[-1]


def add(transmitter: Any, node: socket.socket, **options: bytes) -> int:
    """Have messages sent to this socket; the number of the destination."""
    host, port = node.getsockname()[:2]
    return transmitter.add(pack(host), port, **options)  # type: ignore[no-any-return]


def received(sock: socket.socket) -> list[bytes]:
    got = []
    try:
        while True:
            got.append(sock.recv(100, socket.MSG_DONTWAIT))
    except BlockingIOError:
        return got


def test_everybody_gets_the_payload_over_one_socket(
    transmitter: Any, sockets: list[socket.socket]
) -> None:
    nodes = [udp(f"127.0.0.{number}") for number in range(2, 252)]
    sockets += nodes
    assert [add(transmitter, one) for one in nodes] == list(range(250))
    assert len(transmitter) == 250
    assert transmitter.send() == [0] * 250
    assert [received(one) for one in nodes] == [[PAYLOAD]] * 250


def test_only_the_chosen_get_it_in_the_order_chosen(transmitter: Any, node: socket.socket) -> None:
    for number in range(4):
        add(transmitter, node, payload=b"%d" % number)
    assert transmitter.send([3, 1]) == [0, 0]
    assert received(node) == [b"3", b"1"]
    assert transmitter.send([]) == []


def test_the_payload_can_be_replaced_for_all_that_have_none_of_their_own(
    transmitter: Any, node: socket.socket
) -> None:
    add(transmitter, node)
    add(transmitter, node, payload=b"its own")
    add(transmitter, node)
    for payload in (PAYLOAD, bytes(range(99)), b""):
        transmitter.payload = bytes(bytearray(payload))  # nobody else holds it
        assert transmitter.payload == payload
        assert transmitter.send() == transmitter.send([0, 1, 2], told=True) == [0] * 3
        assert received(node) == [payload, b"its own", payload] * 2


def test_one_destination_that_fails_does_not_stop_the_others(
    core: ModuleType, node: socket.socket, sockets: list[socket.socket]
) -> None:
    # A socket bound to loopback cannot send anywhere else: EINVAL, each time.
    sockets.append(udp())
    transmitter = core.Transmitter(sockets[-1], PAYLOAD)
    good = add(transmitter, node)
    bad = transmitter.add(pack("192.0.2.1"), 7410)
    outcomes = transmitter.send([bad, good, bad, good])
    assert [outcomes[1], outcomes[3]] == [0, 0]
    assert outcomes[0] == outcomes[2] != 0
    assert len(received(node)) == 2


def test_an_older_datagrams_error_is_not_charged_to_the_next_destination(
    transmitter: Any, node: socket.socket
) -> None:
    dead = transmitter.add(pack("127.0.0.1"), closed_port())
    good = add(transmitter, node)
    for _ in range(20):
        # The ICMP error of the first becomes the pending error of the socket.
        assert transmitter.send([dead, good, good]) == [0, 0, 0]
    assert len(received(node)) == 40


# ------------------------------------------------------------------- what the kernel tells


@pytest.mark.parametrize(
    ("host", "at", "level", "option"),
    [
        ("127.0.0.9", "127.0.0.1", socket.IPPROTO_IP, IP_RECVERR),
        ("::1", "::1", socket.IPPROTO_IPV6, IPV6_RECVERR),
    ],
)
def test_what_came_back_is_told_with_destination_and_reporter_no_more_than_asked_for(
    core: ModuleType, sockets: list[socket.socket], host: str, at: str, level: int, option: int
) -> None:
    sock = udp(at)
    sockets.append(sock)
    sock.setblocking(False)
    sock.setsockopt(level, option, 1)
    transmitter = core.Transmitter(sock, PAYLOAD)
    transmitter.add(pack(host), closed_port(host))
    assert transmitter.news() == []
    for _ in range(3):
        assert transmitter.send() == [0]
    time.sleep(0.05)
    refused = (pack(host), 0, errno.ECONNREFUSED, pack(host))
    assert transmitter.news(most=2) == [refused] * 2
    assert transmitter.news() == [refused]
    assert transmitter.news() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_left_is_told_with_its_destination(
    core: ModuleType, sockets: list[socket.socket], host: str
) -> None:
    node, sock = udp(host), udp(host)
    sock.setblocking(False)
    sockets += [node, sock]
    transmitter = core.Transmitter(sock, PAYLOAD)
    assert transmitter.watch()
    add(transmitter, node)
    assert transmitter.send() == [0]
    assert transmitter.news() == []  # it was not asked for
    interface = socket.if_nametoindex("lo") if ":" in host else 0
    for which in ([0, 0], None):
        outcomes = transmitter.send(which, told=True)
        assert transmitter.news() == [(pack(host), interface, 0, None)] * len(outcomes)
    assert received(node) == [PAYLOAD] * 4


class Pair:
    """One end of a pair of sockets, which looks like the UDP socket that the interface asks for."""

    family, type = socket.AF_INET, socket.SOCK_DGRAM

    def __init__(self) -> None:
        self.ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ours.setblocking(False)

    def fileno(self) -> int:
        return self.ours.fileno()

    def sendto(self, data: bytes, flags: int, address: object) -> int:
        return self.ours.send(data, flags)

    def setsockopt(self, *_: object) -> None:
        raise OSError(errno.ENOTSOCK, "")

    def close(self) -> None:
        self.ours.close()
        self._theirs.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


def test_a_socket_that_cannot_tell_says_so(core: ModuleType, pair: Pair) -> None:
    assert core.Transmitter(pair, PAYLOAD).watch() is False


def test_a_full_send_buffer_is_waited_for_but_not_for_ever(core: ModuleType, pair: Pair) -> None:
    # The pair stands for a device that does not drain its queue.
    with contextlib.suppress(BlockingIOError):
        while True:
            pair.ours.send(b"x" * 1000)
    transmitter = core.Transmitter(pair, PAYLOAD)
    transmitter.add(pack("127.0.0.1"), 7410)
    before = time.monotonic()
    if core.IMPLEMENTATION == "compiled":
        # It names the destination itself, which a connected pair refuses at once.
        assert transmitter.send(patience_ns=50_000_000)[0] != 0
    else:
        assert transmitter.send(patience_ns=50_000_000) == [errno.EAGAIN]
        assert time.monotonic() - before >= 0.05


def test_nothing_is_pending_on_a_network_that_takes_everything(
    transmitter: Any, node: socket.socket
) -> None:
    add(transmitter, node)
    transmitter.send()
    received(node)
    assert transmitter.pending == 0


def test_it_cannot_be_used_while_it_sends_in_another_thread(transmitter: Any) -> None:
    for _ in range(5_000):
        transmitter.add(pack("127.0.0.1"), 9)
    refused: list[str] = []
    until = time.monotonic() + 20

    def send() -> None:
        while not refused and time.monotonic() < until:
            transmitter.send()

    thread = threading.Thread(target=send)
    thread.start()
    while not refused and time.monotonic() < until:
        try:
            transmitter.add(pack("127.0.0.1"), 9)
        except RuntimeError as error:
            refused.append(str(error))
    thread.join()
    assert refused == ["this transmitter is in use in another thread"]


def test_ten_thousand_destinations_need_one_descriptor(
    transmitter: Any, sockets: list[socket.socket]
) -> None:
    node = udp("0.0.0.0")
    node.setsockopt(socket.SOL_SOCKET, 33 if os.geteuid() == 0 else socket.SO_RCVBUF, 32 << 20)
    sockets.append(node)
    port = node.getsockname()[1]
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


# ------------------------------------------------------------------------- destinations


@pytest.mark.parametrize(
    ("packed", "port", "source", "complaint"),
    [
        (bytes(16), 7410, b"", "address of 16 bytes: this socket's family has 4"),
        (b"", 7410, b"", "address of 0 bytes"),
        (bytes(4), 0, b"", "port 0: 1 to 65535"),
        (bytes(4), 65536, b"", "port 65536: 1 to 65535"),
        (bytes(4), 7410, bytes(16), "source of 16 bytes: this socket's family has 4"),
    ],
)
def test_a_bad_destination_is_refused(
    transmitter: Any, packed: bytes, port: int, source: bytes, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        transmitter.add(packed, port, source=source)
    assert len(transmitter) == 0


def test_a_choice_out_of_range_sends_nothing(transmitter: Any, node: socket.socket) -> None:
    add(transmitter, node)
    add(transmitter, node)
    for choice in ([0, 2], [0, -1]):
        with pytest.raises(IndexError, match="0 to 1 are allowed"):
            transmitter.send(choice)
    assert received(node) == []


def test_a_destination_may_have_a_source_and_a_payload_of_its_own(
    transmitter: Any, node: socket.socket
) -> None:
    expected = []
    for number in range(1, 200):
        source = f"127.3.0.{number}" if number % 3 else "127.0.0.1"
        payload = b"%d" % (number % 7) if number % 2 else None
        transmitter.add(
            pack("127.0.0.1"),
            node.getsockname()[1],
            source=pack(source) if number % 3 else b"",
            payload=payload,
        )
        expected.append((PAYLOAD if payload is None else payload, source))
    for which in (None, range(199)):
        assert transmitter.send(which) == [0] * 199
        got = [node.recvfrom(100, socket.MSG_DONTWAIT) for _ in range(199)]
        assert [(data, address[0]) for data, address in got] == expected


@pytest.mark.parametrize(
    ("host", "at", "own", "foreign"),
    [("127.0.0.1", "0.0.0.0", NODE, "192.0.2.77"), ("::1", "::", "::1", "fd77::7777")],
)
def test_a_source_that_is_none_of_this_machine_is_refused_alone(
    core: ModuleType, sockets: list[socket.socket], host: str, at: str, own: str, foreign: str
) -> None:
    node, sender = udp(host), udp(at)
    sockets += [node, sender]
    transmitter = core.Transmitter(sender, PAYLOAD)
    add(transmitter, node, source=pack(foreign))
    add(transmitter, node, source=pack(own), payload=b"")
    first, second = transmitter.send()
    assert (bool(first), second) == (True, 0)
    data, source = node.recvfrom(100)
    assert (data, source[0]) == (b"", own)
    assert received(node) == []


# ------------------------------------------------------------------------------ filters


def test_a_filter_decides_what_enters_the_queue(
    core: ModuleType, sender: socket.socket, node: socket.socket
) -> None:
    core.attach_filter(node, struct.pack("=HBBI", RETURN, 0, 0, 0))
    sender.sendto(PAYLOAD, node.getsockname())
    core.attach_filter(node, struct.pack("=HBBI", RETURN, 0, 0, 0xFFFFFFFF))
    sender.sendto(PAYLOAD, node.getsockname())
    assert received(node) == [PAYLOAD]


def test_a_bad_filter_is_refused(core: ModuleType, sender: socket.socket) -> None:
    with pytest.raises(ValueError, match="filter of 7 bytes"):
        core.attach_filter(sender, b"1234567")
    with pytest.raises(OSError, match="Invalid argument"):
        core.attach_filter(sender, b"\xff" * 8)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who is asked, how often, and which datagrams are heard as answers at all; on loopback."""

from __future__ import annotations

import _socket
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from kdumpfence import filters, keys
from kdumpfence import sockets as sockets_of_all
from kdumpfence.addresses import Address
from kdumpfence.agent import asking as module
from kdumpfence.agent.asking import INTERVAL, MOST_SENDERS, Asking, questions
from kdumpfence.agent.decision import Signatures
from tests.conftest import udp
from tests.support import packets
from tests.support.answerer import CURRENT, PREVIOUS, key_text, packet

NONCE = b"\x11" * 16
NODE, OTHER = "127.0.0.41", "127.0.0.42"

Opened = Callable[..., Asking]


def address(host: str) -> Address:
    return Address(socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host))


@pytest.fixture
def nodes(sockets: list[socket.socket]) -> tuple[socket.socket, socket.socket]:
    """Two at the same port."""
    sockets.append(udp(NODE))
    sockets.append(udp(OTHER, sockets[0].getsockname()[1]))
    return sockets[0], sockets[1]


@pytest.fixture
def ask(nodes: tuple[socket.socket, ...]) -> Iterator[Opened]:
    """Make an `Asking` for the port that the nodes are at."""
    made: list[Asking] = []

    def opened(
        asked: tuple[str, ...] = ("node1",),
        say: Callable[[Address, int, bytes, int], bool] = lambda *_: False,
    ) -> Asking:
        port = nodes[0].getsockname()[1]
        packed = [packet("question", NONCE, name=name, key=None) for name in asked]
        made.append(Asking(port, NONCE, packed, say))
        return made[-1]

    yield opened
    for asking in made:
        asking.close()


def came(sock: socket.socket) -> list[str]:
    """Whom the questions were for that lie there."""
    found: list[str] = []
    while True:
        try:
            data = sock.recv(999, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return found
        told = packets.read(data)
        assert told is not None
        assert (told.kind, told.nonce) == ("question", NONCE)
        found.append(told.name)


def answer(sock: socket.socket, data: bytes) -> None:
    """Answer the one question that came."""
    _, peer = sock.recvfrom(999)
    sock.sendto(data, peer)


# ------------------------------------------------------------------ what is asked


def test_without_a_key_the_first_name_that_fits_is_asked_for() -> None:
    for names, name in (
        (("node1", "10.0.0.1"), "node1"),
        (("x" * 65, "fe80::1%eth0"), "fe80::1%eth0"),
        (("n\xf6",), "node"),
    ):
        (data,) = questions(NONCE, names)
        told = packets.read(data)
        assert told == packets.Told("question", "", "", 0, 0, 0, 0, NONCE, name)


def test_with_a_key_each_name_is_asked_for_signed_with_its_own() -> None:
    names = ["node1", "ring1"]
    signatures = Signatures(keys.parse(key_text(CURRENT, PREVIOUS)), names)
    signed = [packet("question", NONCE, name=name, key=CURRENT) for name in names]
    assert questions(NONCE, names, signatures) == signed
    many = Signatures(keys.parse(key_text()), [f"n{number}" for number in range(1000)])
    assert len(questions(NONCE, (), many)) == module.MOST_NAMES


# ------------------------------------------------------------------ who is asked, and when


def test_all_are_asked_at_once_and_then_every_fifth_of_a_second(
    nodes: tuple[socket.socket, ...], ask: Opened
) -> None:
    asking, both = ask(), [address(NODE), address(OTHER)]
    assert asking.next_due is None
    asking.add(both)
    assert asking.next_due == 0
    asking.ask(both, 100)
    for rounds in (1, 2, 3):
        assert asking.sent == 2 * rounds
        due = asking.next_due
        assert due is not None
        assert due == pytest.approx(100 + rounds * INTERVAL)
        asking.ask(both, due - 0.001)
        assert asking.sent == 2 * rounds
        if rounds < 3:
            asking.ask(both, due)
    assert [came(sock) for sock in nodes] == [["node1"] * 3] * 2


def test_one_that_becomes_known_is_asked_before_the_next_round(
    nodes: tuple[socket.socket, ...], ask: Opened
) -> None:
    asking = ask()
    asking.ask([address(NODE)], 100)
    asking.add([address(OTHER)])
    assert asking.next_due == 0
    asking.ask([address(NODE), address(OTHER)], 100.01)
    assert [came(sock) for sock in nodes] == [["node1"], ["node1"]]


def test_its_names_take_turns(nodes: tuple[socket.socket, ...], ask: Opened) -> None:
    asking = ask(("node1", "ring1", "ring2"))
    for number in range(4):
        asking.ask([address(NODE)], 100 + number)
    assert came(nodes[0]) == ["node1", "ring1", "ring2", "node1"]


def test_no_more_than_some_are_asked_before_answers_are_heard(
    nodes: tuple[socket.socket, ...], ask: Opened
) -> None:
    asking = ask()
    many = [address(NODE)] * (module.AT_ONCE + 1)
    asking.ask(many, 100)
    assert asking.sent == module.AT_ONCE
    assert asking.next_due == 0
    asking.ask(many, 100)
    assert asking.sent == module.AT_ONCE + 1
    assert asking.next_due == 100 + INTERVAL


def test_this_machine_is_never_asked(ask: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    asking, own = ask(), address("192.0.2.1")
    monkeypatch.setattr(module, "is_own", lambda one: one == own)
    asking.add([own])
    asking.add_sender(own, 999)
    asking.ask([own], 100)
    assert (asking.sent, asking.fds) == (0, [])


@pytest.mark.parametrize("code", [errno.ENETUNREACH, errno.EPERM, errno.ENOBUFS])
def test_a_question_that_cannot_leave_is_no_error_and_asked_again(
    nodes: tuple[socket.socket, ...], ask: Opened, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    asking = ask()
    with monkeypatch.context() as patched:
        patched.setattr(sockets_of_all, "peer", fails)
        asking.ask([address(NODE)], 100)
    assert (asking.sent, asking.obstacle) == (0, "")
    asking.ask([address(NODE)], 101)
    assert came(nodes[0]) == ["node1"]


def test_who_finds_the_queue_full_is_the_first_of_the_next_round(
    nodes: tuple[socket.socket, ...], ask: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking, order = ask(), [address(f"127.0.0.{number}") for number in (51, 52, 53, 54)]
    asked: list[Address] = []

    def peer(one: Address, port: int) -> tuple[str, int]:
        asked.append(one)
        if len(asked) == 3:
            raise BlockingIOError(errno.EAGAIN, "full")
        return NODE, port

    monkeypatch.setattr(sockets_of_all, "peer", peer)
    asking.ask(order, 100)
    assert asked == order[:3]
    asking.ask(order, 101)
    assert asked[3:] == [order[2], order[3], order[0], order[1]]


def test_a_queue_that_is_full_is_that_of_a_family(
    nodes: tuple[socket.socket, ...], ask: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking, six = ask(), address("::1")
    asked: list[Address] = []

    def peer(one: Address, port: int) -> tuple[object, ...]:
        asked.append(one)
        if one != six:
            raise BlockingIOError(errno.EAGAIN, "full")
        return "::1", port, 0, 0

    monkeypatch.setattr(sockets_of_all, "peer", peer)
    asking.ask([address(NODE), address(OTHER), six], 100)
    assert asked == [address(NODE), six]


def test_a_family_that_the_kernel_lacks_is_no_obstacle(
    ask: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(module, "_open", lacks)
    asking = ask()
    asking.ask([address("::1")], 100)
    assert (asking.sent, asking.obstacle) == (0, "")


def test_without_a_descriptor_it_says_so_and_tries_again(
    nodes: tuple[socket.socket, ...], ask: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = ask()
    opened: list[socket.SocketType] = []

    class Kept(socket.SocketType):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            opened.append(self)

    with monkeypatch.context() as patched:
        patched.setattr(_socket, "socket", Kept)
        patched.setattr(filters, "attach", lambda *_: (_ for _ in ()).throw(OSError(12, "No room")))
        asking.ask([address(NODE)], 100)
    assert asking.obstacle == "cannot ask the node: cannot attach a socket filter: No room"
    assert [sock.fileno() for sock in opened] == [-1]
    asking.ask([address(NODE)], 101)
    assert came(nodes[0]) == ["node1"]


# ------------------------------------------------------------------ senders


def test_a_sender_is_asked_at_its_own_port_once_a_round_from_the_port_if_that_can_be(
    nodes: tuple[socket.socket, ...], ask: Opened
) -> None:
    port = nodes[1].getsockname()[1]
    said: list[tuple[Address, int]] = []

    def say(one: Address, to: int, _: bytes, vrf: int) -> bool:
        assert vrf == 0
        said.append((one, to))
        return len(said) > 1

    asking = ask(say=say)
    for _ in range(3):
        asking.add_sender(address(OTHER), port)
        asking.ask([], 100)
    asking.ask([], 101)
    assert said == [(address(OTHER), port)] * 2
    assert came(nodes[1]) == ["node1"], "the first could not be sent from the port"


def test_in_each_vrf_that_is_heard_it_is_asked_too(nodes: tuple[socket.socket, ...]) -> None:
    said: list[int] = []

    def say(_: Address, __: int, ___: bytes, vrf: int) -> bool:
        said.append(vrf)
        return True

    port = nodes[0].getsockname()[1]
    packed = [packet("question", NONCE, key=None)]
    asking = Asking(port, NONCE, packed, say, vrfs=lambda: (7, 8))
    asking.add_sender(address(OTHER), 99)
    asking.ask([address(NODE)], 100)
    asking.close()
    assert said == [0, 7, 8]
    assert came(nodes[0]) == ["node1"], "there are no such VRFs here"


def test_of_many_senders_the_latest_are_asked_and_few_in_a_round(ask: Opened) -> None:
    said: list[int] = []

    def say(_: Address, port: int, *__: object) -> bool:
        said.append(port)
        return True

    asking = ask(say=say)
    for rounds in range(2):
        asking.ask([], 100 + rounds)
        for port in range(1, 1001):
            asking.add_sender(address(NODE), 1000 * rounds + port)
            asking.ask([], 100 + rounds)
    # New ones of the first round, the latest of it in the second round, and new ones of that.
    assert said == [
        *range(1, MOST_SENDERS + 1),
        *range(1000, 1000 - MOST_SENDERS, -1),
        *range(1001, 1001 + MOST_SENDERS),
    ]
    assert len(asking._senders) == MOST_SENDERS


# ------------------------------------------------------------------ what is heard


@pytest.mark.parametrize("kind", ["status", "alive"])
def test_answers_come_with_where_they_come_from(
    nodes: tuple[socket.socket, ...], ask: Opened, kind: str
) -> None:
    asking = ask()
    asking.ask([address(NODE)], 100)
    answer(nodes[0], packet(kind, NONCE))
    assert asking.take() == [(address(NODE), packet(kind, NONCE))]
    assert asking.take() == []


def test_the_kernel_lets_in_nothing_but_packets_with_the_nonce(
    nodes: tuple[socket.socket, ...], ask: Opened
) -> None:
    asking = ask()
    asking.ask([address(NODE)], 100)
    _, peer = nodes[0].recvfrom(999)
    good = packet("status", NONCE)
    for data in (
        b"", good[:8], good[:-1], good + b"\0", bytes(packets.LENGTH),
        packets.replace(good, "magic", b"kdf2"), packet("status"),
        *(packets.replace(good, "nonce", NONCE[:i] + b"\0" + NONCE[i + 1 :]) for i in range(16)),
    ):  # fmt: skip
        nodes[0].sendto(data, peer)
    assert asking.take() == []
    nodes[0].sendto(good, peer)
    assert len(asking.take()) == 1


def test_what_comes_over_ipv4_is_no_answer_to_what_was_asked_over_ipv6(
    nodes: tuple[socket.socket, ...], ask: Opened, sockets: list[socket.socket]
) -> None:
    sockets.append(udp("::1", nodes[0].getsockname()[1]))
    asking = ask()
    asking.ask([address("::1")], 100)
    _, peer = sockets[-1].recvfrom(999)
    nodes[0].sendto(packet("status", NONCE), ("127.0.0.1", peer[1]))
    assert asking.take() == []
    sockets[-1].sendto(packet("status", NONCE), peer)
    assert [one for one, _ in asking.take()] == [address("::1")]


def test_a_thousand_answers_have_room_until_they_are_read(
    root: None, nodes: tuple[socket.socket, ...], ask: Opened
) -> None:
    asking = ask()
    asking.ask([address(NODE)], 100)
    _, peer = nodes[0].recvfrom(999)
    for _ in range(1000):
        nodes[0].sendto(packet("status", NONCE), peer)
    assert len(asking.take(2000)) == 1000


def test_so_many_at_a_time_and_the_rest_later(
    nodes: tuple[socket.socket, ...], ask: Opened
) -> None:
    asking = ask()
    asking.ask([address(NODE)], 100)
    _, peer = nodes[0].recvfrom(999)
    for _ in range(30):
        nodes[0].sendto(packet("status", NONCE), peer)
    assert [len(asking.take(20)) for _ in range(3)] == [20, 10, 0]


def test_what_came_before_the_end_counts_and_what_came_later_does_not(
    nodes: tuple[socket.socket, ...], ask: Opened
) -> None:
    asking = ask()
    asking.ask([address(NODE)], 100)
    _, peer = nodes[0].recvfrom(999)
    early, late = (packet("status", NONCE, name=name) for name in ("early", "late"))
    time.sleep(0.3)  # the kernel stamps in earnest only some time after it was asked to
    asking.end(time.monotonic() + 0.1)
    nodes[0].sendto(early, peer)
    time.sleep(0.2)
    nodes[0].sendto(late, peer)
    assert [data for _, data in asking.take()] == [early]


def test_after_the_end_nothing_counts_that_the_kernel_put_no_stamp_on(
    nodes: tuple[socket.socket, ...], ask: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdumpfence.agent.asking._STAMPS", 0)
    asking = ask()
    asking.ask([address(NODE)], 100)
    _, peer = nodes[0].recvfrom(999)
    answer = packet("status", NONCE)
    nodes[0].sendto(answer, peer)
    assert [data for _, data in asking.take()] == [answer]
    nodes[0].sendto(answer, peer)
    asking.end(time.monotonic())
    assert asking.take() == []


@pytest.mark.parametrize(("before", "after"), [(10**12, 0), (0, 10**12)], ids=["back", "forth"])
def test_a_clock_that_is_set_after_the_end_makes_nothing_earlier(
    nodes: tuple[socket.socket, ...],
    ask: Opened,
    monkeypatch: pytest.MonkeyPatch,
    before: int,
    after: int,
) -> None:
    asking, real = ask(), time.time_ns
    asking.ask([address(NODE)], 100)
    _, peer = nodes[0].recvfrom(999)
    time.sleep(0.3)
    monkeypatch.setattr(time, "time_ns", lambda: real() + before)
    asking.end(time.monotonic() + 0.1)
    time.sleep(0.2)
    monkeypatch.setattr(time, "time_ns", lambda: real() + after)
    nodes[0].sendto(packet("status", NONCE), peer)
    assert asking.take() == []


def test_all_descriptors_are_given_back(ask: Opened, nodes: tuple[socket.socket, ...]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        asking = ask()
        asking.ask([address(NODE), address("::1")], 100)
        assert len(asking.fds) == 2
        asking.close()
    assert len(os.listdir("/proc/self/fd")) == before

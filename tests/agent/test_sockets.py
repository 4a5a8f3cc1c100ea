# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hearing a port that others hold. Both kinds of sockets, whichever core is in use."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from kdumpfence import filters
from kdumpfence.addresses import Address
from kdumpfence.agent import sockets as module
from kdumpfence.agent.sockets import Listening, PortError
from kdumpfence.wire import OWN_MESSAGE
from tests.conftest import cannot_run, udp, unused_port
from tests.support.answerer import FOREIGN, packet

BOTH = (socket.AF_INET, socket.AF_INET6)
SO_RXQ_OVFL = 40
NODE, OTHER = "127.0.0.11", "127.0.0.12"


def address(host: str) -> Address:
    return Address(socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host))


@pytest.fixture(params=["raw", "udp"])
def listening(request: pytest.FixtureRequest) -> Iterator[Listening]:
    use_raw = request.param == "raw"
    if use_raw and os.geteuid() != 0:
        cannot_run("raw sockets need root")
    opened = Listening(unused_port(), BOTH, use_raw=use_raw)
    assert opened.raw == use_raw
    yield opened
    opened.close()


def send(port: int, data: bytes = OWN_MESSAGE, host: str = NODE, to: str = "127.0.0.1") -> None:
    sock = udp(host)
    sock.sendto(data, (to, port))
    sock.close()


def heard(listening: Listening, seconds: float) -> list[str]:
    """From where messages of known addresses came, by either receiver."""
    deadline = time.monotonic_ns() + round(seconds * 1e9)
    arrivals = listening.proof.receive(deadline, listening.census_fds)
    return [str(Address(one.packed, one.scope)) for one in [*arrivals, *listening.census.take(20)]]


def hears(listening: Listening, host: str) -> bool:
    """Whether a message from that host is heard; copies of older ones may lie before it."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if host in heard(listening, 0.1):
            return True
    return False


def all_heard(listening: Listening) -> set[str]:
    """Everybody who is heard within half a second."""
    end = time.monotonic() + 0.5
    hosts: set[str] = set()
    while time.monotonic() < end:
        hosts.update(heard(listening, 0.1))
    return hosts


def test_a_known_address_is_heard_in_both_families(listening: Listening) -> None:
    listening.add([address(NODE), address("::1")])
    listening.add([address(OTHER)])  # one that became known later
    for host, to in ((NODE, "127.0.0.1"), ("::1", "::1"), (OTHER, "127.0.0.1")):
        send(listening.port, host=host, to=to)
        assert hears(listening, host)


def test_what_is_rejected_is_counted_and_strangers_are_remembered(listening: Listening) -> None:
    listening.add([address(NODE)])
    send(listening.port, host=OTHER)
    send(listening.port, b"", host=OTHER)
    send(listening.port, b"rubbish!", host=OTHER)
    send(listening.port, OWN_MESSAGE[:4] + b"\2\0\0\0", host=OTHER)
    assert all_heard(listening) == set()
    counts = {name: number for name, number in listening.counts.items() if number}
    assert counts == {"stranger": 1, "short": 1, "magic": 1, "version": 1}
    assert list(listening.strangers) == [(address(OTHER).packed, 1)]  # by lo


def test_what_the_queue_had_no_room_for_is_counted_though_no_datagram_carries_that_count(
    own_network: None, listening: Listening
) -> None:
    listening.add([address(NODE)])
    census = [sock for sock in listening._sockets if sock.fileno() in listening.census_fds]
    assert len(census) == 2
    for sock in listening._sockets:
        assert sock.getsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL) == 0
    for sock in census:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sender = udp(OTHER)
    for _ in range(200):
        sender.sendto(OWN_MESSAGE, ("127.0.0.1", listening.port))
    sender.close()
    listening.census.take(20)
    counts = {name: number for name, number in listening.counts.items() if number}
    assert counts == {"stranger": counts["stranger"], "unread": 200 - counts["stranger"]}
    assert 0 < counts["stranger"] < 200


def test_nothing_but_messages_of_the_node_enters_the_proof_queue(listening: Listening) -> None:
    listening.add([address(NODE)])
    for _ in range(50):
        send(listening.port, host=OTHER)
        send(listening.port, b"rubbish!", host=NODE)
        send(listening.port, b"", host=NODE)
    send(listening.port)
    assert len(listening.proof.take(batches=20)) == 1
    assert {name for name, number in listening.proof.counts.items() if number} == {"accepted"}


@pytest.mark.slow
def test_two_listeners_for_different_nodes_hear_each_its_own(listening: Listening) -> None:
    second = Listening(listening.port, BOTH, use_raw=listening.raw)
    listening.add([address(NODE)])
    second.add([address(OTHER)])
    send(listening.port)
    send(listening.port, host=OTHER)
    assert all_heard(listening) == {NODE}
    assert all_heard(second) == {OTHER}
    second.close()


def test_raw_listeners_for_the_same_node_all_hear_it(root: None) -> None:
    port = unused_port()
    several = [Listening(port, BOTH) for _ in range(5)]
    for one in several:
        one.add([address(NODE)])
    send(port)
    assert all(hears(one, NODE) for one in several)
    for one in several:
        one.close()


@pytest.mark.parametrize("first", ["holder", "listener"])
def test_a_program_that_holds_the_port_alone_is_not_disturbed(root: None, first: str) -> None:
    port = unused_port()
    if first == "holder":
        holder = udp("0.0.0.0", port)
        listener = Listening(port, BOTH)
    else:
        listener = Listening(port, BOTH)
        holder = udp("0.0.0.0", port)  # would fail if the listener held the port
    listener.add([address(NODE)])
    send(port)
    assert hears(listener, NODE)
    assert holder.recv(100, socket.MSG_DONTWAIT) == OWN_MESSAGE
    holder.close()
    listener.close()


def test_without_raw_sockets_a_held_port_is_waited_for() -> None:
    port = unused_port()
    holder = udp("0.0.0.0", port)
    listener = Listening(port, (socket.AF_INET,), use_raw=False)
    listener.add([address(NODE)])
    assert "held by another program" in listener.obstacle
    assert listener.next_try is not None
    holder.close()
    time.sleep(module.RETRY)
    listener.retry()
    assert listener.obstacle == ""
    assert not listener.next_try
    send(port)
    assert hears(listener, NODE)
    listener.close()


def test_without_raw_sockets_those_who_share_the_port_keep_what_is_theirs() -> None:
    port = unused_port()
    sharer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sharer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sharer.bind(("", port))
    listener = Listening(port, (socket.AF_INET,), use_raw=False)
    listener.add([address(NODE)])
    send(port, host=OTHER)
    assert sharer.recv(100, socket.MSG_DONTWAIT) == OWN_MESSAGE
    send(port)
    assert hears(listener, NODE)
    sharer.close()
    listener.close()


def test_without_raw_sockets_a_way_that_does_not_exist_costs_no_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RETRY", 0)
    listening = Listening(unused_port(), (socket.AF_INET,), use_raw=False)
    listening.add([address("127.255.255.255")])  # connecting to a broadcast address fails
    assert listening.next_try is not None
    sender = udp(OTHER)
    sending = threading.Thread(target=send_slowly, args=(sender, listening.port))
    sending.start()
    while sending.is_alive():
        listening.retry()
        listening.census.take(20)
    listening.census.take(256)
    assert listening.counts["stranger"] == 2000
    sender.close()
    listening.close()


def send_slowly(sender: socket.socket, port: int) -> None:
    for _ in range(2000):
        sender.sendto(OWN_MESSAGE, ("127.0.0.1", port))
        time.sleep(0.0001)


def test_a_port_that_may_not_be_had_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "_open_udp", refuse)
    with pytest.raises(PortError, match="port 7410/udp: Permission denied"):
        Listening(7410, BOTH, use_raw=False)


def test_a_family_that_the_kernel_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._open_udp

    def no_ipv6(family: int, port: int, share: bool, **more: bool) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, port, share, **more)  # type: ignore[return-value]

    monkeypatch.setattr(module, "_open_udp", no_ipv6)
    listener = Listening(unused_port(), BOTH, use_raw=False)
    listener.add([address(NODE), address("::1")])
    send(listener.port)
    assert hears(listener, NODE)
    assert listener.next_try is None
    listener.close()


def test_no_descriptor_leaks() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for use_raw in (True, False):
        for _ in range(5):
            listener = Listening(unused_port(), BOTH, use_raw=use_raw)
            listener.add([address(NODE), address("::1")])
            listener.close()
    assert len(os.listdir("/proc/self/fd")) == before


# --------------------------------------------------------------- filters that are refused


def refuse(monkeypatch: pytest.MonkeyPatch, longest: int) -> None:
    """Let the kernel take no filter with more instructions."""
    real = filters.attach

    def attach(sock: socket.socket, instructions: list[filters.Instruction]) -> None:
        if len(instructions) > longest:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        real(sock, instructions)

    monkeypatch.setattr(filters, "attach", attach)


def test_a_filter_that_is_too_long_gives_way_to_one_without_addresses(
    root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = len(filters.program("raw4", 1, messages_only=True))
    refuse(monkeypatch, small + 4)
    listener = Listening(unused_port(), (socket.AF_INET,))
    listener.add([address(NODE)])
    listener.add([address(OTHER)])
    for sock in listener._sockets:  # so only the proof queue can have it
        if sock.fileno() in listener.census_fds:
            filters.attach(sock, filters.NOTHING)
    for _ in range(100):
        send(listener.port, b"rubbish!", host=OTHER)
    send(listener.port, host=OTHER)
    assert [one.packed for one in listener.proof.take(20)] == [address(OTHER).packed]
    listener.close()


@pytest.mark.parametrize("use_raw", [True, False])
def test_without_a_guard_there_is_no_listening(
    root: None, monkeypatch: pytest.MonkeyPatch, use_raw: bool
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for longest in (0, 1):
        refuse(monkeypatch, longest)
        with pytest.raises(PortError, match="cannot attach a socket filter: Cannot allocate"):
            Listening(unused_port(), BOTH, use_raw=use_raw)
        monkeypatch.undo()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_filter_that_is_refused_later_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listening(unused_port(), (socket.AF_INET,), use_raw=False)
    refuse(monkeypatch, 0)
    listener.add([address(NODE)])
    assert listener.obstacle == "cannot attach a socket filter: Cannot allocate memory"
    monkeypatch.undo()
    time.sleep(module.RETRY)
    listener.retry()
    assert listener.obstacle == ""
    send(listener.port)
    assert hears(listener, NODE)
    listener.close()


def test_without_netlink_udp_sockets_have_to_do(
    root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hear what they may; raw sockets cannot do without, for VRFs have to be known."""

    def refused() -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(module, "Links", refused)
    listener = Listening(unused_port(), (socket.AF_INET,))
    assert not listener.raw
    assert listener.fds == []
    assert not listener.changed()
    listener.add([address(NODE)])
    send(listener.port)
    assert hears(listener, NODE)
    listener.close()


# ------------------------------------------------------------------ signed packets alone


@pytest.fixture
def signed(root: None) -> Iterator[Listening]:
    opened = Listening(unused_port(), BOTH, names=["node1", "ring1"])
    assert opened.raw
    yield opened
    opened.close()


def test_packets_of_the_node_are_heard_from_whatever_address(signed: Listening) -> None:
    sent = [packet("status", name=name, key=key) for name in ("node1", "ring1")
            for key in (None, FOREIGN)]  # fmt: skip
    for number, data in enumerate(sent):
        send(signed.port, data, host=f"127.0.3.{number + 1}")
    send(signed.port, packet("status"), host="::1", to="::1")
    for data in (OWN_MESSAGE, packet("status", name="node2"), packet("alive"), sent[0] + b"x"):
        send(signed.port, data)
    arrivals = signed.look(0, 100)
    assert [one.message.trailer for one in arrivals if len(one.packed) == 4] == [
        data[8:] for data in sent
    ]
    assert [one.packed for one in arrivals if len(one.packed) == 16] == [address("::1").packed]


def test_whoever_sent_before_there_is_room_for_the_next(
    root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_SENDERS", 4)
    listening = Listening(unused_port(), (socket.AF_INET,), names=["node1"])
    for number in range(1, 20):
        send(listening.port, packet("status"), host=f"127.0.3.{number}")
        (heard_one,) = listening.look(0, 1)
        assert heard_one.packed == address(f"127.0.3.{number}").packed
    listening.close()


def test_nothing_that_comes_to_the_port_is_waited_for_then(signed: Listening) -> None:
    assert len(signed.census_fds) == 4
    assert not signed.look(1, 1)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_something_can_be_said_from_the_port_though_another_program_has_it(
    signed: Listening, family: int
) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with udp(host, signed.port), udp(host) as receiver:
        receiver.settimeout(10)
        assert signed.say(address(host), receiver.getsockname()[1], b"x" * 151, 0)
        data, peer = receiver.recvfrom(999)
    assert (data, peer[:2]) == (b"x" * 151, (host, signed.port))


def test_without_raw_sockets_that_cannot_be() -> None:
    listening = Listening(unused_port(), BOTH, use_raw=False, names=["node1"])
    assert not listening.say(address(NODE), 1, b"x", 0)
    listening.add([address(NODE)])
    send(listening.port, packet("status"))
    assert [one.message.trailer for one in listening.look(1, 1)] == [packet("status")[8:]]
    listening.close()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Listener answers who asks whether this machine is alive, and only so. With each core."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdumpfence import keys
from kdumpfence.listener import answers, reader
from kdumpfence.wire import PACKET_BYTES, Packet, decode_packet, encode_packet, packet_fits
from tests.conftest import udp
from tests.listener.conftest import A, B, C, MakeListener, TrialListener, kinds, wait_for

CLUSTER = bytes(range(32))
KEYS = keys.Keys((keys.key_id(CLUSTER), CLUSTER))


def question(
    node: str = "node1", signed_by: bytes = b"", nonce: bytes = b"0123456789abcdef"
) -> bytes:
    """One that asks for this node; `signed_by`: the cluster's key."""
    key = keys.node_key(signed_by, node) if signed_by else b""
    key_id = keys.key_id(signed_by) if signed_by else 0
    return encode_packet(Packet("question", node, key_id=key_id, nonce=nonce), key)


class Asker:
    """Asks from one address, and gets answers there."""

    def __init__(self, host: str = C, to: str = "127.0.0.1") -> None:
        self.sock = udp(host)
        self.to = to

    def ask(self, listening: TrialListener, data: bytes | None = None) -> None:
        self.sock.sendto(question() if data is None else data, (self.to, listening.port))

    def answer(self, seconds: float = 20.0) -> tuple[bytes, tuple[Any, ...]] | None:
        """The next answer and where it came from; None if none comes."""
        if not select.select([self.sock], [], [], seconds)[0]:
            return None
        data, sender = self.sock.recvfrom(4096)
        return data, sender


@pytest.fixture
def asker() -> Iterator[Asker]:
    made = Asker()
    yield made
    made.sock.close()


def answered(asker: Asker, listening: TrialListener, data: bytes | None = None) -> Packet:
    """The packet that answers this question."""
    asker.ask(listening, data)
    found = asker.answer()
    assert found is not None
    packet = decode_packet(found[0])
    assert packet is not None
    return packet


def test_a_question_is_answered_alive_with_its_nonce_and_our_name(
    listen: MakeListener, asker: Asker
) -> None:
    listening = listen([A], answer_as="node1")
    data = question(nonce=b"n" * 16)
    assert answered(asker, listening, data) == Packet("alive", "node1", nonce=b"n" * 16)
    listening.wait_for_count("question", 1)
    wait_for(lambda: listening.snapshot().answers == 1)
    assert listening.events(0.05) == []


def test_the_answer_comes_from_where_the_question_was_sent_to(listen: MakeListener) -> None:
    listening = listen([A], answer_as="node1")
    for host in ("127.0.0.1", "127.99.1.2"):
        asker = Asker(to=host)
        asker.ask(listening)
        found = asker.answer()
        assert found is not None
        assert found[1] == (host, listening.port)
        asker.sock.close()


@pytest.mark.usefixtures("ipv6")
def test_it_answers_over_ipv6(listen: MakeListener) -> None:
    listening = listen([A], answer_as="node1")
    asker = Asker("::1", to="::1")
    assert answered(asker, listening).kind == "alive"
    asker.sock.close()


def test_no_answer_is_larger_than_its_question(listen: MakeListener, asker: Asker) -> None:
    listening = listen([A], answer_as="n" * 64, keys=KEYS)
    for data in (question(), question(signed_by=CLUSTER)):
        asker.ask(listening, data)
        found = asker.answer()
        assert found is not None
        assert len(found[0]) == len(data) == PACKET_BYTES


def test_answers_are_signed_with_the_key_of_the_node_if_there_is_one(
    listen: MakeListener, asker: Asker
) -> None:
    own = keys.node_key(CLUSTER, "node1")
    listening = listen([A], answer_as="node1", keys=KEYS)
    for data in (question(), question(signed_by=CLUSTER), question("node2", signed_by=CLUSTER)):
        asker.ask(listening, data)
        found = asker.answer()
        assert found is not None
        assert packet_fits(found[0], own)
    node = KEYS.of("node1")  # what a node's own key file has
    listening.answer_as("node1", node)
    assert answered(asker, listening).key_id == KEYS.signs[0]
    listening.answer_as("node2", node)
    packet = answered(asker, listening)
    assert (packet.name, packet.key_id) == ("node2", 0)


def test_who_asks_for_another_node_is_answered_and_that_is_known(
    listen: MakeListener, asker: Asker
) -> None:
    listening = listen([A], answer_as="node1.example")
    assert answered(asker, listening, question("192.0.2.1")).name == "node1.example"
    assert answered(asker, listening, question("NODE1.Example")).name == "node1.example"
    assert listening.snapshot().asked_for == ""
    assert answered(asker, listening, question("node1")).name == "node1.example"
    seen = listening.snapshot()
    assert (seen.asked_for, seen.answers_as) == ("node1", "node1.example")
    listening.answer_as("node1")
    assert listening.snapshot().asked_for == ""  # that may be right now


def test_a_crash_kernel_does_not_answer(
    listen: MakeListener, asker: Asker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vmcore = tmp_path / "vmcore"
    assert answers.VMCORE == "/proc/vmcore"
    monkeypatch.setattr(answers, "VMCORE", str(vmcore))
    listening = listen([A], answer_as="node1")
    vmcore.touch()
    asker.ask(listening)
    assert asker.answer(0.5) is None
    assert listening.counted() == {"question": 1}
    vmcore.unlink()
    assert answered(asker, listening).kind == "alive"
    wait_for(lambda: listening.snapshot().answers == 1)


class Cut(socket.socket):
    """From which the first answer finds no way."""

    tries = 0

    def sendmsg(self, *arguments: Any) -> int:
        assert arguments[2] & socket.MSG_DONTWAIT  # what waits for neighbours is full sometimes
        self.tries += 1
        if self.tries == 1:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        return super().sendmsg(*arguments)


def test_an_answer_that_cannot_leave_keeps_no_other_from_leaving(
    listen: MakeListener, asker: Asker
) -> None:
    sock = Cut(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    listening = listen([A], answer_as="node1", sockets=[sock])
    asker.ask(listening, question(nonce=b"1" * 16))
    assert answered(asker, listening, question(nonce=b"2" * 16)).nonce == b"2" * 16
    wait_for(lambda: listening.snapshot().answers == 1)


def test_without_being_told_to_it_answers_nothing(listen: MakeListener, asker: Asker) -> None:
    listening = listen([A])
    asker.ask(listening)
    listening.wait_for_count("question", 1)
    assert asker.answer(0.3) is None
    with pytest.raises(RuntimeError, match="answers no questions"):
        listening.answer_as("node1")


@pytest.mark.parametrize("name", ["", "a b", "n" * 65, "n\u00f6de"])
def test_a_name_that_no_packet_can_carry_is_refused(
    listen: MakeListener, name: str, leaves_nothing: Callable[[], bool]
) -> None:
    with pytest.raises(ValueError, match="not 1 to 64 ASCII characters"):
        listen([A], answer_as=name)


@pytest.mark.parametrize("signed_by", [b"", CLUSTER])
def test_fifty_a_second_are_answered(listen: MakeListener, asker: Asker, signed_by: bytes) -> None:
    listening = listen([A], answer_as="node1", keys=KEYS)
    data = question(signed_by=signed_by)
    started = time.monotonic()
    for _ in range(20):
        for _ in range(10):
            asker.ask(listening, data)
        time.sleep(0.05)
    took = time.monotonic() - started
    listening.wait_for_count("question", 200)
    time.sleep(0.2)
    assert 50 * took - 5 <= listening.snapshot().answers <= 50 * (took + 1)


@pytest.mark.slow
@pytest.mark.parametrize("key_id", [0, KEYS.signs[0], KEYS.signs[0] ^ 1])
def test_a_flood_of_forged_questions_keeps_no_true_one_from_its_answer_and_loses_no_message(
    listen: MakeListener, asker: Asker, key_id: int
) -> None:
    listening = listen([A], answer_as="node1", keys=KEYS)
    forged = bytearray(question(signed_by=CLUSTER))
    forged[14], forged[16:20], forged[150] = key_id != 0, key_id.to_bytes(4, "big"), 0
    if not key_id:
        forged[120:] = bytes(32)
    nonce = 0
    with udp(B) as flooder:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            # As many as the queue holds; then the true one, and a message.
            for _ in range(200):
                flooder.sendto(forged, ("127.0.0.1", listening.port))
            nonce += 1
            sent = nonce.to_bytes(16, "big")
            packet = answered(asker, listening, question(signed_by=CLUSTER, nonce=sent))
            assert (packet.kind, packet.nonce) == ("alive", sent)
            listening.say(A)
            time.sleep(0.03)  # within the limit of the true ones
    wait_for(lambda: listening.snapshot().counts["accepted"] == nonce)
    assert listening.counted()["question"] == 201 * nonce
    assert listening.snapshot().counts["unread"] == 0


def test_a_flood_of_rubbish_is_fenced_off_and_messages_and_questions_pass(
    listen: MakeListener, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "UPKEEP", 0.05)
    listening = listen([A], answer_as="node1", sockets=[shallow()], receive_buffer=1)
    overflow(listening, b"x" * 8)
    wait_for(lambda: rubbish_is_dropped(listening))
    assert answered(asker, listening).kind == "alive"
    listening.say(A)
    assert "began" in kinds(listening.until(lambda events: "began" in kinds(events)))


def test_a_flood_of_questions_is_fenced_off_for_a_while_and_messages_pass(
    listen: MakeListener, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "UPKEEP", 0.05)
    monkeypatch.setattr(reader, "FENCE", 2.0)
    monkeypatch.setattr(reader, "FLOOD", 10)
    listening = listen([A], answer_as="node1", sockets=[shallow()], receive_buffer=1)
    overflow(listening, question())

    def is_heard() -> bool:
        before = listening.snapshot().counts["question"]
        asker.ask(listening)
        time.sleep(0.1)
        return listening.snapshot().counts["question"] > before

    def is_fenced_off() -> bool:
        if is_heard():  # a busy machine may look when it is over already
            overflow(listening, question())
            return False
        return True

    wait_for(is_fenced_off)
    listening.say(A)
    assert "began" in kinds(listening.until(lambda events: "began" in kinds(events)))
    wait_for(is_heard)  # who goes on asking is answered in the end
    assert answered(asker, listening).kind == "alive"


def shallow() -> socket.socket:
    """A socket that has room for few datagrams."""
    sock = udp()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    return sock


def overflow(listening: TrialListener, data: bytes) -> None:
    """Send more of these than the queue holds, until some are lost."""
    with udp(B) as flooder:

        def flood() -> bool:
            for _ in range(2000):
                flooder.sendto(data, ("127.0.0.1", listening.port))
            return listening.snapshot().counts["unread"] > 0

        wait_for(flood)


def rubbish_is_dropped(listening: TrialListener) -> bool:
    before = listening.snapshot().counts
    listening.say(B, b"y" * 8)
    time.sleep(0.05)
    after = listening.snapshot().counts
    return after["magic"] == before["magic"] and after["unread"] > before["unread"]


def test_it_leaves_nothing_when_it_is_closed(
    listen: MakeListener, leaves_nothing: Callable[[], bool], asker: Asker
) -> None:
    listening = listen([A], answer_as="node1")
    assert answered(asker, listening).kind == "alive"
    listening.close()
    asker.sock.close()
    wait_for(leaves_nothing)

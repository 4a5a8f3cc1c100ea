# SPDX-License-Identifier: LGPL-2.1-or-later
"""Questions that come to the port that messages leave from, on loopback, in each of the forms.

tests/system/network/test_asked_senders.py asks on the agents' port, and over networks.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdumpfence import filters
from kdumpfence.addresses import Address
from kdumpfence.log import Report
from kdumpfence.sender import answers
from kdumpfence.sender.main import main
from kdumpfence.sender.options import sender_from_argv
from kdumpfence.sender.status import Status
from kdumpfence.wire import OWN_MESSAGE, Packet, encode_packet, packet_fits
from tests.conftest import udp
from tests.sender.asker import Asker, answered, burst, nonces, question
from tests.sender.conftest import KEY_ID, key_of, packet_of
from tests.support import mute
from tests.support.programs import FORMS, start, unwarned, wait_for_line


@pytest.fixture
def asker(form: str) -> Iterator[Asker]:
    """Of a sender without any option that is about packets."""
    with Asker(form, "127.0.0.1", "-i", "60") as asking:
        yield asking


@pytest.fixture
def trusted(form: str, key_file: str) -> Iterator[Asker]:
    """Of a sender that has a key."""
    with Asker(form, "127.0.0.1", "-i", "60", "--key-file", key_file) as asking:
        yield asking


# ------------------------------------------------------------------------------ answers


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_whoever_asks_is_answered_with_a_status(form: str, host: str) -> None:
    with Asker(form, host, "-i", "60") as asker:
        assert asker.message == OWN_MESSAGE
        nonce = next(nonces)
        asker.asks(question(nonce, name="whatever-others-call-it"))
        data, source = asker.sock.recvfrom(1000)
        assert source == asker.lane
        assert data[:8] == OWN_MESSAGE
        answer = packet_of(data)
        assert (answer.kind, answer.state, answer.nonce) == ("status", "dumping", nonce)
        assert (answer.name, answer.key_id) == (os.uname().nodename, 0)
        assert (answer.interval, answer.sequence) == (60_000, 1)
        assert asker.hears() == []  # once
        again = asker.is_answered()
        assert (again.session, again.sequence) == (answer.session, 2)
        assert "question" not in asker.end()


def test_an_answer_says_what_the_messages_say(form: str, key_file: str) -> None:
    argv = ("--state=failed", "--key-file", key_file, "-i", "60")
    with Asker(form, "127.0.0.1", *argv) as asker:
        message = packet_of(asker.message)
        nonce = next(nonces)
        asker.asks(question(nonce))  # need not be signed
        data = asker.sock.recv(1000)
    answer = packet_of(data)
    assert (answer.state, answer.name, answer.nonce) == ("failed", "node1", nonce)
    assert (answer.session, answer.sequence) == (message.session, 2)
    assert answer.key_id == KEY_ID
    assert packet_fits(data, key_of("node1"))


def test_answers_come_between_the_messages_of_a_count(form: str) -> None:
    with Asker(form, "127.0.0.1", "--state=finished", "-c", "2", "-i", "3") as asker:
        assert asker.is_answered(within=2.5).sequence == 2
        asker.sock.settimeout(20)
        message = packet_of(asker.sock.recv(1000))
        assert (message.sequence, message.nonce) == (3, bytes(16))
        _, errors = asker.process.communicate(timeout=20)
        assert (asker.process.returncode, unwarned(errors)) == (0, "")


def no_questions() -> list[bytes]:
    whole = question(next(nonces))
    status = Packet("status", "n", state="dumping", nonce=next(nonces))
    alive = Packet("alive", "n", nonce=next(nonces))
    return [
        *(bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]]) for at in range(16)),
        *(whole[:length] for length in (0, 7, 8, 119, 120, 151)),
        whole + b"\0",
        whole[:120] + bytes(31) + b"\1",  # a MAC without a key
        whole[:56] + bytes(64) + whole[120:],  # nobody's name
        OWN_MESSAGE,
        OWN_MESSAGE + whole[8:],
        encode_packet(status),
        encode_packet(alive),
    ]


def test_what_is_no_question_is_not_answered(asker: Asker) -> None:
    asker.asks(*no_questions())
    assert asker.is_answered().sequence == 1
    assert asker.hears() == []


@pytest.mark.parametrize("form", [form for form in FORMS if form != "static"])
def test_where_the_kernel_takes_no_filter_it_is_not_answered_either(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD", mute.library(tmp_path, True, "SO_ATTACH_FILTER"))
    asker = Asker(form, "127.0.0.1", "-i", "60")
    monkeypatch.delenv("LD_PRELOAD")
    asker.asks(b"", b"rubbish", *no_questions())
    assert asker.is_answered().sequence == 1
    assert asker.hears() == []
    asker.asks(*burst(60))
    assert len(asker.hears()) <= 50
    asker.end()


def test_a_stranger_gets_a_signed_answer_too(trusted: Asker) -> None:
    answer = trusted.is_answered(key=key_of("node2"))
    assert (answer.name, answer.key_id) == ("node1", KEY_ID)


def test_each_answer_is_a_line_at_verbosity_2(form: str) -> None:
    with Asker(form, "127.0.0.1", "-vv", "-i", "60") as asker:
        asker.asks(question(next(nonces)))
        line = f"[debug]: question from 127.0.0.1 port {asker.port}: answered\n"
        assert wait_for_line(asker.process, line)


# ------------------------------------------------- limits; test_shares.py has more of them


def test_fifty_questions_a_second_are_answered(asker: Asker) -> None:
    for _ in range(2):
        asker.asks(*burst(200))
        assert len(asker.hears()) == 50
        time.sleep(1)


def test_whoever_has_the_key_has_a_share_of_their_own(trusted: Asker) -> None:
    unsigned, signed = burst(150), burst(100, key_of("node1"))
    trusted.asks(*unsigned, *signed)
    heard = trusted.hears()
    assert (answered(heard, unsigned), answered(heard, signed)) == (50, 50)
    time.sleep(1)
    forged, signed = burst(100, key_of("node2")), burst(100, key_of("node1"))
    trusted.asks(*forged, *signed)
    heard = trusted.hears()
    assert (answered(heard, forged), answered(heard, signed)) == (50, 50)


def test_whoever_has_the_key_takes_nothing_from_the_others(trusted: Asker) -> None:
    signed, unsigned = burst(100, key_of("node1")), burst(150)
    trusted.asks(*signed, *unsigned)
    heard = trusted.hears()
    assert (answered(heard, signed), answered(heard, unsigned)) == (50, 50)


def test_whoever_gives_another_id_for_our_key_is_a_stranger(trusted: Asker) -> None:
    other_id = [
        encode_packet(Packet("question", "node1", key_id=KEY_ID ^ 1, nonce=nonce), key_of("node1"))
        for nonce in itertools.islice(nonces, 60)
    ]
    unsigned = burst(60)
    trusted.asks(*other_id, *unsigned)
    heard = trusted.hears()
    assert (answered(heard, other_id), answered(heard, unsigned)) == (50, 0)


def test_when_those_with_the_key_had_their_share_nobody_with_its_id_gets_another(
    trusted: Asker,
) -> None:
    signed, forged = burst(60, key_of("node1")), burst(20, key_of("node2"))
    trusted.asks(*signed, *forged)
    heard = trusted.hears()
    assert (answered(heard, signed), answered(heard, forged)) == (50, 0)


#: What floods with one and the same datagram, 100,000 a second, until it is killed; it tells when
#: it has begun.
FLOOD = """if True:
    import socket, sys, time
    from kdumpfence import wire
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        flood = wire.Transmitter(sock, bytes.fromhex(sys.argv[2]))
        for _ in range(500):
            flood.add(socket.inet_aton("127.0.0.1"), int(sys.argv[1]))
        began = time.monotonic()
        for turn in range(10**9):
            flood.send()
            if turn == 40:
                print("so many", flush=True)
            time.sleep(max(0, began + turn / 200 - time.monotonic()))
"""

STRANGERS = {
    "unsigned": encode_packet(Packet("question", "node1")),
    "of another key": encode_packet(Packet("question", "node1", key_id=KEY_ID ^ 1), bytes(32)),
    "with our key's id": encode_packet(Packet("question", "node1", key_id=KEY_ID), bytes(32)),
}


@contextlib.contextmanager
def flood(asker: Asker, data: bytes) -> Iterator[None]:
    """100,000 a second, while the `with` lasts."""
    flooding = start([sys.executable, "-c", FLOOD, str(asker.lane[1]), data.hex()], "compiled")
    try:
        assert wait_for_line(flooding, "so many")
        yield
    finally:
        flooding.kill()
        flooding.communicate()


@pytest.mark.parametrize("kind", STRANGERS)
@pytest.mark.slow
@pytest.mark.alone
def test_in_a_flood_the_true_question_is_answered_within_a_second(
    trusted: Asker, kind: str
) -> None:
    with flood(trusted, STRANGERS[kind]):
        for _ in range(5):
            nonce = next(nonces)
            ends = time.monotonic() + 1
            heard: list[bytes] = []
            while not answered(heard, [question(nonce)]):
                assert time.monotonic() < ends
                trusted.asks(question(nonce, key_of("node1")))  # as agents do
                heard = trusted.hears(0.2)


@pytest.mark.parametrize("kind", ["unsigned", "of another key", "no question"])
@pytest.mark.alone
@pytest.mark.slow
def test_a_flood_takes_no_time_from_the_dump(trusted: Asker, kind: str) -> None:
    def seconds() -> float:
        with open(f"/proc/{trusted.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    with flood(trusted, STRANGERS.get(kind, OWN_MESSAGE)):
        before = seconds()
        time.sleep(3)
        assert seconds() - before < 0.3


# ---------------------------------------------------------------------------- in Python


class FakeDelivery:
    """With one lane, as far as `Answers` looks at them."""

    def __init__(self) -> None:
        self.sock = udp()
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        self.transmitter = self
        self.pending = 0
        self.known = True

    def lanes(self) -> list[FakeDelivery]:
        return [self]

    def knows(self, address: Address) -> bool:
        return self.known


class Scene:
    """Answers of a sender with a key, and somebody who asks."""

    def __init__(self, key_file: str) -> None:
        options = sender_from_argv(["--key-file", key_file, "127.0.0.1"])
        self.answers = answers.Answers(7410, Status(options), Report("test"))
        self.lane = FakeDelivery()
        self.asker = udp()
        self.asker.setblocking(False)
        self.asker.connect(self.lane.sock.getsockname())

    def asks(self, *asked: bytes) -> int:
        """How many of them are answered."""
        for data in asked:
            self.asker.send(data)
        self.answers.answer(self.lane)  # type: ignore[arg-type]
        self.heard = []
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard.append(self.asker.recv(1000))
        return answered(self.heard, list(asked))

    @property
    def lets_in(self) -> set[str]:
        """What the kernel passes."""
        kinds = {
            "unsigned": question(next(nonces)),
            "signed": question(next(nonces), key_of("node1")),
        }
        for data in kinds.values():
            self.asker.send(data)
        passed = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                passed.add(self.lane.sock.recv(1000))
        return {kind for kind, data in kinds.items() if data in passed}


@pytest.fixture
def scene(key_file: str) -> Iterator[Scene]:
    scene = Scene(key_file)
    yield scene
    scene.asker.close()
    scene.lane.sock.close()


def test_not_all_is_read_at_a_time(scene: Scene) -> None:
    rubbish = [b"rubbish"] * 60
    assert scene.asks(*rubbish, *burst(10)) == 4
    assert len(scene.heard) == 4
    scene.asks()
    assert len(scene.heard) == 6


def test_without_a_filter_what_is_no_question_is_not_answered_either(scene: Scene) -> None:
    scene.asks(*no_questions())
    assert scene.heard == []


def test_on_a_lane_strangers_are_answered_only_where_messages_go(scene: Scene) -> None:
    scene.lane.known = False
    assert scene.asks(*burst(45)) == 0
    assert scene.asks(*burst(5, key_of("node1"))) == 5
    scene.lane.known = True
    assert scene.asks(*burst(10)) == 5  # they had their share


def test_what_may_not_be_answered_is_not_heard_until_the_window_ends(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "WINDOW_NS", 200_000_000)
    assert scene.asks(*burst(50)) == 50
    assert scene.answers.next_due is None
    assert scene.asks(*burst(1)) == 0
    assert scene.lets_in == {"signed"}
    assert scene.answers.next_due is not None
    assert scene.asks(*burst(5, key_of("node1"))) == 5
    time.sleep(max(0, scene.answers.next_due / 1e9 - time.monotonic()))
    assert scene.asks() == 0
    assert scene.lets_in == {"signed", "unsigned"}
    assert scene.answers.next_due is None


def test_when_those_with_the_key_had_their_share_no_mac_is_looked_at_any_more(
    scene: Scene,
) -> None:
    assert scene.asks(*burst(50, key_of("node1"))) == 50
    assert scene.asks(*burst(1, key_of("node1")), *burst(1, key_of("node2"))) == 0
    assert scene.asks(*burst(50)) == 50  # and strangers are heard


def test_a_kernel_that_takes_no_filter_any_more_changes_nothing_but_the_work(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOMEM, "")

    monkeypatch.setattr(answers, "WINDOW_NS", 200_000_000)
    with monkeypatch.context() as patched:
        patched.setattr(filters, "attach", refused)
        assert scene.asks(*burst(60)) == 50
        assert scene.answers.next_due is None
    assert scene.asks(*burst(1)) == 0
    assert scene.lets_in == {"signed"}
    monkeypatch.setattr(filters, "attach", refused)
    time.sleep(0.25)
    assert scene.asks(*burst(60)) == 0  # not heard by then
    assert scene.asks(*burst(60)) == 50


def test_a_lane_in_which_much_waits_answers_nothing(scene: Scene) -> None:
    scene.lane.pending = answers.LANE_HOLDS + 1
    assert scene.asks(*burst(1)) == 0
    scene.lane.pending = answers.LANE_HOLDS
    assert scene.asks(*burst(1)) == 1


@pytest.mark.parametrize(
    ("host", "port", "answers_go_there"),
    [
        ("192.0.2.1", 1, True),
        ("127.0.0.1", 65535, True),
        ("192.0.2.1", 0, False),
        ("0.0.0.1", 1, False),
        ("224.0.0.1", 1, False),
        ("239.255.255.255", 1, False),
        ("255.255.255.255", 1, False),
        ("240.0.0.1", 1, True),
        ("2001:db8::1", 1, True),
        ("fe80::1", 1, True),
        ("2001:db8::1", 0, False),
        ("::", 1, False),
        ("ff02::1", 1, False),
        ("::ffff:192.0.2.1", 1, False),
    ],
)
def test_only_a_hosts_address_and_port_are_answered(
    host: str, port: int, answers_go_there: bool
) -> None:
    peer = (host, port, 0, 7) if ":" in host else (host, port)
    with udp("::1" if ":" in host else "127.0.0.1") as sock:
        found = answers._source(sock, peer)  # type: ignore[arg-type]
    assert (found is not None) == answers_go_there


@pytest.mark.parametrize(("errors", "code"), [(2, 0), (3, errno.ECONNREFUSED)])
def test_the_error_of_an_older_message_costs_no_answer(errors: int, code: int) -> None:
    class Told(socket.socket):
        """Two or three messages did not arrive."""

        left = errors

        def sendmsg(self, *arguments: Any) -> int:
            if self.left:
                self.left -= 1
                raise ConnectionRefusedError(errno.ECONNREFUSED, "")
            return super().sendmsg(*arguments)

    with udp() as asker, Told(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert answers._send(sock, b"answer", [], asker.getsockname()) == code


def test_the_port_is_not_taken_before_the_first_message_is_out(
    sock: socket.socket, port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: list[bytes] = []

    def opened(family: int, number: int) -> socket.socket:
        if not first:
            sock.setblocking(False)
            first.append(sock.recv(1000))
        raise OSError(errno.EADDRINUSE, "")

    monkeypatch.setattr(answers, "_open", opened)
    monkeypatch.setattr("kdumpfence.sender.main.DUMP", "/proc/self")
    assert main(["-p", port, "-c", "2", "-i", "1", "127.0.0.1"]) == 0
    assert first == [OWN_MESSAGE]

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Questions, from the socket to whoever answers them, on both cores. Loopback only."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import cannot_run, udp
from tests.core.scene import LITTLE, NODE, Scene, numbered, pack, soon, status

IP_PKTINFO = 8
KEY_ID, KEY, OTHER_KEY = 0xC0FFEE, b"k" * 32, b"o" * 32
#: Of each kind that wait, and that are answered in a second.
WAITING, RATE = 32, 50


class Asked(Scene):
    """A receiver that hands on the questions that it reads."""

    def __init__(self, core: ModuleType, sockets: list[socket.socket], **options: Any) -> None:
        self.core: Any = core
        self.readable, bell = os.pipe2(os.O_NONBLOCK)
        self._bell = bell
        self.questions = self.core.Questions(bell)
        super().__init__(core, sockets, questions=self.questions, **options)

    def listen(self, at: str = "127.0.0.1") -> None:
        """As its base does, with sockets that tell where each datagram was sent to."""
        self.listener = self.keep(udp(at))
        if ":" in at:
            self.listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            self.listener.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self.port = self.listener.getsockname()[1]
        self.receiver.add_socket(self.listener)

    def ask(self, *hosts: str, times: int = 1, **packet: Any) -> bytes:
        """A question from each of these hosts, counted; its bytes."""
        data = question(self.core, **packet)
        self.send(*hosts, data=data, times=times)
        self.receiver.count(0)
        return data

    def rings(self) -> bool:
        """Whether the bell was rung, once."""
        if not select.select([self.readable], [], [], 0)[0]:
            return False
        assert os.read(self.readable, 100) == (1).to_bytes(8, "little")
        return True

    def close(self) -> None:
        os.close(self.readable)
        os.close(self._bell)


def question(core: Any, key_id: int = 0, key: bytes = KEY) -> bytes:
    packet = core.Packet("question", "node1", key_id=key_id, nonce=b"n" * 16)
    return core.encode_packet(packet, key if key_id else b"")  # type: ignore[no-any-return]


@pytest.fixture
def asked(core: ModuleType, sockets: list[socket.socket]) -> Any:
    made = Asked(core, sockets, size=160)
    yield made
    made.close()


def test_a_question_is_handed_on_with_all_that_an_answer_needs(asked: Asked) -> None:
    asked.listen("0.0.0.0")
    data = question(asked.core)
    with udp("127.0.0.9") as asker:
        asker.sendto(data, ("127.4.5.6", asked.port))
        port = asker.getsockname()[1]
        assert asked.receiver.count(0) == 0
    assert asked.rings()
    lo = socket.if_nametoindex("lo")
    assert asked.questions.take() == [(1, pack("127.0.0.9"), 0, port, pack("127.4.5.6"), lo, data)]
    assert asked.questions.take() == []
    assert asked.counts() == {"question": 1}
    assert asked.questions.dropped == 0


def test_sockets_are_numbered_as_they_are_read(asked: Asked) -> None:
    first = asked.listener
    asked.listen()
    asked.listen()
    asked.receiver.discard_socket(first)
    asked.ask()
    assert [one[0] for one in asked.questions.take()] == [1]


def test_what_was_cut_at_the_length_of_a_packet_is_none(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    asked = Asked(core, sockets, size=152)
    asked.sources.add(pack(NODE))
    asked.ask()
    asked.send(data=status(core, 7, "finished") + b"x")
    asked.receiver.count(0)
    asked.close()
    assert asked.questions.take() == []
    assert asked.counts() == {"magic": 1, "accepted": 1}
    assert [one[7] for one in asked.sources.heard()] == [()]


def test_so_it_is_over_ipv6(asked: Asked) -> None:
    try:
        asked.listen("::1")
    except OSError:
        cannot_run("no IPv6 on loopback")
    data = asked.ask("::1")
    ((at, packed, scope, _, destination, _, given),) = asked.questions.take()
    assert (at, packed, scope, destination, given) == (1, pack("::1"), 0, pack("::1"), data)


def test_a_node_that_asks_is_not_taken_for_dead(asked: Asked) -> None:
    asked.sources.add(pack(NODE))
    asked.ask(NODE)
    assert asked.sources.heard() == []
    assert asked.counts() == {"question": 1}
    asked.send(NODE)
    asked.send(NODE, data=question(asked.core))
    (arrival,) = asked.receiver.receive(soon())
    assert arrival.message.trailer == b""
    assert len(asked.questions.take()) == 2


@pytest.mark.parametrize(
    "change", ["longer", "shorter", "magic", "state", "auth", "mac", "name", "alive"]
)
def test_what_deviates_is_no_question(asked: Asked, change: str) -> None:
    data = bytearray(question(asked.core))
    if change == "longer":
        data += b"\0"
    elif change == "shorter":
        del data[-1]
    elif change == "alive":
        data[:8] = b"KDFALIVE"
    else:
        at = {"magic": 8, "state": 15, "auth": 14, "mac": 151, "name": 119}[change]
        data[at] = 1
    asked.send(NODE, data=bytes(data))
    asked.receiver.count(0)
    assert asked.counts() == {"magic": 1}
    assert asked.questions.take() == []
    assert not asked.rings()


def test_without_somebody_to_hand_them_to_questions_are_counted(scene: Scene) -> None:
    scene.send(NODE, data=question(scene.core))
    scene.receiver.count(0)
    assert scene.counts() == {"question": 1}


def test_a_question_to_a_broadcast_address_or_from_port_0_is_dropped(
    core: ModuleType, own_network: None, root: None, sockets: list[socket.socket]
) -> None:
    asked = Asked(core, sockets, at="0.0.0.0", size=160)
    data = question(core)
    with udp(NODE) as asker:
        asker.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        asker.sendto(data, ("127.255.255.255", asked.port))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        header = bytes(2) + asked.port.to_bytes(2, "big") + (8 + len(data)).to_bytes(2, "big")
        raw.sendto(header + bytes(2) + data, ("127.0.0.1", 0))
    asked.receiver.count(0)
    assert asked.counts() == {"question": 2}
    assert asked.questions.take() == []
    assert asked.questions.dropped == 2
    asked.close()


def test_a_question_to_a_multicast_address_is_dropped(
    core: ModuleType, own_network: None, root: None, sockets: list[socket.socket]
) -> None:
    for command in (
        "link add link0 type veth peer link1",
        "link set link0 up",
        "link set link1 up",
        "address add fe80::1/64 dev link0 nodad",
    ):
        subprocess.run(["ip", *command.split()], check=True, timeout=60)
    asked = Asked(core, sockets, at="::", size=160)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asker:
        at = ("ff02::1", asked.port, 0, socket.if_nametoindex("link0"))
        asker.sendto(question(core), at)  # of which this machine gets a copy
    asked.receiver.count(0)
    assert asked.counts()["question"] == asked.questions.dropped >= 1
    assert asked.questions.take() == []
    asked.close()


def test_a_socket_that_does_not_tell_where_datagrams_were_sent_to_hands_nothing_on(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    asked = Asked(core, sockets, size=160)
    Scene.listen(asked)
    asked.ask()
    assert (asked.questions.take(), asked.questions.dropped) == ([], 1)
    asked.close()


@pytest.mark.parametrize(
    "forged", [{}, {"key_id": KEY_ID + 1}, {"key_id": KEY_ID, "key": OTHER_KEY}]
)
def test_a_flood_does_not_take_the_place_of_those_that_are_signed_with_our_key(
    asked: Asked, forged: dict[str, Any]
) -> None:
    asked.questions.know(KEY_ID, KEY)
    asked.ask(times=2 * WAITING, **forged)
    ours = asked.ask(numbered(1), key_id=KEY_ID)
    taken = asked.questions.take()
    assert [one[1] for one in taken] == [pack(numbered(1))] + WAITING * [pack(NODE)]
    assert taken[0][6] == ours
    assert asked.questions.dropped == WAITING
    asked.ask(numbered(1), times=2 * WAITING, key_id=KEY_ID)
    assert len(asked.questions.take()) == WAITING
    assert asked.counts() == {"question": 4 * WAITING + 1}


def test_without_a_key_none_of_them_is_ours(asked: Asked) -> None:
    asked.questions.know(KEY_ID, KEY)
    asked.questions.know(0, b"")
    asked.ask(times=2 * WAITING, key_id=KEY_ID)
    asked.ask(times=WAITING)
    assert len(asked.questions.take()) == WAITING


@pytest.mark.parametrize("signed", [{}, {"key_id": KEY_ID}])
def test_so_many_a_second_are_handed_on_and_no_more(asked: Asked, signed: dict[str, Any]) -> None:
    asked.questions.know(KEY_ID, KEY)
    taken, passed = 0, 0.0
    started = before = time.monotonic()
    while passed < 1.5:
        asked.ask(times=WAITING, **signed)
        taken += len(asked.questions.take())
        now = time.monotonic()
        passed += min(now - before, WAITING / RATE)  # of a longer pause not all finds room
        before = now
    # What was saved up, and what came to it meanwhile.
    assert RATE * passed <= taken + 1
    assert taken <= RATE * (1 + time.monotonic() - started)
    assert asked.counts()["question"] - taken == asked.questions.dropped


def test_the_bell_rings_when_there_is_something_after_there_was_nothing(asked: Asked) -> None:
    asked.ask()
    assert asked.rings()
    asked.ask(times=3)
    assert not asked.rings()
    assert len(asked.questions.take()) == 4
    asked.ask()
    assert asked.rings()


def test_messages_are_heard_between_questions(asked: Asked) -> None:
    asked.sources.add(pack(NODE), node=3)
    for _ in range(20):
        asked.send(NODE, data=LITTLE)
        asked.send(NODE, data=question(asked.core), times=5)
    assert asked.receiver.count(0) == 20
    assert [(one[0], one[6]) for one in asked.sources.heard()] == [(3, 20)]


def test_a_key_that_is_none_is_refused(core: ModuleType) -> None:
    questions = core.Questions()
    for key_id in (-1, 1 << 32):
        with pytest.raises(OverflowError):
            questions.know(key_id, KEY)
    with pytest.raises(ValueError, match="key of 31 bytes: not 32"):
        questions.know(1, KEY[1:])

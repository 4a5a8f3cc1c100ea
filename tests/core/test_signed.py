# SPDX-License-Identifier: LGPL-2.1-or-later
"""Signed messages in the receive loop, on both cores: what is believed, what is asked."""

from __future__ import annotations

import select
import socket
import struct
import time
from types import ModuleType
from typing import Any

import pytest

from kdumpfence import keys
from kdumpfence.sockets import deepen
from kdumpfence.wire import PACKET_BYTES, Packet, encode_packet
from tests.conftest import cannot_run, udp
from tests.core.scene import BIG, LITTLE, NO_MESSAGES, NODE, OTHER, pack
from tests.support import packets
from tests.support.signer import FOREIGN_KEY, KEY, OLD_KEY, Signer, slot

IP_PKTINFO = 8


class SignedScene:
    """A receiver on loopback that believes only what is signed, and nodes that speak to it."""

    def __init__(
        self,
        core: ModuleType,
        sockets: list[socket.socket],
        room: int = 4,
        batch: int = 32,
        questions: Any = None,
        nodes: tuple[str, ...] = ("node1",),
    ) -> None:
        if not core.SIGNS:
            cannot_run("this core was built without HMAC-SHA256")
        self._sockets = sockets
        self._counted: dict[str, int] = {}
        self.sources = core.Sources(room=room)
        self.signed = core.Signed(self.sources, [slot(KEY), slot(OLD_KEY)])
        for name in nodes:
            self.signed.add(name)
        self.receiver = core.Receiver(
            self.sources, signed=self.signed, size=256, batch=batch, questions=questions
        )
        self.listen("127.0.0.1")

    def listen(self, host: str) -> None:
        listener = udp(host)
        deepen(listener, 1 << 20)
        if listener.family == socket.AF_INET:
            listener.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self._sockets.append(listener)
        self.receiver.add_socket(listener)
        self.at = listener.getsockname()

    def signer(self, *arguments: Any, **options: Any) -> Signer:
        made = Signer(self.at, *arguments, **options)
        self._sockets.append(made.sock)
        return made

    def confirmed(self, *arguments: Any, **options: Any) -> Signer:
        """One whose session is believed."""
        made = self.signer(*arguments, **options)
        made.send()
        assert self.verdicts() == {"replayed": 1}
        made.answer()
        assert self.verdicts() == {"accepted": 1}
        return made

    def asked(self, signer: Signer) -> bytes:
        """The nonce of the question that a first message brings about."""
        signer.send()
        self.receiver.count(0)
        question = signer.question()
        assert question is not None
        return question.nonce

    def verdicts(self) -> dict[str, int]:
        """What became of all that was sent since the last time."""
        self.receiver.count(0)
        before, self._counted = self._counted, self.receiver.counts
        news = {name: n - before.get(name, 0) for name, n in self._counted.items()}
        return {name: number for name, number in news.items() if number}

    def verdict(self) -> str:
        """What became of the one datagram that was sent."""
        ((verdict, number),) = self.verdicts().items()
        assert number == 1
        return verdict

    def heard(self) -> list[tuple[str, int]]:
        """(name, messages)"""
        return [(one[0], one[6]) for one in self.signed.heard()]

    def told(self) -> list[tuple[str, list[tuple[int, str, int]]]]:
        """(name, [(session, state, messages)])"""
        return [(one[0], [said[:2] + said[3:] for said in one[7]]) for one in self.signed.heard()]


@pytest.fixture
def scene(core: ModuleType, sockets: list[socket.socket]) -> SignedScene:
    return SignedScene(core, sockets)


# ------------------------------------------------------------------ what is believed, and what not


def test_a_session_is_believed_from_its_answer_on(scene: SignedScene) -> None:
    node = scene.signer()
    node.send()
    assert scene.verdict() == "replayed"
    assert scene.heard() == []
    node.answer()
    assert scene.verdict() == "accepted"
    node.send()
    assert scene.verdict() == "accepted"
    before = time.monotonic_ns()
    ((name, packed, scope, port, first, last, messages, told),) = scene.signed.heard()
    assert (name, packed, scope, messages) == ("node1", pack("127.0.0.1"), 0, 2)
    assert told == ((node.session, "dumping", first, 1),)
    assert port == node.sock.getsockname()[1]
    assert first < last <= before
    assert scene.signed.heard() == []


def test_what_statuses_say_is_told_of_those_that_are_believed_alone(scene: SignedScene) -> None:
    node = scene.confirmed(session=7)
    end = scene.signer(session=8)
    recorded = end.send(state="finished")
    for data in (
        node.packet(state="finished", key_id=0, key=b""),
        node.packet(state="finished", key=b"x" * 32),
        encode_packet(Packet("status", "node1", state="finished", session=7, sequence=9)),
        recorded,
    ):
        node.send(data)
    assert scene.verdicts() == {"replayed": 2, "unsigned": 2, "forged": 1}
    assert scene.told() == [("node1", [(7, "dumping", 1)])]
    end.answer(state="failed")
    end.send(state="finished")
    node.send()
    assert scene.verdicts() == {"accepted": 3}
    assert scene.told() == [("node1", [(8, "failed", 1), (8, "finished", 2), (7, "dumping", 3)])]
    assert scene.told() == []


def test_a_name_that_is_known_again_has_nothing_told(scene: SignedScene) -> None:
    scene.confirmed(session=7)
    scene.signed.add("node2")
    scene.confirmed(name="node2", session=9)
    scene.signed.discard("node1")
    assert scene.told() == [("node2", [(9, "dumping", 1)])]
    scene.signed.add("node1")
    scene.confirmed(session=8)
    assert scene.told() == [("node1", [(8, "dumping", 1)])]


@pytest.mark.parametrize("signed", [True, False])
def test_questions_are_handed_on_as_without_keys(
    core: ModuleType, sockets: list[socket.socket], signed: bool
) -> None:
    questions = core.Questions()
    questions.know(keys.key_id(KEY), keys.node_key(KEY, "node1"))
    scene = SignedScene(core, sockets, questions=questions)
    number = keys.key_id(KEY) if signed else 0
    asks = Packet("question", "node1", key_id=number, nonce=bytes(range(16)))
    data = encode_packet(asks, keys.node_key(KEY, "node1") if signed else b"")
    node = scene.signer(host=NODE)
    node.send(data)
    node.send(data + b"\0")
    assert scene.verdicts() == {"question": 1, "magic": 1}
    ((at, packed, scope, port, destination, _, asked),) = questions.take()
    assert (at, packed, scope, port) == (0, pack(NODE), 0, node.sock.getsockname()[1])
    assert (destination, asked) == (pack("127.0.0.1"), data)
    assert scene.heard() == []


@pytest.mark.parametrize("at", ["127.0.0.1", "::1", "::"])
def test_over_ipv6_as_well(scene: SignedScene, at: str) -> None:
    scene.listen(at)
    if at == "::":
        scene.at = ("127.0.0.1", scene.at[1])
    scene.confirmed(host="::1" if at == "::1" else NODE)
    assert scene.signed.heard()[0][1:3] == (pack("::1" if at == "::1" else NODE), 0)


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_in_both_byte_orders(scene: SignedScene, byteorder: str) -> None:
    node = scene.confirmed()
    packet = Packet("status", "node1", state="failed", key_id=keys.key_id(KEY), sequence=9,
                    session=node.session)  # fmt: skip
    node.send(encode_packet(packet, keys.node_key(KEY, "node1"), byteorder))
    assert scene.verdict() == "accepted"


def test_what_is_not_signed_counts_for_nothing_whoever_sends_it(scene: SignedScene) -> None:
    scene.sources.admit(pack("127.0.0.0"), 8)
    node = scene.confirmed()
    for data in (LITTLE, BIG, LITTLE + b"x" * 144, node.packet(key_id=0, key=b"")):
        node.send(data)
        assert scene.verdict() == "unsigned"
        assert node.question(0.01) is None


@pytest.mark.parametrize(("data", "reason"), NO_MESSAGES)
def test_what_is_no_message_keeps_its_reason(scene: SignedScene, data: bytes, reason: str) -> None:
    with udp() as sock:
        sock.sendto(data, scene.at)
    assert scene.verdict() == reason


def test_no_other_length_of_a_packet_is_one(scene: SignedScene) -> None:
    node = scene.confirmed()
    data = node.packet()
    for length in range(PACKET_BYTES):
        node.send(data[:length] or b"\0")
    assert scene.verdicts() == {"short": 8, "unsigned": PACKET_BYTES - 8}
    for more in (1, 8, 2000):
        node.send(data + bytes(more))
        assert scene.verdict() == "unsigned"
    node.send(data)
    assert scene.verdict() == "accepted"


def test_a_bit_more_or_less_and_it_is_not_believed(scene: SignedScene) -> None:
    node = scene.confirmed()
    data = node.packet()
    verdicts: dict[str, int] = {}
    for bit in range(8 * PACKET_BYTES):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        node.send(bytes(flipped))
        verdict = scene.verdict()
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
        assert node.question(0) is None
    assert "accepted" not in verdicts
    assert "replayed" not in verdicts
    # Magic and version; what makes it a packet; the key id; the name; all else.
    assert verdicts["magic"] == verdicts["version"] == 32
    assert verdicts["key"] == 32
    assert verdicts["forged"] > 8 * (4 + 8 + 8 + 16 + 32)
    node.send(data)
    assert scene.verdict() == "accepted"


def test_a_key_of_another_cluster_or_none_at_all_is_told_by_its_id(scene: SignedScene) -> None:
    scene.signer(key=FOREIGN_KEY).send()
    assert scene.verdict() == "key"
    node = scene.signer()
    node.send(key=keys.node_key(FOREIGN_KEY, "node1"))
    assert scene.verdict() == "forged"
    node.send(key=keys.node_key(OLD_KEY, "node1"))
    assert scene.verdict() == "forged"
    node.send(key=KEY)
    assert scene.verdict() == "forged"
    assert node.question(0.01) is None


def test_no_node_speaks_for_another(scene: SignedScene) -> None:
    scene.signed.add("node2")
    scene.confirmed()
    node = scene.signer()
    node.send(key=keys.node_key(KEY, "node2"))
    assert scene.verdict() == "forged"
    node.send(name="node2")
    assert scene.verdict() == "forged"


def test_who_is_not_known_is_a_stranger(scene: SignedScene) -> None:
    for name in ("node2", "node", "node11", "Node1", "n" * 64):
        scene.signer(name).send()
        assert scene.verdict() == "stranger"


def test_where_there_are_no_nodes_so_is_everybody_whom_no_network_admits(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    scene = SignedScene(core, sockets, nodes=())
    scene.signer().send()
    assert scene.verdict() == "stranger"
    scene.sources.admit(pack("127.0.0.0"), 8)
    scene.confirmed()


def test_names_may_be_as_long_as_packets_carry_and_be_alike(scene: SignedScene) -> None:
    names = ["n" * 64, "n" * 63, "n", "!", "~" * 8, "~" * 9]
    for name in names:
        scene.signed.add(name)
    for name in names:
        scene.confirmed(name)
        assert scene.heard() == [(name, 1)]


def test_both_keys_of_the_cluster_are_believed_and_asked_with(scene: SignedScene) -> None:
    scene.confirmed(key=KEY)
    scene.confirmed(key=OLD_KEY)


def test_of_two_keys_with_one_id_the_first_counts(scene: SignedScene) -> None:
    scene.signed.use([(7, KEY), (7, OLD_KEY)])
    node = scene.signer()
    for key, verdict in ((KEY, "replayed"), (OLD_KEY, "forged")):
        node.send(key_id=7, key=keys.node_key(key, "node1"))
        assert scene.verdict() == verdict


def test_keys_may_change_while_a_session_goes_on(scene: SignedScene) -> None:
    node, old = scene.confirmed(), scene.confirmed(key=OLD_KEY)
    scene.signed.use([slot(FOREIGN_KEY), slot(KEY)])
    for one, verdict in ((node, "accepted"), (old, "key")):
        one.send()
        assert scene.verdict() == verdict
    scene.confirmed(key=FOREIGN_KEY)
    scene.signed.use([slot(FOREIGN_KEY)])
    node.send()
    assert scene.verdict() == "key"
    # With the id of a key that is not there any more, but signed with one that is.
    node.send(key=keys.node_key(FOREIGN_KEY, "node1"))
    assert scene.verdict() == "key"


# ------------------------------------------------------------------------------------- replays


def test_another_key_with_the_id_of_the_one_before_takes_its_place(scene: SignedScene) -> None:
    node = scene.confirmed()
    scene.signed.use([(keys.key_id(KEY), FOREIGN_KEY)])
    node.send()
    assert scene.verdict() == "forged"
    node.send(key=keys.node_key(FOREIGN_KEY, "node1"))
    assert scene.verdict() == "accepted"


def test_who_cannot_be_asked_holds_nothing_up(
    own_network: None, root: None, scene: SignedScene
) -> None:
    node = scene.signer()
    data = node.packet()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        # From port 0, where nothing can be sent to.
        raw.sendto(struct.pack(">4H", 0, scene.at[1], 8 + len(data), 0) + data, ("127.0.0.1", 0))
    node.send()
    assert scene.verdicts() == {"replayed": 2}
    node.answer()
    assert scene.verdict() == "accepted"


def test_each_message_counts_once_and_none_that_is_older(scene: SignedScene) -> None:
    node = scene.confirmed()
    sent = [node.packet() for _ in range(4)]
    node.send(sent[1])
    assert scene.verdict() == "accepted"
    for data in (sent[1], sent[0]):
        node.send(data)
        assert scene.verdict() == "replayed"
    node.send(sent[3])
    assert scene.verdict() == "accepted"
    node.send(sent[2])
    assert scene.verdict() == "replayed"
    assert scene.heard() == [("node1", 3)]


def recorded(scene: SignedScene, sessions: int = 1) -> list[bytes]:
    """All that a node said in crashes that are over, answers included; the listener is another."""
    said = []
    for _ in range(sessions):
        node = scene.signer()
        said.append(node.send())
        scene.verdicts()
        said += [node.answer(), node.send(), node.send()]
        assert scene.verdicts() == {"accepted": 3}
    return said


def test_a_crash_that_was_recorded_is_not_believed_after_a_restart(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    said = recorded(SignedScene(core, sockets))
    scene = SignedScene(core, sockets)
    replayer = scene.signer()
    for data in said:
        replayer.send(data)
    assert scene.verdicts() == {"replayed": 4}
    assert scene.heard() == []


def test_a_crash_that_was_recorded_is_not_believed_though_others_came_since(
    scene: SignedScene,
) -> None:
    said = recorded(scene, sessions=7)  # more than are kept
    scene.signed.heard()
    replayer = scene.signer()
    for data in said:
        replayer.send(data)
    assert scene.verdicts() == {"replayed": len(said)}
    assert scene.heard() == []


def test_what_was_recorded_is_not_believed_of_a_node_that_was_removed_and_added_again(
    scene: SignedScene,
) -> None:
    said = recorded(scene)
    assert scene.signed.discard("node1")
    scene.signed.add("node1")
    replayer = scene.signer()
    for data in said:
        replayer.send(data)
    assert scene.verdicts() == {"replayed": 4}


def test_nor_of_one_that_a_network_admitted(scene: SignedScene) -> None:
    scene.signed.discard("node1")
    scene.sources.admit(pack("127.0.0.0"), 8)
    said = recorded(scene)
    scene.signed.heard()
    assert scene.signed.release("node1")
    replayer = scene.signer()
    for data in said:
        replayer.send(data)
    assert scene.verdicts() == {"replayed": 4}


def test_an_answer_to_another_question_is_none(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    scene, other = SignedScene(core, sockets), SignedScene(core, sockets)
    scene.signed.add("node2")
    node, node2 = scene.signer(), scene.signer("node2")
    for one in (node, node2):
        one.send()
    elsewhere = Signer(other.at)
    sockets.append(elsewhere.sock)
    elsewhere.send()
    scene.verdicts(), other.verdicts()
    nonces = [one.question().nonce for one in (elsewhere, node2)]  # type: ignore[union-attr]
    for nonce in (*nonces, b"x" * 16, bytes(16)):
        node.send(nonce=nonce)
        assert scene.verdict() == "replayed"
    assert node.question() is not None
    node.answer()
    assert scene.verdict() == "accepted"


def test_a_question_may_be_answered_by_another_session_of_its_node(scene: SignedScene) -> None:
    node, call = scene.signer(), scene.signer()
    node.send()
    scene.verdicts()
    question = node.question()
    assert question is not None
    call.send(nonce=question.nonce)
    assert scene.verdict() == "accepted"
    node.send(nonce=question.nonce)
    assert scene.verdict() == "accepted"
    assert scene.heard() == [("node1", 2)]


def test_four_sessions_of_a_node_are_believed_and_of_five_the_one_heard_longest_ago_is_not(
    scene: SignedScene,
) -> None:
    first, *rest = [scene.confirmed() for _ in range(4)]
    for node in (*rest, first):
        node.send()
        assert scene.verdict() == "accepted"
    rest.append(scene.confirmed())
    for node in (first, *rest[1:]):
        node.send()
    assert scene.verdicts() == {"accepted": 4}
    rest[0].send()
    assert scene.verdict() == "replayed"
    rest[0].answer()
    assert scene.verdict() == "accepted"


def test_a_session_that_answered_is_asked_at_once_when_it_was_forgotten(
    scene: SignedScene,
) -> None:
    node = scene.confirmed()
    for _ in range(2):
        for _ in range(4):
            scene.confirmed()
        node.send()
        assert scene.verdict() == "replayed"
        node.answer()
        assert scene.verdict() == "accepted"


# ----------------------------------------------------------------------------------- questions


def questions(*signers: Signer) -> int:
    """How many questions came to them."""
    number = 0
    while select.select([one.sock for one in signers], [], [], 0.05)[0]:
        number += sum(one.question(0) is not None for one in signers)
    return number


def test_nothing_but_a_mac_that_fits_brings_about_a_question(scene: SignedScene) -> None:
    node = scene.signer()
    wrong: list[dict[str, Any]] = [
        {"key": keys.node_key(FOREIGN_KEY, "node1")},
        {"key_id": 7},
        {"key_id": 0, "key": b""},
    ]
    for other in wrong:
        node.send(**other)
    node.send(LITTLE)
    scene.signer("node2").send()
    assert sum(scene.verdicts().values()) == 5
    assert questions(node) == 0


def test_a_message_that_is_repeated_is_asked_about_once(scene: SignedScene) -> None:
    node = scene.signer()
    data = node.packet()
    for _ in range(20):
        node.send(data)
    assert scene.verdicts() == {"replayed": 20}
    assert questions(node) == 1


def test_however_many_speak_at_once_each_is_asked_about(scene: SignedScene) -> None:
    node = scene.signer()
    deepen(node.sock, 1 << 20)
    names = [f"n{number}" for number in range(400)]  # some of them in one place of the core's table
    for name in names:
        scene.signed.add(name)
        node.send(name=name, key=keys.node_key(KEY, name), sequence=1)
        assert scene.verdict() == "replayed"
    asked = []
    while select.select([node.sock], [], [], 0)[0]:
        asked.append(packets.field(node.sock.recv(1024), "name").rstrip(b"\0").decode())
    assert sorted(asked) == sorted(names)


def test_of_a_session_only_what_is_newer_is_asked_about(scene: SignedScene) -> None:
    node = scene.signer()
    for sequence in (5, 4):
        node.send(sequence=sequence)
    node.sock.close()
    node.sock = udp(OTHER)
    node.send(sequence=4)
    assert scene.verdicts() == {"replayed": 3}
    assert questions(node) == 0
    node.send(sequence=6)
    scene.verdicts()
    assert questions(node) == 1
    node.sock.close()


def test_a_message_that_comes_over_two_networks_is_asked_about_over_both(
    scene: SignedScene,
) -> None:
    node, also, more = (scene.signer(host=host) for host in (NODE, OTHER, "127.0.0.13"))
    data = node.packet()
    for _ in range(3):
        for one in (node, also, more):
            one.send(data)
    scene.verdicts()
    assert [questions(one) for one in (node, also, more)] == [1, 1, 0]


def test_a_session_that_does_not_answer_is_asked_about_less_and_less_often(
    scene: SignedScene,
) -> None:
    node = scene.signer()
    asked = []
    began = time.monotonic()
    while time.monotonic() < began + 2.5:
        node.send()
        scene.verdicts()
        asked += [round(time.monotonic() - began)] * questions(node)
    # Two at once; the next two after a second, from our port to our port, so not to here.
    assert asked == [0, 0]


def test_every_other_pair_of_questions_goes_to_our_port_at_the_same_address(
    scene: SignedScene, sockets: list[socket.socket]
) -> None:
    node = scene.signer(host=NODE)
    there = udp(NODE, scene.at[1])
    sockets.append(there)
    came: list[bool] = []
    while len(came) < 4:
        node.send()
        scene.verdicts()
        for sock in select.select([node.sock, there], [], [], 0.05)[0]:
            sock.recv(1024)
            came.append(sock is there)
    assert came == [False, False, True, True]


def test_a_node_is_asked_twenty_times_at_once_and_then_five_times_a_second(
    scene: SignedScene,
) -> None:
    began = time.monotonic()
    nodes = [scene.signer() for _ in range(60)]
    for node in nodes:
        node.send()
    scene.verdicts()
    assert 20 <= questions(*nodes) <= 20 + 5 * (time.monotonic() - began)
    before = time.monotonic()
    asked = 0
    while time.monotonic() < before + 1:
        for node in nodes:
            node.send()
        scene.verdicts()
        asked += questions(*nodes)
    assert 2 <= asked <= 2 + 5 * (time.monotonic() - before)


@pytest.mark.usefixtures("root")
def test_a_batch_brings_about_256_questions_at_most(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    scene = SignedScene(core, sockets, batch=1024)
    names = [f"n{number}" for number in range(400)]
    for name in names:
        scene.signed.add(name)
    node = scene.signer()
    deepen(node.sock, 1 << 20)
    asked = []
    for sequence in (1, 2):
        for name in names:
            node.send(name=name, key=keys.node_key(KEY, name), sequence=sequence)
        assert scene.verdicts() == {"replayed": 400}
        asked.append(0)
        while select.select([node.sock], [], [], 0.1)[0]:
            node.sock.recv(1024)
            asked[-1] += 1
    assert asked == [256, 256]


def test_no_question_is_larger_than_what_brought_it_about_and_none_comes_twice(
    scene: SignedScene,
) -> None:
    node = scene.signer()
    for _ in range(3):
        node.send()
        scene.verdicts()
        assert questions(node) <= 1


def test_who_repeats_old_crashes_does_not_keep_the_next_one_from_being_believed(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    scene = SignedScene(core, sockets)
    said = recorded(SignedScene(core, sockets), sessions=5)
    replayer = scene.signer()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        for data in said:
            replayer.send(data)
        scene.verdicts()
    node = scene.signer()
    for data in said * 4:
        replayer.send(data)
    node.send()
    scene.verdicts()
    for data in said * 4:
        replayer.send(data)
    node.answer()
    assert scene.verdicts()["accepted"] == 1


# -------------------------------------------------------------------------- names and networks


def test_two_nodes_behind_one_address_are_two(scene: SignedScene) -> None:
    scene.signed.add("node2")
    one, other = scene.confirmed(), scene.confirmed("node2")
    for node in (one, other, other):
        node.sock.sendto(node.packet(), scene.at)
    scene.verdicts()
    assert scene.heard() == [("node1", 2), ("node2", 3)]


def test_a_node_that_moves_is_reported_from_where_it_spoke_last(
    scene: SignedScene, sockets: list[socket.socket]
) -> None:
    node = scene.confirmed()
    sockets.append(node.sock)
    node.sock = udp(OTHER)
    node.send()
    assert scene.verdict() == "accepted"
    ((name, packed, *_),) = scene.signed.heard()
    assert (name, packed) == ("node1", pack(OTHER))


def test_a_network_admits_who_is_signed_for_by_name_while_there_is_room(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    scene = SignedScene(core, sockets, room=2)
    scene.sources.admit(pack("127.0.0.0"), 24)
    scene.signer("a", host="127.0.1.1").send()
    assert scene.verdict() == "stranger"
    scene.signer("a", host=NODE).send(key=keys.node_key(KEY, "b"))
    assert scene.verdict() == "forged"
    scene.confirmed("a", host=NODE)
    scene.confirmed("b", host=NODE)
    node = scene.signer("c", host=NODE)
    node.send()
    scene.verdicts()
    node.answer()
    assert scene.verdict() == "crowded"
    assert scene.heard() == [("a", 1), ("b", 1)]
    scene.confirmed()  # which was added takes none of the room
    assert not scene.signed.release("node1")
    assert scene.signed.release("a")
    assert not scene.signed.release("a")
    scene.confirmed("c", host=NODE)
    assert not scene.signed.release("c"), "what it said would be lost"
    assert scene.heard() == [("node1", 1), ("c", 1)]
    assert scene.signed.release("c")


def test_who_was_admitted_by_a_network_may_come_from_elsewhere_later(scene: SignedScene) -> None:
    scene.sources.admit(pack("127.0.0.0"), 24)
    node = scene.confirmed("a", host=NODE)
    node.sock.close()
    node.sock = udp("127.0.1.1")
    node.send()
    assert scene.verdict() == "accepted"
    node.sock.close()


def test_who_is_admitted_and_added_later_stays_and_leaves_its_room_to_others(
    core: ModuleType, sockets: list[socket.socket]
) -> None:
    scene = SignedScene(core, sockets, room=1)
    scene.sources.admit(pack("127.0.0.0"), 24)
    node = scene.confirmed("a", host=NODE)
    scene.signed.add("a")
    scene.heard()
    assert not scene.signed.release("a")
    node.send()
    assert scene.verdict() == "accepted"
    scene.confirmed("b", host=NODE)


def test_nodes_come_and_go_in_any_order(core: ModuleType, sockets: list[socket.socket]) -> None:
    scene = SignedScene(core, sockets)
    names = [f"n{number}" for number in range(300)]
    for name in names:
        scene.signed.add(name)
    assert not scene.signed.discard("none")
    for name in names[::2]:
        assert scene.signed.discard(name)
        assert not scene.signed.discard(name)
    for name in names[::4]:
        scene.signed.add(name)
    for number in (0, 1, 2, 3, 296, 298, 299):
        node = scene.signer(names[number])
        node.send()
        assert scene.verdict() == ("stranger" if number % 4 == 2 else "replayed"), number


def test_who_was_removed_is_not_given_out(scene: SignedScene) -> None:
    scene.signed.add("node2")
    scene.confirmed(), scene.confirmed("node2")
    scene.signed.discard("node1")
    assert scene.heard() == [("node2", 1)]


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("name", ["", "n" * 65, "a b", "n\xf6de", "a\n", "\x7f"])
def test_names_that_no_packet_carries_are_refused(scene: SignedScene, name: str) -> None:
    for call in (scene.signed.add, scene.signed.discard, scene.signed.release):
        with pytest.raises(ValueError, match="1 to 64 ASCII characters"):
            call(name)


@pytest.mark.parametrize(
    "given",
    [[], [slot(KEY)] * 3, [(1, b"x" * 31)], [(0, KEY)], [(1 << 32, KEY)]],
)
def test_keys_that_cannot_be_are_refused_and_change_nothing(
    core: ModuleType, scene: SignedScene, given: list[tuple[int, bytes]]
) -> None:
    node = scene.confirmed()
    with pytest.raises(ValueError, match=r"allowed|not 32"):
        scene.signed.use(given)
    with pytest.raises(ValueError, match=r"allowed|not 32"):
        core.Signed(core.Sources(), given)
    node.send()
    assert scene.verdict() == "accepted"


def test_signed_messages_are_only_counted_and_by_one_receiver(
    core: ModuleType, scene: SignedScene
) -> None:
    with pytest.raises(RuntimeError, match="only counted"):
        scene.receiver.receive(0)
    with pytest.raises(RuntimeError, match="only counted"):
        scene.receiver.take()
    with pytest.raises(ValueError, match="another receiver's"):
        core.Receiver(scene.sources, signed=scene.signed)
    free = core.Signed(scene.sources, [slot(KEY)])
    with pytest.raises(ValueError, match="not of these sources"):
        core.Receiver(core.Sources(), signed=free)
    with pytest.raises(ValueError, match="size 152: 153 to"):
        core.Receiver(scene.sources, signed=free, size=PACKET_BYTES)
    core.Receiver(scene.sources, signed=free, size=PACKET_BYTES + 1)


@pytest.mark.usefixtures("root")
def test_raw_sockets_are_refused(scene: SignedScene) -> None:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    with raw, pytest.raises(ValueError, match="UDP sockets alone"):
        scene.receiver.add_socket(raw)

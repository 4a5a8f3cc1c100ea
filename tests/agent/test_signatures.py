# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which packets are the node's: with a key, and without; and when it counts as alive."""

from __future__ import annotations

import socket

import pytest

from kdumpfence import keys
from kdumpfence.addresses import Address
from kdumpfence.agent.decision import GAP, Signatures, Watch
from kdumpfence.wire import Message, decode
from tests.support import packets
from tests.support.answerer import CURRENT, FOREIGN, NODE, PREVIOUS, key_text, packet
from tests.support.messages import MESSAGE

NONCE, OTHER_NONCE = b"\x11" * 16, b"\x12" * 16


def address(host: str) -> Address:
    return Address(socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host))


KNOWN, ELSEWHERE, LOOPBACK = address("10.0.0.1"), address("203.0.113.7"), address("127.0.0.5")


def signatures(text: str | None = None, names: tuple[str, ...] = (NODE, "ring1")) -> Signatures:
    return Signatures(keys.parse(text or key_text(CURRENT, PREVIOUS)), names)


def signed_watch(grace: int = -1) -> tuple[Watch, list[str]]:
    """A watch that believes signed answers alone, and what it said that it ignores."""
    said: list[str] = []
    watch = Watch(
        [NODE], nonce=NONCE, called=[NODE], signatures=signatures(), grace=grace,
        ignores=said.append,
    )  # fmt: skip
    watch.resolved(NODE, [KNOWN])
    return watch, said


def unsigned_watch(grace: int = -1, called: tuple[str, ...] = (NODE,), own: bool = False) -> Watch:
    watch = Watch([NODE], lambda _: own, nonce=NONCE, called=called, grace=grace)
    watch.resolved(NODE, [KNOWN])
    return watch


def as_message(data: bytes) -> Message:
    return decode(data)


# ------------------------------------------------------------------ signed answers


@pytest.mark.parametrize("key", [CURRENT, PREVIOUS], ids=["current", "previous"])
@pytest.mark.parametrize("name", [NODE, "ring1"])
@pytest.mark.parametrize("source", [KNOWN, ELSEWHERE])
@pytest.mark.parametrize("state", packets.STATES[1:])
def test_an_answer_that_the_node_signed_is_a_yes_from_wherever_it_comes(
    key: bytes, name: str, source: Address, state: str
) -> None:
    watch, said = signed_watch()
    watch.answered(source, packet("status", NONCE, name=name, key=key, state=state), 0)
    assert watch.proof == source
    assert watch.signed is not None
    assert (watch.signed.name, watch.signed.key_id) == (name, packets.key_id(key))
    assert said == []


def forgeries(kind: str) -> dict[str, tuple[bytes, str]]:
    """Packets that this node did not sign, and what is said of each."""
    return {
        "without a signature": (packet(kind, NONCE, key=None), ", unsigned"),
        "with another cluster's key": (
            packet(kind, NONCE, key=FOREIGN),
            f"key id {packets.key_id(FOREIGN):08x}, which the key file does not have",
        ),
        "of another node": (packet(kind, NONCE, name="node2"), "no name of the node"),
        "with another node's key": (
            packet(kind, NONCE, signed_as="node2"),
            "not signed with the key that this node has",
        ),
        "with the key of another name of the node": (
            packet(kind, NONCE, signed_as="ring1"),
            "not signed with the key that this node has",
        ),
        "with the previous key, said to be the current one": (
            packet(kind, NONCE, key=PREVIOUS, key_id=packets.key_id(CURRENT)),
            "not signed with the key that this node has",
        ),
        "with another cluster's key, said to be ours": (
            packet(kind, NONCE, key=FOREIGN, key_id=packets.key_id(CURRENT)),
            "not signed with the key that this node has",
        ),
        "with a byte more": (packet(kind, NONCE) + b"\0", "an unsigned message"),
    }


REFUSED = {
    **forgeries("status"),
    "a message and nothing else": (MESSAGE, "an unsigned message"),
    "nothing": (b"", "an unsigned message"),
}


@pytest.mark.parametrize(("data", "why"), REFUSED.values(), ids=REFUSED)
def test_what_the_node_did_not_sign_is_none_and_it_is_said_why(data: bytes, why: str) -> None:
    watch, said = signed_watch()
    for _ in range(3):
        watch.answered(KNOWN, data, 0)
    assert watch.proof is None
    assert len(said) == 1
    assert why in said[0]
    assert "10.0.0.1" in said[0]
    assert list(watch.ignored.values()) == said


def test_what_a_running_node_said_does_not_hide_what_its_crash_kernel_says() -> None:
    watch, said = signed_watch()
    for kind in ("alive", "status", "alive", "status"):
        watch.answered(KNOWN, packet(kind, NONCE, key=FOREIGN), 0)
    assert [text.split()[0] for text in said] == ["alive", "status"]


@pytest.mark.parametrize("nonce", [OTHER_NONCE, bytes(16)], ids=["another wait's", "none"])
def test_what_was_signed_for_another_wait_is_no_yes(nonce: bytes) -> None:
    watch, _ = signed_watch(grace=0)
    watch.answered(KNOWN, packet("status", nonce), 0)
    watch.answered(KNOWN, packet("alive", nonce), 0)
    assert not watch.decided


def test_a_question_that_comes_back_is_no_answer() -> None:
    watch, _ = signed_watch(grace=0)
    watch.answered(KNOWN, packet("question", NONCE), 0)
    assert not watch.decided


def test_no_single_bit_of_an_answer_can_be_changed() -> None:
    good = packet("status", NONCE)
    for bit in range(8 * len(good)):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        watch, _ = signed_watch(grace=0)
        watch.answered(KNOWN, bytes(changed), 0)
        assert not watch.decided, f"bit {bit}"


def test_an_answer_cut_short_is_none() -> None:
    good = packet("status", NONCE)
    watch, _ = signed_watch(grace=0)
    for length in range(len(good)):
        watch.answered(KNOWN, good[:length], 0)
    assert not watch.decided


def test_a_loopback_address_counts_only_if_it_was_given_as_one() -> None:
    watch, said = signed_watch()
    watch.answered(LOOPBACK, packet("status", NONCE), 0)
    assert watch.proof is None
    assert "127.0.0.5, which was not given as an address of the node" in said[0]
    watch.resolved("127.0.0.5", [LOOPBACK])
    watch.answered(LOOPBACK, packet("status", NONCE), 0)
    assert watch.proof == LOOPBACK


# ------------------------------------------------------------------ signed, unasked


def test_messages_prove_nothing_where_signed_answers_count(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, said = signed_watch()
    assert not watch.heard(KNOWN, as_message(MESSAGE))
    assert not watch.heard(KNOWN, as_message(packet("status", NONCE, key=None)))
    assert watch.proof is None
    assert said == ["an unsigned message from 10.0.0.1"]


def test_neither_does_a_message_from_before_an_address_was_known() -> None:
    watch, _ = signed_watch()
    watch.resolved("ring1", [ELSEWHERE], heard_before=lambda _: True)
    watch.moved({KNOWN: KNOWN}, heard_before=lambda _: True)
    assert watch.proof is None


@pytest.mark.parametrize("nonce", [OTHER_NONCE, bytes(16)], ids=["another wait's", "none"])
def test_what_the_node_signed_at_some_time_is_a_reason_to_ask_its_sender(nonce: bytes) -> None:
    watch, said = signed_watch()
    assert watch.heard(ELSEWHERE, as_message(packet("status", nonce)))
    assert watch.proof is None
    assert watch.unasked == ELSEWHERE
    assert said == []


def test_who_signed_nothing_is_not_asked() -> None:
    watch, _ = signed_watch()
    for data, _ in REFUSED.values():
        if data:
            assert not watch.heard(ELSEWHERE, as_message(data))


def test_an_answer_may_come_to_the_port_as_well() -> None:
    watch, _ = signed_watch()
    assert not watch.heard(ELSEWHERE, as_message(packet("status", NONCE)))
    assert watch.proof == ELSEWHERE


# ------------------------------------------------------------------ keys of the node alone


def test_a_key_file_of_a_node_alone_is_good_for_that_node() -> None:
    number, key = packets.key_id(CURRENT), packets.node_key(CURRENT, NODE)
    text = f"node {NODE}\nsigns {number:08x} {key.hex()}\n"
    its = signatures(text)
    assert its.names == [NODE]
    assert its.why_not(packet("status", NONCE)) == ""
    assert signatures(text, ("node2",)).names == []


def test_names_that_no_packet_can_carry_have_no_key() -> None:
    assert signatures(names=("x" * 65, "n\xf6de", NODE)).names == [NODE]


# ------------------------------------------------------------------ without signatures


@pytest.mark.parametrize("key", [None, CURRENT, FOREIGN], ids=["unsigned", "signed", "foreign"])
def test_without_a_key_any_answer_of_its_address_is_a_yes(key: bytes | None) -> None:
    watch = unsigned_watch()
    watch.answered(KNOWN, packet("status", NONCE, key=key, name="whatever"), 0)
    assert watch.proof == KNOWN
    assert watch.signed is None


def test_without_a_key_an_answer_of_a_stranger_is_none() -> None:
    watch = unsigned_watch(grace=0)
    watch.answered(ELSEWHERE, packet("status", NONCE), 0)
    watch.answered(ELSEWHERE, packet("alive", NONCE), 0)
    assert not watch.decided


def test_nor_is_one_of_an_address_that_is_this_machines_now() -> None:
    watch = unsigned_watch(grace=0, own=True)
    watch.answered(KNOWN, packet("status", NONCE), 0)
    watch.answered(KNOWN, packet("alive", NONCE), 0)
    assert not watch.decided


@pytest.mark.parametrize("nonce", [OTHER_NONCE, bytes(16)], ids=["another wait's", "none"])
def test_nor_is_one_to_another_question(nonce: bytes) -> None:
    watch = unsigned_watch(grace=0)
    watch.answered(KNOWN, packet("status", nonce), 0)
    watch.answered(KNOWN, packet("alive", nonce), 0)
    watch.answered(KNOWN, MESSAGE, 0)
    watch.answered(KNOWN, packet("question", NONCE), 0)
    assert not watch.decided


def test_without_a_key_messages_count_whatever_is_behind_them() -> None:
    for data in (MESSAGE, MESSAGE + b"x", packet("status"), packet("status", key=FOREIGN)):
        watch = unsigned_watch()
        assert not watch.heard(KNOWN, as_message(data))
        assert watch.proof == KNOWN


# ------------------------------------------------------------------ alive


def says_alive(watch: Watch, *moments: float, **how: object) -> list[bool]:
    """Whether that is a no, after each of these answers."""
    told = []
    for now in moments:
        watch.answered(KNOWN, packet("alive", NONCE, **how), now)  # type: ignore[arg-type]
        told.append(bool(watch.alive))
    return told


def test_alive_for_as_long_as_allowed_is_a_no_that_says_why() -> None:
    for watch in (signed_watch(2)[0], unsigned_watch(2)):
        moments = [100 + number / 4 for number in range(9)]
        assert says_alive(watch, *moments) == [False] * 8 + [True]
        assert watch.alive == (
            "node 'node1' is alive: it has answered for 2 s, so it is not dumping"
        )
        assert watch.decided
        assert watch.proof is None


def test_with_0_the_first_answer_is_a_no_and_with_minus_1_none_is() -> None:
    assert says_alive(unsigned_watch(0), 100) == [True]
    assert says_alive(signed_watch(-1)[0], *range(1000)) == [False] * 1000


def test_a_gap_begins_anew() -> None:
    watch = unsigned_watch(2)
    assert says_alive(watch, 10, 11, 11 + GAP + 0.1, 13, 14) == [False] * 5
    assert says_alive(watch, 14.1) == [True]


def test_answers_that_are_as_far_apart_as_allowed_leave_no_gap() -> None:
    assert says_alive(unsigned_watch(2), 10, 10 + GAP, 10 + 2 * GAP) == [False, False, True]


@pytest.mark.parametrize("before", [0, 1, 5])
@pytest.mark.parametrize("signed", [True, False])
def test_a_proof_wins_at_any_time(signed: bool, before: int) -> None:
    watch = signed_watch(2)[0] if signed else unsigned_watch(2)
    says_alive(watch, *(100 + number for number in range(before)))
    was_alive = watch.alive
    watch.answered(KNOWN, packet("status", NONCE), 104)
    assert watch.proof == KNOWN
    says_alive(watch, *range(105, 120))
    assert (watch.proof, watch.alive) == (KNOWN, was_alive)


@pytest.mark.parametrize("data", [data for data, _ in forgeries("alive").values()])
def test_nobody_else_can_say_that_a_node_with_a_key_is_alive(data: bytes) -> None:
    watch, said = signed_watch(0)
    watch.answered(KNOWN, data, 0)
    assert not watch.decided
    assert len(said) == 1


def test_with_a_key_each_name_that_it_signs_as_is_the_nodes() -> None:
    assert says_alive(signed_watch(0)[0], 1, name="ring1") == [True]


def test_it_is_said_once_who_else_is_alive() -> None:
    said: list[str] = []
    watch = Watch([NODE], nonce=NONCE, called=[NODE], grace=0, ignores=said.append)
    watch.resolved(NODE, [KNOWN])
    says_alive(watch, 1, 2, 3, name="node2")
    assert said == ["'node2', which is alive: that is no name of the node"]


def test_without_a_key_it_has_to_be_called_as_the_node_is_if_that_is_known() -> None:
    assert says_alive(unsigned_watch(0), 1, name="node2") == [False]
    assert says_alive(unsigned_watch(0), 1, name="NODE1") == [True]
    assert says_alive(unsigned_watch(0, called=("ring1", "Node1")), 1) == [True]
    assert says_alive(unsigned_watch(0, called=()), 1, name="node2") == [True]

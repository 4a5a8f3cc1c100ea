# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which signed messages are believed: any sequence of them, against a model, on both cores at once.

The model has no questions, no tables and no clock: it knows which sessions answered and what was
heard of them. So a test takes less time than a session is believed.
"""

from __future__ import annotations

import select
import time
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from kdumpfence import keys
from kdumpfence.wire import Packet, decode_packet, encode_packet
from tests.conftest import cannot_run, udp
from tests.property.cores import Cores
from tests.support.signer import FOREIGN_KEY, KEY, OLD_KEY, slot

SESSIONS = 4  # of a node that are believed
FRESH = 3.0  # seconds for which a nonce is good, at least

names = st.sampled_from(["node1", "node2", "stranger"])
clusters = st.sampled_from([KEY, KEY, OLD_KEY, FOREIGN_KEY])
sessions = st.integers(1, 7)
sequences = st.integers(0, 6)


class Side:
    """One core, and the nodes that speak to it."""

    def __init__(self, core: Any) -> None:
        self.sources = core.Sources()
        self.signed = core.Signed(self.sources, [slot(KEY), slot(OLD_KEY)])
        self.receiver = core.Receiver(self.sources, signed=self.signed, size=256)
        self.listener, self.node = udp(), udp()
        self.receiver.add_socket(self.listener)
        #: The newest nonce that each node was asked with, and when that came.
        self.nonces: dict[str, tuple[bytes, float]] = {}

    def verdict(self, data: bytes) -> str:
        before: dict[str, int] = self.receiver.counts
        self.node.sendto(data, self.listener.getsockname())
        self.receiver.count(0)
        after: dict[str, int] = self.receiver.counts
        (verdict,) = [one for one in after if after[one] > before[one]]
        return verdict

    def asked(self, name: str) -> bool:
        """Whether a question came that this node can answer."""
        while select.select([self.node], [], [], 0)[0]:
            question = decode_packet(self.node.recv(1024))
            assert question is not None
            self.nonces[question.name] = question.nonce, time.monotonic()
        return name in self.nonces and time.monotonic() < self.nonces[name][1] + FRESH

    def close(self) -> None:
        self.listener.close()
        self.node.close()


class Signed(RuleBasedStateMachine):
    """Both cores and the model, told the same."""

    cores: Cores

    @initialize()
    def begin(self) -> None:
        self.sides = [Side(core) for core in self.cores]
        #: Node -> session -> the highest sequence; those heard last come last.
        self.believed: dict[str, dict[int, int]] = {}
        self.heard: dict[str, int] = {}
        for name in ("node1", "node2"):
            self.add(name)

    def teardown(self) -> None:
        for side in getattr(self, "sides", ()):
            side.close()

    @rule(name=st.sampled_from(["node1", "node2"]))
    def add(self, name: str) -> None:
        for side in self.sides:
            side.signed.add(name)
        self.believed.setdefault(name, {})

    @rule(name=st.sampled_from(["node1", "node2"]))
    def discard(self, name: str) -> None:
        for side in self.sides:
            assert side.signed.discard(name) is (name in self.believed)
        self._forget(name)
        self.believed.pop(name, None)
        self.heard.pop(name, None)

    def _forget(self, name: str) -> None:
        for side in self.sides:
            side.asked(name)
            side.nonces.pop(name, None)

    @rule(
        name=names, cluster=clusters, session=sessions, sequence=sequences, answers=st.booleans(),
        bit=st.one_of(st.none(), st.none(), st.integers(64, 152 * 8 - 1)),
    )  # fmt: skip
    def say(
        self, name: str, cluster: bytes, session: int, sequence: int, answers: bool, bit: int | None
    ) -> None:
        answers = answers and all(side.asked(name) for side in self.sides)
        expected = self._expected(name, cluster, session, sequence, answers, bit)
        for side in self.sides:
            packet = Packet(
                "status", name, state="dumping", key_id=keys.key_id(cluster), session=session,
                sequence=sequence, nonce=side.nonces[name][0] if answers else bytes(16),
            )  # fmt: skip
            data = bytearray(encode_packet(packet, keys.node_key(cluster, name)))
            if bit is not None:
                data[bit // 8] ^= 1 << bit % 8
            verdict = side.verdict(bytes(data))
            if expected:
                assert verdict == expected
            else:
                assert verdict in ("unsigned", "key", "stranger", "forged")

    def _expected(
        self, name: str, cluster: bytes, session: int, sequence: int, answers: bool, bit: int | None
    ) -> str:
        if bit is not None:
            return ""
        if cluster == FOREIGN_KEY:
            return "key"
        if name not in self.believed:
            return "stranger"
        known = self.believed[name]
        if session in known:
            if sequence <= known[session]:
                return "replayed"
        elif not answers:
            return "replayed"
        elif len(known) == SESSIONS:
            del known[next(iter(known))]
            self._forget_after = name
        known.pop(session, None)
        known[session] = sequence
        self.heard[name] = self.heard.get(name, 0) + 1
        return "accepted"

    @rule(most=st.integers(0, 3))
    def give_out(self, most: int) -> None:
        for side in self.sides:
            told = {one[0]: one[6] for one in side.signed.heard(most)}
            told.update({one[0]: one[6] for one in side.signed.heard()})
            assert told == self.heard
        self.heard = {}

    @invariant()
    def what_was_forgotten_voids_what_was_asked(self) -> None:
        name = self.__dict__.pop("_forget_after", None)
        if name is not None:
            self._forget(name)


def test_any_sequence_of_messages_is_believed_as_the_model_says(cores: Cores) -> None:
    if not cores.compiled.SIGNS:
        cannot_run("the compiled core was built without HMAC-SHA256")
    machine = type("SignedByBoth", (Signed,), {"cores": cores})
    run_state_machine_as_test(  # type: ignore[no-untyped-call,unused-ignore]
        machine, settings=settings(max_examples=60, stateful_step_count=40)
    )

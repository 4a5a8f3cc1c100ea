# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run by test_signed_time.py where `later` works: what of signed messages takes its time."""

from __future__ import annotations

import select
import socket
import time

from tests.conftest import udp
from tests.core.scene import NODE
from tests.core.test_signed import SignedScene, scene
from tests.support.warp import later

__all__ = ["scene"]

#: Seconds that the cores believe a session without a message, and that an answer may take at most.
SESSION, ANSWER = 30, 10


def test_a_session_that_was_not_heard_for_long_has_to_answer_again(scene: SignedScene) -> None:
    node, held_back = scene.confirmed(), scene.signer()
    later(SESSION - 1)
    kept = node.packet(), node.packet()
    node.send()
    assert scene.verdict() == "accepted"  # so long it is believed
    last = node.packet()
    later(SESSION + 1)
    for data in kept:
        held_back.send(data)
        assert scene.verdict() == "replayed"
        assert held_back.question(0.01) is None
    held_back.send(last)
    assert scene.verdict() == "replayed"
    held_back.answer(session=node.session, sequence=4)  # lower than what was heard
    assert scene.verdict() == "replayed"
    node.send()
    assert scene.verdict() == "replayed"
    node.answer()
    assert scene.verdict() == "accepted"


def test_an_answer_that_takes_long_is_none(scene: SignedScene) -> None:
    in_time, late = scene.signer(), scene.signer()
    nonce = scene.asked(late)
    assert scene.asked(in_time)
    scene.verdicts()
    later(ANSWER / 2 - 0.5)
    in_time.send(nonce=nonce)
    assert scene.verdict() == "accepted"
    later(ANSWER / 2 + 0.6)
    late.send(nonce=nonce)
    assert scene.verdict() == "replayed"


def test_when_the_machine_has_just_started_nothing_passes_for_heard(scene: SignedScene) -> None:
    before = time.monotonic()
    later(1 - before)
    try:
        node = scene.signer(session=0)
        node.send()
        assert scene.verdict() == "replayed"
        node.answer()
        assert scene.verdict() == "accepted"
    finally:
        later(before)


def test_who_does_not_answer_is_asked_twice_after_a_gap_that_doubles_up_to_sixteen_seconds(
    scene: SignedScene, sockets: list[socket.socket]
) -> None:
    node = scene.signer(host=NODE)
    sockets.append(udp(NODE, scene.at[1]))  # where every other pair comes
    asked: list[float] = []
    while len(asked) < 14:
        node.send()
        scene.verdicts()
        for sock in select.select([node.sock, sockets[-1]], [], [], 0.002)[0]:
            sock.recv(1024)
            asked.append(time.monotonic())
        later(0.25)
    gaps = [after - before for before, after in zip(asked[1::2], asked[2::2])]
    for gap, least in zip(gaps, (1, 2, 4, 8, 16, 16)):
        assert least <= gap < 2 * least

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Signed questions that are passed on: whose, to where, how often, and what comes back."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from kdumpfence import keys
from kdumpfence.daemon import relay
from kdumpfence.daemon.relay import Relay
from tests.conftest import udp, unused_port
from tests.daemon.running import NODE, until
from tests.support import packets
from tests.support.answerer import CURRENT, FOREIGN, Answerer, dumping, packet

KEYS = keys.Keys((packets.key_id(CURRENT), CURRENT))


@pytest.fixture
def passing() -> Iterator[Relay]:
    made = Relay(unused_port(), lambda: KEYS)
    yield made
    made.close()


@contextlib.contextmanager
def node(answer: object = dumping) -> Iterator[tuple[Answerer, int]]:
    with udp(NODE) as sock, Answerer(sock, answer=answer) as made:  # type: ignore[arg-type]
        yield made, sock.getsockname()[1]


def question(nonce: bytes, **other: object) -> bytes:
    return packet("question", nonce, **other)  # type: ignore[arg-type]


def test_a_question_is_passed_on_as_it_is_and_the_answer_comes_back(passing: Relay) -> None:
    asked = question(os.urandom(16))
    with node() as (made, port):
        assert passing.ask("node1", asked, [NODE], port)[0] == 2  # at its own port, and at 7410
        found = until(lambda: passing.ask("node1", asked, [NODE], port)[1])
    assert made.questions[0][0] == asked
    assert found == [(NODE, packet("status", asked[40:56]))]


def test_it_is_sent_again_but_not_faster_than_that(
    passing: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = question(os.urandom(16))
    monkeypatch.setattr(relay, "INTERVAL", 3600.0)
    assert passing.ask("node1", asked, [NODE], 9)[0] == 2
    assert passing.ask("node1", asked, [NODE], 9)[0] == 0
    assert passing.ask("node1", question(os.urandom(16)), [NODE], 9)[0] == 2
    monkeypatch.setattr(relay, "INTERVAL", 0.0)
    passing.ask("node1", other := question(os.urandom(16)), [NODE], 9)
    assert passing.ask("node1", other, [NODE], 9)[0] == 2


@pytest.mark.parametrize(
    "answer",
    [
        lambda told: [packet("status", told.nonce, key=None)],
        lambda told: [packet("status", told.nonce, key=FOREIGN)],
        lambda told: [packet("status", told.nonce, name="node2")],
        lambda told: [packet("status", os.urandom(16))],
        lambda told: [packet("status", told.nonce) + b"x"],
        lambda told: [packet("question", told.nonce)],
        lambda told: [b"", b"rubbish"],
    ],
    ids=["unsigned", "foreign", "another node", "another nonce", "longer", "question", "rubbish"],
)
def test_what_the_node_did_not_sign_takes_no_room_from_what_it_did(
    passing: Relay, answer: object
) -> None:
    def both(told: packets.Told) -> list[bytes]:
        return answer(told) * 20 + dumping(told)  # type: ignore[operator,no-any-return]

    asked = question(os.urandom(16))
    with node(both) as (_, port):
        found = until(lambda: passing.ask("node1", asked, [NODE], port)[1])
    assert found == [(NODE, packet("status", asked[40:56]))]


def test_answers_are_kept_apart_and_only_so_many(passing: Relay) -> None:
    def many(told: packets.Told) -> list[bytes]:
        return [packet("status", told.nonce, sequence=number) for number in range(1, 30)]

    first, second = question(os.urandom(16)), question(os.urandom(16))
    with node(many) as (_, port):
        passing.ask("node1", second, [], 0)
        until(lambda: len(passing.ask("node1", first, [NODE], port)[1]) == relay.MOST_ANSWERS)
        assert passing.ask("node1", second, [], 0)[1] == []


def test_no_more_nonces_are_kept_than_that_and_the_filters_hold_them(passing: Relay) -> None:
    mine = question(os.urandom(16))
    with node() as (_, port):
        for _ in range(3 * relay.MOST):
            passing.ask("node1", question(os.urandom(16)), [NODE], port)
            passing.ask("node1", mine, [], 0)  # whoever comes back stays
        assert len(passing._asked) == relay.MOST
        found = until(lambda: passing.ask("node1", mine, [NODE], port)[1])
    assert found == [(NODE, packet("status", mine[40:56]))]


def test_idle_ones_are_forgotten(passing: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    passing.ask("node1", question(os.urandom(16)), [], 0)
    monkeypatch.setattr(relay, "IDLE", 0.0)
    passing.ask("node1", question(os.urandom(16)), [], 0)
    assert len(passing._asked) == 1


@pytest.mark.parametrize("address", ["no address", "0.0.0.0", "255.255.255.255", "224.0.0.1", ""])
def test_what_can_be_no_nodes_address_is_not_asked(passing: Relay, address: str) -> None:
    assert passing.ask("node1", question(os.urandom(16)), [address], 9) == (0, [])


def test_only_the_first_addresses_are_asked(passing: Relay) -> None:
    addresses = [f"127.3.0.{number}" for number in range(1, 30)]
    sent, _ = passing.ask("node1", question(os.urandom(16)), addresses, 9)
    assert sent == 2 * relay.MOST_ADDRESSES


def test_strangers_are_kept_out_by_the_kernel(passing: Relay) -> None:
    asked = question(os.urandom(16))
    passing.ask("node1", asked, [NODE], 9)
    ((_, sock),) = passing._sockets.items()
    port = sock.getsockname()[1]
    with udp(NODE) as stranger:
        for data in (b"x", packet("status", os.urandom(16)), packet("status", asked[40:56])):
            stranger.sendto(data, ("127.0.0.1", port))
    assert sock.recv(1024) == packet("status", asked[40:56])
    with pytest.raises(BlockingIOError):
        sock.recv(1024, socket.MSG_DONTWAIT)


def test_without_keys_nothing_is_passed_on() -> None:
    made = Relay(7410, lambda: None)
    with pytest.raises(ValueError, match="the daemon checks no signatures"):
        made.ask("node1", question(os.urandom(16)), [NODE], 9)
    assert not made._sockets

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A storm in this process, what its datagrams are made of, and which addresses it takes for own."""

from __future__ import annotations

import random
import socket

import pytest

from kdumpfence import wire
from kdumpfence.storm import Plan, Storm, payloads, player
from kdumpfence.storm.payloads import KINDS
from tests.conftest import udp

LOCAL = 0x80200001
REMOTE = 0x00000001


def test_a_storm_is_played_from_python_too() -> None:
    with udp() as listener:
        plan = Plan(port=listener.getsockname()[1], nodes=3, interval=0.02, duration=60)
        seconds: list[int] = []

        def wait(nanoseconds: int) -> str | None:
            player.sleep(nanoseconds)
            return "enough" if seconds else None

        with Storm(plan) as storm:
            storm.run(wait, seconds.append)
        told = storm.figures()
        heard = [listener.recvfrom(100) for _ in range(4)]
    assert [address[0] for _, address in heard] == [f"127.0.0.{node}" for node in (1, 2, 3, 1)]
    assert {data for data, _ in heard} == {wire.OWN_MESSAGE}
    assert told["ended"] == "enough"
    assert 1 <= told["seconds"] < 60
    assert told["sent"] == storm.sent >= 100


@pytest.mark.parametrize("kind", KINDS[2:])
def test_malformed_datagrams_are_rejected_for_what_they_are(kind: str) -> None:
    rng = random.Random(1)
    for byteorder in ("little", "big"):
        made = [payloads.malformed(kind, wire.encode(byteorder), rng) for _ in range(200)]
        if kind == "long":
            assert {len(wire.decode(one).trailer) for one in made} == {1400}
            continue
        reasons = set()
        for one in made:
            with pytest.raises(wire.Rejected) as raised:
                wire.decode(one)
            reasons.add(raised.value.reason)
        expected = {"empty": {"short"}, "random": {"short", "magic"}}
        assert reasons <= expected.get(kind, {kind})
        assert len(set(made)) > (1 if kind != "empty" else 0)


def test_nodes_have_one_byte_order_or_both_in_turn() -> None:
    assert payloads.messages("own") == [wire.OWN_MESSAGE]
    assert payloads.messages("big") == [wire.encode("big")]
    assert payloads.messages("both") == [wire.encode("little"), wire.encode("big")]


# ------------------------------------------------------- which IPv6 addresses are local


def routes(*known: tuple[str, int, int]) -> str:
    """As in /proc/net/ipv6_route: first address, length of the prefix, flags."""
    return "".join(
        f"{packed(address):032x} {length:02x} {0:032x} 00 {0:032x} "
        f"00000100 00000001 00000000 {flags:08x}       lo\n"
        for address, length, flags in known
    )


def packed(address: str) -> int:
    return int.from_bytes(socket.inet_pton(socket.AF_INET6, address), "big")


NET = "fd00:9::"
SINGLE = [(f"fd00:9::{number:x}", 128, LOCAL) for number in (1, 2, 3, 5)]


@pytest.mark.parametrize(
    ("known", "first", "last", "found"),
    [
        # A local route makes a whole network ours.
        ([(NET, 64, LOCAL), ("::", 0, REMOTE)], "fd00:9::1", "fd00:9::ffff:ffff", None),
        ([(NET, 64, LOCAL), ("::", 0, REMOTE)], "fd00:9::1", "fd00:9:0:1::", "fd00:9:0:1::"),
        ([(NET, 64, LOCAL), ("::", 0, REMOTE)], "fd00:8::1", "fd00:9::1", "fd00:8::1"),
        # Single addresses are ours without a gap or not at all.
        ([*SINGLE, (NET, 64, REMOTE)], "fd00:9::1", "fd00:9::3", None),
        ([*SINGLE, (NET, 64, REMOTE)], "fd00:9::1", "fd00:9::5", "fd00:9::4"),
        # What a narrower route sends elsewhere is not ours.
        ([(NET, 64, LOCAL), ("fd00:9::80", 121, REMOTE)], "fd00:9::1", "fd00:9::7f", None),
        ([(NET, 64, LOCAL), ("fd00:9::80", 121, REMOTE)], "fd00:9::1", "fd00:9::90", "fd00:9::80"),
        # Of two equal routes the local one is asked first.
        ([(NET, 64, REMOTE), (NET, 64, LOCAL)], "fd00:9::1", "fd00:9::7f", None),
        ([], "fd00:9::1", "fd00:9::1", "fd00:9::1"),
    ],
)
def test_which_ipv6_addresses_routes_make_our_own(
    known: list[tuple[str, int, int]], first: str, last: str, found: str | None
) -> None:
    stranger = player.not_local(routes(*known), packed(first), packed(last))
    assert stranger == (None if found is None else packed(found))

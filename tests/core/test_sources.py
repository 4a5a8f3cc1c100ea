# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of known addresses, on both cores."""

from __future__ import annotations

import random
import socket
from types import ModuleType

import pytest

A = socket.inet_pton(socket.AF_INET, "10.0.0.1")
B = socket.inet_pton(socket.AF_INET6, "fd00::1")
LINK_LOCAL = socket.inet_pton(socket.AF_INET6, "fe80::1")


def test_an_address_is_found_with_its_node(core: ModuleType) -> None:
    sources = core.Sources()
    sources.add(A, node=3)
    sources.add(B, node=4)
    assert (sources.find(A), sources.find(B)) == (3, 4)
    assert sources.find(socket.inet_pton(socket.AF_INET, "10.0.0.2")) is None
    assert len(sources) == 2


def test_adding_again_renumbers(core: ModuleType) -> None:
    sources = core.Sources()
    sources.add(A, node=3)
    sources.add(A, node=5)
    assert sources.find(A) == 5
    assert len(sources) == 1


def test_a_link_local_address_is_known_on_its_interface_only(core: ModuleType) -> None:
    sources = core.Sources()
    sources.add(LINK_LOCAL, scope=2)
    assert sources.find(LINK_LOCAL, 2) == 0
    assert sources.find(LINK_LOCAL, 3) is None
    assert sources.find(LINK_LOCAL) is None


def test_a_mapped_address_is_the_ipv4_address(core: ModuleType) -> None:
    sources = core.Sources()
    sources.add(socket.inet_pton(socket.AF_INET6, "::ffff:10.0.0.1"), node=1)
    assert sources.find(A) == 1
    assert list(sources) == [(A, 0)]


def test_discarded_addresses_are_strangers_again(core: ModuleType) -> None:
    sources = core.Sources()
    assert sources.discard(A) is False
    sources.add(A)
    assert sources.discard(A) is True
    assert sources.find(A) is None
    assert list(sources) == []


@pytest.mark.parametrize("packed", [b"", b"123", b"12345", bytes(17)])
def test_an_address_has_4_or_16_bytes(core: ModuleType, packed: bytes) -> None:
    sources = core.Sources()
    for method in (sources.add, sources.find, sources.discard):
        with pytest.raises(ValueError, match=f"address of {len(packed)} bytes: 4 or 16"):
            method(packed)


def test_many_addresses_come_and_go_without_a_mistake(core: ModuleType) -> None:
    sources, model, dice = core.Sources(), {}, random.Random(1)
    for step in range(30_000):
        packed = dice.randrange(4000).to_bytes(4, "big")
        if dice.random() < 0.55:
            sources.add(packed, node=step)
            model[packed] = step
        else:
            assert sources.discard(packed) == (model.pop(packed, None) is not None)
    assert len(sources) == len(model)
    assert {packed for packed, _ in sources} == set(model)
    for number in range(4000):
        packed = number.to_bytes(4, "big")
        assert sources.find(packed) == model.get(packed)


@pytest.mark.slow
def test_a_hundred_thousand_sources_are_kept_apart_however_the_table_grows(
    core: ModuleType,
) -> None:
    sources = core.Sources()
    packed = [number.to_bytes(4, "big") for number in range(100_000)]
    for node, address in enumerate(packed):
        sources.add(address, node=node)
    assert [sources.find(address) for address in packed] == list(range(100_000))
    for address in packed[::2]:
        assert sources.discard(address)
    assert len(sources) == 50_000
    assert [sources.find(address) for address in packed[:6]] == [None, 1, None, 3, None, 5]
    assert {address for address, _ in sources} == set(packed[1::2])

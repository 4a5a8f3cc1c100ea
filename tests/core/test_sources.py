# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of known addresses, on both cores.

Any sequence of changes, beside a dict: tests/property/test_sources.py.
"""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.core.scene import pack

A, B = pack("10.0.0.1"), pack("fd00::1")
LINK_LOCAL = pack("fe80::1")


def test_an_address_is_found_with_the_node_it_was_last_added_for(core: ModuleType) -> None:
    sources = core.Sources()
    for packed, node in ((A, 2), (B, 4), (A, 3)):
        sources.add(packed, node=node)
    assert (sources.find(A), sources.find(B)) == (3, 4)
    assert sources.find(pack("10.0.0.2")) is None
    assert len(sources) == 2


def test_a_link_local_address_is_known_on_its_interface_only(core: ModuleType) -> None:
    sources = core.Sources()
    sources.add(LINK_LOCAL, scope=2)
    assert sources.find(LINK_LOCAL, 2) == 0
    assert sources.find(LINK_LOCAL, 3) is None
    assert sources.find(LINK_LOCAL) is None


def test_a_mapped_address_is_the_ipv4_address(core: ModuleType) -> None:
    sources = core.Sources()
    sources.add(pack("::ffff:10.0.0.1"), node=1)
    assert sources.find(A) == 1
    assert list(sources) == [(A, 0)]


def test_discarded_addresses_are_strangers_again(core: ModuleType) -> None:
    sources = core.Sources()
    assert sources.discard(A) is False
    sources.add(A)
    assert sources.discard(A) is True
    assert sources.find(A) is None
    assert list(sources) == []


@pytest.mark.parametrize("length", [*range(4), *range(5, 16), 17, 32])
def test_an_address_has_4_or_16_bytes(core: ModuleType, length: int) -> None:
    sources = core.Sources()
    for method in (sources.add, sources.find, sources.discard, sources.release):
        with pytest.raises(ValueError, match=f"^address of {length} bytes: 4 or 16 are allowed$"):
            method(bytes(length))


def test_ten_thousand_sources_are_kept_apart_however_the_table_grows(core: ModuleType) -> None:
    sources = core.Sources()
    packed = [number.to_bytes(4, "big") for number in range(10_000)]
    for node, address in enumerate(packed):
        sources.add(address, node=node)
    assert [sources.find(address) for address in packed] == list(range(10_000))
    for address in packed[::2]:
        assert sources.discard(address)
    assert len(sources) == 5_000
    assert [sources.find(address) for address in packed[:6]] == [None, 1, None, 3, None, 5]
    assert {address for address, _ in sources} == set(packed[1::2])

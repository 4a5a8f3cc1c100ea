# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which way a datagram would go; real networks are in tests/system/network/test_check.py."""

from __future__ import annotations

import errno
import socket
import struct
from types import ModuleType

import pytest

from kdumpfence import _purewire
from tests.conftest import load_core
from tests.core.scene import pack

#: A route (RTM_NEWROUTE is 24) up to its type: of IPv4, to one address, unicast is 1.
NOWHERE = bytes([2, 32, 0, 0, 254, 2, 0])


def test_to_this_machine_itself(core: ModuleType) -> None:
    interface, source, gateway, local, carrier = core.find_route(pack("127.0.0.1"))
    assert interface == socket.if_nametoindex("lo")
    assert source == pack("127.0.0.1")
    assert (gateway, local, carrier) == (b"", True, True)


def test_both_cores_get_the_same_answer() -> None:
    compiled, pure = load_core("compiled"), load_core("pure")
    for text in ("127.0.0.2", "192.0.2.77", "::1", "fd00::77", "fe80::1", "255.255.255.255"):
        results = []
        for one in (compiled, pure):
            try:
                results.append(one.find_route(pack(text)))
            except OSError as error:
                results.append((type(error), error.errno, str(error)))
        assert results[0] == results[1], text


def test_an_interface_that_there_is_not(core: ModuleType) -> None:
    with pytest.raises(OSError, match=r"unreachable|No such device"):
        core.find_route(pack("fe80::1"), 99999)


@pytest.mark.parametrize("packed", [b"", bytes(5), bytes(17)])
def test_what_is_no_address_is_refused(core: ModuleType, packed: bytes) -> None:
    with pytest.raises(ValueError, match=f"address of {len(packed)} bytes: 4 or 16 are allowed"):
        core.find_route(packed)


def test_no_descriptor_leaks(core: ModuleType) -> None:
    def next_fd() -> int:
        with socket.socket() as probe:
            return probe.fileno()

    before = next_fd()
    for _ in range(20):
        core.find_route(pack("127.0.0.1"))
    assert next_fd() == before


# ------------------------------------------------- what the kernel might answer (pure core)


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        (2, struct.pack("=i", -errno.ENETUNREACH), errno.ENETUNREACH),  # an error of its own
        (24, NOWHERE + b"\6" + bytes(4), errno.EINVAL),
        (24, NOWHERE + b"\7" + bytes(4), errno.ENETUNREACH),
        (24, NOWHERE + b"\10" + bytes(4), errno.EACCES),
        (16, bytes(12), errno.EPROTO),  # the answer to another question
    ],
)
def test_an_answer_that_is_no_way_is_an_error(kind: int, body: bytes, code: int) -> None:
    answer = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body
    with pytest.raises(OSError, match=r".") as raised:
        _purewire._read_route(answer)
    assert raised.value.errno == code

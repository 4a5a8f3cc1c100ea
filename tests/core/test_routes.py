# SPDX-License-Identifier: GPL-2.0-or-later
"""Which way a datagram would go; real networks are in tests/system/network/test_check.py."""

from __future__ import annotations

import errno
import socket
from types import ModuleType

import pytest

from kdumpfence import _purewire
from tests.conftest import load_core


def test_to_this_machine_itself(core: ModuleType) -> None:
    interface, source, gateway, local, carrier = core.find_route(bytes([127, 0, 0, 1]))
    assert interface == socket.if_nametoindex("lo")
    assert source == bytes([127, 0, 0, 1])
    assert (gateway, local, carrier) == (b"", True, True)


def test_both_cores_get_the_same_answer() -> None:
    compiled, pure = load_core("compiled"), load_core("pure")
    for text in ("127.0.0.2", "192.0.2.77", "::1", "fd00::77", "fe80::1", "255.255.255.255"):
        family = socket.AF_INET6 if ":" in text else socket.AF_INET
        packed = socket.inet_pton(family, text)
        results = []
        for one in (compiled, pure):
            try:
                results.append(one.find_route(packed))
            except OSError as error:
                results.append((type(error), error.errno, str(error)))
        assert results[0] == results[1], text


def test_an_interface_that_there_is_not(core: ModuleType) -> None:
    with pytest.raises(OSError, match=r"unreachable|No such device"):
        core.find_route(socket.inet_pton(socket.AF_INET6, "fe80::1"), 99999)


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
        core.find_route(bytes([127, 0, 0, 1]))
    assert next_fd() == before


# ------------------------------------------------- what the kernel might answer (pure core)


def answer(kind: int, body: bytes) -> bytes:
    import struct

    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_an_error_of_the_kernel_is_raised() -> None:
    import struct

    with pytest.raises(OSError, match="unreachable") as raised:
        _purewire._read_route(answer(2, struct.pack("=i", -errno.ENETUNREACH)))
    assert raised.value.errno == errno.ENETUNREACH


@pytest.mark.parametrize(
    ("kind", "code"), [(6, errno.EINVAL), (7, errno.ENETUNREACH), (8, errno.EACCES)]
)
def test_a_route_that_leads_nowhere_is_none(kind: int, code: int) -> None:
    body = bytes([2, 32, 0, 0, 254, 2, 0, kind]) + bytes(4)
    with pytest.raises(OSError, match=r".") as raised:
        _purewire._read_route(answer(24, body))
    assert raised.value.errno == code


def test_an_answer_to_another_question_is_an_error() -> None:
    with pytest.raises(OSError, match=r".") as raised:
        _purewire._read_route(answer(16, bytes(12)))
    assert raised.value.errno == errno.EPROTO

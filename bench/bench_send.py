# SPDX-License-Identifier: GPL-2.0-or-later
"""What single send calls cost, on both cores and with plain Python.

python -m pytest bench -o python_files='bench_*.py' -k send
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.cases.send import destinations, dropping
from kdumpfence.wire import OWN_MESSAGE


@pytest.fixture(params=["_kdumpwire", "_purewire"])
def core(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(f"kdumpfence.{request.param}")


@pytest.fixture
def port() -> Iterator[int]:
    """Of a socket that takes all and drops it."""
    with dropping(socket.AF_INET) as one:
        yield one


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        yield one


def transmitter(core: Any, sock: socket.socket, port: int, nodes: int) -> Any:
    made = core.Transmitter(sock, OWN_MESSAGE)
    for packed in destinations(nodes):
        made.add(packed, port)
    return made


@pytest.mark.parametrize("nodes", [1, 32, 1_000, 10_000])
def test_send_to_all(
    benchmark: BenchmarkFixture, core: Any, sock: socket.socket, port: int, nodes: int
) -> None:
    one = transmitter(core, sock, port, nodes)
    assert benchmark(one.send) == [0] * nodes


def test_send_to_some(
    benchmark: BenchmarkFixture, core: Any, sock: socket.socket, port: int
) -> None:
    one = transmitter(core, sock, port, 10_000)
    some = list(range(0, 10_000, 313))
    assert benchmark(one.send, some) == [0] * len(some)


def test_add_1000_destinations(
    benchmark: BenchmarkFixture, core: Any, sock: socket.socket, port: int
) -> None:
    assert len(benchmark(transmitter, core, sock, port, 1_000)) == 1_000


@pytest.mark.parametrize("nodes", [1, 1_000])
def test_sendto_in_a_loop(
    benchmark: BenchmarkFixture, sock: socket.socket, port: int, nodes: int
) -> None:
    names = [(socket.inet_ntoa(packed), port) for packed in destinations(nodes)]

    def send() -> int:
        return sum(sock.sendto(OWN_MESSAGE, name) for name in names)

    assert benchmark(send) == nodes * len(OWN_MESSAGE)

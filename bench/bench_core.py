# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the calls of the core cost, on both.

python -m pytest bench/bench_core.py
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

MESSAGE = bytes.fromhex("402a301b01000000")


@pytest.fixture(params=["_kdumpwire", "_purewire"])
def core(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(f"kdumpfence.{request.param}")


@pytest.mark.parametrize("trailer", [0, 64])
def test_decode(benchmark: BenchmarkFixture, core: Any, trailer: int) -> None:
    data = MESSAGE + bytes(trailer)
    assert len(benchmark(core.decode, data).trailer) == trailer


def test_encode(benchmark: BenchmarkFixture, core: Any) -> None:
    assert benchmark(core.encode, "little") == MESSAGE


def test_validate_64_kib(benchmark: BenchmarkFixture, core: Any) -> None:
    assert benchmark(core.validate, MESSAGE * 8192)["accepted"] == 8192


@pytest.mark.parametrize("nodes", [1, 100_000])
def test_find_a_source(benchmark: BenchmarkFixture, core: Any, nodes: int) -> None:
    sources = core.Sources()
    for node in range(nodes):
        sources.add(node.to_bytes(4, "big"), 0, node)
    assert benchmark(sources.find, bytes(4)) == 0

# SPDX-License-Identifier: GPL-2.0-or-later
"""Emptying a queue of messages, one loop at a time; bench/cases/receive.py has the pairs.

python -m pytest bench -o python_files='bench_*.py' -k receive
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import paired
from bench.cases import receive
from bench.queue import Queue, addresses


@pytest.fixture
def queue() -> Iterator[Queue]:
    with paired.pinned(), Queue(receive.SHORT) as queue:
        yield queue


def empty(
    benchmark: BenchmarkFixture, queue: Queue, nodes: list[bytes], drain: receive.Drain
) -> None:
    # Others in each round, as long as there are others: the same few would stay in the caches.
    count, width = receive.SHORT * max(1, len(nodes) // receive.SHORT), len(nodes[0])
    senders, piece = queue.senders(nodes, count), receive.SHORT * width
    turns = itertools.cycle(range(0, len(senders), piece))

    def fill() -> None:
        at = next(turns)
        queue.fill(senders[at : at + piece])

    for _ in range(0, len(senders), piece):  # the first message of each node is not what counts
        fill()
        drain()
    counted = benchmark.pedantic(  # type: ignore[no-untyped-call]
        drain, setup=fill, rounds=200
    )
    assert counted == receive.SHORT


@pytest.mark.parametrize("count", [1, 1_000, 100_000])
@pytest.mark.parametrize("core", ["_kdumpwire", "_purewire"])
def test_receive(benchmark: BenchmarkFixture, queue: Queue, core: str, count: int) -> None:
    nodes = addresses(count)
    module = importlib.import_module(f"kdumpfence.{core}")
    empty(benchmark, queue, nodes, receive.ours(module, queue.listener, nodes))


def test_receive_in_bare_c(benchmark: BenchmarkFixture, queue: Queue) -> None:
    empty(benchmark, queue, addresses(1_000), receive.bare(queue.listener))


def test_receive_in_plain_python(benchmark: BenchmarkFixture, queue: Queue) -> None:
    nodes = addresses(1_000)
    empty(benchmark, queue, nodes, receive.plain(queue.listener, nodes))

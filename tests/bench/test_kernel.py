# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the figures of counting in the kernel are measured with does what it says."""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import closing

import pytest

from bench.cases import kernel_daemon, kernel_memory
from bench.crowd import Crowd
from bench.paired import c_library
from bench.queue import Queue, addresses
from kdumpfence.listener.kernel.counting import load
from tests.conftest import udp
from tests.support.kernel import need_kernel_counting


@pytest.mark.parametrize("rest", [0, 1_000_000])
def test_a_crowd_sends_as_often_as_it_is_told_and_the_bare_loop_reads_all(rest: int) -> None:
    library = c_library("recvmmsg")
    library.bare_make.restype = ctypes.c_void_p
    library.bare_follow.restype = library.bare_drain.restype = ctypes.c_long
    made = ctypes.c_void_p(library.bare_make(256, 64, 1))
    with closing(Queue()) as queue, closing(Crowd(addresses(500))) as crowd:
        for times in (1, 3):
            crowd.send(queue.listener.getsockname()[1], times)
            wait = ctypes.c_long(rest)
            got = library.bare_follow(made, queue.listener.fileno(), crowd.done, wait)
            number, took = crowd.sent()
            until = time.monotonic() + 60
            while got < number and time.monotonic() < until:  # the kernel may put some off
                got += library.bare_drain(made, queue.listener.fileno())
            assert got == number == 500 * times
            assert took > 0
        crowd.send(queue.listener.getsockname()[1], 1 << 30)
        assert crowd.sent_until_now() >= 250
    library.bare_free(made)


def test_the_kernels_share_of_the_memory_is_counted_once() -> None:
    need_kernel_counting()
    before = kernel_memory.of_the_kernel(), kernel_memory.mapped()
    with udp() as sock, closing(load([sock], 100_000, 30.0, 10.0)) as made:
        table = len(made._table.memory)
        made._table.memory[:] = bytes(table)
        assert table <= kernel_memory.of_the_kernel() - before[0] < 1.1 * table
        assert 0 <= kernel_memory.mapped() - before[1] < 1.1 * table
    assert (kernel_memory.of_the_kernel(), kernel_memory.mapped()) == before


def test_the_time_of_all_threads_is_counted() -> None:
    before = kernel_daemon.processor(os.getpid())
    while kernel_daemon.processor(os.getpid()) - before < 10**7:
        pass

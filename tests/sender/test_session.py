# SPDX-License-Identifier: LGPL-2.1-or-later
"""A session is another one at each start, also where the crash kernel has no randomness yet."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from kdumpfence.sender import status
from kdumpfence.sender.options import sender_from_argv
from tests.sender.conftest import packet_of, run
from tests.support import frozen

Sessions = Callable[[str], list[int]]


@pytest.fixture(params=["native", "python"])
def sessions(
    request: pytest.FixtureRequest,
    sock: socket.socket,
    port: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Sessions:
    """Those of two starts, on a machine on which nothing but this moves."""

    def of_programs(moves: str) -> list[int]:
        monkeypatch.setenv("LD_PRELOAD", frozen.library(tmp_path, moves))
        argv = ("--node", "n1", "-p", port, "-c", "1", "127.0.0.1")
        statuses = [run("native", *argv).returncode for _ in range(2)]
        assert statuses == [0, 0]
        return [packet_of(sock.recv(1000)).session for _ in range(2)]

    def of_objects(moves: str) -> list[int]:
        freeze(monkeypatch, moves)
        options = sender_from_argv(["--node=n", "127.0.0.1"])
        return [packet_of(status.Status(options).packet()).session for _ in range(2)]

    return of_programs if request.param == "native" else of_objects


def freeze(monkeypatch: pytest.MonkeyPatch, moves: str) -> None:
    """In this process."""

    def none_yet(_: int, flags: int = 0) -> bytes:
        assert flags & os.GRND_NONBLOCK
        raise BlockingIOError

    pids = iter(range(1000, 2000))
    if moves != "random":
        monkeypatch.setattr(os, "getrandom", none_yet)
    monkeypatch.setattr(os, "getpid", lambda: next(pids) if moves == "pid" else 0)
    for source, clock in (("monotonic", "monotonic_ns"), ("realtime", "time_ns")):
        if moves != source:
            monkeypatch.setattr(f"time.{clock}", lambda: 0)


@pytest.mark.parametrize("moves", frozen.SOURCES)
def test_each_source_of_numbers_alone_makes_sessions_differ(sessions: Sessions, moves: str) -> None:
    first, second = sessions(moves)
    assert first != second
    assert min(first, second) > 2**40  # all its bits are used


def test_a_session_is_never_zero(sessions: Sessions) -> None:
    assert sessions("") == [1, 1]

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all tests share: both cores, and the rule that CI may not skip."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import errno
import importlib
import itertools
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NoReturn

import pytest

CORES = ("compiled", "pure")
_MODULES = {"compiled": "kdumpfence._kdumpwire", "pure": "kdumpfence._purewire"}
CLONE_NEWNET = 0x40000000


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where files are shared out, first those with the most slow tests: none is to come last."""
    if hasattr(config, "workerinput"):
        slow = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session", autouse=True)
def _heard_signals() -> None:
    """Programs under test end by SIGINT and SIGHUP, even where whoever runs the tests ignores them.

    That is inherited: from nohup, and from a shell without job control for what it starts with
    "&". What is caught, and not ignored, is what it usually is again in a program. This process
    goes on being deaf to both.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def load_core(name: str) -> Any:
    """One of the two cores. Without a compiled one its tests cannot be run."""
    try:
        return importlib.import_module(_MODULES[name])
    except ImportError as error:
        cannot_run(f"no {name} core: {error}")


def cannot_run(why: str) -> NoReturn:
    """A test that cannot run is skipped, but in CI it has failed."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"cannot run here, which CI does not allow: {why}")
    pytest.skip(why)


@pytest.fixture(params=CORES)
def core(request: pytest.FixtureRequest) -> ModuleType:
    """Each of the two cores: whatever holds for one holds for the other."""
    module: ModuleType = load_core(request.param)
    return module


@pytest.fixture(params=CORES)
def core_name(request: pytest.FixtureRequest) -> str:
    """The name of each core that is there, for tests that run programs."""
    load_core(request.param)
    return str(request.param)


@pytest.fixture
def root() -> None:
    """For tests that open raw sockets or make namespaces."""
    if os.geteuid() != 0:
        cannot_run("not root")


@pytest.fixture
def own_network() -> Iterator[None]:
    """A loopback without the datagrams of tests that run at the same time, where that is allowed.

    For tests that count what a raw socket has no room for: the kernel counts whatever passes a
    full one by, for every port. Of this thread only, and to be named before what opens sockets.
    """
    libc = ctypes.CDLL(None)
    with open("/proc/thread-self/ns/net") as before:
        entered = libc.unshare(CLONE_NEWNET) == 0
        if entered:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=60)
        yield
        if entered:
            assert libc.setns(before.fileno(), CLONE_NEWNET) == 0


def udp(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A UDP socket bound to that address; every 127.x.y.z can play a node."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((host, port))
    return sock


#: Ports of a worker, and the next of them.
_PORTS = 1250
_next_port = itertools.count(random.randrange(_PORTS))


def unused_port() -> int:
    """A port that nobody has, neither UDP nor TCP, of either family, for a program to open.

    From below those that the kernel gives out by itself: tests beside this one ask for hundreds
    of these a second, and one of them might have it when the program wants it. And no two workers
    of pytest-xdist have the same: with raw sockets one's agent would hear the other's nodes.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 16
    while True:
        port = 10000 + worker * _PORTS + next(_next_port) % _PORTS
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                    with socket.socket(family, kind) as sock:
                        if family == socket.AF_INET6:
                            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                        sock.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
        return port


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """Sockets put in here are closed after the test."""
    opened: list[socket.socket] = []
    yield opened
    for sock in opened:
        sock.close()


def fill(pipe: int) -> None:
    """Write to a pipe until it is full."""
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x" * 4096)
    os.set_blocking(pipe, True)

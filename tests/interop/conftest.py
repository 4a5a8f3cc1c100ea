# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the tests beside the stock programs, and what decides between skip and fail."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kdumpfence.install import native_sender
from tests.interop import stock as stock_files
from tests.interop.lab import Lab, Need
from tests.interop.nodes import network
from tests.interop.programs import Programs, ours_on, without_raw_sockets
from tests.support import netlab

OURS = ("ours-compiled", "ours-pure")
CAP_NET_RAW, CAP_SYS_ADMIN = 13, 21  # linux/capability.h


def _need(met: bool, what: str) -> None:
    if not met:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"CI=true: everything has to run, but {what}")
        pytest.skip(what)


@pytest.fixture
def need() -> Need:
    """Ask for what a test cannot do without: `need(condition, what is amiss)`.

    Where it is missing the test is skipped; with CI=true in the environment it fails.
    """
    return _need


@pytest.fixture
def root() -> None:
    """Ask for the rights to send raw packets and to mount files over the machine's."""
    rights = int(Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0], 16)
    for right, name in ((CAP_NET_RAW, "CAP_NET_RAW"), (CAP_SYS_ADMIN, "CAP_SYS_ADMIN")):
        _need(bool(rights >> right & 1), f"{name} is missing: run this as root")


@functools.cache
def _stock_or_reason() -> stock_files.Stock | str:
    try:
        return stock_files.get()
    except stock_files.NotAvailable as reason:
        return str(reason)


def _stock_files() -> stock_files.Stock:
    found = _stock_or_reason()
    _need(not isinstance(found, str), str(found))
    assert not isinstance(found, str)
    return found


@functools.cache
def _core_in_use(core: str) -> str:
    """Return the core on which ours really run if asked for this one; "" if not installed."""
    programs = ours_on(core)
    if not (programs.agent.exists() and programs.sender.exists()):
        return ""
    return subprocess.run(
        [sys.executable, "-c", "from kdumpfence import wire; print(wire.IMPLEMENTATION)"],
        env={k: v for k, v in os.environ.items() if k != "KDUMPFENCE_PURE"} | dict(programs.env),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def _programs(name: str) -> Programs:
    if name == "stock":
        return Programs(name, _stock_files().agent, _stock_files().sender)
    core = name.partition("-")[2]
    if core == "native":
        try:
            return replace(_programs("ours-compiled"), name=name, sender=Path(native_sender.find()))
        except native_sender.NotBuilt as error:
            _need(False, str(error))
    programs, found = ours_on(core), _core_in_use(core)
    _need(found != "", f"{programs.agent} is missing: install the project beside {sys.executable}")
    _need(found == core, f"asked for the {core} core, got the {found} one: was it compiled?")
    return programs


def _with_or_without_raw_sockets(name: str) -> Programs:
    name, _, without = name.partition(", ")
    return _programs(name).through(*(without_raw_sockets() if without else ()))


@pytest.fixture
def stock() -> Programs:
    """Give the stock agent and sender."""
    return _programs("stock")


@pytest.fixture
def schema() -> Path:
    """Give the RELAX NG schema that every fence agent's metadata has to follow."""
    return _stock_files().schema


@pytest.fixture(params=OURS)
def ours(request: pytest.FixtureRequest) -> Programs:
    """Give our agent and sender, on each of the two cores."""
    return _programs(request.param)


@pytest.fixture(params=("stock", *OURS))
def programs(request: pytest.FixtureRequest) -> Programs:
    """Give the stock programs, then ours on each of the two cores."""
    return _programs(request.param)


@pytest.fixture(params=("stock", *OURS, "ours-native"))
def senders(request: pytest.FixtureRequest) -> Programs:
    """Give what `programs` does, and the sender that is no Python program."""
    return _programs(request.param)


@pytest.fixture(params=("stock", *OURS, *(f"{name}, no CAP_NET_RAW" for name in OURS)))
def listener(request: pytest.FixtureRequest) -> Programs:
    """Give what `programs` does, then ours with UDP sockets, without the right to raw ones."""
    return _with_or_without_raw_sockets(request.param)


@pytest.fixture(params=(*OURS, *(f"{name}, no CAP_NET_RAW" for name in OURS)))
def ours_anyhow(request: pytest.FixtureRequest) -> Programs:
    """Give what `listener` does without the stock programs."""
    return _with_or_without_raw_sockets(request.param)


@pytest.fixture
def programs_of() -> Callable[[str], Programs]:
    """Look programs up by name, for a test with two parts to be played."""
    return _programs


@pytest.fixture(scope="session")
def _hosts() -> Iterator[netlab.Host | None]:
    _stock_or_reason()  # which may need the machine's own network
    if netlab.why_not():
        yield None
        return
    with network() as here:
        yield here


@pytest.fixture(autouse=True)
def _on_a_host(_hosts: netlab.Host | None) -> Iterator[None]:
    """Run each test, and all that it starts, on a host that another one can reach."""
    if _hosts is None:
        yield
        return
    with netlab.joined(_hosts.pid, "net"):
        yield


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Give a port, nodes, receivers and programs; they end with the test."""
    with contextlib.ExitStack() as stack:
        yield Lab(tmp_path, stack)


@pytest.fixture(autouse=True, scope="session")
def _no_core_files() -> Iterator[None]:
    """Leave no core file behind, however a program ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))

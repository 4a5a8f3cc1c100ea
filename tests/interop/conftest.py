# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures of the tests beside the stock programs: which programs, and where they run."""

from __future__ import annotations

import contextlib
import functools
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import cannot_run, load_core
from tests.interop import stock as stock_files
from tests.interop.lab import Lab
from tests.interop.nodes import network
from tests.interop.programs import Programs
from tests.support import netlab
from tests.support.programs import AGENT, sender, without_raw_sockets

OURS = ("ours-compiled", "ours-pure")
WITHOUT_RAW = tuple(f"{name}, no CAP_NET_RAW" for name in OURS)
CAP_NET_RAW, CAP_SYS_ADMIN = 13, 21  # linux/capability.h


@pytest.fixture
def root() -> None:
    """Ask for the rights to send raw packets and to mount files over the machine's."""
    rights = int(Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0], 16)
    for right, name in ((CAP_NET_RAW, "CAP_NET_RAW"), (CAP_SYS_ADMIN, "CAP_SYS_ADMIN")):
        if not rights >> right & 1:
            cannot_run(f"{name} is missing: run this as root")


@functools.cache
def _stock_or_reason() -> stock_files.Stock | str:
    try:
        return stock_files.get()
    except stock_files.NotAvailable as reason:
        return str(reason)


def _stock_files() -> stock_files.Stock:
    found = _stock_or_reason()
    if isinstance(found, str):
        cannot_run(found)
    return found


def _programs(name: str) -> Programs:
    if name == "stock":
        return Programs(name, _stock_files().agent, _stock_files().sender)
    name, _, without_raw = name.partition(", ")
    form = name.partition("-")[2]
    core = "compiled" if form == "native" else form
    load_core(core)
    ours = Programs(name, Path(AGENT), Path(sender(form)), core)
    return ours.through(*without_raw_sockets()) if without_raw else ours


def _given(*names: str) -> Callable[[pytest.FixtureRequest], Programs]:
    """A fixture that gives these programs in turn."""

    @pytest.fixture(params=names)
    def programs(request: pytest.FixtureRequest) -> Programs:
        return _programs(request.param)

    return programs


ours = _given(*OURS)
programs = _given("stock", *OURS)
senders = _given("stock", *OURS, "ours-native")
#: Ours with UDP sockets as well, without the right to raw ones.
listener = _given("stock", *OURS, *WITHOUT_RAW)
ours_anyhow = _given(*OURS, *WITHOUT_RAW)


@pytest.fixture
def stock() -> Programs:
    """Give the stock agent and sender."""
    return _programs("stock")


@pytest.fixture
def schema() -> Path:
    """Give the RELAX NG schema that every fence agent's metadata has to follow."""
    return _stock_files().schema


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

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon, a service manager, a history and another user for one test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.daemon.history import History
from tests.conftest import cannot_run
from tests.daemon.running import Kdumpfenced, Manager
from tests.support.kernel import need_kernel_counting
from tests.support.netlab import Lab, why_not
from tests.support.programs import as_user


@pytest.fixture(params=["user", pytest.param("kernel", marks=pytest.mark.in_kernel)])
def counting(request: pytest.FixtureRequest) -> str:
    """Who counts messages that say nothing new: whatever holds for one way holds for the other."""
    way = str(request.param)
    if way == "kernel":
        need_kernel_counting()
    return way


@pytest.fixture
def daemon(tmp_path: Path, counting: str) -> Iterator[Kdumpfenced]:
    """One that is set up and not started."""
    made = Kdumpfenced(tmp_path, counting=counting)
    yield made
    made.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Manager]:
    """A service manager that listens to sd_notify."""
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Network namespaces."""
    obstacle = why_not()
    if obstacle is not None:
        cannot_run(obstacle)
    with Lab() as made:
        yield made


@pytest.fixture
def as_nobody(root: None) -> tuple[str, ...]:
    """What a program is started with to run as a user without rights."""
    if shutil.which("setpriv") is None:
        cannot_run("setpriv is missing")
    return as_user()


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory into which everybody can look, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a history or a control socket may be."""
    return str(tmp_path / "file")


@pytest.fixture
def opened(path: str) -> Iterator[History]:
    """A history, new and open."""
    with History(path) as made:
        yield made

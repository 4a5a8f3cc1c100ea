# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every test of this folder starts from: a lab with two hosts, and our two programs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import cannot_run, load_core
from tests.support import programs as support
from tests.support.netlab import Host, Lab, why_not
from tests.system.network.programs import Programs


@pytest.fixture(scope="session")
def obstacle() -> str | None:
    return why_not()


@pytest.fixture
def lab(obstacle: str | None) -> Iterator[Lab]:
    if obstacle is not None:
        cannot_run(obstacle)
    with Lab() as lab:
        yield lab


@pytest.fixture
def node(lab: Lab) -> Host:
    """Boot the host whose kernel has crashed."""
    return lab.host("node1")


@pytest.fixture
def survivor(lab: Lab) -> Host:
    """Boot the host that wants to know whether the node is dumping."""
    return lab.host("survivor")


# And, where it matters, the same with "-no_raw".
@pytest.fixture(params=["compiled", "pure", "native"])
def programs(request: pytest.FixtureRequest) -> Programs:
    form, _, no_raw = request.param.partition("-")
    load_core("compiled" if form == "native" else form)
    support.sender(form)  # or the test cannot run
    return Programs(form, raw=not no_raw)

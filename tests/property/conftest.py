# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long hypothesis looks, and the cores that it looks at.

The folder is to take a minute on two processors. In CI the examples are the same in every
run, so that a red result belongs to the change and not to the dice; elsewhere they are new.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.conftest import CORES, cannot_run, load_core
from tests.property.cores import Cores

settings.register_profile(
    "kdumpfence",
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    derandomize=os.environ.get("CI", "").lower() == "true",
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("kdumpfence")


# Of the session, not of the test: hypothesis runs a test many times over one fixture.
@pytest.fixture(scope="session", params=CORES)
def core(request: pytest.FixtureRequest) -> Any:
    """Each of the two cores."""
    return load_core(request.param)


@pytest.fixture(scope="session")
def cores() -> Cores:
    """Both cores side by side."""
    return Cores(*(load_core(name) for name in CORES))


@pytest.fixture(scope="session")
def raw_sockets() -> None:
    """For tests that open raw sockets."""
    if os.geteuid() != 0:
        cannot_run("raw sockets need root")

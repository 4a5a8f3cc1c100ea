# SPDX-License-Identifier: LGPL-2.1-or-later
"""The one guest that all tests of this folder ask what came of the tests inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support import guest_pytest
from tests.support.debian import or_skip
from tests.support.guest_pytest import Run
from tests.system.network.conftest import (  # noqa: F401  for what runs inside
    lab,
    node,
    obstacle,
    programs,
    survivor,
)

MODULES = ("veth", "sch_netem", "vrf")


def boot(runs: Mapping[str, Sequence[str]]) -> dict[str, Run]:
    return or_skip(lambda: guest_pytest.boot(MODULES, runs, seconds=2400))


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest) -> dict[str, Run]:
    """Boot it with the RUNS of those test files that have tests to run."""
    wanted: dict[str, Sequence[str]] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.path.parent == Path(__file__).parent:
            wanted.update(item.module.RUNS)
    return boot(wanted)

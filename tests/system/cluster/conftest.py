# SPDX-License-Identifier: LGPL-2.1-or-later
"""The clusters that the tests of this folder ask, started before the first question."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import cannot_run
from tests.support.debian import or_skip
from tests.support.programs import sender
from tests.system.cluster import debian_root, fence_agents, machine
from tests.system.cluster.plans import Courses

# Clusters at the same time: they mostly wait.
AT_ONCE = 4 * (os.cpu_count() or 1)

Result = Callable[..., Any]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "course(plan, agent='ours'): the cluster that a test asks")


@pytest.fixture(scope="session")
def courses(request: pytest.FixtureRequest) -> Iterator[Courses]:
    why = machine.why_not()
    if why is not None:
        cannot_run(why)
    for needed in (debian_root.get, fence_agents.packages):
        or_skip(needed)
    sender("native")  # or it cannot run
    wanted = [
        (mark.args[0], agent)
        for item in request.session.items
        for mark in item.iter_markers("course")
        for agent in mark.kwargs.get("agents", ("ours",))
    ]
    started = Courses(wanted, AT_ONCE)
    yield started
    started.stop()


@pytest.fixture
def result(request: pytest.FixtureRequest, courses: Courses) -> Result:
    """Ask the test's cluster how a scenario ended, by its name and that of the agent."""
    mark = request.node.get_closest_marker("course")
    assert mark is not None

    @functools.wraps(courses.result)
    def ask(scenario: str, agent: str = "ours") -> Any:
        return courses.result(mark.args[0], agent, scenario)

    return ask

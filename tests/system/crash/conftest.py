# SPDX-License-Identifier: GPL-2.0-or-later
"""Two panics at a time, as many as there are processors where this is meant to run.

A test says which panics it is about, by their names; they are all begun when the first test asks,
in the order of the tests, so that one test waits while the panics of the next ones go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.conftest import cannot_run
from tests.support.debian import NotAvailable
from tests.system.crash.harness import Outcome, run
from tests.system.crash.panics import PANICS


@pytest.fixture(scope="session")
def pool() -> Iterator[ThreadPoolExecutor]:
    """Run two panics at a time, each in a thread that lives longer than it."""
    with ThreadPoolExecutor(2) as pool:
        yield pool
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def begun(
    request: pytest.FixtureRequest,
    pool: ThreadPoolExecutor,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Future[Outcome]]:
    """Begin all panics that the selected tests are about."""
    folder = tmp_path_factory.mktemp("crash")

    def panic(name: str) -> Outcome:
        return run(PANICS[name](folder / name))

    names: dict[str, None] = {}  # an ordered set
    for item in request.session.items:
        callspec = getattr(item, "callspec", None)
        names.update(dict.fromkeys(callspec.params.get("panics", ()) if callspec else ()))
    return {name: pool.submit(panic, name) for name in names}


@pytest.fixture
def panics(request: pytest.FixtureRequest, begun: dict[str, Future[Outcome]]) -> list[Outcome]:
    """Wait for the panics that this test is about."""
    try:
        return [begun[name].result() for name in request.param]
    except NotAvailable as reason:
        cannot_run(str(reason))
        raise  # not reached

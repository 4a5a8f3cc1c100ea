# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two guests at a time, as many as there are processors where this is meant to run.

A test says by name what has to happen before it has something to say (`about`); the BOOTS of its
file say how. All of them are begun when the first test asks, in the order of the files and their
BOOTS, so that one test waits while the guests of the next ones go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.debian import or_skip


@pytest.fixture(scope="session")
def begun(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Any]]]:
    """Begin all that the selected tests are about, each in a thread that lives longer than it."""
    folder = tmp_path_factory.mktemp("crash")
    boots: dict[str, Any] = {}
    wanted: set[str] = set()
    for item in request.session.items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            names: Any = item.callspec.params.get("outcomes", ())
            if names:
                boots.update(item.module.BOOTS)
                wanted.update(names)
    with ThreadPoolExecutor(2) as pool:
        yield {
            name: pool.submit(boot, folder / name.replace(" ", "-").replace(",", ""))
            for name, boot in boots.items()
            if name in wanted
        }
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def outcomes(request: pytest.FixtureRequest, begun: dict[str, Future[Any]]) -> list[Any]:
    """Wait for what this test is about."""
    return [or_skip(begun[name].result) for name in request.param]


def about(*names: str) -> pytest.MarkDecorator:
    """Name the BOOTS that a test is about; it gets their outcomes in this order."""
    return pytest.mark.parametrize("outcomes", [names], indirect=True, ids=[" beside ".join(names)])


def about_each(*names: str) -> pytest.MarkDecorator:
    """Run a test once for each of these; it gets a list of one outcome."""
    return pytest.mark.parametrize(
        "outcomes", [(name,) for name in names], indirect=True, ids=names
    )

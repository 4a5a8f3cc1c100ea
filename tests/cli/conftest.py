# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon's socket to ask, and the command with and without rich."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.daemon.status_server import Server
from tests.cli.commands import COMMAND, WITHOUT_RICH, StatusAlone, status


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """What a daemon of an older version answers while two nodes are dumping."""
    with Server(str(tmp_path / "control"), questions=StatusAlone()) as opened:
        opened.publish(status("node1", "node2"))
        yield opened


@pytest.fixture(params=[COMMAND, WITHOUT_RICH], ids=["rich", "plain"])
def command(request: pytest.FixtureRequest) -> list[str]:
    """The command, where rich is installed and where it is not."""
    found: list[str] = request.param
    return found

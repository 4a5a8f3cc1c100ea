# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon for one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.running import Kdumpfenced


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Kdumpfenced]:
    """One that is set up and not started."""
    made = Kdumpfenced(tmp_path)
    yield made
    made.close()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The scenes in which the cores are tested."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.core.scene import Scene


@pytest.fixture
def scene(core: ModuleType, sockets: list[socket.socket]) -> Scene:
    """A receiver that knows nobody yet."""
    return Scene(core, sockets, batch=16)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe: what is written into the second is read from the first."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)

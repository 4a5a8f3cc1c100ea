# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Lab for one test, which is skipped where none can be built (and fails there in CI)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.conftest import cannot_run
from tests.support.netlab import Lab, why_not


@contextlib.contextmanager
def lab() -> Iterator[Lab]:
    """A lab that is gone afterwards."""
    obstacle = why_not()
    if obstacle is not None:
        cannot_run(obstacle)
    with Lab() as opened:
        yield opened

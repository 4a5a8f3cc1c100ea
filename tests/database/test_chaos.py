# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever is killed, cut off or slow: no event is lost, none is told twice, and nobody waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.database.chaos import SHORT, play
from tests.support.postgres import template


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_and_nothing_twice(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outcome = play(SHORT, tmp_path, template(tmp_path_factory))
    assert outcome.wrong == []
    assert outcome.dumps >= SHORT.nodes
    assert outcome.reports >= SHORT.nodes * 7 // 4
    assert outcome.timelines == 2
    assert sum(outcome.faults.values()) == SHORT.faults

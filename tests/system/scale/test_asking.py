# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whoever asks or follows while many nodes begin to dump sees each of them, by each way.

How soon is told by docs/scale.md, which `make scale` writes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.scale import asking

pytestmark = [pytest.mark.slow, pytest.mark.alone]

NODES = 2000


@pytest.mark.parametrize("way", ["control socket, lines", "TCP, HTTP"])
def test_nobody_is_missing_of_those_that_begin_at_once(tmp_path: Path, way: str) -> None:
    with asking.running(tmp_path) as daemon:
        seen = asking.burst(daemon, daemon.places()[way], NODES, 0.001)
        assert (seen.missing, seen.missed, len(seen.delays)) == (0, 0, NODES)
        assert daemon.end() == 0


def test_who_asks_for_each_of_them_sees_each_of_them(tmp_path: Path) -> None:
    with asking.running(tmp_path) as daemon:
        seen = asking.polled(daemon, f"unix:{daemon.control}", NODES, 0.001)
        assert (seen.missing, len(seen.delays)) == (0, NODES)


def test_questions_are_answered_by_each_way_while_all_repeat(tmp_path: Path) -> None:
    for asked in asking.questions(tmp_path, NODES, 500, 1.0).values():
        assert (asked.number, asked.dumping) == (500, 500)

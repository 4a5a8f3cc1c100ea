# SPDX-License-Identifier: LGPL-2.1-or-later
"""Signed messages whose rules take half a minute, with a clock that does not: inside_time.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import warp


@pytest.mark.slow
def test_sessions_answers_and_questions_have_their_time(core_name: str, tmp_path: Path) -> None:
    warp.run(tmp_path, "-k", core_name, "tests/core/inside_time.py")

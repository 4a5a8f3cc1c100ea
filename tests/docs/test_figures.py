# SPDX-License-Identifier: LGPL-2.1-or-later
"""The figures of the pages are those of the results that lie beside them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench import run, tables
from bench.paired import ROOT

RESULTS: dict[str, Any] = json.loads((run.SHOWN / "results.json").read_text())
RESULTS["figures"] = [run.figure(told) for told in RESULTS["figures"]]


def between_marks(page: Path, name: str) -> str:
    _, _, rest = page.read_text().partition(f"<!-- {name}: begin -->\n")
    text, end, _ = rest.partition(f"<!-- {name}: end -->")
    assert end, f"{page} has no marks for {name}"
    return text.strip()


@pytest.mark.parametrize(("name", "text"), run.shown(RESULTS).items())
def test_the_page_shows_what_was_measured(name: str, text: str) -> None:
    assert between_marks(run.PAGE, name) == text


def test_everything_that_is_demanded_was_measured() -> None:
    assert RESULTS["failed"] == {}
    assert tables.missing(RESULTS["figures"]) == []


def test_the_daemons_pages_say_what_was_measured_of_its_queue() -> None:
    row = re.search(r"^\| 64 MiB \| ([\d,]+) \|", (run.SHOWN / "limits.md").read_text(), re.M)
    assert row is not None
    assert f"64 MiB by default, holds {row[1]} of them" in " ".join(
        (ROOT / "docs" / "scale.md").read_text().split()
    )
    unit = ROOT / "packaging" / "systemd" / "kdumpfenced.socket"
    # Where a kernel counts most for each, of those that were seen.
    least = round(int(row[1].replace(",", "")) * 832 // 896, -4)
    assert f"# Room for {least:,} messages" in unit.read_text()

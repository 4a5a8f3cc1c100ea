# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/clouds.md says of the examples what is in them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.listener.examples import ROOT, example

PAGE = (ROOT / "docs" / "clouds.md").read_text()
OVIRT: Any = example("ovirt_listener")
INSTANCEHA: Any = example("instanceha")


def row(title: str) -> list[str]:
    """The cells behind this one."""
    (found,) = (line for line in PAGE.splitlines() if line.startswith(f"| {title} |"))
    return [cell.strip() for cell in found.split("|")[2:-1]]


@pytest.mark.parametrize(
    ("title", "cell"),
    [
        ("heartbeat", [f"every {OVIRT.HEARTBEAT:.0f} s", "the same"]),
        ("a first message is in the database after", [None, f"{OVIRT.GATHER} s"]),
        ("database away: tried again", ["every 30 s", f"every {OVIRT.RETRY:.0f} s"]),
        (
            "kept in memory meanwhile",
            [
                "all sessions",
                f"the last state of each host, and of {OVIRT.MOST_STRANGERS:,} unknown addresses",
            ],
        ),
        ("when an entry is old", [None, f"removed after {INSTANCEHA.FORGET:.0f} s"]),
    ],
)
def test_the_timings_are_those_of_the_examples(title: str, cell: list[str | None]) -> None:
    for said, is_so in zip(row(title), cell):
        assert is_so in (None, said)


def test_the_numbers_in_the_text_are_those_of_the_examples() -> None:
    assert f"more than {INSTANCEHA.LOOK_UPS} of them" in PAGE


@pytest.mark.parametrize("mark", ["burst", "second", "many"])
def test_the_figures_are_there(mark: str) -> None:
    _, _, rest = PAGE.partition(f"<!-- clouds-{mark}: begin -->\n")
    table, end, _ = rest.partition(f"<!-- clouds-{mark}: end -->")
    assert end
    assert "| hosts that no client saw |" in table

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The version stands in src/kdumpfence/_version.py; what cannot read it there has to agree."""

from __future__ import annotations

import re

import pytest

from kdumpfence import __version__
from tests.support.sources import ROOT


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("packaging/rpm/kdumpfence.spec", r"^Version: +(.+)$"),
        ("packaging/rpm/kdumpfence.spec", r"^\* .+ - (.+)-\d+$"),
        ("packaging/debian/changelog", r"^kdumpfence \((.+)-\d+\) "),
        ("CHANGELOG.md", r"^## \[(\d.*)\]"),
    ],
)
def test_the_newest_entry_is_about_this_version(name: str, pattern: str) -> None:
    found = re.findall(pattern, (ROOT / name).read_text(), re.MULTILINE)
    assert found[:1] == [__version__]


def test_the_changes_to_come_stand_first() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"

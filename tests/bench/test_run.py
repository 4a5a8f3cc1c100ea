# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `make bench` tells of its figures: nothing demanded left out, and no shortfall hidden."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from bench import run, tables
from bench.paired import Figure, Spread, figure
from tools import markedtable

HOLDS = figure(
    "receive-1", "1 receive", "one node", "datagrams/s", (96e4,), (1e6,), "bare C", "at least", 0.95
)
SHORT = dataclasses.replace(
    HOLDS, key="receive-1000", ratio=Spread(0.9, 0.9, 0.9), title="many", note="Because."
)


def complete() -> list[Figure]:
    keys = {group: wanted or {"any"} for group, (_, wanted) in tables.DEMANDED.items()}
    return [
        dataclasses.replace(HOLDS, key=key, group=group) for group in keys for key in keys[group]
    ]


def test_what_is_demanded_is_in_numbered_groups() -> None:
    numbers = range(1, len(tables.DEMANDED) + 1)
    assert [group[:2] for group in tables.DEMANDED] == [f"{number} " for number in numbers]
    assert tables.missing(complete()) == []


@pytest.mark.parametrize("left_out", sorted(tables.DEMANDED))
def test_a_group_without_a_figure_is_missed(left_out: str) -> None:
    figures = [one for one in complete() if one.group != left_out]
    assert f"group {left_out!r}" in tables.missing(figures)


@pytest.mark.parametrize(
    "key", sorted(set().union(*(keys for _, keys in tables.DEMANDED.values())))
)
def test_a_demanded_figure_is_missed(key: str) -> None:
    assert tables.missing([one for one in complete() if one.key != key])


def test_a_group_whose_figures_are_only_shown_is_missed() -> None:
    figures = [
        dataclasses.replace(one, wanted="") if one.group == "3 validate" else one
        for one in complete()
    ]
    assert tables.missing(figures) == ["group '3 validate'"]


def test_a_shortfall_is_said_with_how_much_and_why() -> None:
    text = tables.table([HOLDS, SHORT])
    held, short = (
        next(line for line in text.splitlines() if title in line) for title in ("one node", "many")
    )
    assert held.endswith("| holds |")
    assert "falls short**: 0.900 instead of 0.950" in short
    assert "1. Because." in text


def test_the_last_word_names_what_falls_short() -> None:
    shown = dataclasses.replace(HOLDS, wanted="")
    assert tables.last_word([HOLDS, SHORT, shown]).splitlines() == [
        "many: falls short: 0.900 instead of 0.950",
        "1 of 2 hold",
    ]
    assert tables.last_word([HOLDS]) == "1 of 1 hold"


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (0.0123, "0.0123"), (1.5, "1.50"), (99.96, "100.0"), (123456.7, "123,457")],
)
def test_numbers_have_three_digits(value: float, written: str) -> None:
    assert tables.number(value) == written


def test_results_are_read_as_they_were_written() -> None:
    told = run.written({"figures": [HOLDS, SHORT], "machine": {"kernel": "6"}, "failed": {}})
    read = json.loads(told)
    assert [run.figure(one) for one in read["figures"]] == [HOLDS, SHORT]
    assert read["machine"] == {"kernel": "6"}
    assert len(told.splitlines()) < 12


def test_every_page_that_shows_them_has_its_marks(tmp_path: Path) -> None:
    results = {"figures": [HOLDS], "tables": {}, "machine": {}}
    for name in run.shown(results):
        copy = tmp_path / run.PAGE.name
        copy.write_text(run.PAGE.read_text())
        assert markedtable.put(copy, name, "the table") == 0
        assert "the table" in copy.read_text()

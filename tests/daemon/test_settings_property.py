# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever stands in the settings file: it is taken, or refused in clean lines."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdumpfence.daemon.settings import KEYS
from kdumpfence.daemon.settings_file import SettingsError, parse

NAMES = sorted({key.name for key in KEYS} | {key.table for key in KEYS} | {"nodes", "prot", "x.y"})

names = st.one_of(st.sampled_from(NAMES), st.text(max_size=12))
scalars = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.text(max_size=20),
    st.sampled_from(["192.0.2.0/24", "::/0", "10.0.0.1/8", "fe80::1", "127.0.0.1", "/a", "64M"]),
    st.datetimes(timezones=st.just(datetime.timezone.utc)),
    st.dates(),
)
values = st.recursive(
    scalars,
    lambda more: st.one_of(st.lists(more, max_size=4), st.dictionaries(names, more)),
    max_leaves=8,
)


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items())
        return "{" + inner + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return json.dumps(value) if isinstance(value, str) else str(value)


def judge(text: str) -> None:
    settings, faults = None, []
    try:
        settings = parse(text, "file")
    except SettingsError as error:
        faults = error.faults
    assert (settings is None) == bool(faults)
    for fault in faults:
        assert fault.isprintable()
        assert fault.startswith("file")
        assert len(fault) < 700
    if settings is not None:
        assert settings.nodes or settings.networks
        assert all(line.isprintable() for line in settings.meaning())


@given(st.dictionaries(names, values, max_size=6))
@pytest.mark.slow
def test_any_table_is_taken_or_refused(table: dict[str, Any]) -> None:
    judge("".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in table.items()))


@given(st.text(max_size=200))
def test_any_text_is_taken_or_refused(text: str) -> None:
    judge(text)


@pytest.mark.parametrize("depth", [100, 200, 300, 1000, 100000])
def test_any_depth_is_taken_or_refused(depth: int) -> None:
    judge("x = " + "[" * depth + "]" * depth)
    judge("[nodes]\nx = " + "[" * depth + "]" * depth)
    judge("x = " + "{a=" * depth + "1" + "}" * depth)

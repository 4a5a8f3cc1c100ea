# SPDX-License-Identifier: LGPL-2.1-or-later
"""The measurement of docs/clouds.md: each listener's client sees all hosts, or says which not."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.clouds import __main__ as clouds
from bench.clouds import hosts
from tests.support.postgres import postgres
from tests.support.postgres_cluster import Cluster

__all__ = ["postgres"]

HOSTS = 40


def test_hosts_have_addresses_and_numbers() -> None:
    assert hosts.address(0) == "127.1.0.1"
    assert [hosts.number(hosts.address(one)) for one in (0, 255, 99_999)] == [0, 255, 99_999]


@pytest.mark.slow
@pytest.mark.parametrize("kind", clouds.SUBJECTS.values())
def test_each_client_sees_all_hosts(
    kind: str, postgres: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clouds, "REST", 4.0)
    outcome = clouds.measure(kind, HOSTS, 0.5, postgres, tmp_path)
    assert outcome.missing == outcome.dropped == 0
    assert len(outcome.delays) == HOSTS
    assert min(outcome.delays) > 0
    assert outcome.processor > 0
    assert outcome.peak > 8 << 20
    assert len(outcome.cells()) == len(clouds.ROWS)

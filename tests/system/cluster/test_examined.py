# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfence doctor in a real cluster: a handful of the faults of tests/doctor, and none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.doctor.cluster_root import Fault
from tests.system.cluster.conftest import Result
from tests.system.cluster.examined import HANDFUL, PARTS, Finding

Tell = Callable[[str, str], None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.course("doctor"),
]


def found_of(found: list[Finding]) -> list[tuple[str, str]]:
    return [(one["state"], one["check"]) for one in found]


def test_in_a_healthy_cluster_all_is_ok(result: Result, record_property: Tell) -> None:
    notes = result("planted").notes
    record_property("the doctor in the cluster where faults are planted", f"{notes['took']:.1f} s")
    assert {one["state"] for one in notes["healthy"]} == {"ok"}, notes["healthy"]
    assert {one["part"] for one in notes["healthy"]} == set(PARTS)
    assert notes["restored"] == []


@pytest.mark.parametrize("fault", HANDFUL, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found_alone(result: Result, fault: Fault) -> None:
    found = result("planted").notes[fault.name]
    assert found_of(found) == [(fault.state, fault.check)], found


@pytest.mark.parametrize("fault", HANDFUL, ids=lambda fault: fault.name)
def test_its_remedy_followed_word_for_word_is_one(result: Result, fault: Fault) -> None:
    notes = result("planted").notes
    (found,) = notes[fault.name]
    if found["remedy"].startswith("pcs "):
        assert notes[f"{fault.name}: remedy"] == [], found["remedy"]
    else:
        assert found["part"] == "nodes"  # a file that is to be written

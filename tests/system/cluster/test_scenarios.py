# SPDX-License-Identifier: LGPL-2.1-or-later
"""Crashes in real Pacemaker clusters: what their own fencing history and the power device say."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.system.cluster import scenarios
from tests.system.cluster.conftest import Result
from tests.system.cluster.plans import PLANS
from tests.system.cluster.scenarios import WAIT, Outcome
from tools import clustertable

Tell = Callable[[str, str], None]

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]


def fenced_by_kdump(outcome: Outcome, victims: int = 1) -> None:
    """Say that Pacemaker took each victim for fenced, by kdump alone, and went on elsewhere."""
    assert len(outcome.seconds) == victims
    for victim in outcome.seconds:
        assert outcome.history[victim] == ["reboot: success"]
        (attempt,) = outcome.tried[victim]
        assert attempt.startswith("kdump")
        assert attempt.endswith(": 0")
        assert outcome.power[victim] == 0
        assert outcome.moved[victim]
        assert outcome.moved[victim] not in outcome.seconds
    assert outcome.notes["other nodes' power"] == 0


def tell(record_property: Tell, agent: str, devices: str, outcome: Outcome) -> None:
    """Leave in the report of these tests who was fenced by what."""
    what = devices.replace("two", "two of five panic")
    record_property(f"{what}: {agent} agent", clustertable.cell(outcome))


def fenced_by_power(outcome: Outcome, most: int = 1) -> None:
    """Say that kdump was tried and failed, and power was used once, for the victim alone.

    `most` is how often kdump may have been tried.
    """
    (victim,) = outcome.seconds
    assert outcome.history[victim] == ["reboot: success"]
    *kdumps, power = sorted(outcome.tried[victim])
    assert 1 <= len(kdumps) <= most
    for kdump in kdumps:
        assert kdump.startswith("kdump")
        assert not kdump.endswith(": 0")
    assert power.startswith("power")
    assert power.endswith(": 0")
    assert outcome.power[victim] == 1
    assert outcome.moved[victim] not in ("", victim)
    assert outcome.notes["other nodes' power"] == 0


@pytest.mark.course("waits")
def test_a_node_that_panics_is_fenced_by_kdump_and_keeps_its_power(result: Result) -> None:
    fenced_by_kdump(result("panic"))


@pytest.mark.course("waits")
def test_a_node_that_dies_in_silence_is_fenced_by_power_after_the_wait(result: Result) -> None:
    outcome = result("silence")
    fenced_by_power(outcome)
    assert min(outcome.seconds.values()) > WAIT


@pytest.mark.course("waits")
@pytest.mark.parametrize("when", ["late", "just in time"])
def test_a_message_counts_until_the_wait_is_over(result: Result, when: str) -> None:
    outcome = result(when)
    fenced_by_kdump(outcome)
    assert min(outcome.seconds.values()) > outcome.notes["sender started after the agent"]


@pytest.mark.course("harm")
def test_the_leader_panics_and_its_successor_hears_it(result: Result) -> None:
    outcome = result("leader")
    fenced_by_kdump(outcome)
    assert outcome.notes["new leader"] not in outcome.seconds


@pytest.mark.course("five")
@pytest.mark.parametrize(
    "devices", ["two, one device", "two, a device each", "two, one device, default limit"]
)
def test_both_of_two_that_panic_together_keep_their_dump(
    result: Result, devices: str, record_property: Tell
) -> None:
    outcome = result(devices)
    tell(record_property, "kdumpfence", devices, outcome)
    fenced_by_kdump(outcome, victims=2)


@pytest.mark.course("five", agents=("ours", "stock"))
@pytest.mark.parametrize("devices", ["two, one device", "two, a device each"])
def test_with_the_stock_agent_one_of_the_two_is_lost_or_waits(
    result: Result, devices: str, record_property: Tell
) -> None:
    # Else these scenarios would not show what ours is better at.
    outcome = result(devices, "stock")
    tell(record_property, "stock", devices, outcome)
    first, second = sorted(outcome.seconds.values())
    assert sum(outcome.power.values()) or second - first > 5


@pytest.mark.parametrize("step", PLANS["lies"].steps)
def test_no_other_agent_is_lied_to(step: str) -> None:
    assert PLANS["lies"].agents == ("ours",)
    with pytest.raises(AssertionError):
        PLANS["lies"].steps[step](None, scenarios.Kit("stock"))  # type: ignore[arg-type]


@pytest.mark.course("rings")
def test_a_node_is_heard_over_the_second_network_when_the_first_is_dead(result: Result) -> None:
    fenced_by_kdump(result("second ring"))


@pytest.mark.course("rings")
def test_the_doctor_finds_nothing_in_a_healthy_cluster(
    result: Result, record_property: Tell
) -> None:
    notes = result("doctor").notes
    record_property("the doctor's look at a healthy cluster", f"{notes['took']:.1f} s")
    for how in ("said", "said confined"):
        found = json.loads(notes[how])["findings"]
        assert [one for one in found if one["state"] != "ok"] == []
        assert {one["part"] for one in found} == {"nodes", "way", "cluster", "agent"}


@pytest.mark.course("harm")
def test_a_panic_is_heard_on_busy_nodes_whose_port_is_flooded(result: Result) -> None:
    fenced_by_kdump(result("busy"))


@pytest.mark.course("lies")
def test_no_forged_or_broken_message_fences_a_node_that_lives(result: Result) -> None:
    outcome = result("forged")
    assert outcome.notes["its service still runs there"]
    fenced_by_power(outcome)


@pytest.mark.course("clocks")
def test_an_agent_that_pacemaker_kills_leaves_nothing_behind(result: Result) -> None:
    outcome = result("killed")
    fenced_by_power(outcome)
    assert any("did not complete within 5s" in line for line in outcome.notes["said"])
    assert outcome.notes["left over"] == []
    assert outcome.notes["children"] == 0  # the whole process group was killed


@pytest.mark.course("clocks")
def test_without_pcmk_off_timeout_the_agent_is_killed_at_stonith_timeout(result: Result) -> None:
    # The leader's own clock for the attempt ends at the same moment. If it is first, another
    # node is asked for kdump too. pcmk_off_timeout gives that clock a fifth more.
    outcome = result("stonith-timeout alone")
    fenced_by_power(outcome, most=2)
    assert any("did not complete within 4s" in line for line in outcome.notes["said"])


@pytest.mark.course("clocks")
def test_after_a_killed_agent_the_next_one_works(result: Result) -> None:
    outcome = result("after killed")
    fenced_by_kdump(outcome)
    assert outcome.notes["left over"] == []
    assert outcome.notes["children"] == 1  # an agent that ends by itself leaves it alone


@pytest.mark.course("clocks")
def test_pcmk_off_timeout_outranks_a_shorter_stonith_timeout(result: Result) -> None:
    outcome = result("short stonith-timeout")
    fenced_by_kdump(outcome)
    assert outcome.notes["sender started after the agent"] > 4


@pytest.mark.course("lies")
def test_without_a_key_a_message_from_the_nodes_address_is_believed_though_it_lives(
    result: Result,
) -> None:
    outcome = result("spoofed")
    assert outcome.notes["its service still runs there"]
    fenced_by_kdump(outcome)


@pytest.mark.course("lies")
def test_with_a_key_a_message_from_the_nodes_address_proves_nothing(result: Result) -> None:
    outcome = result("spoofed, key")
    assert outcome.notes["its service still runs there"]
    fenced_by_power(outcome)
    # It did arrive.
    ignored = "an unsigned message from 10.0.0."
    assert any(ignored in line for line in outcome.notes["said"]), outcome.notes


@pytest.mark.course("keys")
@pytest.mark.parametrize("device", ["names", "addresses"])
def test_a_node_that_signs_is_fenced_by_kdump_whatever_the_device_knows_it_by(
    result: Result, device: str
) -> None:
    fenced_by_kdump(result(device))


@pytest.mark.course("keys")
def test_a_device_that_asks_for_no_key_yet_hears_a_node_that_signs(result: Result) -> None:
    fenced_by_kdump(result("no key yet"))


@pytest.mark.course("keys")
def test_a_node_that_signs_with_the_previous_key_is_heard_during_a_rotation(result: Result) -> None:
    outcome = result("rotation")
    fenced_by_kdump(outcome)
    new, old = (line.split()[1] for line in outcome.notes["keys"].splitlines())
    assert new != old


def alive(outcome: Outcome) -> bool:
    """Whether the agent said no because the node answered."""
    (victim,) = outcome.seconds
    return any(f"node '{victim}' is alive" in line for line in outcome.notes["said"])


@pytest.mark.course("keys")
def test_a_node_that_says_with_its_key_that_it_is_alive_is_fenced_by_power(result: Result) -> None:
    outcome = result("failed stop, key")
    fenced_by_power(outcome)
    assert alive(outcome), outcome.notes


@pytest.mark.course("mixed", agents=("ours", "stock"))
def test_a_node_that_says_that_it_is_alive_is_fenced_by_power_before_the_time_is_up(
    result: Result,
) -> None:
    outcome = result("failed stop")
    fenced_by_power(outcome)
    assert alive(outcome), outcome.notes
    # Else it would not show what ours is better at.
    stock = result("failed stop", "stock")
    fenced_by_power(stock)
    assert min(stock.seconds.values()) > WAIT


@pytest.mark.course("mixed", agents=("ours", "stock"))
@pytest.mark.parametrize("agent", ["ours", "stock"])
def test_in_an_upgrade_each_agent_hears_the_sender_of_the_other(result: Result, agent: str) -> None:
    fenced_by_kdump(result("other sender", agent))

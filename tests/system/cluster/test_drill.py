# SPDX-License-Identifier: LGPL-2.1-or-later
"""What kdumpfence doctor --drill sees of a crash in a real cluster, and what it makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.system.cluster.conftest import Result
from tests.system.cluster.scenarios import WAIT, Outcome

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]


def events(drill: dict[str, Any]) -> list[dict[str, Any]]:
    """All that was seen, in its order."""
    return [one for one in drill["said"] if "event" in one]


def verdict(outcome: Outcome, place: str) -> dict[str, Any]:
    """The last line of a drill, which has each step with its time."""
    drill = outcome.notes[place]
    last: dict[str, Any] = drill["said"][-1]
    assert drill["errors"] == ""
    steps = last["steps"]
    assert sorted(one["event"] for one in steps) == sorted(one["event"] for one in events(drill))
    assert [one["after"] for one in steps] == sorted(one["after"] for one in steps)
    assert steps[0]["after"] == 0
    return last


@pytest.mark.course("drills")
def test_a_drill_sees_each_step_of_a_crash_that_kdump_fences(result: Result) -> None:
    outcome = result("drill")
    victim = outcome.notes["victim"]
    assert outcome.power[victim.name] == 0
    last = verdict(outcome, "leader")
    assert (last["verdict"], outcome.notes["leader"]["status"]) == ("kdump", 0), last
    seen = [one["event"] for one in last["steps"] if one["event"] != "moved"]
    assert seen == [
        *("heard", "left", "requested", "asked", "yes", "fenced"),
        *("still sending", "dump", "back"),
    ], last
    by_event = {one["event"]: one for one in last["steps"]}
    assert (by_event["heard"]["text"], by_event["heard"]["where"]) == ("plain", victim.addresses[0])
    assert by_event["asked"]["device"] == by_event["yes"]["device"] == "kdump"
    assert by_event["asked"]["where"] == by_event["fenced"]["where"] != victim.name
    assert by_event["dump"]["text"] == "finished"


@pytest.mark.course("drills")
def test_a_drill_on_a_node_that_does_not_lead_sees_that_no_power_was_cut(result: Result) -> None:
    outcome = result("drill")
    last = verdict(outcome, "other")
    assert (last["verdict"], outcome.notes["other"]["status"]) == ("kdump", 0), last


@pytest.mark.course("drills")
def test_a_drill_sees_that_the_power_was_cut(result: Result) -> None:
    outcome = result("silent drill")
    assert outcome.power[outcome.notes["victim"].name] == 1
    last = verdict(outcome, "leader")
    assert (last["verdict"], outcome.notes["leader"]["status"]) == ("power", 1), last
    steps = [(one["event"], one["device"]) for one in last["steps"] if one["event"] != "moved"]
    assert steps == [
        *(("left", ""), ("requested", "")),
        *(("asked", "kdump"), ("no", "kdump"), ("asked", "power"), ("yes", "power")),
        *(("fenced", ""), ("back", "")),
    ], last
    by_step = dict(zip(steps, (one["after"] for one in last["steps"] if one["event"] != "moved")))
    assert by_step["no", "kdump"] - by_step["asked", "kdump"] >= WAIT - 1
    assert "no message was heard here" in last["text"]


@pytest.mark.course("drills")
def test_without_a_log_or_a_message_nobody_guesses_what_fenced_the_node(result: Result) -> None:
    outcome = result("silent drill")
    drill = outcome.notes["other"]
    last = verdict(outcome, "other")
    if any(one["event"] in ("yes", "no") for one in events(drill)):  # an agent ran there
        assert (last["verdict"], drill["status"]) == ("power", 1), last
    else:
        assert (last["verdict"], drill["status"]) == ("unknown", 2), last

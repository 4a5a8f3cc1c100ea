# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands that people configure fence_kdump with, on a real cluster, and then a panic."""

from __future__ import annotations

import pytest

from tests.system.cluster import pcs_and_crmsh
from tests.system.cluster.conftest import Result
from tests.system.cluster.pcs_and_crmsh import HowTo
from tests.system.cluster.scenarios import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]

# What the tools say to any cluster of this kind, whatever its agent; some versions.
EXPECTED = (
    "Warning: Unable to detect init system. All actions related to system services will be "
    "skipped.",
    "Attempting to stop: mykdumpfence... Stopped",
    "waiting for Stopping mykdumpfence to finish . done",
    "Stopping resource 'mykdumpfence' before deleting",
    "Waiting for the cluster to apply configuration changes...",
    # Pacemaker 3.0.2 and later, where the commands are older.
    "Warning: cluster property option 'stonith-enabled' is deprecated and might be removed in a "
    "future release, therefore it should not be used, use 'fencing-enabled' instead",
    'WARNING: "stonith-enabled" is deprecated, please consider using "fencing-enabled"',
    "warning: Support for legacy name 'stonith-enabled' for cluster option 'fencing-enabled' is "
    "deprecated and will be removed in a future release",
    "Configuration may need attention",
)

both = pytest.mark.parametrize(
    "tool",
    [
        pytest.param("pcs", marks=pytest.mark.course("pcs")),
        pytest.param("crmsh", marks=pytest.mark.course("crmsh")),
    ],
)


def fenced_by(device: str, outcome: Outcome | None) -> None:
    assert outcome is not None
    (victim,) = outcome.seconds
    assert outcome.history[victim] == ["reboot: success"]
    (attempt,) = outcome.tried[victim]
    assert attempt.startswith(f"{device} on ")
    assert attempt.endswith(": 0")
    assert outcome.power[victim] == 0


def complaints(result: HowTo, *, word_for_word: bool) -> list[str]:
    return [
        f"{command}: {line}"
        for command, said in result.said.items()
        for line in said.splitlines()
        if (command in pcs_and_crmsh.PCS + pcs_and_crmsh.CRMSH) == word_for_word
        and line.strip() not in EXPECTED
    ]


@both
def test_the_commands_word_for_word_and_then_a_panic(result: Result, tool: str) -> None:
    found = result(tool)
    assert complaints(found, word_for_word=True) == []
    fenced_by("mykdumpfence", found.word_for_word)


@both
def test_a_map_of_addresses_and_nothing_pretended_and_then_a_panic(
    result: Result, tool: str
) -> None:
    # With crmsh the nodes have two networks, and the crash kernel has the second one alone.
    found = result(tool)
    assert complaints(found, word_for_word=False) == []
    fenced_by("kdump", found.better)


@both
def test_pacemaker_finds_nothing_wrong_with_the_configuration(result: Result, tool: str) -> None:
    assert result(tool).verified == ""


@both
def test_the_cluster_shows_that_no_crash_kernel_is_loaded(result: Result, tool: str) -> None:
    said = result(tool).unloaded
    assert "Failed Resource Actions:\n  * kdump " in said
    assert "no crash kernel is loaded: start the kdump service" in said


@pytest.mark.course("pcs")
def test_pacemaker_passes_the_node_as_nodename_and_what_the_map_says_as_plug(
    result: Result,
) -> None:
    word_for_word, better = result("pcs").asked["off"]
    assert word_for_word == {"action": "off", "nodename": "node3", "plug": "node3"}
    victim = better["nodename"]
    number = victim.removeprefix("node")
    addresses = f"10.0.0.{number},10.1.0.{number}"
    assert better == {"action": "off", "nodename": victim, "plug": addresses, "timeout": "50"}


@pytest.mark.course("pcs")
def test_a_device_is_judged_for_a_node1_that_nobody_knows(result: Result) -> None:
    judged = [call for call in result("pcs").asked["validate-all"] if "timeout" in call]
    assert judged
    assert all(call["nodename"] == call["plug"] == "node1" for call in judged), judged


@pytest.mark.course("pcs")
def test_pcs_refuses_a_device_that_cannot_be_right(result: Result) -> None:
    assert "nodename '192.0.2.300': neither a host name nor an IP address" in result("pcs").refused


DESCRIPTIONS = {
    "pcs": (
        "fence_kdump - Detects that a node is running its crash kernel\n",
        "UDP port on which messages are expected",
        "More names or addresses of the same node",
        "  monitor:\n    interval=60s",
    ),
    "crmsh": (
        "stonith:fence_kdump",
        "ipport (string, [7410]): UDP port",
        "family (string, [auto]): ",
        "timeout (string, [60]): Seconds to wait for a message",
    ),
}


@both
def test_the_agent_is_described(result: Result, tool: str) -> None:
    said = result(tool).described
    start, *texts = DESCRIPTIONS[tool]
    assert said.startswith(start)
    for text in (*texts, "fence_kdump switches nothing off, so it is never enough alone"):
        assert text in said
    if tool == "crmsh":
        actions = said.partition("Operations' defaults (advisory minimum):\n")[2].split()
        assert {"off", "monitor", "metadata"} <= set(actions)
        assert "reboot" not in actions

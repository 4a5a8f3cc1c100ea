# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands that people are told to configure fence_kdump with, word for word, and better ones.

Every command's output is kept: it must not complain of more than it does with the stock agent.
"""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET

from tests.system.cluster import fence_agents, scenarios
from tests.system.cluster.cluster import Cluster
from tests.system.cluster.scenarios import Kit, Outcome, Play

# As in the distributions' manuals and in ClusterLabs' own.
PCS = (
    "pcs stonith create mykdumpfence fence_kdump pcmk_host_check=static-list "
    'pcmk_host_list="node1 node2 node3"',
    "pcs stonith update mykdumpfence pcmk_monitor_action=metadata --force",
    "pcs stonith update mykdumpfence pcmk_status_action=metadata --force",
    "pcs stonith update mykdumpfence pcmk_reboot_action=off --force",
    "pcs property set stonith-enabled=true",
)
CRMSH = (
    "crm configure primitive mykdumpfence stonith:fence_kdump params "
    'pcmk_host_check=static-list pcmk_host_list="node1 node2 node3" '
    "pcmk_monitor_action=metadata pcmk_status_action=metadata pcmk_reboot_action=off",
    "crm configure property stonith-enabled=true",
)

# What this project's agent makes possible: nothing pretends to be what it is not. The monitor
# runs often here so that a test need not wait for it.
BETTER_OPTIONS = (
    "timeout=50 pcmk_off_timeout=60s pcmk_off_retries=1 pcmk_action_limit=-1 op monitor interval=4s"
)
BETTER_PCS = (
    'pcs stonith create power fence_power pcmk_host_list="node1 node2 node3"',
    "pcs stonith delete mykdumpfence",
    f'pcs stonith create kdump fence_kdump pcmk_host_map="{{map}}" {BETTER_OPTIONS} '
    "--agent-validation",
    *(
        f"pcs stonith level add {level} {node} {device}"
        for node in ("node1", "node2", "node3")
        for level, device in ((1, "kdump"), (2, "power"))
    ),
)
BETTER_CRMSH = (
    'crm configure primitive power stonith:fence_power params pcmk_host_list="node1 node2 node3"',
    "crm -F configure delete mykdumpfence",
    "crm configure primitive kdump stonith:fence_kdump params "
    'pcmk_host_map="{map}" ' + BETTER_OPTIONS,
    "crm configure fencing_topology kdump power",
)
SET_PROPERTY = {"pcs": "pcs property set", "crmsh": "crm configure property"}

WRONG = (
    "pcs stonith create wrong fence_kdump nodename=192.0.2.300 pcmk_host_list=node1 "
    "--agent-validation"
)

DESCRIBE = {"pcs": "pcs stonith describe fence_kdump", "crmsh": "crm ra info stonith:fence_kdump"}


@dataclasses.dataclass
class HowTo:
    """What was said, and what came of it."""

    described: str = ""
    said: dict[str, str] = dataclasses.field(default_factory=dict)  # by command
    word_for_word: Outcome | None = None
    better: Outcome | None = None
    # What crm_mon and the log said when the crash kernel was not loaded.
    unloaded: str = ""
    refused: str = ""  # what pcs said of a device that cannot be right
    asked: dict[str, list[dict[str, str]]] = dataclasses.field(default_factory=dict)  # by action
    verified: str = ""  # what crm_verify said in the end
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)  # of the last crash


def with_pcs(cluster: Cluster, kit: Kit) -> HowTo:
    return _play(cluster, kit, "pcs", PCS, BETTER_PCS)


def with_crmsh(cluster: Cluster, kit: Kit) -> HowTo:
    return _play(cluster, kit, "crmsh", CRMSH, BETTER_CRMSH)


def _play(
    cluster: Cluster, kit: Kit, name: str, commands: tuple[str, ...], better: tuple[str, ...]
) -> HowTo:
    result = HowTo()
    node = cluster.survivor()
    result.described = cluster.run(DESCRIBE[name], node)
    for command in commands:
        result.said[command] = cluster.run(command, node)
    _watched(cluster, "mykdumpfence")
    play = Play(cluster, kit, name, cluster.nodes[2])
    cluster.panic(cluster.nodes[2], kit.sender)
    result.word_for_word = play.finish()
    cluster.bring_back(cluster.nodes[2])
    if kit.agent == "ours":
        cluster.run("crm_attribute --name stonith-enabled --delete")
        for setting in scenarios.properties(cluster):
            better += (f"{SET_PROPERTY[name]} {setting}",)
        # A cluster tool asks the agent to judge a device for "node1", which may be nobody.
        cluster.run("sed -i '/node1$/d' /etc/hosts", node)
        for command in better:
            filled = command.format(map=scenarios.address_map(cluster))
            result.said[command] = cluster.run(filled, node)
        result.refused = cluster.attempt(WRONG, node).stdout
        _watched(cluster, "kdump")
        result.unloaded = _unload(cluster)
        victim = scenarios.follower(cluster)
        play = Play(cluster, kit, name, victim)
        # Of two networks the crash kernel gets the second one only.
        last = cluster.site.rings - 1
        cluster.panic(victim, kit.sender, rings=[last])
        result.better = play.finish()
        result.seconds = result.better.seconds
    for action in ("off", "validate-all"):
        result.asked[action] = fence_agents.calls(cluster.site, action)
    result.verified = cluster.attempt("crm_verify --live-check -V").stdout
    return result


def _watched(cluster: Cluster, device: str) -> None:
    """Wait until the device runs and nothing has failed."""

    def running() -> bool:
        return bool(cluster.where(device)) and not _failures(cluster, device)

    cluster.until(running, f"{device} runs", 20)
    cluster.run("crm_resource --wait --timeout=30s")


def _failures(cluster: Cluster, device: str) -> list[ET.Element]:
    return [
        failure
        for failure in cluster.status().findall("failures/failure")
        if device in failure.get("op_key", "")
    ]


def _unload(cluster: Cluster) -> str:
    """Unload the crash kernel where the device is watched from: what does the cluster say?"""
    where = cluster.by_name[cluster.where("kdump")]
    cluster.crash_kernel(where, loaded=False)
    cluster.until(lambda: _failures(cluster, "kdump"), "the monitor fails", 30)
    cluster.run("crm_resource --wait --timeout=30s")
    logged = [line for line in cluster.log(where).splitlines() if "fence_kdump[" in line]
    said = "\n".join([cluster.run("crm_mon --one-shot"), *logged])
    cluster.crash_kernel(where, loaded=True)
    cluster.run("crm_resource --cleanup --resource kdump")
    cluster.until(lambda: cluster.where("kdump"), "kdump runs", 20)
    return said

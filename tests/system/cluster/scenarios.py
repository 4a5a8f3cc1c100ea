# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can happen to a cluster, played with either agent. Nothing is judged here.

A scenario does something to a cluster that runs, and returns an `Outcome`: what Pacemaker says
and what the power device was told. The tests compare outcomes with what has to be, and
tools/clustertable.py sets those of both agents side by side.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kdumpfence.install import native_sender
from tests.support.netlab import end
from tests.support.units import confined
from tests.system.cluster import debian_root, fence_agents
from tests.system.cluster.cluster import Cluster, Failed
from tests.system.cluster.machine import Machine

# Seconds. What an agent waits; after what Pacemaker kills it. A stock sender's ten seconds and a
# few of a busy machine have to fit in.
WAIT = 14
KILLED = 20

_OPERATION = re.compile(
    r"Operation '\w+'(?: \[\d+\])? targeting (\S+) using (\S+) "
    r"(?:returned (\d+)|could not be executed: (.*?)(?: \||$))",
    re.MULTILINE,
)
_ATTACKER = Path(__file__).with_name("attacker.py")


@dataclasses.dataclass
class Outcome:
    """How it ended. The keys are names of nodes."""

    scenario: str
    agent: str
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)  # until "fenced"
    tried: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # "kdump on node1: 0"
    history: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # "reboot: success"
    power: dict[str, int] = dataclasses.field(default_factory=dict)  # calls
    moved: dict[str, str] = dataclasses.field(default_factory=dict)  # where its service runs now
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Kit:
    """Whose programs are used: "ours" or "stock"."""

    agent: str

    @property
    def sender(self) -> list[str]:
        """What runs in the crash kernel, if anything does."""
        path = native_sender.find() if self.agent == "ours" else str(debian_root.stock_sender())
        return [path, "-v"]

    @staticmethod
    def signing_sender(node: Machine) -> list[str]:
        """Ours where the node's key is in the crash image."""
        return [
            *Kit("ours").sender,
            f"--key-file={fence_agents.node_key(node)}",
            "--node",
            node.name,
        ]


class Failure(Exception):
    """A scenario could not be played to its end; the text has the logs."""


# ------------------------------------------------------------------ configuration


def address_map(cluster: Cluster, nodes: Sequence[Machine] | None = None) -> str:
    """Every node's addresses, as pcmk_host_map wants them."""
    return ";".join(f"{node.name}:{','.join(node.addresses)}" for node in nodes or cluster.nodes)


def properties(cluster: Cluster) -> list[str]:
    """The cluster properties that fencing by kdump needs."""
    needed = [f"{cluster.property('fencing-enabled')}=true"]
    if cluster.pacemaker < (3,):
        needed.append("concurrent-fencing=true")  # from then on the default
    return needed


def kdump_options(
    cluster: Cluster,
    kit: Kit,
    nodes: Sequence[Machine],
    *,
    at_once: bool = True,
    names: bool = False,
    key: bool = False,
) -> str:
    """Parameters of a fence_kdump device for these nodes, the best that the agent allows.

    Or with our agent `names` instead of addresses; `key` lets it believe what is signed.
    """
    if kit.agent == "ours" and not names:
        options = [f'pcmk_host_map="{address_map(cluster, nodes)}"']
    else:
        options = [f'pcmk_host_list="{" ".join(node.name for node in nodes)}"']
    if kit.agent == "stock":
        # It knows no plug, so Pacemaker's node name is all it gets; its monitor looks at the
        # kernel's command line, which is not made up here.
        options.append("pcmk_monitor_action=metadata")
    if key:
        options += ["auth=sha256", f"key_file={fence_agents.KEY}"]
    options += [f"timeout={WAIT}", f"pcmk_off_timeout={KILLED}s", "pcmk_off_retries=1"]
    options += ["pcmk_action_limit=-1"] * at_once
    return " ".join(options)


def configure(
    cluster: Cluster, kit: Kit, *, each: bool = False, at_once: bool = True, old: bool = False
) -> None:
    """Fencing by kdump, then by power, and a service on each node; with one call of crmsh.

    `each` makes one kdump device a node instead of one for all, all watched from node1. `old`
    replaces what is there.
    """
    lines = []
    if each:
        for node in cluster.nodes:
            options = kdump_options(cluster, kit, [node], at_once=at_once)
            # Else it is chance whether two agents meet on one node.
            lines += _device_of(node, options, watcher=cluster.nodes[0])
    else:
        options = kdump_options(cluster, kit, cluster.nodes, at_once=at_once)
        lines.append(f"primitive kdump stonith:fence_kdump params {options}")
    _load(cluster, lines, each=each, old=old)


def configure_keys(cluster: Cluster, kit: Kit) -> None:
    """The same in the middle of a change to keys: a device for each node, on different nodes.

    node1's device believes without a key as yet; node2's was given its name, node3's addresses.
    """
    lines = []
    for number, node in enumerate(cluster.nodes):
        options = kdump_options(cluster, kit, [node], names=number == 1, key=number > 0)
        lines += _device_of(node, options, watcher=cluster.nodes[number - 1])
    _load(cluster, lines, each=True)


def _device_of(node: Machine, options: str, watcher: Machine) -> list[str]:
    """A kdump device for that node alone, and where it runs."""
    return [
        f"primitive kdump-{node.name} stonith:fence_kdump params {options}",
        f"location watcher-{node.name} kdump-{node.name} 50: {watcher.name}",
    ]


def _load(cluster: Cluster, devices: Sequence[str], *, each: bool, old: bool = False) -> None:
    """Configure these kdump devices, one for `each` node or for all, and what goes with them."""
    lines = list(devices)
    names = " ".join(node.name for node in cluster.nodes)
    lines.append(f'primitive power stonith:fence_power params pcmk_host_list="{names}"')
    levels = [
        f"{node.name}: kdump{f'-{node.name}' if each else ''} power" for node in cluster.nodes
    ]
    lines.append("fencing_topology " + " ".join(levels))
    # Why load-threshold: see cluster.py. A replaced configuration needs it again.
    lines.append(f"property {' '.join(properties(cluster))} load-threshold=10000%")
    for node in cluster.nodes:
        lines.append(f"primitive service-{node.name} ocf:pacemaker:Dummy op monitor interval=10s")
        lines.append(f"location home-{node.name} service-{node.name} 100: {node.name}")
    machine = cluster.survivor()
    machine.write_file("/root/configuration", "\n".join(lines) + "\n")
    how = "replace" if old else "update"
    cluster.run(f"crm -F configure load {how} /root/configuration", machine)
    settled(cluster)


def settled(cluster: Cluster) -> None:
    """Wait until each service is at home and each device is watched."""

    def ready() -> bool:
        status = cluster.status()
        home = all(cluster.where(f"service-{node.name}") == node.name for node in cluster.nodes)
        devices = status.findall("resources//resource[@resource_agent='stonith:fence_kdump']")
        return home and all(device.get("role") == "Started" for device in devices)

    cluster.until(ready, "all is where it belongs", 40)
    cluster.run("crm_resource --wait --timeout=30s")


# ------------------------------------------------------------------ one crash


class Play:
    """One scenario: what was there before it, and what there is to say after it."""

    def __init__(self, cluster: Cluster, kit: Kit, scenario: str, *victims: Machine) -> None:
        self.cluster = cluster
        self.victims = victims
        self.outcome = Outcome(scenario, kit.agent)
        self._read = {node.name: len(cluster.log(node)) for node in cluster.nodes}
        time.sleep(1.0)  # the history knows whole seconds only
        self.began = time.time()

    def news(self) -> str:
        """What the survivors' Pacemakers have logged since."""
        return "".join(self._news(node) for node in self.cluster.nodes)

    def _news(self, node: Machine) -> str:
        return "" if node in self.victims else self.cluster.log(node)[self._read[node.name] :]

    def _tried(self, victim: Machine) -> list[str]:
        """Each attempt: the device, where its agent ran, and the exit status or what went wrong."""
        return [
            f"{device} on {node.name}: {status or trouble}"
            for node in self.cluster.nodes
            for target, device, status, trouble in _OPERATION.findall(self._news(node))
            if target == victim.name
        ]

    def wait_agent(self, seconds: float = 30) -> None:
        """Wait until a survivor's Pacemaker has fence_kdump run for the first victim."""
        line = f"action targeting {self.victims[0].name} using kdump"
        self.cluster.until(lambda: line in self.news(), "the agent was started", seconds, 0.1)

    def finish(self, seconds: float = 60) -> Outcome:
        """Wait until all victims are fenced and their services run elsewhere."""
        cluster, outcome = self.cluster, self.outcome
        outcome.seconds = cluster.wait_fenced(*self.victims, since=self.began, seconds=seconds)
        # Whoever was fenced by kdump may yet be rebooted by mistake: give it the time.
        cluster.run("crm_resource --wait --timeout=30s")
        for victim in self.victims:
            name = victim.name
            outcome.tried[name] = self._tried(victim)
            outcome.history[name] = cluster.history(victim, self.began)
            outcome.power[name] = cluster.power_calls(victim, since=self.began)
            outcome.moved[name] = cluster.where(f"service-{name}")
        others = [node for node in cluster.nodes if node not in self.victims]
        outcome.notes["other nodes' power"] = cluster.power_calls(*others, since=self.began)
        # What Pacemaker said of kdump, and what an agent that said no gave for a reason.
        outcome.notes["said"] = _said_of_kdump(self.news())
        return outcome


Scenario = Callable[[Cluster, Kit], Outcome]


def follower(cluster: Cluster) -> Machine:
    """Choose a node that does not lead: what happens to the leader has its own scenario."""
    leader = cluster.leader()
    return next(node for node in reversed(cluster.nodes) if node is not leader)


def _crash(
    cluster: Cluster,
    kit: Kit,
    scenario: str,
    victim: Machine | None = None,
    *,
    silent: bool = False,
    key: bool = False,
) -> Play:
    """Let a node panic (by default a follower), and its crash kernel say so unless it is silent.

    With `key` its image has the node's key.
    """
    play = Play(cluster, kit, scenario, victim or follower(cluster))
    victim = play.victims[0]
    sender = kit.signing_sender(victim) if key else kit.sender
    cluster.panic(victim, () if silent else sender)
    return play


def panic(cluster: Cluster, kit: Kit) -> Outcome:
    """A node panics, and its crash kernel says so."""
    return _crash(cluster, kit, "panic").finish()


def silence(cluster: Cluster, kit: Kit) -> Outcome:
    """A node dies, and nothing says anything."""
    return _crash(cluster, kit, "silence", silent=True).finish()


def leader(cluster: Cluster, kit: Kit) -> Outcome:
    """The node panics that leads the cluster and decides about fencing."""
    outcome = _crash(cluster, kit, "leader", cluster.leader()).finish()
    outcome.notes["new leader"] = cluster.leader().name
    return outcome


def late(cluster: Cluster, kit: Kit, wait: float = WAIT / 2, name: str = "late") -> Outcome:
    """The crash kernel's first message comes so many seconds after the agent's start."""
    play = Play(cluster, kit, name, follower(cluster))
    victim = play.victims[0]
    cluster.panic(victim)
    play.wait_agent()
    started = time.monotonic()
    time.sleep(wait)
    cluster.dump(victim, kit.sender)
    play.outcome.notes["sender started after the agent"] = round(time.monotonic() - started, 1)
    return play.finish()


def just_in_time(cluster: Cluster, kit: Kit) -> Outcome:
    """The message comes 1.5 seconds before the agent would give up."""
    return late(cluster, kit, WAIT - 1.5, "just in time")


def two_of_five(cluster: Cluster, kit: Kit, name: str = "two, one device") -> Outcome:
    """Two nodes of five panic at the same moment."""
    spared = (cluster.leader(), cluster.nodes[0])
    victims = [node for node in reversed(cluster.nodes) if node not in spared][:2]
    play = Play(cluster, kit, name, *victims)
    for victim in victims:
        victim.crash()
    time.sleep(1)
    for victim in victims:
        cluster.dump(victim, kit.sender)
    return play.finish(120)


_DAEMON = """\
networks = ["10.0.0.0/8"]
[history]
path = "/run/history.sqlite"
[control]
path = "/run/control"
"""


def examined(cluster: Cluster, kit: Kit) -> Outcome:
    """The first node examines itself, with kdumpfenced on all of them meanwhile.

    And once more with the rights alone that the doctor's unit leaves it.
    """
    command = "kdumpfenced --config /etc/kdumpfence/kdumpfenced.toml"
    for node in cluster.nodes:
        others = [a for other in cluster.nodes if other is not node for a in other.addresses]
        node.run("mkdir -p /etc/kdumpfence")
        node.write_file("/etc/kdumpfence/nodes", f'NODES="{" ".join(others)}"\n')
        node.write_file("/etc/kdumpfence/kdumpfenced.toml", _DAEMON)
        cluster.run(f"{command} >/run/kdumpfenced.log 2>&1 & echo $! >/run/kdumpfenced.pid", node)

    def listening() -> bool:
        listening = "test -S /run/control"
        return all(cluster.attempt(listening, node).returncode == 0 for node in cluster.nodes)

    cluster.until(listening, "kdumpfenced runs everywhere", 20)
    outcome = Outcome("doctor", kit.agent)
    began = time.monotonic()
    doctor = "kdumpfence doctor --json nodes way cluster agent"
    outcome.notes["said"] = cluster.attempt(doctor, cluster.nodes[0]).stdout
    outcome.notes["took"] = time.monotonic() - began
    doctor = f"{confined('kdumpfence-doctor.service')} {doctor}"
    outcome.notes["said confined"] = cluster.attempt(doctor, cluster.nodes[0]).stdout
    for node in cluster.nodes:
        cluster.run("kill $(cat /run/kdumpfenced.pid)", node)
    return outcome


def second_ring(cluster: Cluster, kit: Kit) -> Outcome:
    """The first network is dead; the node that panics can be heard over the second."""
    play = Play(cluster, kit, "second ring", follower(cluster))
    for node in cluster.nodes:
        node.unplug(0)
    cluster.panic(play.victims[0], kit.sender, rings=[1])
    outcome = play.finish()
    for node in cluster.nodes:
        node.plug(0)
    return outcome


@contextlib.contextmanager
def stranger(cluster: Cluster, what: str, victim: Machine) -> Iterator[None]:
    """Have somebody in the cluster's network who is none of the nodes."""
    others = [node.addresses[0] for node in cluster.nodes if node is not victim]
    with contextlib.suppress(RuntimeError):  # it has the address already
        cluster.site.tool("ip", "address", "add", "10.0.0.254/24", "dev", "ring0")
    program = cluster.site.start(
        cluster.site.pid,
        ("net", "pid"),
        [sys.executable, "-I", str(_ATTACKER), what, victim.addresses[0], *others],
    )
    try:
        yield
        if program.poll() is not None:
            raise Failed(f"the stranger has died: {program.communicate()[0]}")
    finally:
        end(program)


def busy(cluster: Cluster, kit: Kit) -> Outcome:
    """A panic, while the other nodes are busy and flooded on the agent's port."""
    play = Play(cluster, kit, "busy", follower(cluster))
    victim = play.victims[0]
    loads = [
        node.site.start(node.pid, ("pid", "net"), ["sh", "-c", "while :; do :; done"])
        for node in cluster.nodes
        if node is not victim
    ]
    try:
        with stranger(cluster, "flood", victim):
            cluster.panic(victim, kit.sender)
            return play.finish(90)
    finally:
        for load in loads:
            end(load)


def failed_stop(cluster: Cluster, kit: Kit, name: str = "failed stop") -> Outcome:
    """A service can't be stopped on a node that is healthy and reachable."""
    play = Play(cluster, kit, name, follower(cluster))
    victim = play.victims[0]
    agent = "/usr/lib/ocf/resource.d/pacemaker/Dummy"
    # Until the node is booted anew.
    stuck = '[ "$1" = stop ] && [ -e /run/stuck ] && exit 1'
    cluster.run(f"sed -i '2i {stuck}' {agent} && touch /run/stuck", victim)
    cluster.run(f"crm_resource --fail --resource service-{victim.name} --node {victim.name}")
    return play.finish()


def failed_stop_with_key(cluster: Cluster, kit: Kit) -> Outcome:
    """The same, where nothing is believed that is not signed."""
    return failed_stop(cluster, kit, "failed stop, key")


def other_sender(cluster: Cluster, kit: Kit) -> Outcome:
    """A panic in the middle of an upgrade: agent and sender are not of the same project.

    Ours signs what it sends.
    """
    play = Play(cluster, kit, "other sender", follower(cluster))
    victim = play.victims[0]
    stock = kit.agent == "stock"
    cluster.panic(victim, kit.signing_sender(victim) if stock else Kit("stock").sender)
    return play.finish()


def key_and_names(cluster: Cluster, kit: Kit) -> Outcome:
    """A panic with keys; the device has names alone. See configure_keys for which node has what."""
    return _crash(cluster, kit, "names", cluster.nodes[1], key=True).finish()


def key_and_addresses(cluster: Cluster, kit: Kit) -> Outcome:
    """A panic with keys; the device has the node's addresses, and the key belongs to the name."""
    return _crash(cluster, kit, "addresses", cluster.nodes[2], key=True).finish()


def no_key_yet(cluster: Cluster, kit: Kit) -> Outcome:
    """A panic with keys, of a node whose device doesn't ask for any, while those of others do."""
    return _crash(cluster, kit, "no key yet", cluster.nodes[0], key=True).finish()


def rotation(cluster: Cluster, kit: Kit) -> Outcome:
    """A panic while the cluster's key is rotated: the node's image has a key of the old one.

    The other nodes sign with the new key already, and accept the old one.
    """
    play = Play(cluster, kit, "rotation", follower(cluster))
    victim = play.victims[0]
    cluster.run("kdumpfence key rotate && kdumpfence key rotate --switch", cluster.nodes[0])
    for node in cluster.nodes[1:]:
        node.write_file(fence_agents.KEY, cluster.nodes[0].read_file(fence_agents.KEY), mode=0o600)
    cluster.panic(victim, kit.signing_sender(victim))
    play.outcome.notes["keys"] = cluster.run("kdumpfence key show")
    return play.finish()


def forged(
    cluster: Cluster, kit: Kit, what: str = "forge", name: str = "forged", **parameters: str
) -> Outcome:
    """A node is healthy, but cut off. Others say that it dumps, or something like it.

    With our agent alone: what another believes of this is nothing to show. `parameters` are set
    for its device before.
    """
    assert kit.agent == "ours"
    if parameters:
        _set(cluster, **parameters)
    play = Play(cluster, kit, name, follower(cluster))
    victim = play.victims[0]
    with stranger(cluster, what, victim):
        victim.unplug(0)
        outcome = play.finish()
    outcome.notes["its service still runs there"] = (
        victim.run("pgrep -x pacemakerd").returncode == 0 if victim.runs else False
    )
    return outcome


def spoofed(cluster: Cluster, kit: Kit) -> Outcome:
    """The same, and what they say is a valid message with the node's address as its source."""
    return forged(cluster, kit, "spoof", "spoofed")


def spoofed_with_key(cluster: Cluster, kit: Kit) -> Outcome:
    """The same, where nothing is believed that is not signed."""
    key = {"auth": "sha256", "key_file": fence_agents.KEY}
    return forged(cluster, kit, "spoof", "spoofed, key", **key)


def killed(cluster: Cluster, kit: Kit) -> Outcome:
    """The agent would wait longer than Pacemaker allows, and is killed."""
    _set(cluster, timeout="60", pcmk_off_timeout="5s")
    return _and_left_over(_crash(cluster, kit, "killed", silent=True))


def after_killed(cluster: Cluster, kit: Kit) -> Outcome:
    """The next time on the same nodes: the message comes well within that time."""
    return _and_left_over(_crash(cluster, kit, "after killed"))


def short_stonith_timeout(cluster: Cluster, kit: Kit) -> Outcome:
    """stonith-timeout is 4 s, pcmk_off_timeout more, and the message takes 8 s."""
    _set(cluster, timeout=str(WAIT), pcmk_off_timeout=f"{KILLED}s")
    cluster.run(f"crm_attribute --name {cluster.property('fencing-timeout')} --update 4s")
    return late(cluster, kit, 8, "short stonith-timeout")


def stonith_timeout_alone(cluster: Cluster, kit: Kit) -> Outcome:
    """stonith-timeout is 4 s, nothing else is set, and nobody says anything."""
    _set(cluster, timeout="60", pcmk_off_timeout="")
    return _and_left_over(_crash(cluster, kit, "stonith-timeout alone", silent=True))


def _and_left_over(play: Play) -> Outcome:
    """Note also what is left of the agents."""
    before = fence_agents.survivors(play.cluster.site)
    outcome = play.finish()
    outcome.notes["left over"] = left_over(play.cluster)
    outcome.notes["children"] = fence_agents.survivors(play.cluster.site) - before
    return outcome


def _set(cluster: Cluster, **parameters: str) -> None:
    for name, value in parameters.items():
        if value:
            cluster.run(f"crm_resource -r kdump --set-parameter {name} --parameter-value {value}")
        else:
            cluster.run(f"crm_resource -r kdump --delete-parameter {name}")
    cluster.run("crm_resource --wait --timeout=30s")


def left_over(cluster: Cluster) -> list[str]:
    """Agents that still run on a node, and sockets that still hold their port."""
    found = []
    port = f":{7410:04X} "
    for node in cluster.nodes:
        if node.runs:
            found += node.run("pgrep -af [f]ence_kdump").stdout.splitlines()
            sockets = node.run("cat /proc/net/udp /proc/net/udp6 /proc/net/raw /proc/net/raw6")
            found += [line for line in sockets.stdout.splitlines() if port in line]
    return found


def _said_of_kdump(news: str) -> list[str]:
    return [
        line.split(") \t", 1)[-1].strip()
        for line in news.splitlines()
        if "pacemaker-fenced" in line and "kdump" in line and ("error" in line or "warning" in line)
    ]

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Levels that are configured and not used: which of them Pacemaker takes, and what the doctor says.

What is expected of TAKEN, LISTED and CALLED was seen with the fencers of 2.1.5 and 3.0.3.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from kdumpfence.doctor.device import Device, host_list
from kdumpfence.doctor.finding import Unknown
from kdumpfence.doctor.topology import Topology
from tests.doctor.cluster_root import CIB, KDUMP, Fault, Root, judge, level, power

OWN = "pcs stonith level add 1 node2 kdump; pcs stonith level add 2 node2 power-node2"
CLEARED = f"pcs stonith level clear target node2; {OWN}"
SPARE = power("node2").replace("power-node2", "spare")
HOSTS = '"pcmk_host_list" value="node2"'


@pytest.fixture
def healthy(tmp_path: Path) -> Root:
    return Root(tmp_path)


def _element(number: int, target: str, devices: str) -> str:
    """A line of the topology for node2 that is not for its name alone."""
    return level(number, "node2", devices).replace('target="node2"', target)


def _levels(root: Root, *elements: str) -> Root:
    """Give node2 these levels, and a second power device, `spare`."""
    root.change(CIB, power("node2"), power("node2") + SPARE)
    text = "".join(one.replace("fl-", f"fl-{at}-") for at, one in enumerate(elements))
    own = level(1, "node2", "kdump") + level(2, "node2", "power-node2")
    root.change(CIB, own, text)
    attribute = '<nvpair id="r" name="rack" value="7"/>'
    node = f'uname="node2"><instance_attributes id="i">{attribute}</instance_attributes></node>'
    return root.change(CIB, 'uname="node2"/>', node)


def _two_kdumps(root: Root) -> Root:
    """A kdump device for each of node1 and node2; node2 asks the one of node1."""
    own = KDUMP.replace('"kdump', '"kdump1').replace("node2:", "other:")
    second = KDUMP.replace('"kdump', '"kdump2').replace("node1:", "other:")
    root.change(CIB, KDUMP, own + second)
    root.change(CIB, level(1, "node1", "kdump"), level(1, "node1", "kdump1"))
    root.change(CIB, level(1, "node2", "kdump"), level(1, "node2", "kdump1"))
    return root.change(CIB, level(1, "node3", "kdump"), level(1, "node3", "kdump1"))


NAME = 'target="node2"'
PATTERN = 'target-pattern="node[2]$"'
OTHER = 'target-pattern="^node2"'
ATTRIBUTE = 'target-attribute="rack" target-value="7"'

FAULTS = [
    Fault(
        "power for a pattern, beside kdump for the name",
        lambda root: _levels(root, _element(1, NAME, "kdump"), _element(2, PATTERN, "power-node2")),
        "fails",
        "fencing levels",
        (
            "node2: no power device behind kdump",
            "the levels for pattern 'node[2]$' do not count beside those for its name",
            CLEARED,
        ),
    ),
    Fault(
        "kdump for a pattern, power for an attribute",
        lambda root: _levels(
            root, _element(1, PATTERN, "kdump"), _element(2, ATTRIBUTE, "power-node2")
        ),
        "fails",
        "fencing levels",
        (
            "node2: no power device behind kdump",
            "the levels for one of pattern 'node[2]$' and attribute 'rack=7', and which one is",
            OWN,
        ),
    ),
    Fault(
        "other power devices for another pattern",
        lambda root: _levels(
            root,
            *(_element(1, one, "kdump") for one in (PATTERN, OTHER)),
            _element(2, PATTERN, "power-node2"),
            _element(2, OTHER, "spare"),
        ),
        "warning",
        "fencing levels",
        ("node2: Pacemaker takes the levels for one of pattern 'node[2]$' and pattern", OWN),
    ),
    Fault(
        "a third level, for a pattern",
        lambda root: _levels(
            root,
            _element(1, NAME, "kdump"),
            _element(2, NAME, "power-node2"),
            _element(3, PATTERN, "spare"),
        ),
        "warning",
        "fencing levels",
        (
            "node2: level 3 (spare) is not used: the levels for pattern 'node[2]$' do not count",
            f"{CLEARED}; pcs stonith level add 3 node2 spare",
        ),
    ),
    Fault(
        "a pattern in capitals",
        lambda root: root.change(CIB, NAME, 'target-pattern="NODE[2]"'),
        "fails",
        "fencing levels",
        ("node2: no fencing level", OWN),
    ),
    Fault(
        "a level that is configured twice",
        lambda root: _levels(
            root,
            _element(1, NAME, "kdump"),
            _element(2, NAME, "power-node2"),
            _element(2, NAME, "spare"),
        ),
        "warning",
        "fencing levels",
        (
            "node2: level 2 is configured twice, and Pacemaker takes the last one alone",
            "pcs stonith level clear target node2; pcs stonith level add 1 node2 kdump; "
            "pcs stonith level add 2 node2 power-node2 spare",
        ),
    ),
    Fault(
        "kdump twice in a level, the second time as power",
        lambda root: _levels(root, _element(1, NAME, "kdump"), _element(1, NAME, "power-node2")),
        "fails",
        "fencing levels",
        ("node2: kdump is in no fencing level", "level 1 is configured twice", CLEARED),
    ),
    Fault(
        "a tenth level",
        lambda root: _levels(root, _element(1, NAME, "kdump"), _element(10, NAME, "power-node2")),
        "fails",
        "fencing levels",
        (
            "node2: no power device behind kdump",
            "level 10 is ignored, since Pacemaker has levels 1 to 9",
            CLEARED,
        ),
    ),
    Fault(
        "a tenth level beyond what is needed",
        lambda root: _levels(
            root,
            _element(1, NAME, "kdump"),
            _element(2, NAME, "power-node2"),
            _element(10, NAME, "spare"),
        ),
        "warning",
        "fencing levels",
        ("node2: level 10 is ignored", f"{CLEARED}; pcs stonith level add 3 node2 spare"),
    ),
    Fault(
        "a power device of another node",
        lambda root: _levels(root, _element(1, NAME, "kdump"), _element(2, NAME, "power-node3")),
        "fails",
        "fencing levels",
        ("node2: no level behind kdump can cut its power: power-node3 is not for it", CLEARED),
    ),
    Fault(
        "a kdump device of another node",
        _two_kdumps,
        "fails",
        "fencing levels",
        ("node2: level 1 has kdump1, which is not for it", "level add 1 node2 kdump2"),
    ),
    Fault(
        "a list of nodes that Pacemaker skips",
        lambda root: root.change(CIB, HOSTS, '"pcmk_host_list" value="node2,node-variable"'),
        "fails",
        "fencing levels",
        (
            "node2: no level behind kdump can cut its power: power-node2 is not for it: Pacemaker "
            "skips 'node2', 'node-variable' in its pcmk_host_list",
            "pcs stonith update power-node2 pcmk_host_map=node2:node2",
        ),
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_is_found_alone(healthy: Root, fault: Fault) -> None:
    judge(healthy, "cluster", fault)


def test_a_node_of_a_skipped_list_stays_in_the_map_that_was_there(healthy: Root) -> None:
    value = 'value="node2 variable"/><nvpair id="m" name="pcmk_host_map" value="node1:4;"'
    healthy.change(CIB, f"{HOSTS}", f'"pcmk_host_list" {value}')
    (found,) = (one for one in healthy.find("cluster") if one.state != "ok")
    assert found.remedy == "pcs stonith update power-node2 pcmk_host_map='node1:4;node2:node2'"


def test_a_pattern_that_reads_like_the_name_is_cleared_as_well(healthy: Root) -> None:
    pattern = _element(1, 'target-pattern="node2"', "power-node2")
    _levels(healthy, pattern, _element(2, NAME, "kdump"))
    (found,) = (one for one in healthy.find("cluster") if one.state != "ok")
    clear = "pcs stonith level clear target"
    assert found.remedy.startswith(f"{clear} regexp%node2; {clear} node2; pcs stonith level add 1 ")


def test_a_level_that_is_ignored_is_cleared_if_it_is_the_only_one(healthy: Root) -> None:
    _levels(healthy, _element(10, NAME, "kdump"))
    (found,) = (one for one in healthy.find("cluster") if one.state != "ok")
    assert found.text.startswith(
        "node2: no fencing level: nothing makes Pacemaker ask kdump first; "
    )
    assert found.remedy == CLEARED


FINE: dict[str, Callable[[Root], object]] = {
    "levels for the name instead of those for all": lambda root: _levels(
        root,
        *(_element(number, 'target-pattern="."', "spare") for number in (1, 2)),
        _element(1, NAME, "kdump"),
        _element(2, NAME, "power-node2"),
    ),
    "the same levels for two patterns": lambda root: _levels(
        root,
        *(_element(1, one, "kdump") for one in (PATTERN, OTHER)),
        *(_element(2, one, "power-node2") for one in (PATTERN, OTHER)),
    ),
    "too complicated a pattern beside the name": lambda root: _levels(
        root,
        _element(1, NAME, "kdump"),
        _element(2, NAME, "power-node2"),
        _element(3, 'target-pattern="(a*)*"', "spare"),
    ),
    "a power device that says itself for which nodes it is": lambda root: root.change(
        CIB, 'name="pcmk_host_list"', 'name="pcmk_host_list_of_nobody"'
    ),
}


@pytest.mark.parametrize("change", FINE.values(), ids=FINE)
def test_what_is_no_fault_is_not_complained_of(
    healthy: Root, change: Callable[[Root], object]
) -> None:
    change(healthy)
    assert [one for one in healthy.find("cluster") if one.state != "ok"] == []


def test_no_fencing_time_is_reckoned_from_levels_that_may_not_count(healthy: Root) -> None:
    plant = next(one.plant for one in FAULTS if one.name.startswith("other power devices"))
    plant(healthy)
    (found,) = (one for one in healthy.find("cluster") if one.check == "fencing time")
    assert found.text.startswith("node1, node3: ")


#: Levels, and the devices that are tried for node1, which is in rack 7 and 8; of several, either.
TAKEN = [
    ([("NODE[12]", "pattern", 1, "a")], []),
    ([("NODE1", "name", 1, "a"), ("NODE1", "name", 2, "b")], ["a b"]),
    ([("NODE1", "name", 1, "a"), ("node1", "pattern", 2, "b")], ["b"]),
    ([("NODE1", "name", 1, "a"), ("node.", "pattern", 2, "b")], ["a", "b"]),
    ([("node1", "name", 1, "a"), ("node1", "name", 1, "b")], ["b"]),
    ([("node1", "name", 1, "a"), ("node1", "name", 10, "b")], ["a"]),
    ([("node1", "name", 9, "b"), ("node1", "name", 1, "a")], ["a b"]),
    ([("node1", "name", 0, "a")], []),
    ([("rack=7", "attribute", 1, "a"), ("rack=8", "attribute", 2, "b")], ["a", "b"]),
    ([("rack=9", "attribute", 1, "a"), ("rack=8", "attribute", 2, "b")], ["b"]),
    ([("node1", "name", 1, "a"), ("node1", "pattern", 2, "b")], ["a b"]),
    ([("node1", "name", 1, "a"), ("node[12]", "pattern", 2, "b")], ["a"]),
    ([("node[12]", "pattern", 1, "a"), ("node1", "name", 2, "b")], ["b"]),
    ([("^node1$", "pattern", 1, "a"), ("node[12]", "pattern", 2, "b")], ["a", "b"]),
    ([("^node[[:digit:]]$", "pattern", 1, "a")], ["a"]),
]


@pytest.mark.parametrize(("given", "taken"), TAKEN)
def test_levels_are_those_of_one_target(
    given: list[tuple[str, str, int, str]], taken: list[str]
) -> None:
    targets = _topology(given).targets("node1")
    tried = [" ".join(name for its in one.levels for name in its.devices) for one in targets]
    assert tried == taken


def _topology(given: list[tuple[str, str, int, str]]) -> Topology:
    root = ET.fromstring(
        '<cib><configuration><nodes><node id="1" uname="node1"><instance_attributes id="a">'
        '<nvpair id="b" name="rack" value="7"/><nvpair id="c" name="rack" value="8"/>'
        "</instance_attributes></node></nodes><fencing-topology/></configuration></cib>"
    )
    topology = root.find("configuration/fencing-topology")
    assert topology is not None
    for key, kind, number, devices in given:
        its = {"target" if kind == "name" else f"target-{kind}": key}
        if kind == "attribute":
            name, _, value = key.partition("=")
            its = {"target-attribute": name, "target-value": value}
        ET.SubElement(topology, "fencing-level", {**its, "index": str(number), "devices": devices})
    return Topology(root)


@pytest.mark.parametrize("pattern", [r"node\d", "(?i)NODE1", "[[=n=]]ode1", "node.*?", r"[\w]+"])
def test_a_pattern_that_is_another_one_to_python_is_not_judged(pattern: str) -> None:
    with pytest.raises(Unknown):
        _topology([(pattern, "pattern", 1, "a")]).targets("node1")


LISTED = [
    ("node1,node2;node3 node4", ["node1", "node2", "node3", "node4"]),
    ("node1,variables", []),
    ("cache-invalidator1", []),
    ("node3/left,-x,/y,Node.4_a", ["node3", "-x", "Node.4_a"]),
    ("on,OFF,node1", ["node1"]),
    (r"node1\nvariable\nnode2", ["node1", "node2"]),
    ("node1\nvariable\nnode2", ["node1", "node2"]),
    ("", []),
]


@pytest.mark.parametrize(("text", "nodes"), LISTED)
def test_a_host_list_is_read_as_pacemaker_reads_it(text: str, nodes: list[str]) -> None:
    assert host_list(text) == nodes


CALLED: list[tuple[dict[str, str], dict[str, str | None]]] = [
    ({}, {"node1": "node1"}),
    ({"pcmk_host_list": "node1"}, {"NODE1": "NODE1", "node2": None}),
    ({"pcmk_host_list": ""}, {"node1": None}),
    ({"pcmk_host_list": "node1,variables"}, {"node1": None}),
    (
        {"pcmk_host_list": "variable1", "pcmk_host_map": "node2:2"},
        {"node2": "2", "variable1": None, "2": "2"},
    ),
    ({"pcmk_host_map": "variable1:1"}, {"variable1": "1"}),
    (
        {"pcmk_host_check": "none", "pcmk_host_map": "node2:2", "pcmk_host_list": "node3"},
        {"node1": "node1", "node2": "2"},
    ),
    ({"pcmk_host_check": "static-list"}, {"node1": None}),
    ({"pcmk_host_check": "status", "pcmk_host_list": "node1"}, {"node2": "node2"}),
]


@pytest.mark.parametrize(("parameters", "calls"), CALLED)
def test_a_device_is_for_the_nodes_that_pacemaker_takes_it_for(
    parameters: dict[str, str], calls: dict[str, str | None]
) -> None:
    device = Device("power", "fence_power", parameters, False)
    assert {node: device.calls(node, (2, 1, 5)) for node in calls} == calls

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Faults in a cluster's configuration, planted one by one in one that has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kdumpfence import keys
from kdumpfence.doctor import cib
from kdumpfence.doctor.device import host_map
from tests.doctor.cluster_root import CIB, COROSYNC, KDUMP, Fault, Root, judge, level, power

UPDATE = "pcs stonith update kdump "
KEY = bytes(range(32))


@pytest.fixture
def healthy(tmp_path: Path) -> Root:
    return Root(tmp_path)


def _second_device(root: Root, **changed: str) -> None:
    """One more device of fence_kdump, like the first but for these parameters."""
    root.change(CIB, KDUMP, KDUMP + KDUMP.replace('"kdump', '"other'))
    for name, value in changed.items():
        root.set(name, value)


def _key_file(root: Root, mode: int = 0o600, node: str = "") -> None:
    its = keys.Keys((keys.key_id(KEY), KEY))
    made = its.of(node) if node else its
    assert made is not None
    root.write("etc/kdumpfence/key", made.text())
    (root.folder / "etc/kdumpfence/key").chmod(mode)


def _signed(root: Root, mode: int = 0o600, node: str = "") -> None:
    root.set("auth", "sha256")
    _key_file(root, mode, node)


def _different(root: Root) -> None:
    _second_device(root)
    _signed(root)


def _newer_names(root: Root) -> None:
    root.change(CIB, 'name="stonith-enabled"', 'name="fencing-enabled"')


def _newer_disabled(root: Root) -> None:
    root.version("3.0.3-1")
    _newer_names(root)
    root.change(CIB, 'name="fencing-enabled" value="true"', 'name="fencing-enabled" value="false"')


FAULTS = [
    Fault(
        "no device",
        lambda root: root.change(CIB, KDUMP, ""),
        "fails",
        "kdump device",
        ("pcs stonith create kdump fence_kdump", "node2:192.0.2.2,198.51.100.2;", "pcmk_off_ret"),
    ),
    Fault(
        "disabled",
        lambda root: root.change(
            CIB,
            "        <operations>",
            '        <meta_attributes id="m"><nvpair id="n" name="target-role" value="Stopped"/>'
            "</meta_attributes>\n        <operations>",
        ),
        "fails",
        "kdump device",
        ("kdump is disabled", "pcs stonith enable kdump"),
    ),
    Fault(
        "fencing disabled",
        lambda root: root.change(
            CIB, 'name="stonith-enabled" value="true"', 'name="stonith-enabled" value="false"'
        ),
        "fails",
        "fencing on",
        ("stonith-enabled=false", "pcs property set stonith-enabled=true"),
    ),
    Fault(
        "fencing disabled, in a newer version",
        _newer_disabled,
        "fails",
        "fencing on",
        ("fencing-enabled=false", "pcs property set fencing-enabled=true"),
    ),
    Fault(
        "names of a newer version",
        _newer_names,
        "fails",
        "property names",
        ("fencing-enabled has no effect in Pacemaker 2.1.5", "pcs property set stonith-enabled="),
    ),
    Fault(
        "no level",
        lambda root: root.change(
            CIB, level(1, "node2", "kdump") + level(2, "node2", "power-node2"), ""
        ),
        "fails",
        "fencing levels",
        ("node2: no fencing level", "add 1 node2 kdump; pcs stonith level add 2 node2 power-node2"),
    ),
    Fault(
        "kdump in no level",
        lambda root: root.change(CIB, level(1, "node3", "kdump"), ""),
        "fails",
        "fencing levels",
        ("node3: kdump is in no fencing level", "add 1 node3 kdump"),
    ),
    Fault(
        "nothing behind kdump",
        lambda root: root.change(CIB, level(2, "node3", "power-node3"), ""),
        "fails",
        "fencing levels",
        ("node3: no power device behind kdump", "add 2 node3 power-node3"),
    ),
    Fault(
        "power first",
        lambda root: (
            root.change(CIB, level(1, "node2", "kdump"), level(1, "node2", "power-node2")),
            root.change(CIB, level(2, "node2", "power-node2"), level(2, "node2", "kdump")),
        ),
        "fails",
        "fencing levels",
        ("node2: power in level 1, kdump only in 2", "add 1 node2 kdump"),
    ),
    Fault(
        "both in one level",
        lambda root: root.change(
            CIB, 'index="1" devices="kdump"', 'index="1" devices="kdump,power-node1"'
        ),
        "fails",
        "fencing levels",
        ("kdump and power are both in level 1", "add 2 node3 power-node3"),
    ),
    Fault(
        "a level names nothing",
        lambda root: root.change(CIB, power("node2"), ""),
        "fails",
        "fencing levels",
        ("level 2 names power-node2, which is no device", "make a power device for node2"),
    ),
    Fault(
        "power disabled",
        lambda root: root.change(
            CIB,
            'type="fence_ipmilan">\n        <instance_attributes id="power-node3-',
            'type="fence_ipmilan">\n        <meta_attributes id="m"><nvpair id="n" '
            'name="target-role" value="Stopped"/></meta_attributes>'
            '\n        <instance_attributes id="power-node3-',
        ),
        "fails",
        "fencing levels",
        ("only power-node3, which is disabled", "pcs stonith enable power-node3"),
    ),
    Fault(
        "both time-outs at their defaults",
        lambda root: (root.unset("timeout"), root.unset("pcmk_off_timeout")),
        "warning",
        "agent timeout",
        ("timeout=60, and after 60 s (stonith-timeout=60)", UPDATE + "pcmk_off_timeout=70s"),
    ),
    Fault(
        "too little between the time-outs",
        lambda root: root.set("timeout", "58s"),
        "warning",
        "agent timeout",
        ("timeout=58, and after 60 s (pcmk_off_timeout=60s)", UPDATE + "pcmk_off_timeout=68s"),
    ),
    Fault(
        "asked again",
        lambda root: root.unset("pcmk_off_retries"),
        "warning",
        "agent retries",
        ("pcmk_off_retries=2", "50 s more", UPDATE + "pcmk_off_retries=1"),
    ),
    Fault(
        "a time-out that is none",
        lambda root: root.set("timeout", "a while"),
        "fails",
        "agent options",
        ("kdump: the agent refuses timeout 'a while'",),
    ),
    Fault(
        "one after the other",
        lambda root: root.change(
            CIB,
            '        <nvpair id="cib-concurrent" name="concurrent-fencing" value="true"/>\n',
            "",
        ),
        "warning",
        "fencing at once",
        ("concurrent-fencing=false", "pcs property set concurrent-fencing=true"),
    ),
    Fault(
        "one at a time",
        lambda root: root.unset("pcmk_action_limit"),
        "warning",
        "fencing at once",
        ("one of its 3 nodes at a time", UPDATE + "pcmk_action_limit=-1"),
    ),
    Fault(
        "devices that believe different things",
        _different,
        "fails",
        "authentication",
        ("none (other)", "sha256 /etc/kdumpfence/key (kdump)", "update other auth=sha256"),
    ),
    Fault(
        "no key file",
        lambda root: root.set("auth", "sha256"),
        "fails",
        "key file",
        ("no key file '/etc/kdumpfence/key'", "kdumpfence key show"),
    ),
    Fault(
        "a key file for everybody",
        lambda root: _signed(root, 0o644),
        "fails",
        "key file",
        ("mode 0644, others have rights to it", "fails at once"),
    ),
    Fault(
        "the key of a node",
        lambda root: _signed(root, node="node1"),
        "fails",
        "key file",
        ("is that of node 'node1', not the cluster's",),
    ),
    Fault(
        "a setting for reboots",
        lambda root: root.set("pcmk_reboot_timeout", "600s"),
        "warning",
        "idle settings",
        ("pcmk_reboot_timeout has no effect", UPDATE + "pcmk_reboot_timeout=", "pcmk_off_timeout"),
    ),
]


def test_a_healthy_cluster_has_no_faults(healthy: Root) -> None:
    found = healthy.find("cluster")
    assert {one.state for one in found} == {"ok"}, found
    assert {one.check for one in found} == {
        *("kdump device", "fencing on", "fencing levels", "agent timeout", "fencing at once"),
        *("authentication", "fencing time"),
    }


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_is_found_alone(healthy: Root, fault: Fault) -> None:
    judge(healthy, "cluster", fault)


def test_with_crmsh_all_levels_are_given_at_once_since_it_keeps_no_other(healthy: Root) -> None:
    healthy.remove("usr/sbin/pcs").write("usr/sbin/crm", "")
    healthy.change(CIB, level(1, "node3", "kdump"), "")
    (found,) = (one for one in healthy.find("cluster") if one.state != "ok")
    wanted = " ".join(f"{node}: kdump power-{node}" for node in ("node1", "node2", "node3"))
    assert found.remedy == f"echo 'fencing_topology {wanted}' | crm configure load update -"


def _newer(root: Root) -> None:
    root.version("3.0.3-1.fc44")
    _newer_names(root)
    root.change(
        CIB, '        <nvpair id="cib-concurrent" name="concurrent-fencing" value="true"/>\n', ""
    )


FINE: dict[str, Callable[[Root], object]] = {
    "signed": _signed,
    "Pacemaker 3.0.3 with its names": _newer,
    "Pacemaker 3.0.3 with the old names": lambda root: root.version("3.0.3-1.fc44"),
    "levels for a pattern": lambda root: [
        root.change(CIB, 'target="node2"', 'target-pattern="node[2]$"')
    ],
    "levels for an attribute": lambda root: [
        root.change(CIB, 'target="node2"', 'target-attribute="rack" target-value="7"'),
        root.change(
            CIB,
            '<node id="2" uname="node2"/>',
            '<node id="2" uname="node2"><instance_attributes id="a"><nvpair id="b" name="rack" '
            'value="7"/></instance_attributes></node>',
        ),
    ],
    "a device of a template": lambda root: [
        root.change(
            CIB,
            '<primitive id="kdump" class="stonith" type="fence_kdump">',
            '<template id="t" class="stonith" type="fence_kdump"><instance_attributes id="u"/>'
            '</template><primitive id="kdump" template="t">',
        )
    ],
    "pcmk_reboot_action=off": lambda root: root.set("pcmk_reboot_action", "off"),
}


@pytest.mark.parametrize("change", FINE.values(), ids=FINE)
def test_what_is_no_fault_is_not_complained_of(
    healthy: Root, change: Callable[[Root], object]
) -> None:
    change(healthy)
    found = healthy.find("cluster")
    assert {one.state for one in found} == {"ok"}, found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no element found"),
        ("<cib", "unclosed token"),
        ("<other/>", "not a configuration of Pacemaker"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><cib>&b;</cib>', "not what Pacemaker writes"),
        ("\0\udcff", "not well-formed"),
    ],
)
def test_a_configuration_that_is_none_is_said_to_be_none(
    healthy: Root, text: str, why: str
) -> None:
    (healthy.folder / CIB).write_bytes(text.encode(errors="surrogateescape"))
    found = healthy.find("cluster")
    assert {one.state for one in found} == {"unknown"}
    assert all(why in one.text for one in found), found


def test_hostile_names_cost_nothing_but_a_line(healthy: Root) -> None:
    healthy.change(CIB, '"kdump"', '"kd$(reboot)&#10;ump"')
    healthy.change(CIB, 'value="1"', 'value="&#10;2"')
    (found,) = (one for one in healthy.find("cluster") if one.check == "agent retries")
    assert "pcs stonith update 'kd$(reboot)\nump' pcmk_off_retries=1" in found.remedy


@pytest.mark.parametrize("pattern", ["(a*)*b", "a*a*a*a*a*a*b", "(", "a" * 2000])
def test_a_pattern_that_could_take_for_ever_is_not_tried(healthy: Root, pattern: str) -> None:
    healthy.change(CIB, 'target="node2"', f'target-pattern="{pattern}"')
    (found,) = (one for one in healthy.find("cluster") if one.state != "ok")
    assert (found.state, found.check) == ("unknown", "levels")


def test_without_a_corosync_conf_the_nodes_are_pacemakers(healthy: Root) -> None:
    healthy.remove(COROSYNC)
    healthy.change(CIB, level(1, "node2", "kdump"), "")
    (found,) = (one for one in healthy.find("cluster") if one.state != "ok")
    assert found.text.startswith("node2: kdump is in no fencing level")


@pytest.mark.parametrize(
    ("version", "text", "expected"),
    [
        ((2, 1, 5), "a:192.0.2.1;b:192.0.2.2,c", {"a": "192.0.2.1", "b": "192.0.2.2,c"}),
        ((2, 1, 5), "a=192.0.2.1 b=x", {"a": "192.0.2.1", "b": "x"}),
        # What 3.0.0 made of it: docs/operations.md, section 4.
        ((3, 0, 0), "node1:192.0.2.1,2001:db8::1", {"db8": "1"}),
        ((3, 0, 1), r"node1:192.0.2.1,2001\:db8\:\:1", {"node1": "192.0.2.1,2001:db8::1"}),
        ((3, 0, 2), "node1:192.0.2.1,2001:db8::1", {"node1": "192.0.2.1,2001:db8::1"}),
        ((3, 0, 2), r"node1:2001\:db8\:\:1;:;=", {"node1": r"2001\:db8\:\:1"}),
        ((2, 1, 5), "::;==\\", {}),
    ],
)
def test_a_host_map_is_taken_apart_as_that_pacemaker_does(
    version: tuple[int, ...], text: str, expected: dict[str, str]
) -> None:
    assert host_map(text, version) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 60), ("60s", 60), ("2min", 120), ("1H", 3600), ("500ms", 0.5), ("", None), ("x", None)],
)
def test_times_are_read_as_pacemaker_reads_them(text: str, seconds: float | None) -> None:
    assert cib.seconds(text) == seconds


def test_levels_that_are_not_there_are_not_cleared(healthy: Root) -> None:
    levels = (level(1, "node2", "kdump"), level(2, "node2", "power-node2"))
    healthy.change(CIB, "".join(levels), "")
    (found,) = (one for one in healthy.find("cluster") if one.state != "ok")
    assert found.remedy.startswith("pcs stonith level add 1 node2 ")
    healthy.change(CIB, level(2, "node3", "power-node3"), "")
    remedies = [one.remedy for one in healthy.find("cluster") if one.state != "ok"]
    assert any(one.startswith("pcs stonith level clear target node3; ") for one in remedies)

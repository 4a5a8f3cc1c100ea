# SPDX-License-Identifier: LGPL-2.1-or-later
"""What kdump-utils would make of a node is told before it makes the image: routes, names, hosts.

That it does so was seen with the functions of kdump-utils 1.0.61 in such networks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from kdumpfence.install import rhel_network
from tests.support.labs import lab
from tests.support.netlab import Host

NO_IMAGE = "an image cannot be made now, and no crash kernel loaded"
HOSTS = "110.0.0.3 node3\n198.51.100.7 node7\n2001:db8::3 node6 node66\n110.0.0.3 node66\n"


@pytest.fixture(scope="module")
def node1() -> Iterator[Host]:
    """A node on two networks, the second of which is down."""
    with lab() as opened:
        host, other = opened.host("node1"), opened.host("node2")
        opened.link(host, other, ["110.0.0.2/24", "2001:db8::1/64"], ["110.0.0.3/24"])
        host.write_file("/etc/hosts", HOSTS)
        yield host


def trouble(host: Host, node: str, path: str = "") -> str:
    script = "import sys\nfrom kdumpfence.install.rhel_network import trouble\n"
    script += f"import os\nos.environ['PATH'] = {path!r} or os.environ['PATH']\n"
    done = host.run([sys.executable, "-c", script + "print(trouble(sys.argv[1]))", node])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("110.0.0.3", ""),
        ("node3", ""),
        ("node6", ""),
        ("node66", ""),
        ("2001:db8::3", ""),
        ("198.51.100.7", f"no route to '198.51.100.7': {NO_IMAGE}"),
        ("node7", f"no route to 'node7': {NO_IMAGE}"),
        ("2001:db8:1::3", f"no route to '2001:db8:1::3': {NO_IMAGE}"),
        ("node9", f"'node9' does not resolve: {NO_IMAGE}"),
    ],
)
def test_a_node_without_a_route_costs_the_image(node1: Host, node: str, said: str) -> None:
    assert trouble(node1, node) == said


def test_a_ring_that_is_down_hides_behind_the_default_route(node1: Host) -> None:
    node1.tool("ip", "route", "add", "default", "via", "110.0.0.3")
    try:
        said = trouble(node1, "node7")
        assert trouble(node1, "110.0.0.3") == ""
    finally:
        node1.tool("ip", "route", "del", "default")
    assert said.startswith("'node7' is behind the gateway 110.0.0.3 on eth0 at the moment: if")
    assert said.endswith("that is down, and an image made now lacks it")


def test_where_nobody_can_be_asked_nothing_is_told(node1: Host) -> None:
    assert trouble(node1, "198.51.100.7", "/nowhere") == ""


@pytest.mark.parametrize(
    ("hosts", "found"),
    [
        ("10.0.0.1 node1 node1.cluster", {}),
        ("10.0.0.10 node10 other # 10.0.0.1", {"node10": "10.0.0.10", "other": "10.0.0.10"}),
        ("110.0.0.1\tnode2", {"node2": "110.0.0.1"}),
        ("10.0.0.2 node2 # once 10.0.0.1", {"node2": "10.0.0.2"}),
        ("10.0.0.2 node2\n\n#\n10a0.0.1 x", {"x": "10a0.0.1"}),
        ("10.0.1.1 node2\n2001:db8::1 node1", {}),
        ("2001:db8::11 node11", {"node11": "2001:db8::11"}),
    ],
)
def test_an_address_in_a_longer_one_is_taken_for_it(hosts: str, found: dict[str, str]) -> None:
    assert rhel_network.mistaken(hosts, ("10.0.0.1", "2001:db8::1")) == found


def test_without_addresses_nothing_is_mistaken() -> None:
    assert rhel_network.mistaken("10.0.0.10 node10", ()) == {}

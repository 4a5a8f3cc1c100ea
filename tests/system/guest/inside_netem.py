# SPDX-License-Identifier: GPL-2.0-or-later
"""Run in the guest, where an impaired link is made by netem or not at all."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.netlab import BLACKHOLE, Impairment, Lab


def drops(lab: Lab, impairment: Impairment) -> int:
    """Send a hundred datagrams through a link; how many frames its qdisc has dropped then."""
    node, survivor = lab.host("node1"), lab.host("survivor")
    link = lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"], Impairment())
    assert link.kind == "netem"
    sender = node.open_socket()
    sender.sendto(b"", ("10.0.0.2", 7410))  # the neighbours get to know each other
    link.impair(impairment)
    for _ in range(100):
        sender.sendto(b"", ("10.0.0.2", 7410))
    show = ("qdisc", "show", "dev", link.interface(node))
    (qdisc,) = json.loads(node.tool("tc", "-statistics", "-json", *show).stdout)
    assert qdisc["kind"] == "netem"
    return int(qdisc["drops"])


def test_the_lab_has_netem_and_nothing_else() -> None:
    assert not Path("/dev/net/tun").exists()
    with Lab() as lab:
        assert drops(lab, BLACKHOLE) >= 100  # the kernel sends frames of its own too
    with Lab() as lab:
        assert drops(lab, Impairment()) == 0

# SPDX-License-Identifier: LGPL-2.1-or-later
"""`fence_kdump_send --check`: what it says of a network, and that it sends nothing into it."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

from tests.support.netlab import Host, Lab
from tests.support.programs import FORMS, environment, sender
from tests.system.network.datagrams import arrivals, receiver

#: Of the two words in the middle, one libc leaves one out.
UNREACHABLE = r"\[error\]: node '{}' \({}\): Network (is )?unreachable"


@pytest.fixture(params=FORMS)
def check(request: pytest.FixtureRequest) -> Check:
    """Run the check in each form of the sender."""
    return Check(request.param)


class Check:
    """`fence_kdump_send --check` in one of its forms."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._sender = sender(form)

    def __call__(self, host: Host, *arguments: str) -> tuple[int, list[str], list[str]]:
        """Exit status, lines on stdout, lines on stderr."""
        process = host.popen(
            [self._sender, "--check", *arguments],
            env=environment(self._form),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = process.communicate(timeout=60)
        return process.returncode, out.splitlines(), err.splitlines()


@pytest.mark.slow
def test_every_address_of_every_node_with_its_way(
    check: Check, lab: Lab, node: Host, survivor: Host
) -> None:
    near = lab.link(node, survivor, ["10.0.0.1/24", "fd00::1/64"], ["10.0.0.2/24", "fd00::2/64"])
    far = lab.link(node, survivor, ["10.1.0.1/24"], ["10.1.0.2/24"])
    node.tool("ip", "route", "add", "10.9.0.0/16", "via", "10.1.0.2")
    node.add_name("survivor", "10.0.0.2", "10.9.0.2", "fd00::2")
    messages = receiver(survivor)
    status, out, err = check(node, "survivor", "10.0.0.2", "10.0.0.1")
    first, second = near.interface(node), far.interface(node)
    # Which operand comes first depends on when the name was looked up.
    (shared,) = (line for line in out if "(10.0.0.2)" in line)
    assert shared in (
        f"node '{both}' (10.0.0.2): by {first}, from 10.0.0.1"
        for both in ("survivor,10.0.0.2", "10.0.0.2,survivor")
    )
    assert sorted({*out} - {shared}) == [
        "node '10.0.0.1' (10.0.0.1): is this machine",
        f"node 'survivor' (10.9.0.2): by {second}, from 10.1.0.1, through 10.1.0.2",
        f"node 'survivor' (fd00::2): by {first}, from fd00::1",
    ]
    assert (status, err) == (0, [])
    assert arrivals(messages, 1, within=0.3) == []


def test_a_link_local_address(check: Check, lab: Lab, node: Host, survivor: Host) -> None:
    link = lab.link(node, survivor, ["fe80::1/64"], ["fe80::2/64"])
    name = link.interface(node)
    status, out, err = check(node, f"fe80::2%{name}")
    [line] = out
    assert line.startswith(f"node 'fe80::2%{name}' (fe80::2%{name}): by {name}, from fe80::")
    assert (status, err) == (0, [])


def test_no_way_at_all(check: Check, node: Host) -> None:
    status, out, err = check(node, "10.0.0.2", "fd00::2")
    assert (status, out) == (1, [])
    for line, node_ in zip(err, ("10.0.0.2", "fd00::2")):
        assert re.fullmatch(UNREACHABLE.format(node_, node_), line)


def test_a_cable_that_carries_nothing(check: Check, lab: Lab, node: Host, survivor: Host) -> None:
    link = lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    link.down(survivor)
    name = link.interface(node)
    while not re.search("state (LOWERLAYER)?DOWN", node.tool("ip", "link", "show", name).stdout):
        time.sleep(0.05)  # the kernel notices within a second
    status, out, err = check(node, "10.0.0.2")
    assert status == 1
    assert out == [f"node '10.0.0.2' (10.0.0.2): by {link.interface(node)}, from 10.0.0.1"]
    assert err == ["[error]: node '10.0.0.2' (10.0.0.2): the interface has no carrier"]


def test_one_address_without_a_way_beside_one_that_has_one(
    check: Check, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    node.add_name("survivor", "10.0.0.2", "10.9.0.2")
    status, out, err = check(node, "survivor")
    assert status == 0  # the message will arrive
    assert len(out) == 1
    [line] = err
    assert re.fullmatch(UNREACHABLE.format("survivor", "10.9.0.2"), line)


@pytest.mark.slow
def test_a_name_that_nobody_knows(check: Check, lab: Lab, node: Host, survivor: Host) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    status, out, err = check(node, "nobody.test", "10.0.0.2")
    assert status == 1
    assert len(out) == 1
    [line] = err
    assert line.startswith("[error]: node 'nobody.test': ")
    assert "will try" not in line  # a check asks once


@pytest.mark.slow
def test_a_look_up_that_hangs_ends_the_check_all_the_same(
    check: Check, lab: Lab, node: Host, survivor: Host
) -> None:
    lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"])
    node.hang_name_service()
    status, out, err = check(node, "nobody", "10.0.0.2")
    assert status == 1
    assert len(out) == 1
    [line] = err
    assert line.startswith("[error]: node 'nobody': ")


def test_a_route_that_forbids(check: Check, node: Host) -> None:
    node.tool("ip", "route", "add", "unreachable", "10.0.0.2/32")
    node.tool("ip", "route", "add", "blackhole", "10.0.0.3/32")
    node.tool("ip", "route", "add", "prohibit", "10.0.0.4/32")
    status, out, err = check(node, "10.0.0.2", "10.0.0.3", "10.0.0.4")
    assert (status, out) == (1, [])
    assert len(err) == 3

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Faults of an examined cluster that no file says: firewalls, routes, programs, crash kernels.

Rules of nftables and routes are the machine's own, in the namespaces of a node.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

from tests.system.cluster.examined import Examined

_PORT_TAKEN = """\
python3 -c '
import signal, socket
taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
taken.bind(("", 7410))
signal.pause()' >/dev/null 2>&1 &
echo $! >/run/taken.pid
until grep -q :1CF2 /proc/net/udp; do sleep 0.1; done
"""
_DROP = "add table inet t; add chain inet t f {{ type filter hook {} priority 0; }}; add rule "
_DROP += "inet t f udp {} 7410 drop"


@contextlib.contextmanager
def _watched(examined: Examined, here: bool, plant: str, undo: str) -> Iterator[None]:
    """A command plants it on the examined node, from where the device is watched or not."""
    cluster, node = examined.cluster, examined.node
    name = node.name if here else cluster.nodes[1].name
    cluster.run(f"crm_resource --move --resource kdump --node {name}")
    cluster.until(lambda: cluster.where("kdump") == name, "kdump moves", 30)
    cluster.run(plant, node)
    if here:  # its monitor runs once a minute
        failure = f"failures/failure[@node='{name}']"
        cluster.until(lambda: cluster.status().find(failure) is not None, "it fails", 90)
        cluster.run("crm_resource --wait --timeout=40s")
    try:
        yield
    finally:
        cluster.run(undo, node)
        cluster.run("crm_resource --clear --resource kdump; crm_resource --cleanup")
        cluster.run("crm_resource --wait --timeout=40s")


@contextlib.contextmanager
def _rule(examined: Examined, number: int, hook: str, port: str) -> Iterator[None]:
    """A firewall drops what goes to that port, or comes from there."""
    node = examined.cluster.nodes[number]
    examined.cluster.site.tool("nft", _DROP.format(hook, port), target=node.hardware)
    try:
        yield
    finally:
        examined.cluster.site.tool("nft", "delete table inet t", target=node.hardware)


@contextlib.contextmanager
def _route(examined: Examined, *words: str) -> Iterator[None]:
    """The way to another node is not what it was."""
    tool, node = examined.cluster.site.tool, examined.node.hardware
    tool("ip", "address", "add", "10.1.0.77/24", "dev", "ring1", target=node)
    tool("ip", "route", "add", *words, target=node)
    try:
        yield
    finally:
        tool("ip", "route", "delete", *words, target=node)
        tool("ip", "address", "delete", "10.1.0.77/24", "dev", "ring1", target=node)


@contextlib.contextmanager
def _daemon(examined: Examined, more: str = "") -> Iterator[None]:
    """Another node's kdumpfenced has these settings, or without any does not run."""
    other = examined.cluster.nodes[1]
    if more:
        examined.listen(other, more)
    else:
        examined.stop(other)
    try:
        yield
    finally:
        examined.listen(other)


@contextlib.contextmanager
def _port_taken(examined: Examined) -> Iterator[None]:
    """Another program holds the port."""
    examined.stop(examined.node)
    examined.cluster.run(_PORT_TAKEN, examined.node)
    try:
        yield
    finally:
        examined.cluster.run("kill $(cat /run/taken.pid)", examined.node)
        examined.listen(examined.node)


class ByHand(NamedTuple):
    """A fault that lasts as long as what `plant` gives, and the finding that says so."""

    name: str
    plant: Callable[[Examined], AbstractContextManager[None]]
    part: str
    state: str
    check: str


def _unloaded(examined: Examined, here: bool) -> AbstractContextManager[None]:
    loaded = "echo {} >/sys/kernel/kexec_crash_loaded"
    return _watched(examined, here, loaded.format(0), loaded.format(1))


def _agent(examined: Examined, here: bool, instead: str = ":") -> AbstractContextManager[None]:
    """The agent is not there, or another one is."""
    plant = f"cd /usr/sbin && mv fence_kdump away && {instead}"
    return _watched(examined, here, plant, "cd /usr/sbin && mv away fence_kdump")


BY_HAND = (
    ByHand(
        "no crash kernel is loaded, and the device is watched from another node",
        lambda examined: _unloaded(examined, here=False),
        *("crash kernel", "fails", "crash kernel loaded"),
    ),
    ByHand(
        "the same where the device is watched",
        lambda examined: _unloaded(examined, here=True),
        *("crash kernel", "fails", "crash kernel loaded"),
    ),
    ByHand(
        "this node drops what comes from the port",
        lambda examined: _rule(examined, 0, "input", "sport"),
        *("way", "fails", "way here"),
    ),
    ByHand(
        "the other node drops what comes to the port",
        lambda examined: _rule(examined, 1, "input", "dport"),
        *("way", "fails", "way there"),
    ),
    ByHand(
        "no way to the second network of a node",
        lambda examined: _route(examined, "prohibit", "10.1.0.2/32"),
        *("way", "fails", "way there"),
    ),
    ByHand(
        "a route that sends from an address nobody knows",
        lambda examined: _route(examined, "10.1.0.2/32", "dev", "ring1", "src", "10.1.0.77"),
        *("nodes", "warning", "source addresses"),
    ),
    ByHand("kdumpfenced does not run on another node", _daemon, "way", "unknown", "nodes answer"),
    ByHand(
        "another node answers with a wrong name",
        lambda examined: _daemon(examined, 'node = "node3"'),
        *("way", "warning", "nodes answer"),
    ),
    ByHand("another program holds the port", _port_taken, "agent", "warning", "port"),
    ByHand(
        "no agent where the device is watched",
        lambda examined: _agent(examined, here=True),
        *("agent", "fails", "agent"),
    ),
    ByHand(
        "the stock agent, which cannot use the map",
        lambda examined: _agent(examined, False, "cp .fence_kdump.stock fence_kdump"),
        *("agent", "fails", "agent"),
    ),
)

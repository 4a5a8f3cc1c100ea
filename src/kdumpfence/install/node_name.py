# SPDX-License-Identifier: LGPL-2.1-or-later
"""By which name the cluster knows a node: the one that its packets and its key have.

A running Pacemaker says it. Else it is in corosync.conf, where a node is found as corosync finds
it: by its host name, whole or without the domain, or by an address. Else it is the host name.
Below another root only files are read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from kdumpfence.install.asking import ask, ip
from kdumpfence.install.sysroot import Sysroot
from kdumpfence.wire import is_packet_name

COROSYNC = "/etc/corosync/corosync.conf"

_NODE = re.compile(r"^[ \t]*node[ \t]*\{([^{}]*)\}", re.MULTILINE)
_SETTING = re.compile(r"^[ \t]*([a-z0-9_]+)[ \t]*:[ \t]*(\S+)[ \t]*$", re.MULTILINE)

#: Host names of machines that were given none.
_NO_NAMES = ("", "(none)", "localhost")


def of(root: Sysroot) -> str:
    """The name of the node whose root this is; "" if it cannot be found out."""
    own: list[str] = []
    if root.root == "/":
        said = ask("crm_node", "-n")
        name = said.stdout.strip() if said is not None and said.returncode == 0 else ""
        if is_packet_name(name):
            return name
        host, own = os.uname().nodename, re.findall(r" inet6? ([^\s/]+)", ip("addr"))
    else:
        host = _text(root, "/etc/hostname").strip()
    if _short(host) in _NO_NAMES:
        host = ""
    name = _in_corosync_conf(_text(root, COROSYNC), host, own) or host
    return name if is_packet_name(name) else ""


def listed(conf: str) -> list[dict[str, str]]:
    """The settings of each node in corosync.conf."""
    return [dict(_SETTING.findall(block)) for block in _NODE.findall(conf)]


def _in_corosync_conf(conf: str, host: str, own: Iterable[str]) -> str:
    """What corosync.conf calls the machine with this host name and these addresses; "" if none."""
    nodes = listed(conf)
    called = {node["name"]: node["name"] for node in nodes if "name" in node}
    without_domain = {_short(name): name for name in called}
    places = {
        value: node.get("name", host)
        for node in nodes
        for key, value in node.items()
        if re.fullmatch("ring[0-9]+_addr", key)
    }
    found = [called.get(host), without_domain.get(_short(host))]
    found += [places.get(one) for one in (host, _short(host), *own)]
    return next((name for name in found if name), "")


def _short(host: str) -> str:
    return host.partition(".")[0]


def _text(root: Sysroot, path: str) -> str:
    return (root.read(path) or b"").decode(errors="replace")

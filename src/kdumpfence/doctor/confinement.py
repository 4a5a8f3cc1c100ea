# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the system takes away from the agent: SELinux, and the sandbox of pacemaker.service.

Pacemaker starts the agent, so what holds for its unit holds for the agent as well. What the agent
needs: sockets of AF_INET, AF_INET6 and AF_NETLINK in the machine's own network, and CAP_NET_RAW, or
it hears with limits. See systemd.exec(5), systemd.resource-control(5), docs/operations.md, section
3, and fence_kdump(8), HOW THE PORT IS SHARED.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator

from kdumpfence.doctor import corosync, listeners, unit
from kdumpfence.doctor.cluster import joined
from kdumpfence.doctor.finding import Finding, Unknown, fails, ok, warning
from kdumpfence.doctor.machine import Machine
from kdumpfence.doctor.settings import variables
from kdumpfence.doctor.unit import Setting

_UNIT = "pacemaker.service"

# ------------------------------------------------------------------ SELinux

_POLICY = "/usr/share/kdumpfence/selinux/kdumpfence.te"
_LOAD = (
    f'cd "$(mktemp -d)" && checkmodule -M -m -o kdumpfence.mod {_POLICY} && '
    "semodule_package -o kdumpfence.pp -m kdumpfence.mod && semodule -i kdumpfence.pp"
)
#: Any of these is enough: the first one makes cluster_t unconfined.
_ENOUGH = {
    "unconfined": "cluster_t is unconfined",
    "kdumpfence": "the module kdumpfence is loaded",
    "permissive_cluster_t": "cluster_t is permissive",
}


def selinux(machine: Machine) -> Iterator[Finding]:
    """Its policy lets the agent listen."""
    configured = variables(machine.read("/etc/selinux/config"))
    enforce = machine.read("/sys/fs/selinux/enforce")
    if enforce is None and not machine.runs:
        enforce = str(int(configured.get("SELINUX", "").lower() == "enforcing"))
    if (enforce or "").strip() != "1":
        return
    kind = configured.get("SELINUXTYPE", "targeted")
    loaded = _modules(machine, f"/var/lib/selinux/{kind}/active/modules")
    enough = [text for name, text in _ENOUGH.items() if name in loaded]
    if enough:
        yield ok("SELinux", enough[0])
    else:
        yield fails(
            "SELinux",
            f"it is enforcing, and the policy {kind} has no module unconfined: fence agents run in "
            "cluster_t, which may not listen to the port",
            _LOAD,
        )


def _modules(machine: Machine, folder: str) -> set[str]:
    """The modules of the policy that are in use: a folder for each priority, and who is out."""
    priorities = [one for one in machine.names(folder) if one.isdigit()]
    if not priorities:
        raise Unknown(f"no modules of SELinux's policy in {folder}")
    there = {name for one in priorities for name in machine.names(f"{folder}/{one}")}
    return there - set(machine.names(f"{folder}/disabled"))


# ------------------------------------------------------------------ the sandbox

#: Of the system calls that a program with sockets makes.
_CALLS = {"socket", "bind", "setsockopt", "getsockopt", "sendto", "recvmsg", "recvmmsg"}
#: Groups of systemd that have all of them.
_GROUPS = {"@network-io", "@system-service", "@known"}


def sandbox(machine: Machine) -> Iterator[Finding]:
    """Pacemaker's unit and its drop-ins leave the agent what it needs."""
    settings = unit.settings(machine, _UNIT)
    if not settings or listeners.none_listens(machine):
        return
    found = [
        one
        for look in (_network, _families, _calls, _addresses, _capability)
        for one in look(machine, settings)
    ]
    yield from found or [ok("sandbox", f"{_UNIT} takes nothing away that the agent needs")]


def _remedy(settings: Iterable[Setting], *names: str) -> str:
    """Remove what does it."""
    lines = {one.path: one for one in settings if one.name in names and one.value}
    where = joined(f"{one.name}={one.value} in {path}" for path, one in lines.items())
    return f"change {where}, then systemctl daemon-reload, and restart the cluster on this node"


def _values(settings: Iterable[Setting], name: str) -> list[str]:
    return [one.value for one in settings if one.name == name]


def _network(_: Machine, settings: list[Setting]) -> Iterator[Finding]:
    values = _values(settings, "PrivateNetwork")
    if values and values[-1].lower() in ("yes", "true", "on", "1", "y", "t"):
        yield fails(
            "sandbox",
            f"{_UNIT} has a network of its own: the agent hears nothing",
            _remedy(settings, "PrivateNetwork"),
        )


def _families(machine: Machine, settings: list[Setting]) -> Iterator[Finding]:
    name = "RestrictAddressFamilies"
    listed = _Listed(_values(settings, name))
    needed = ["AF_INET", "AF_NETLINK"]
    if any(":" in one for one in _nodes(machine)):
        needed.append("AF_INET6")
    refused = [one for one in needed if not listed.has(one)]
    if refused:
        yield fails(
            "sandbox",
            f"{_UNIT} has no sockets of {joined(refused)}: the agent cannot listen",
            _remedy(settings, name),
        )


def _calls(_: Machine, settings: list[Setting]) -> Iterator[Finding]:
    name = "SystemCallFilter"
    words = [re.sub(r":\S+", "", value) for value in _values(settings, name)]
    for group in _GROUPS:
        words = [re.sub(rf"{group}\b", " ".join(sorted(_CALLS)), value) for value in words]
    listed = _Listed(words)
    refused = sorted(one for one in _CALLS if not listed.has(one))
    if refused:
        yield fails(
            "sandbox",
            f"{_UNIT} may not call {joined(refused)}: the agent cannot listen",
            _remedy(settings, name),
        )


def _addresses(machine: Machine, settings: list[Setting]) -> Iterator[Finding]:
    denied, allowed = (_values(settings, f"IPAddress{one}") for one in ("Deny", "Allow"))
    refused = [one for one in _nodes(machine) if _is_in(one, denied) and not _is_in(one, allowed)]
    if refused:
        yield fails(
            "sandbox",
            f"{_UNIT} may not hear {joined(refused)}, and so neither may the agent",
            _remedy(settings, "IPAddressDeny"),
        )


def _capability(_: Machine, settings: list[Setting]) -> Iterator[Finding]:
    name = "CapabilityBoundingSet"
    values = [value.upper() for value in _values(settings, name)]
    if "~" in values:  # everything is there again
        values = values[len(values) - values[::-1].index("~") :]
    # Without a word nothing is left, and not everything as with the other settings.
    listed = _Listed(line for one in values for line in ([one] if one else ["", "CAP_NONE"]))
    if not listed.has("CAP_NET_RAW"):
        yield warning(
            "sandbox",
            f"{_UNIT} has no CAP_NET_RAW: the agent hears nothing while another program holds "
            "the port, and one node at a time",
            _remedy(settings, name),
        )


class _Listed:
    """Lines of words, of which the first says whether they are allowed, or with ~ forbidden.

    Later lines of the other kind take words away. An empty line begins anew.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._allowed = False
        self._words: set[str] = set()
        begun = False
        for line in lines:
            allowed = not line.startswith("~")
            words = set(line.lstrip("~").split())
            if not line:
                begun, self._allowed, self._words = False, False, set()
            elif not begun:
                begun, self._allowed, self._words = True, allowed, words
            elif allowed == self._allowed:
                self._words |= words
            else:
                self._words -= words

    def has(self, word: str) -> bool:
        """Whether it is allowed."""
        return (word in self._words) == self._allowed


def _nodes(machine: Machine) -> list[str]:
    """The addresses of the other nodes, as far as they are known."""
    try:
        rings = [ring for node in corosync.others(machine) for ring in node.rings]
    except Unknown:
        return []
    return [one for ring in rings for one in corosync.resolve(machine, ring)]


_NAMES = {
    "any": "0.0.0.0/0 ::/0",
    "localhost": "127.0.0.0/8 ::1/128",
    "link-local": "169.254.0.0/16 fe80::/64",
    "multicast": "224.0.0.0/4 ff00::/8",
}


def _is_in(address: str, lines: Iterable[str]) -> bool:
    """Whether one of these networks has it."""
    networks: list[str] = []
    for line in lines:
        words = [part for word in line.split() for part in _NAMES.get(word, word).split()]
        networks = networks + words if words else []
    try:
        one = ipaddress.ip_address(address.partition("%")[0])
        return any(one in ipaddress.ip_network(network, strict=False) for network in networks)
    except ValueError:
        return False


CHECKS = (selinux, sandbox)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which firewall this machine has, whether it lets messages in, and the command that makes it.

It is asked, and nothing is tried. What nftables' own rules mean cannot be told from their text with
certainty; firewalld and ufw say what they open.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from kdumpfence.doctor.finding import Unknown
from kdumpfence.doctor.machine import Machine
from kdumpfence.wire import PORT

_SERVICE = "kdumpfence"


class Firewall(NamedTuple):
    """The one that is in use."""

    name: str  #: "firewalld", "ufw", "nftables" or, if there is none, ""
    closed: str | None = None  #: why messages are not let in; "" if they are, None if nobody knows
    certain: bool = True
    chain: str = "inet filter input"

    def opening(self, sources: Sequence[str]) -> str:
        """The command that lets messages in, from these addresses or, without any, the others'."""
        return _opening(self.name, sources, self.chain)

    def opening_there(self) -> str:
        """The same for another node, which most likely has the same firewall."""
        return _opening(self.name, [], "inet filter input")


def _opening(name: str, sources: Sequence[str], chain: str) -> str:
    if name == "firewalld":
        return f"firewall-cmd --permanent --add-port={PORT}/udp && firewall-cmd --reload"
    if name == "ufw":
        return "; ".join(
            f"ufw allow from {one} to any port {PORT} proto udp" for one in sources or ["any"]
        )
    rules = []
    for word, its in (("ip", [s for s in sources if ":" not in s]),
                      ("ip6", [s for s in sources if ":" in s])):  # fmt: skip
        if its:
            rules.append(
                f"nft insert rule {chain} {word} saddr {{ {', '.join(its)} }} "
                f"udp dport {PORT} accept"
            )
    rules = rules or [f"nft insert rule {chain} udp dport {PORT} accept"]
    return f"{'; '.join(rules)}, and the same in /etc/nftables.conf"


def active(machine: Machine) -> Firewall:
    """The firewall of this machine."""
    for look in (_firewalld, _ufw, _nftables):
        try:
            found = look(machine)
        except Unknown:
            continue
        if found is not None:
            return found
    return Firewall("")


def _firewalld(machine: Machine) -> Firewall | None:
    if machine.ask("firewall-cmd", "--state").stdout.strip() != "running":
        return None
    return firewalld(machine.ask("firewall-cmd", "--list-all-zones").stdout)


def firewalld(zones: str) -> Firewall:
    """What `firewall-cmd --list-all-zones` says: each zone with interfaces has to let it in."""
    closed = []
    for zone in re.split(r"\n(?=\S)", zones):
        head, _, body = zone.strip().partition("\n")
        if "active" not in head:
            continue
        opened = _has_port(body) or re.search(rf"services:.*\b{_SERVICE}\b", body)
        if not opened and not re.search(r"target: ACCEPT", body):
            closed.append(head.split()[0])
    if not closed:
        return Firewall("firewalld", "")
    return Firewall("firewalld", f"firewalld does not let {PORT}/udp in: zone {', '.join(closed)}")


def _ufw(machine: Machine) -> Firewall | None:
    said = machine.ask("ufw", "status").stdout
    return ufw(said) if said.startswith("Status: active") else None


def ufw(status: str) -> Firewall:
    """What `ufw status` says."""
    for line in status.splitlines():
        if "ALLOW" in line and (_has_port(line) or _SERVICE in line):
            return Firewall("ufw", "")
    return Firewall("ufw", f"ufw does not let {PORT}/udp in")


def _nftables(machine: Machine) -> Firewall | None:
    said = machine.ask("nft", "list", "ruleset")
    return nftables(said.stdout) if said.returncode == 0 else None


def nftables(rules: str) -> Firewall | None:
    """What `nft list ruleset` says; None if nothing there filters what comes in."""
    closed, chains = [], []
    table = ""
    for line in rules.splitlines():
        words = line.split()
        if words[:1] == ["table"]:
            table = " ".join(words[1:3])
        elif words[:1] == ["chain"]:
            chains.append((f"{table} {words[1]}", ""))
        elif chains:
            chains[-1] = (chains[-1][0], f"{chains[-1][1]}\n{line.strip()}")
    incoming = [(name, text) for name, text in chains if re.search(r"hook (input|ingress)", text)]
    for name, text in incoming:
        shut = re.search(r"policy drop|^(counter .*)?(drop|reject.*)$", text, re.MULTILINE)
        if shut or re.search(rf"udp dport\b.*\b{PORT}\b.*(drop|reject)", text):
            closed.append(name)
    if not incoming:
        return None
    if not closed or _has_rule(rules, True):
        return Firewall("nftables", "", chain=incoming[0][0])
    if _has_rule(rules, False):
        return Firewall("nftables", None, chain=closed[0])
    text = f"no rule of nftables seems to let {PORT}/udp in: chain {', '.join(closed)}"
    return Firewall("nftables", text, certain=False, chain=closed[0])


def _has_rule(rules: str, for_port: bool) -> bool:
    """Whether a rule lets our port in, or, if not `for_port`, other nodes whatever the port."""
    for line in rules.splitlines():
        if not re.search(r"\baccept\b", line) or "policy accept" in line:
            continue
        has_port = re.search(r"\b(udp|th) (dport|sport)\b", line)
        if for_port and has_port and _has_port(line):
            return True
        narrow = r'dport|sport|ct state|icmp|"lo"|l4proto|igmp'
        if not for_port and not re.search(narrow, line):
            return True
    return False


def _has_port(text: str) -> bool:
    """Whether a port, a range or a set of them in this text has ours in it."""
    for first, last in re.findall(r"\b([0-9]{1,5})(?:\s*[-:]\s*([0-9]{1,5}))?\b", text):
        if int(first) <= PORT <= int(last or first):
            return True
    return False

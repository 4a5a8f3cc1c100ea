# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which firewall this machine has, whether it lets messages in, and the command that makes it.

It is asked, and nothing is tried. What nftables' own rules mean cannot be told from their text with
certainty; firewalld and ufw say what they open.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kdumpfence.doctor.finding import Unknown
from kdumpfence.doctor.machine import Machine
from kdumpfence.wire import PORT

_SERVICE = "kdumpfence"

#: Seconds for firewall-cmd, which loads a lot of Python: on a busy machine that takes a while.
_PATIENCE = 20.0


class Firewall(NamedTuple):
    """The one that is in use."""

    name: str  #: "firewalld", "ufw", "nftables" or, if there is none, ""
    closed: str | None = None  #: why messages are not let in; "" if they are, None if nobody knows
    certain: bool = True
    chain: str = "inet filter input"  #: of nftables
    zones: tuple[str, ...] = ()  #: of firewalld, that do not let them in

    def opening(self, sources: Sequence[str]) -> str:
        """The command that lets messages in, from these addresses or, without any, the others'."""
        if self.zones:
            return " && ".join([*(_add_port(f"--zone={one} ") for one in self.zones), _RELOAD])
        return _opening(self.name, sources, self.chain)

    def opening_there(self) -> str:
        """The same for another node, which most likely has the same firewall."""
        return _opening(self.name, [], "inet filter input")


_RELOAD = "firewall-cmd --reload"


def _add_port(zone: str = "") -> str:
    return f"firewall-cmd --permanent {zone}--add-port={PORT}/udp"


def _opening(name: str, sources: Sequence[str], chain: str) -> str:
    if name == "firewalld":
        return f"{_add_port()} && {_RELOAD}"
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
    def ask(question: str) -> str:
        return machine.ask("firewall-cmd", question, seconds=_PATIENCE).stdout

    if ask("--state").strip() != "running":
        return None
    interfaces = [name for _, name in socket.if_nameindex() if name != "lo"]
    default = ask("--get-default-zone").strip()
    zones = ask("--list-all-zones")
    return firewalld(zones, default, interfaces)


def firewalld(zones: str, default: str, interfaces: Iterable[str]) -> Firewall:
    """What `firewall-cmd --list-all-zones` says: each zone that is in use has to let it in.

    Interfaces that are in no zone are in the default one. Whether that is called active does not
    tell if there are any: firewalld 1.3 never calls it so for them, 2.3 always.
    """
    free = set(interfaces) - {
        name for line in re.findall(r"^  interfaces: (.*)", zones, re.MULTILINE)
        for name in line.split()
    }  # fmt: skip
    closed = []
    for zone in re.split(r"\n(?=\S)", zones.strip()):
        head, _, body = zone.partition("\n")
        name = head.partition(" ")[0]
        in_use = re.search(r"^  (?:interfaces|sources): \S", body, re.MULTILINE)
        if not in_use and not (name == default and free):
            continue
        ports = re.findall(r"^  (?:source-)?ports: (.*)", body, re.MULTILINE)
        rules = re.findall(r'port="([0-9-]+)" protocol="udp".* accept', body)
        opened = any(map(_has_udp_port, " ".join(ports).split())) or any(map(_has_port, rules))
        services = re.search(rf"^  services:.*\b{_SERVICE}\b", body, re.MULTILINE)
        if not opened and not services and not re.search(r"^  target: ACCEPT", body, re.MULTILINE):
            closed.append(name)
    if not closed:
        return Firewall("firewalld", "")
    text = f"firewalld does not let {PORT}/udp in: zone {', '.join(closed)}"
    return Firewall("firewalld", text, zones=tuple(closed))


def _ufw(machine: Machine) -> Firewall | None:
    said = machine.ask("ufw", "status", "verbose").stdout
    return ufw(said) if said.startswith("Status: active") else None


def ufw(status: str) -> Firewall:
    """What `ufw status verbose` says."""
    if re.search(r"^Default: allow \(incoming\)", status, re.MULTILINE):
        return Firewall("ufw", "")
    perhaps = False
    for line in status.splitlines():
        to, allowed, _ = re.split(r"\s+(ALLOW|LIMIT)\s", line + " ALLOW ", maxsplit=1)
        if allowed not in line or " OUT " in line:
            continue
        if any(map(_has_udp_port, to.split())) or _SERVICE in to.split():
            return Firewall("ufw", "")
        # What is let in from somewhere, or by an interface, whatever its port.
        perhaps = perhaps or (to.startswith("Anywhere") and not to.endswith(" on lo"))
    if perhaps:
        return Firewall("ufw", None)
    return Firewall("ufw", f"ufw does not let {PORT}/udp in")


def _has_udp_port(word: str) -> bool:
    """Whether this is our port, or has it: "7410/udp", "7410", "53,7000:7500/udp"."""
    return re.fullmatch(r"[0-9][0-9:,-]*(/udp)?", word) is not None and _has_port(word)


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

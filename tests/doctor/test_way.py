# SPDX-License-Identifier: LGPL-2.1-or-later
"""Firewalls and routes between two nodes, with a real kdumpfenced and real rules of nftables."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.doctor import firewall
from tests.conftest import cannot_run
from tests.daemon.running import Kdumpfenced
from tests.doctor.cluster_root import corosync
from tests.support.labs import lab
from tests.support.netlab import Host, Lab

DOCTOR = (sys.executable, "-m", "kdumpfence.cli", "doctor", "--json", "way")
NODES = {"node1": ("10.0.0.1", "fd00::1"), "node2": ("10.0.0.2", "fd00::2")}
DROP = "add table inet t; add chain inet t {0} {{ type filter hook {0} priority 0; }}; add rule "
DROP += "inet t {0} {1}"


class Pair:
    """Two nodes on one cable; kdumpfenced runs on the second."""

    def __init__(self, opened: Lab, daemon: Kdumpfenced) -> None:
        self.own, self.other = opened.host("node1"), opened.host("node2")
        own, other = ([f"{a}/24", f"{b}/64"] for a, b in NODES.values())
        opened.link(self.own, self.other, own, other)
        (self.own.root / "etc/corosync").mkdir(exist_ok=True)
        self.own.write_file("/etc/corosync/corosync.conf", corosync(NODES))
        self.daemon = daemon

    def listen(self, node: str = "node2") -> None:
        """Start kdumpfenced."""
        self.daemon.configure(f'networks = ["10.0.0.0/24"]\nnode = "{node}"')
        text = self.daemon.settings.read_text()
        self.daemon.settings.write_text(
            text.replace(f"port = {self.daemon.port}", "port = 7410", 1)
        )
        self.daemon.start_on(self.other)

    def rules(self, host: Host, hook: str, rule: str) -> None:
        """Give a node this rule."""
        host.tool("nft", DROP.format(hook, rule))

    def look(self) -> list[dict[str, str]]:
        """What the doctor finds on node1."""
        said = self.own.run(DOCTOR, timeout=60)
        assert said.stderr == ""
        found: list[dict[str, str]] = json.loads(said.stdout)["findings"]
        return found


@pytest.fixture
def pair(daemon: Kdumpfenced) -> Iterator[Pair]:
    if shutil.which("nft") is None:
        cannot_run("no nft (nftables)")
    with lab() as opened:
        yield Pair(opened, daemon)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Kdumpfenced]:
    made = Kdumpfenced(tmp_path)
    with contextlib.closing(made):
        yield made


def _states(found: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(one["state"], one["check"]) for one in found]


def test_an_open_way_is_fine(pair: Pair) -> None:
    pair.listen()
    (found,) = pair.look()
    assert (found["state"], found["text"]) == ("ok", "node2, at each address")


@pytest.mark.parametrize(
    ("where", "hook", "rule", "state", "check", "words"),
    [
        # What the other node drops, its own firewall has to open.
        ("other", "input", "udp dport 7410 drop", "fails", "way there", "on node2: nft insert"),
        ("other", "output", "udp sport 7410 drop", "fails", "way there", "on node2: nft insert"),
        (
            "other",
            "input",
            "meta nfproto ipv6 udp dport 7410 drop",
            "warning",
            "way there",
            "no answer of node2 (fd00::2)",
        ),
        (
            "other",
            "input",
            "udp dport 7410 reject with icmpx admin-prohibited",
            "fails",
            "way there",
            "the question is rejected",
        ),
        (
            "other",
            "input",
            "udp dport 7410 reject",
            "unknown",
            "nodes answer",
            "no kdumpfenced runs there, or its firewall refuses",
        ),
        # What comes and is dropped, this one's.
        (
            "own",
            "input",
            "udp sport 7410 drop",
            "fails",
            "way here",
            "nft insert rule inet t input ip saddr { 10.0.0.2 } udp dport 7410 accept",
        ),
    ],
)
def test_which_direction_is_shut(
    pair: Pair, where: str, hook: str, rule: str, state: str, check: str, words: str
) -> None:
    pair.listen()
    pair.rules(pair.own if where == "own" else pair.other, hook, rule)
    found = [one for one in pair.look() if one["state"] != "ok"]
    assert _states(found) == [(state, check)], found
    assert words in f"{found[0]['text']}\n{found[0]['remedy']}"


def test_a_firewall_that_lets_only_answers_in_is_found_without_a_message(pair: Pair) -> None:
    pair.listen()
    pair.rules(pair.own, "input", "ct state established accept")
    pair.own.tool("nft", "add rule inet t input meta l4proto icmpv6 accept")
    pair.own.tool("nft", "add chain inet t input { policy drop; }")
    found = [one for one in pair.look() if one["state"] != "ok"]
    assert _states(found) == [("warning", "port open")], found
    assert "nft insert rule inet t input udp dport 7410 accept" in found[0]["remedy"]
    pair.own.tool("nft", "add rule inet t input udp dport { 53, 7000-7500 } accept")
    assert {one["state"] for one in pair.look()} == {"ok"}


def test_nobody_listens(pair: Pair) -> None:
    (found,) = pair.look()
    assert (found["state"], found["check"]) == ("unknown", "nodes answer")
    assert "on node2: systemctl enable --now kdumpfenced" in found["remedy"]


def test_another_node_answers(pair: Pair) -> None:
    pair.listen("node3")
    (found,) = pair.look()
    assert (found["state"], found["text"]) == ("warning", "node2 answers as 'node3'")


def test_no_route(pair: Pair) -> None:
    pair.listen()
    pair.own.tool("ip", "route", "add", "prohibit", "10.0.0.2/32")
    (found,) = pair.look()
    assert (found["state"], found["check"]) == ("fails", "way there")
    assert "no way to node2 (10.0.0.2)" in found["text"]
    assert found["remedy"] == "ip route get 10.0.0.2"


def test_nothing_but_questions_leaves(pair: Pair) -> None:
    """Questions to the port of the other node, three of each family, and no more."""
    pair.rules(pair.other, "input", "udp dport 7410 counter drop")
    pair.rules(pair.own, "output", "meta l4proto { udp, tcp } counter accept")
    pair.look()
    sent = pair.own.tool("nft", "list", "ruleset").stdout
    come = pair.other.tool("nft", "list", "ruleset").stdout

    def count(rules: str) -> str:
        return rules.partition("counter packets ")[2].partition(" ")[0]

    assert count(sent) == count(come) != "0"


ZONES = """\
block
  target: %%REJECT%%
  ports:

public (default, active)
  target: default
  interfaces: eth0
  services: dhcpv6-client ssh{services}
  ports: {ports}
  rich rules:

trusted (active)
  target: ACCEPT
  interfaces: eth1
  ports:
"""
#: Whether the default zone is marked where no interface was put into it differs: firewalld 1.3 does
#: not, 2.3 does.
UNUSED = """\
internal (active)
  target: ACCEPT
  interfaces: {}

public{}
  target: default
  interfaces: \n  ports: 22/tcp
"""
UFW = "Status: active\nDefault: {0} (incoming), allow (outgoing), disabled (routed)\n\n"
UFW += (
    "To                         Action      From\n--                         ------      ----\n{1}"
)
NFT = (
    "table inet filter {{\n\tchain input {{\n\t\ttype filter hook input priority filter; policy {}"
)
NFT += ';\n\t\tiifname "lo" accept\n\t\ttcp dport 22 accept\n{}\t}}\n}}\n'


@pytest.mark.parametrize(
    ("said", "closed"),
    [
        (firewall.firewalld(ZONES.format(services="", ports=""), "", []), "zone public"),
        (
            firewall.firewalld(ZONES.format(services=" high-availability", ports=""), "", []),
            "zone public",
        ),
        (firewall.firewalld(ZONES.format(services=" kdumpfence", ports=""), "", []), ""),
        (firewall.firewalld("work\n  interfaces: \n  sources: 10.0.0.0/8\n", "", []), "zone work"),
        (firewall.firewalld("work (active)\n  interfaces: \n  sources: \n", "", []), ""),
        (firewall.firewalld(ZONES.format(services="", ports="7410/udp"), "", []), ""),
        (firewall.firewalld(ZONES.format(services="", ports="7410/tcp"), "", []), "zone public"),
        (firewall.firewalld(ZONES.format(services="", ports="22/tcp 7000-7500/udp"), "", []), ""),
        (firewall.firewalld(UNUSED.format("eth0", ""), "public", []), ""),
        (firewall.firewalld(UNUSED.format("eth0", " (default, active)"), "public", []), ""),
        (firewall.firewalld(UNUSED.format("eth0", ""), "public", ["eth0"]), ""),
        (firewall.firewalld(UNUSED.format("eth0", " (default, active)"), "public", ["eth0"]), ""),
        (firewall.firewalld(UNUSED.format("eth0", ""), "public", ["eth0", "eth1"]), "zone public"),
        (
            firewall.firewalld(
                UNUSED.format("eth0", " (default, active)"), "public", ["eth0", "eth1"]
            ),
            "zone public",
        ),
        (firewall.firewalld(UNUSED.format("", ""), "public", ["eth0"]), "zone public"),
        (
            firewall.firewalld(UNUSED.format("", " (default, active)"), "public", ["eth0"]),
            "zone public",
        ),
        (firewall.ufw(UFW.format("deny", "22/tcp             ALLOW IN    Anywhere\n")), "7410/udp"),
        (firewall.ufw(UFW.format("deny", "7410/tcp           ALLOW IN    Anywhere\n")), "7410/udp"),
        (firewall.ufw(UFW.format("deny", "22/tcp             ALLOW IN    7410::1\n")), "7410/udp"),
        (firewall.ufw(UFW.format("deny", "7410/udp           ALLOW OUT   Anywhere\n")), "7410/udp"),
        (firewall.ufw(UFW.format("deny", "7410/udp           DENY IN     Anywhere\n")), "7410/udp"),
        (firewall.ufw(UFW.format("deny", "7410/udp           ALLOW IN    192.0.2.0/24\n")), ""),
        (firewall.ufw(UFW.format("deny", "53,7000:7500/udp   ALLOW IN    Anywhere\n")), ""),
        (firewall.ufw(UFW.format("deny", "kdumpfence         ALLOW IN    192.0.2.0/24\n")), ""),
        (firewall.ufw(UFW.format("allow", "22/tcp            ALLOW IN    Anywhere\n")), ""),
        (firewall.ufw(UFW.format("deny", "Anywhere on lo     ALLOW IN    Anywhere\n")), "7410/udp"),
        (firewall.ufw(UFW.format("deny", "7410/udp           LIMIT IN    Anywhere\n")), ""),
        # Who may send anything, is not told by the port.
        (firewall.ufw(UFW.format("deny", "Anywhere           ALLOW IN    192.0.2.0/24\n")), None),
        (firewall.nftables(""), None),
        (firewall.nftables(NFT.format("drop", "")), "chain inet filter input"),
        (firewall.nftables(NFT.format("accept", "")), ""),
        (firewall.nftables(NFT.format("accept", "\t\tcounter packets 1 bytes 2 drop\n")), "chain"),
        (firewall.nftables(NFT.format("drop", "\t\tudp dport 7410 accept\n")), ""),
        (firewall.nftables(NFT.format("drop", "\t\tudp dport { 53, 7410 } accept\n")), ""),
        # Who may send anything, is not told by the port.
        (firewall.nftables(NFT.format("drop", "\t\tip saddr 192.0.2.0/24 accept\n")), None),
    ],
)
def test_what_firewalls_say_of_themselves(
    said: firewall.Firewall | None, closed: str | None
) -> None:
    if closed is None or said is None:
        assert said is None or said.closed is None
    elif closed:
        assert said.closed is not None
        assert closed in said.closed
    else:
        assert said.closed == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("firewalld", "firewall-cmd --permanent --add-port=7410/udp && firewall-cmd --reload"),
        ("ufw", "ufw allow from 192.0.2.1 to any port 7410 proto udp; ufw allow from fd00::1 to"),
        ("nftables", "ip saddr { 192.0.2.1 } udp dport 7410 accept; nft insert rule inet filter"),
    ],
)
def test_how_each_is_opened(name: str, words: str) -> None:
    assert words in firewall.Firewall(name).opening(["192.0.2.1", "fd00::1"])


def test_zones_are_opened_that_are_closed() -> None:
    closed = firewall.firewalld(ZONES.format(services="", ports=""), "", [])
    assert closed.opening([]) == (
        "firewall-cmd --permanent --zone=public --add-port=7410/udp && firewall-cmd --reload"
    )

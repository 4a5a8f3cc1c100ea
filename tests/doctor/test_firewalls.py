# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real ufw and firewalld of Debian: the doctor's line opens what they close, and nothing else does.

Another node sends, after each change, to the port and then to one that is open; the two arrive in
this order, so what is missing when the second one is there was dropped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping

import pytest

from kdumpfence.wire import PORT
from tests.conftest import cannot_run
from tests.doctor import firewall_root
from tests.support.debian import NotAvailable
from tests.support.labs import lab
from tests.support.netlab import Host
from tests.support.programs import wait_for_line

OPEN = 7411
DOCTOR = (sys.executable, "-m", "kdumpfence.cli", "doctor", "--json", "way")
LISTEN = f"""
import socket
heard = []
socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
for sock, port in zip(socks, ({PORT}, {OPEN})):
    sock.bind(("", port))
print("ready", flush=True)
socks[1].recv(9)
socks[0].setblocking(False)
try:
    print("heard", socks[0].recv(9), flush=True)
except BlockingIOError:
    print("heard nothing", flush=True)
"""


class Node:
    """A node with a firewall, and another one that sends to it."""

    def __init__(self, own: Host, other: Host, interface: str) -> None:
        self.own, self._other, self.interface = own, other, interface
        self.env: Mapping[str, str] = {}

    def finds(self) -> tuple[str, str, str]:
        """State, text and remedy of what the doctor finds of the firewall."""
        said = self.own.run(DOCTOR, env=self.env)
        assert said.stderr == ""
        (one,) = (f for f in json.loads(said.stdout)["findings"] if f["check"] == "port open")
        return one["state"], one["text"], one["remedy"]

    def do(self, line: str) -> None:
        """What an administrator copies."""
        self.own.run(["sh", "-c", line], env=self.env, check=True)

    def hears(self) -> bool:
        """Whether a message of the other node arrives."""
        listener = self.own.popen(
            [sys.executable, "-c", LISTEN], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert wait_for_line(listener, "ready")
        with self._other.open_socket() as sock:
            for port in (PORT, OPEN):
                sock.sendto(b"x", ("10.0.0.1", port))
        said = wait_for_line(listener, "heard")
        assert said
        return "nothing" not in said


@pytest.fixture
def node() -> Iterator[Node]:
    try:
        firewall_root.get()
    except NotAvailable as error:
        cannot_run(str(error))
    with lab() as opened:
        own, other = opened.host("node1"), opened.host("node2")
        link = opened.link(own, other, ["10.0.0.1/24"], ["10.0.0.2/24"])
        yield Node(own, other, link.interface(own))


def ufw(*commands: str) -> Callable[[Node], object]:
    """In force, after these commands."""

    def start(node: Node) -> None:
        node.env = firewall_root.start_ufw(node.own, f"allow {OPEN}/udp", *commands)

    return start


def firewalld(*commands: str) -> Callable[[Node], object]:
    """The same, with the interface in no zone or in the one that a command puts it into."""

    def start(node: Node) -> None:
        ports = [f"--zone={zone} --add-port={OPEN}/udp" for zone in ("public", "internal")]
        given = [command.format(node.interface) for command in commands]
        node.env = firewall_root.start_firewalld(node.own, *ports, *given)

    return start


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "why", "remedy"),
    [
        (ufw(), "ufw does not let 7410/udp in", "ufw allow from any to any port 7410 proto udp"),
        (
            ufw("allow 7410/tcp", "deny 7410/udp"),
            "ufw does not let 7410/udp in",
            "ufw allow from any to any port 7410 proto udp",
        ),
        (
            firewalld(),
            "firewalld does not let 7410/udp in: zone public",
            "firewall-cmd --permanent --zone=public --add-port=7410/udp && firewall-cmd --reload",
        ),
        (
            firewalld("--zone=internal --change-interface={}"),
            "firewalld does not let 7410/udp in: zone internal",
            "firewall-cmd --permanent --zone=internal --add-port=7410/udp && firewall-cmd --reload",
        ),
    ],
)
def test_the_line_opens_what_was_shut(
    node: Node, start: Callable[[Node], object], why: str, remedy: str
) -> None:
    start(node)
    assert node.finds() == ("fails", why, remedy)
    assert not node.hears()
    node.do(remedy)
    assert node.finds()[0] == "ok"
    assert node.hears()

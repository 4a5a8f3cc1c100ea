# SPDX-License-Identifier: GPL-2.0-or-later
"""Agents on one host and their node on another, for names: what a name says of the agents' own
host, loopback addresses and all, is nothing to ours.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from tests.interop.lab import Need
from tests.interop.nodes import MESSAGE, is_ipv6
from tests.interop.programs import Programs
from tests.support.netlab import Host, why_not
from tests.support.netlab import Lab as Network

AGENT_4, AGENT_6 = "10.0.0.1", "fd00::1"
NODE, OTHER, NODE_6, OTHER_6 = "10.0.0.2", "10.0.0.3", "fd00::2", "fd00::3"


class Apart:
    """The programs on their host, and the node on its own."""

    def __init__(self, programs: Programs, here: Host, there: Host) -> None:
        self.programs = programs.through(
            "nsenter", "--target", str(here.pid), "--net", "--mount", "--uts", "--"
        )
        self._here, self._there = here, there
        self.know_names("")

    def know_names(self, hosts: str) -> None:
        """Write the agents' /etc/hosts, which is all that they have to ask."""
        self._here.write_file("/etc/hosts", hosts)

    def says(self, address: str, port: int) -> None:
        """Send the message from this address of the node."""
        family = socket.AF_INET6 if is_ipv6(address) else socket.AF_INET
        with self._there.open_socket(family) as sock:
            sock.bind((address, 0))
            sock.sendto(MESSAGE, (AGENT_6 if is_ipv6(address) else AGENT_4, port))


@contextlib.contextmanager
def apart(programs: Programs, need: Need) -> Iterator[Apart]:
    """Lay the cable between them."""
    obstacle = why_not()
    need(obstacle is None, str(obstacle))
    with Network() as network:
        here, there = network.host("here"), network.host("there")
        network.link(
            here, there, [f"{AGENT_4}/24", f"{AGENT_6}/64"],
            [f"{NODE}/24", f"{OTHER}/24", f"{NODE_6}/64", f"{OTHER_6}/64"],
        )  # fmt: skip
        yield Apart(programs, here, there)

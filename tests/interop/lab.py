# SPDX-License-Identifier: LGPL-2.1-or-later
"""What one test plays with: a port, nodes, receivers and started programs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import unused_port
from tests.interop.nodes import Node, Receiver
from tests.interop.programs import Process, Programs, with_files

#: Mark a test that sends packets made by hand, or lays private files over the machine's.
needs_root = pytest.mark.usefixtures("root")


class Lab:
    """The props of one test; whatever it started or opened ends with the test."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.port = unused_port()
        self._stack = stack
        self._hosts = folder / "hosts"

    def node(self, address: str) -> Node:
        """Open a node that can send to the agents."""
        node = Node(address)
        self._stack.callback(node.close)
        return node

    def receiver(self, address: str, port: int | None = None) -> Receiver:
        """Open a program that holds the port (or another) here: a sender's destination."""
        receiver = Receiver(address, self.port if port is None else port)
        self._stack.callback(receiver.close)
        return receiver

    def start(
        self, programs: Programs, program: Path, argv: Sequence[str], stdin: bytes = b""
    ) -> Process:
        """Start `program`, one of the two in `programs`, with exactly this command line."""
        process = Process(programs, program, argv, self.folder, stdin)
        self._stack.callback(process.stop)
        return process

    def start_given(self, programs: Programs, given: str) -> Process:
        """Start an agent with this command line, or this stdin if it has a newline.

        On the command line '' is an empty word.
        """
        if "\n" in given:
            return self.start(programs, programs.agent, [], given.encode())
        argv = [word.replace("''", "") for word in given.split()]
        return self.start(programs, programs.agent, argv)

    def start_agent(
        self, programs: Programs, nodes: str, *options: str, timeout: int = 30
    ) -> Process:
        """Start an agent on the port for these comma-separated nodes."""
        argv = ["-n", nodes, "-p", str(self.port), "-t", str(timeout), *options]
        return self.start(programs, programs.agent, argv)

    def agent(self, programs: Programs, nodes: str, *options: str, timeout: int = 30) -> Process:
        """Start an agent and wait until it listens."""
        agent = self.start_agent(programs, nodes, *options, timeout=timeout)
        assert agent.listens(self.port), f"ended before it listened: {agent}"
        return agent

    def sender(self, programs: Programs, *argv: str) -> Process:
        """Start a sender on the port with these options and nodes."""
        return self.start(programs, programs.sender, ["-p", str(self.port), *argv])

    def know_names(self, hosts: str) -> None:
        """Write the private /etc/hosts; programs of with_names() see it at once."""
        self._hosts.write_text(hosts)

    def with_names(self, programs: Programs, hosts: str) -> Programs:
        """Give the programs a private /etc/hosts, and no name server to ask."""
        self.know_names(hosts)
        switch = self.folder / "nsswitch.conf"
        switch.write_text("hosts: files\n")
        return programs.through(
            *with_files({"/etc/hosts": self._hosts, "/etc/nsswitch.conf": switch})
        )

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Our two programs on a lab's hosts, run as an administrator runs them: as installed commands."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import pytest

from tests.support.netlab import Host
from tests.support.programs import AGENT, environment, sender, without_raw_sockets

#: Run a test with the agent on both cores, with raw sockets and without the right to them.
EVERY_AGENT = pytest.mark.parametrize(
    "programs", ["compiled", "pure", "compiled-no_raw", "pure-no_raw"], indirect=True
)
BOTH_CORES = pytest.mark.parametrize("programs", ["compiled", "pure"], indirect=True)


class Running:
    """One of our programs at work on a host."""

    def __init__(self, host: Host, argv: Sequence[str], form: str) -> None:
        self._started = time.monotonic()
        self._argv = argv
        self.process = host.popen(
            argv, env=environment(form), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def says(self, line: str) -> None:
        """Wait until it has written this line."""
        self._wait(lambda said: said == line, repr(line))

    def says_of(self, begin: str, end: str = "") -> None:
        """Wait until it has written a line that begins and ends so."""
        self._wait(
            lambda said: said.startswith(begin) and said.endswith(end), f"{begin!r} ... {end!r}"
        )

    def _wait(self, wanted: Callable[[str], bool], what: str) -> None:
        assert self.process.stdout is not None
        if not any(wanted(said.rstrip("\n")) for said in self.process.stdout):
            pytest.fail(f"{self._argv} ended without saying {what}")

    def waits(self) -> None:
        """Wait until this agent listens."""
        self.says_of("[debug]: waiting for message")

    def goes_on(self, seconds: float = 0.7) -> bool:
        """Whether it still runs after so long: what was sent before is no yes for an agent."""
        time.sleep(seconds)
        if self.process.poll() is None:
            return True
        self.status(within=5)  # prints what it said
        return False

    def stop(self) -> None:
        """Let it do nothing for now."""
        self.process.send_signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def status(self, within: float) -> int:
        """Wait for the exit status, which must come in so many seconds from now."""
        try:
            output, _ = self.process.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            output, _ = self.process.communicate()
            pytest.fail(f"{self._argv} did not end within {within} s; it said:\n{output}")
        status = self.process.returncode
        print(f"{self._argv} ended with {status} after {self.age:.1f} s:\n{output}")
        return status


class Programs:
    """Starts the agent and the sender, all with one core.

    The form is that core's name, or "native" for the sender that is no Python program; its
    agent has the compiled core. The agent hears the port in quite another way where it may
    not open raw sockets.
    """

    def __init__(self, form: str, raw: bool) -> None:
        self.form = form
        self.rights = () if raw else without_raw_sockets()

    def agent(self, host: Host, *arguments: str) -> Running:
        """Start `fence_kdump`, which exits with 0 when it has heard the node, else with 1."""
        return Running(host, [*self.rights, AGENT, "-v", *arguments], self.form)

    def waiting_agent(self, host: Host, nodes: str, timeout: int = 30) -> Running:
        """Start an agent for these comma-separated nodes, and wait until it listens."""
        agent = self.agent(host, "-n", nodes, "-t", str(timeout))
        agent.waits()
        return agent

    def sender(self, host: Host, *arguments: str, before: Sequence[str] = ()) -> Running:
        """Start `fence_kdump_send`, through the command `before` if there is one."""
        return Running(host, [*before, sender(self.form), "-v", *arguments], self.form)


_LISTENER = """if True:
    import json, sys
    from kdumpfence import Listener
    nodes, networks = map(json.loads, sys.argv[1:3])
    with Listener(nodes, networks, answer_as=sys.argv[3] or None) as listening:
        print("listens", flush=True)
        for event in listening:
            print(event.kind, event.node, json.dumps(listening.snapshot().counts), flush=True)
"""


class Listening:
    """A program with a Listener on a host; nodes and networks are written as JSON.

    `answer`: as whom it answers questions; "" as nobody.
    """

    def __init__(
        self,
        host: Host,
        core: str,
        nodes: str,
        networks: str,
        before: Sequence[str] = (),
        answer: str = "",
    ) -> None:
        self.program = host.popen(
            [*before, sys.executable, "-c", _LISTENER, nodes, networks, answer],
            env=environment(core),
            stdout=subprocess.PIPE,
        )
        assert self.line() == "listens"

    def line(self) -> str:
        assert self.program.stdout is not None
        return self.program.stdout.readline().rstrip()

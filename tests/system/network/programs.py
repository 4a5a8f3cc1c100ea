"""Our two programs, run as an administrator runs them: as installed commands, with either core."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from kdumpfence.install import native_sender
from tests.support.netlab import Host

SCRIPTS = Path(sys.executable).parent


class Running:
    """One of our programs at work on a host."""

    def __init__(self, host: Host, argv: list[str | Path], core: str) -> None:
        self._started = time.monotonic()
        self._argv = argv
        self.process = host.popen(
            argv,
            env={"KDUMPFENCE_PURE": "1"} if core == "pure" else {},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def says(self, line: str) -> None:
        """Wait until it has written this line."""
        assert self.process.stdout is not None
        for said in self.process.stdout:
            if said == line + "\n":
                return
        pytest.fail(f"{self._argv} ended without saying {line!r}")

    def says_of(self, begin: str, end: str) -> None:
        """Wait until it has written a line that begins and ends so."""
        assert self.process.stdout is not None
        for said in self.process.stdout:
            if said.startswith(begin) and said.endswith(end + "\n"):
                return
        pytest.fail(f"{self._argv} ended without saying {begin!r} ... {end!r}")

    def waits(self) -> None:
        """Wait until this agent listens."""
        assert self.process.stdout is not None
        for said in self.process.stdout:
            if said.startswith("[debug]: waiting for message"):
                return
        pytest.fail(f"{self._argv} ended before it listened")

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


# A program started so may do whatever root may, but not open raw sockets.
WITHOUT_RAW_SOCKETS = ("setpriv", "--inh-caps=-net_raw", "--bounding-set=-net_raw")


class Programs:
    """Starts the agent and the sender, all with one core.

    The form is that core's name, or "native" for the sender that is no Python program; its
    agent has the compiled core. The agent hears the port in quite another way where it may
    not open raw sockets.
    """

    def __init__(self, form: str, raw: bool) -> None:
        self.form = form
        self.core = "compiled" if form == "native" else form
        self.rights = () if raw else WITHOUT_RAW_SOCKETS

    def agent(self, host: Host, *arguments: str) -> Running:
        """Start `fence_kdump`, which exits with 0 when it has heard the node, else with 1."""
        argv = [*self.rights, SCRIPTS / "fence_kdump", "-v", *arguments]
        return Running(host, argv, self.core)

    def sender(self, host: Host, *arguments: str, before: Sequence[str] = ()) -> Running:
        """Start `fence_kdump_send`, through the command `before` if there is one."""
        program = native_sender.find() if self.form == "native" else SCRIPTS / "fence_kdump_send"
        return Running(host, [*before, program, "-v", *arguments], self.core)


def installed_cores() -> set[str]:
    """Ask the installed package which cores it has; the pure one is always there."""
    probe = [sys.executable, "-c", "from kdumpfence import wire; print(wire.IMPLEMENTATION)"]
    environment = {name: text for name, text in os.environ.items() if name != "KDUMPFENCE_PURE"}
    answer = subprocess.run(probe, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    return {"pure", answer.stdout.strip()}

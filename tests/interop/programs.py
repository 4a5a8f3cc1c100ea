# SPDX-License-Identifier: LGPL-2.1-or-later
"""The programs under test, and one started process of them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from tests.support.programs import environment

PATIENCE = 30.0  # seconds for what takes a fraction of one on an idle machine


@dataclass(frozen=True)
class Programs:
    """An agent and a sender that belong together, and how they are started."""

    name: str
    agent: Path
    sender: Path
    core: str = "compiled"
    wrapper: tuple[str, ...] = ()  # a command that execs what follows it

    @property
    def is_stock(self) -> bool:
        """Whether these are the ones whose faults are looked for."""
        return self.name == "stock"

    def through(self, *wrapper: str) -> Programs:
        """Return the same programs, started through one more command."""
        return replace(self, wrapper=(*wrapper, *self.wrapper))


def with_files(files: Mapping[str, Path]) -> tuple[str, ...]:
    """Return a command that starts a program with other files (or folders) at these paths.

    The others lie over the machine's in a mount namespace of the program's own; writing to
    one in place changes what a running program sees.
    """
    mounts = [str(word) for place, file in files.items() for word in (file, place)]
    mount = 'while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit 99; shift 2; done'
    script = f'{mount}; shift; exec "$@"'
    private = ("unshare", "--mount", "--propagation", "private")
    return (*private, "sh", "-c", script, "sh", *mounts, "--")


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Wait until the condition holds; return whether it did within this many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.003)
    return True


class Process:
    """A started program. Its output goes to files: no pipe can fill, no thread has to read."""

    def __init__(
        self, programs: Programs, program: Path, argv: Sequence[str], folder: Path, stdin: bytes
    ) -> None:
        self.programs = programs
        self._open = contextlib.ExitStack()
        self._files = [self._file() for _ in range(3)]
        self._files[0].write(stdin)
        self._files[0].seek(0)
        self._process = subprocess.Popen(
            [*programs.wrapper, str(program), *argv],
            stdin=self._files[0],
            stdout=self._files[1],
            stderr=self._files[2],
            cwd=folder,
            env=environment(programs.core),
        )

    @property
    def pid(self) -> int:
        """The process id; the wrappers are long gone."""
        return self._process.pid

    def _file(self) -> IO[bytes]:
        return self._open.enter_context(tempfile.TemporaryFile(buffering=0))

    def _text(self, stream: int) -> str:
        return os.pread(self._files[stream].fileno(), 1 << 20, 0).decode(errors="replace")

    @property
    def output(self) -> str:
        """What it wrote to stdout so far."""
        return self._text(1)

    @property
    def errors(self) -> str:
        """What it wrote to stderr so far."""
        return self._text(2)

    @property
    def complaints(self) -> str:
        """What a sender wrote to stderr beside our warning that nothing has crashed here."""
        warning = re.compile(
            r"^\[warning\]: no /proc/vmcore: this machine has not crashed.*\n", re.MULTILINE
        )
        without, number = warning.subn("", self.errors)
        assert number == (0 if self.programs.is_stock else 1), str(self)
        return without

    def __str__(self) -> str:
        """Tell all there is to know when a test fails."""
        return (
            f"{self.programs.name}: {self._process.args!r} (status {self._process.poll()})\n"
            f"stdout:\n{self.output}\nstderr:\n{self.errors}"
        )

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def status(self, seconds: float = PATIENCE) -> int:
        """Wait for its end; return the exit status, or minus the signal's number."""
        assert until(lambda: not self.is_running, seconds), f"runs for {seconds} s now: {self}"
        assert self._process.returncode is not None
        return self._process.returncode

    def heard(self, seconds: float = PATIENCE) -> str | None:
        """Wait for an agent's end; return the address that it heard, None after a no."""
        if self.status(seconds) != 0:
            return None
        line = re.search(
            r"^\[debug\]: received valid message from '(.+?)'", self.output, re.MULTILINE
        )
        assert line is not None, f"a yes that does not say from whom: {self}"
        return line[1]

    def stop(self) -> None:
        """Kill it if it still runs, and forget it."""
        if self.is_running:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self._open.close()

    def terminate(self) -> None:
        """Ask it to end, as an administrator or an init system would."""
        self._process.terminate()

    def is_listening(self, port: int) -> bool:
        """Whether this agent would hear a message that is sent now.

        Ours say so. The stock one says it too early (before it binds) and does not flush,
        so for that one it is a bound socket that tells.
        """
        if not self.programs.is_stock:
            return re.search(r"^\[debug\]: waiting for ", self.output, re.MULTILINE) is not None
        return bool(_sockets_of(self.pid) & _bound_to(self.pid, port))

    def listens(self, port: int) -> bool:
        """Wait until this agent listens; return False if it ends instead.

        One with a short time-out may be over before we come to look.
        """
        assert until(lambda: self.is_listening(port) or not self.is_running), str(self)
        return self.is_running or self.is_listening(port)


def _sockets_of(pid: int) -> set[str]:
    """Return the inodes of the sockets that a process has open."""
    inodes = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(descriptor)
            if target.startswith("socket:["):
                inodes.add(target[len("socket:[") : -1])
    except OSError:  # ended, or closed one while we looked
        pass
    return inodes


def _bound_to(pid: int, port: int) -> set[str]:
    """Return the inodes of the UDP sockets that are bound to a port where this process is."""
    inodes = set()
    for table in ("udp", "udp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:  # it ended
            lines = []
        for line in lines:
            columns = line.split()
            if int(columns[1].rpartition(":")[2], 16) == port:
                inodes.add(columns[9])
    return inodes

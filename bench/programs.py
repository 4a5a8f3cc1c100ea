# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whole programs under measurement: where they come from, and what they cost.

Our agent is measured as `kdumpfence install-agent` puts it into a system: modules with byte code
in a directory of their own, run without site-packages by the system's Python, or by this one if
the compiled core does not fit that. May be here: how to get such a program, start it and ask the
kernel what it used. May not: what is measured (`bench/cases/`).
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import gzip
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from bench.paired import MEASURED_CPU, WORK, pinned
from kdumpfence import wire
from kdumpfence.install import agent_files, system_python
from tests.interop import stock
from tests.support import stock_packages

PORT = 7410
#: The node that agents wait for.
NODE = "127.9.0.1"

#: Of linux/ptrace.h.
_TRACEME, _CONT, _SETOPTIONS = 0, 7, 0x4200
_TRACE_EXIT, _EXIT_KILL, _EVENT_EXIT = 0x40, 0x100000, 6
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_LIBC.ptrace.restype = ctypes.c_long


def need_own_network() -> None:
    """Raise RuntimeError where other programs' sockets may hear, or cost, anything.

    `bench.run` gives each case a network of its own, if it may.
    """
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        raise RuntimeError("no network of its own, which takes root")


def sockets(protocol: str) -> list[list[str]]:
    """The lines of /proc/net/`protocol`, which is "udp" or "raw", for this network."""
    with open(f"/proc/self/net/{protocol}") as file:
        return [line.split() for line in file.readlines()[1:]]


def unread(protocol: str) -> int:
    """Datagrams that found no room in the queues of these sockets."""
    return sum(int(line[-1]) for line in sockets(protocol))


@dataclasses.dataclass(frozen=True)
class Agent:
    """An agent as a program."""

    path: str
    python: str = ""  #: the interpreter that its first line names, if it is ours
    #: Whether its word that it waits comes at once. Stock keeps it in a buffer to the end.
    speaks: bool = True
    #: More arguments than the node, the port and the time-out.
    more: tuple[str, ...] = ()


@functools.cache
def installed() -> Agent:
    """Put our agent into a root directory below build/bench, in the place of any older one."""
    python = _agents_python()
    root = WORK / "agent"
    shutil.rmtree(root, ignore_errors=True)
    # By the looks of it: for another root than / the interpreter is looked at, not run.
    program = root / system_python.PROGRAM[1:]
    program.parent.mkdir(parents=True)
    real = Path(os.path.realpath(python))
    shutil.copy(real, program.with_name("python{}.{}".format(*sys.version_info[:2])))
    program.symlink_to("python{}.{}".format(*sys.version_info[:2]))
    command = str(Path(sys.executable).with_name("kdumpfence"))
    done = subprocess.run(
        [command, "install-agent", "--root", str(root)], capture_output=True, text=True, check=True
    )
    if wire.IMPLEMENTATION == "compiled" and "with the compiled core" not in done.stdout:
        raise RuntimeError(f"the agent was not installed as wanted: {done.stdout}")
    script = root / agent_files.AGENT[1:]
    text = script.read_text()
    found = re.search(r'sys\.path\.insert\(0, "(.+)"\)', text)
    if found is None:
        raise RuntimeError(f"{script}: no directory of modules in it")
    # It stands in another place than it was made for; nothing else of it is changed.
    text = text.replace(f'"{found[1]}"', f'"{root}{found[1]}"')
    script.write_text(text.replace(system_python.PROGRAM, python, 1))
    return Agent(str(script), python)


def signing() -> Agent:
    """The same, with a key: it asks, and believes signed answers alone."""
    key = WORK / "key"
    key.unlink(missing_ok=True)
    command = str(Path(sys.executable).with_name("kdumpfence"))
    create = [command, "key", "create", "--file", str(key)]
    subprocess.run(create, capture_output=True, text=True, check=True)
    more = ("--plug", "node1", "--auth", "sha256", "--key-file", str(key))
    return dataclasses.replace(installed(), more=more)


def _agents_python() -> str:
    """The system's Python; this one if there is none that the compiled core is made for."""
    python = system_python.PROGRAM
    tag = "import sys; print(sys.implementation.cache_tag)"
    if (
        os.access(python, os.X_OK)
        and _output([python, "-ISc", tag]) == sys.implementation.cache_tag
    ):
        return python
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _output(argv: list[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


def described() -> dict[str, str]:
    """Which programs are measured: what a reader must know of them beside the machine."""
    python = _agents_python()
    version = "from platform import *; print(python_implementation(), python_version())"
    return {
        "python of the agent": f"{_output([python, '-ISc', version])}, {python}",
        "stock programs": _stock_version(),
    }


def _stock_version() -> str:
    try:
        found = stock.get()
    except stock.NotAvailable:
        return "none"
    for packages in stock_packages.KNOWN:
        log = found.agent.parents[2] / "usr/share/doc" / packages[0] / "changelog.Debian.gz"
        with (
            contextlib.suppress(OSError, ValueError),
            gzip.open(log, "rt", encoding="utf-8") as file,
        ):
            name, version = file.readline().split()[:2]
            return f"{name} {version.strip('()')}"
    return f"{found.agent}, of an unknown version"


def stock_agent() -> Agent:
    """Debian's; raises tests.interop.stock.NotAvailable."""
    return Agent(str(stock.get().agent), speaks=False)


class Waiting:
    """An agent that waits for a node, on one processor, until it is left; then it is killed."""

    def __init__(self, agent: Agent, node: str = NODE, cpu: int = MEASURED_CPU) -> None:
        """Return when it listens."""
        argv = [agent.path, "-n", node, "-p", str(PORT), "-t", "600", *agent.more]
        output, child = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        streams = [(os.POSIX_SPAWN_DUP2, fd, at) for at, fd in enumerate((null, child, null))]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        try:
            with pinned(cpu):
                began = time.monotonic_ns()
                self.pid = os.posix_spawn(argv[0], argv, environment, file_actions=streams)
        finally:
            os.close(child)
            os.close(null)
        self._output = output
        self._status: int | None = None
        if agent.speaks:
            self._await_word()
        else:
            self._await_socket()
        #: Nanoseconds from the call that starts it to the sight of its word that it listens.
        self.until_listening = time.monotonic_ns() - began

    def _await_word(self) -> None:
        said = b""
        while b"waiting for message" not in said:
            ready = select.select([self._output], [], [], 30)[0]
            part = os.read(self._output, 4096) if ready else b""
            if not part:
                self.end()
                raise RuntimeError(f"the agent does not wait: {said!r}")
            said += part

    def _await_socket(self) -> None:
        deadline = time.monotonic() + 30
        while not any(line[1].endswith(f":{PORT:04X}") for line in sockets("udp")):
            if time.monotonic() > deadline:
                self.end()
                raise RuntimeError("the agent opens no socket")
            time.sleep(0.001)
        time.sleep(0.01)  # from there to its wait it is a few system calls

    def wait(self) -> int:
        """Wait until it ends by itself; its exit status, negative for a signal."""
        _, status = os.waitpid(self.pid, 0)
        self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def end(self) -> None:
        """Kill it if it still runs."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        if self._output >= 0:
            os.close(self._output)
            self._output = -1

    def processor(self) -> int:
        """Processor time so far, in nanoseconds; exact while it sleeps.

        Raises RuntimeError if it does not run any more: what it used till then is no figure.
        """
        gone = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if self._status is not None or os.waitid(os.P_PID, self.pid, gone) is not None:
            raise RuntimeError("the agent ended, though nothing was to end it")
        with open(f"/proc/{self.pid}/schedstat") as file:
            return int(file.read().split()[0])

    def peak(self) -> int:
        """The most memory that it has had in use so far, in KiB."""
        return _peak(self.pid)

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.M)
    if found is None:
        raise RuntimeError(f"no peak of memory in {status!r}")
    return int(found[1])


def run(argv: list[str]) -> float:
    """Run a program to its end, on this thread's processor; milliseconds from start to end."""
    began = time.monotonic_ns()
    pid = os.posix_spawn(argv[0], argv, {"PATH": "/usr/bin:/bin"})
    _, status = os.waitpid(pid, 0)
    took = time.monotonic_ns() - began
    if status:
        raise RuntimeError(f"{argv}: status {status}")
    return took / 1e6


def _traced(request: int, pid: int = 0, data: int = 0) -> None:
    if _LIBC.ptrace(request, pid, None, data) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace: {os.strerror(ctypes.get_errno())}")


def peak_of(argv: list[str]) -> int:
    """Run a program to its end; the most memory that it had in use, in KiB.

    It is asked in its last moment, by ptrace(2). The kernel's ru_maxrss would not do: it counts
    the process that the program was started from as well.
    """
    program = subprocess.Popen(argv, preexec_fn=lambda: _traced(_TRACEME))  # noqa: PLW1509
    peak = 0
    try:
        os.waitpid(program.pid, 0)  # it stops when it becomes the program
        _traced(_SETOPTIONS, program.pid, _TRACE_EXIT | _EXIT_KILL)
        _traced(_CONT, program.pid)
        while os.WIFSTOPPED(status := os.waitpid(program.pid, 0)[1]):
            if status >> 16 == _EVENT_EXIT:
                peak = _peak(program.pid)
                _traced(_CONT, program.pid)
            else:
                _traced(_CONT, program.pid, os.WSTOPSIG(status))
        program.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if program.returncode is None:
            program.kill()
            program.wait()
    if program.returncode or not peak:
        raise RuntimeError(f"{argv}: status {program.returncode}, peak {peak}")
    return peak

# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole programs under measurement: where they come from, what they cost, a network of their own.

Our agent is measured as `kdumpfence install-agent` puts it into a system: modules with byte code
in a directory of their own, run without site-packages by the system's Python, or by this one if
the compiled core does not fit that. May be here: how to get such a program, start it and ask the
kernel what it used. May not: what is measured (`bench/cases/`).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import gzip
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.paired import MEASURED_CPU, WORK, Closing
from kdumpfence.install import agent_files, system_python
from tests.interop import stock

PORT = 7410
#: The node that agents wait for.
NODE = "127.9.0.1"

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_TRACEME, _CONT, _DETACH, _SETOPTIONS = 0, 7, 17, 0x4200
_TRACE_EXIT, _EXIT_KILL, _EVENT_EXIT = 0x40, 0x100000, 6
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_LIBC.ptrace.restype = ctypes.c_long


def _checked(result: int, what: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


# ------------------------------------------------------------------------ network


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """Put this thread, and what it starts, into a network of its own: one loopback, and up.

    There every port is free, and no other program's sockets hear, or cost, anything. Needs root:
    else OSError.
    """
    with open("/proc/thread-self/ns/net") as home:
        _checked(_LIBC.unshare(_CLONE_NEWNET), "a network of its own")
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                request = fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack("16sH22x", b"lo", 0))
                (flags,) = struct.unpack_from("=16xH", request)
                fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))
            yield
        finally:
            _checked(_LIBC.setns(home.fileno(), _CLONE_NEWNET), "the way back")


def sockets(protocol: str) -> list[list[str]]:
    """The lines of /proc/net/`protocol`, which is "udp" or "raw", for this network."""
    with open(f"/proc/thread-self/net/{protocol}") as file:
        return [line.split() for line in file.readlines()[1:]]


def unread(protocol: str) -> int:
    """Datagrams that found no room in the queues of these sockets."""
    return sum(int(line[-1]) for line in sockets(protocol))


# ----------------------------------------------------------------------- programs


@dataclass(frozen=True)
class Agent:
    """An agent as a program."""

    path: str
    #: Whether its word that it waits comes at once. Stock keeps it in a buffer to the end.
    speaks: bool = True


@dataclass(frozen=True)
class Installed(Agent):
    """Our agent as it is installed."""

    python: str = ""  #: the interpreter that its first line names
    modules: str = ""  #: the directory that it puts in front of sys.path


@functools.cache
def installed() -> Installed:
    """Put our agent into a root directory below build/bench, in the place of any older one."""
    has_core, python = _compiled(), _agents_python()
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
    if has_core and "with the compiled core" not in done.stdout:
        raise RuntimeError(f"the agent was not installed as wanted: {done.stdout}")
    script = root / agent_files.AGENT[1:]
    text = script.read_text()
    found = re.search(r'sys\.path\.insert\(0, "(.+)"\)', text)
    if found is None:
        raise RuntimeError(f"{script}: no directory of modules in it")
    folder = str(root) + found[1]
    # It stands in another place than it was made for; nothing else of it is changed.
    text = text.replace(f'"{found[1]}"', f'"{folder}"')
    script.write_text(text.replace(system_python.PROGRAM, python, 1))
    return Installed(str(script), python=python, modules=folder)


def _compiled() -> bool:
    from kdumpfence import wire

    return wire.IMPLEMENTATION == "compiled"


def _agents_python() -> str:
    """The system's Python; this one if there is none that the compiled core is made for."""
    python = system_python.PROGRAM
    tag = "import sys; print(sys.implementation.cache_tag)"
    if os.access(python, os.X_OK) and _asked(python, tag) == sys.implementation.cache_tag:
        return python
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _asked(python: str, program: str) -> str:
    ask = [python, "-ISc", program]
    return subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()


def described() -> dict[str, str]:
    """Which programs are measured: what a reader must know of them beside the machine."""
    python = _agents_python()
    version = "from platform import *; print(python_implementation(), python_version())"
    return {
        "python of the agent": f"{_asked(python, version)}, {python}",
        "stock programs": _stock_version(),
    }


def _stock_version() -> str:
    try:
        found = stock.get()
    except stock.NotAvailable:
        return "none"
    log = found.agent.parents[2] / "usr/share/doc" / stock.PACKAGE / "changelog.Debian.gz"
    try:
        with gzip.open(log, "rt", encoding="utf-8") as file:
            name, version = file.readline().split()[:2]
    except (OSError, ValueError):
        return f"{found.agent}, of an unknown version"
    return f"{name} {version.strip('()')}"


def stock_agent() -> Agent:
    """Debian's; raises tests.interop.stock.NotAvailable."""
    return Agent(str(stock.get().agent), speaks=False)


class Waiting(Closing):
    """An agent that waits for a node, on one processor, until it is left; then it is killed."""

    def __init__(self, agent: Agent, node: str = NODE, cpu: int = MEASURED_CPU) -> None:
        """Return when it listens."""
        argv = [agent.path, "-n", node, "-p", str(PORT), "-t", "600"]
        output, child = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {cpu})  # which the child inherits
        try:
            began = time.monotonic_ns()
            self.pid = os.posix_spawn(
                argv[0],
                argv,
                {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, null, 0),
                    (os.POSIX_SPAWN_DUP2, child, 1),
                    (os.POSIX_SPAWN_DUP2, null, 2),
                ],
            )
        finally:
            os.sched_setaffinity(0, before)
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
        return _status(self.pid, "VmHWM")

    def close(self) -> None:
        self.end()


def _status(pid: int, field: str) -> int:
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise RuntimeError(f"no {field} of process {pid}")


def run(argv: list[str]) -> float:
    """Run a program to its end, on this thread's processor; milliseconds from start to end."""
    began = time.monotonic_ns()
    pid = os.posix_spawn(argv[0], argv, {"PATH": "/usr/bin:/bin"})
    _, status = os.waitpid(pid, 0)
    took = time.monotonic_ns() - began
    if status:
        raise RuntimeError(f"{argv}: status {status}")
    return took / 1e6


@dataclass(frozen=True)
class Used:
    """What one run of a program took."""

    status: int  #: exit status, negative for a signal
    seconds: float  #: processor time


def used_by(argv: list[str], prepare: Callable[[], None]) -> Used:
    """Run a program to its end, its output thrown away; `prepare` is called in the child."""
    run = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=prepare,  # noqa: PLW1509
    )
    _, status, usage = os.wait4(run.pid, 0)
    run.returncode = os.waitstatus_to_exitcode(status)
    return Used(run.returncode, usage.ru_utime + usage.ru_stime)


def _be_traced() -> None:
    _checked(_LIBC.ptrace(_TRACEME, 0, None, None), "ptrace")


def peak_of(argv: Sequence[str]) -> int:
    """Run a program to its end; the most memory that it had in use, in KiB.

    It is asked in its last moment, by ptrace(2). The kernel's ru_maxrss would not do: it counts
    the process that the program was started from as well.
    """
    traced = subprocess.Popen(argv, preexec_fn=_be_traced)  # noqa: PLW1509
    pid, peak = traced.pid, 0
    try:
        options_set = False
        while True:
            _, status = os.waitpid(pid, 0)
            if not os.WIFSTOPPED(status):
                traced.returncode = os.waitstatus_to_exitcode(status)
                break
            number = os.WSTOPSIG(status)
            if status >> 16 == _EVENT_EXIT:
                peak = _status(pid, "VmHWM")
            if not options_set:
                options_set, number = True, 0  # the stop at exec
                options = _TRACE_EXIT | _EXIT_KILL
                _checked(_LIBC.ptrace(_SETOPTIONS, pid, None, options), "ptrace")
            passed_on = 0 if number == signal.SIGTRAP else number
            _checked(_LIBC.ptrace(_CONT, pid, None, passed_on), "ptrace")
    finally:
        if traced.returncode is None:
            traced.kill()
            traced.wait()
    if traced.returncode or not peak:
        raise RuntimeError(f"{list(argv)}: status {traced.returncode}, peak {peak}")
    return peak

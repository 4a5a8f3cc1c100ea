# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several hosts on one machine, for tests that need a real network between real processes.

A `Lab` holds hosts, a `Host` is a set of namespaces (net, mount, uts, pid) with its own name,
/etc, /dev, /run and loopback, and a `Link` is a cable between two of them: no uplink, no default
route, nothing that the machine's own network could see.

    with Lab() as lab:
        node, survivor = lab.host("node1"), lab.host("survivor")
        link = lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"], Impairment(loss=0.5))
        survivor.add_name("node1", "10.0.0.1")
        survivor.run(["fence_kdump", "-n", "node1", "-t", "10"])

A link can be impaired where the kernel has netem (tests/system/guest brings one that has). ARP and
neighbour discovery pass through it, and suffer, like everything else.

Rules of this file:

- Standard library, iproute2 and util-linux only; it knows nothing about kdumpfence.
- Nothing survives: no named namespace, no file outside a namespace's own tmpfs, no process that
  is not killed with its parent, be it by kill -9. A host's programs live in its pid namespace,
  so they and whatever they fork die with it.
- Namespaces belong to threads and parents' deaths are seen by threads: make a Lab in the main
  thread and use it there.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Union

_RTF_LOCAL = 0x80000000  # linux/ipv6_route.h

_TOOLS = ("ip", "mount", "nsenter", "setpriv", "unshare")
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")
_OWN_NAMESPACES = ("--net", "--mount", "--uts", "--pid", "--fork", "--kill-child=KILL")

# What a host's pid 1 does. It says its pid as the test process sees it (the old /proc still knows),
# makes the host's files private, and then holds the namespaces until it is killed or its stdin
# ends. The whole of /etc is the host's own, full of links into the machine's: a file that a test
# writes may be missing there, or a symlink, and is to be replaced at one blow. Duplicate address
# detection is off but where a test asks for it (Link.add_address).
_HOST_INIT = """
set -e
read -r pid rest < /proc/self/stat
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir -p /run/etc /run/machine-etc /run/dev/net /run/dev/shm
mount -o bind,ro /etc /run/machine-etc
ln -s /run/machine-etc/* /run/etc/
rm -f /run/etc/hosts /run/etc/resolv.conf /run/etc/nsswitch.conf
mount --bind /run/etc /etc
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /run/dev/
ln -s /proc/self/fd /run/dev/fd
mount --bind /run/dev /dev
echo "$0" > /proc/sys/kernel/hostname
echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
ip link set lo up
echo "$pid"
exec cat
"""

#: Gives a host /proc/vmcore, as a crash kernel has it, in a mount namespace of its own. No file can
#: be made in a /proc; so over it there is a folder of links to another one.
VMCORE = """
mkdir -p /run/proc
mount -t proc proc /run/proc
mount -t tmpfs tmpfs /proc
ln -s /run/proc/[!0-9]* /proc/
: > /proc/vmcore
"""

Argv = Sequence[Union[str, "os.PathLike[str]"]]
Stream = Union[int, IO[str], None]


def why_not() -> str | None:
    """Say why no lab can be built here, or None when one can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    try:
        with Lab() as lab:
            lab.link(lab.host("a"), lab.host("b"))
    except (OSError, RuntimeError) as error:
        return f"no network of namespaces here: {error}"
    return None


@dataclasses.dataclass(frozen=True)
class Impairment:
    """What a link does to each frame, in each direction. Probabilities are 0 to 1, times seconds.

    A delayed frame waits `delay` plus or minus up to `jitter`, and may thereby overtake another.
    `reorder` is the share of frames that do not wait at all, so it needs a delay to overtake.
    """

    loss: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what would have no effect."""
        if self.reorder and not self.delay:
            raise ValueError(f"reorder={self.reorder} without a delay: nothing to overtake")

    def netem(self) -> list[str]:
        """Say the same in arguments of `tc qdisc ... netem`."""
        arguments = ["loss", f"{self.loss:%}", "duplicate", f"{self.duplicate:%}"]
        if self.delay:
            arguments += ["delay", f"{self.delay * 1000}ms", f"{self.jitter * 1000}ms"]
        if self.reorder:
            arguments += ["reorder", f"{self.reorder:%}"]
        return arguments


BLACKHOLE = Impairment(loss=1.0)


class Lab:
    """Makes hosts and links, and takes all of them down when it is left."""

    def __init__(self) -> None:
        self._hosts: list[Host] = []

    def __enter__(self) -> Lab:
        """Do nothing yet: hosts and links are made one by one."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take everything down, whatever fails meanwhile."""
        with contextlib.ExitStack() as stack:
            for host in self._hosts:
                stack.callback(host.close)

    def host(self, name: str) -> Host:
        """Boot a host. Its loopback is up, its names are those of its own /etc/hosts only."""
        host = Host(name)
        self._hosts.append(host)
        return host

    def link(
        self,
        a: Host,
        b: Host,
        a_addresses: Sequence[str] = (),
        b_addresses: Sequence[str] = (),
        impairment: Impairment | None = None,
        *,
        up: bool = True,
    ) -> Link:
        """Lay a cable between two hosts. Addresses are written with their prefix: 10.0.0.1/24."""
        link = Link(a, b)
        if impairment is not None:
            link.impair(impairment)
        if up:
            link.up()
        for host, addresses in ((a, a_addresses), (b, b_addresses)):
            for address in addresses:
                link.add_address(host, address)
        return link


class Host:
    """One machine: its namespaces, its files, and the programs that run on it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._interfaces = 0
        self._names: list[str] = []
        self._programs: list[subprocess.Popen[str]] = []
        self._sockets: list[socket.socket] = []
        self._holder = subprocess.Popen(
            [*DIE_WITH_PARENT, "unshare", *_OWN_NAMESPACES, "sh", "-c", _HOST_INIT, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        said = self._holder.stdout.readline()
        if not said:
            trouble = self._holder.stderr.read().strip()
            end(self._holder)
            raise RuntimeError(f"host {name} does not boot: {trouble}")
        #: The host's pid 1 as this process sees it; /proc/PID/root is the host's file system.
        self.pid = int(said)
        self.root = Path(f"/proc/{self.pid}/root")
        self.write_file("/etc/resolv.conf", "")
        self.write_file("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
        self._write_names()

    # Programs

    def popen(
        self,
        argv: Argv,
        *,
        env: Mapping[str, str] | None = None,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
    ) -> subprocess.Popen[str]:
        """Start a program here. `env` is added to the environment; the rest is as Popen has it.

        The result's pid is the program's own, so signals reach it and nothing else.
        """
        # The pid namespace is joined here, for the child to be, and not by nsenter: that would
        # fork, and Popen's pid would be nsenter's.
        with joined(self.pid, "pid"):
            program: subprocess.Popen[str] = subprocess.Popen(
                ["nsenter", "--target", str(self.pid), "--net", "--mount", "--uts", "--", *argv],
                env={**os.environ, **(env or {})},
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                text=True,
            )
        self._programs.append(program)
        return program

    def run(
        self,
        argv: Argv,
        *,
        env: Mapping[str, str] | None = None,
        check: bool = False,
        timeout: float = 240,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end, with its output captured; `timeout` in seconds."""
        with self.popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
            try:
                out, err = program.communicate(timeout=timeout)
            except BaseException:
                program.kill()
                raise
        done = subprocess.CompletedProcess(argv, program.returncode, out, err)
        if check:
            done.check_returncode()
        return done

    def open_socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM, protocol: int = 0
    ) -> socket.socket:
        """Open a socket on this host's network, in the calling process."""
        with joined(self.pid, "net"):
            made = socket.socket(family, kind, protocol)
        self._sockets.append(made)
        return made

    def tool(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `ip` or `tc` on this host's network, but as a process of the machine."""
        with joined(self.pid, "net"):
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"{self.name}: {' '.join(argv)}: {done.stderr.strip()}")
        return done

    # Files

    def crash(self) -> None:
        """Give it what a crash kernel has, and no other: /proc/vmcore."""
        self.run(["sh", "-ec", VMCORE], check=True)

    def write_file(self, path: str, text: str) -> None:
        """Replace a file of this host at one blow, so that no program reads half of it."""
        target = self.root / path.lstrip("/")
        draft = target.with_name(target.name + ".netlab")
        draft.write_text(text)
        draft.replace(target)

    def set_sysctl(self, path: str, value: str) -> None:
        """Set a value below /proc/sys, as in net/ipv6/conf/eth0/accept_dad."""
        self.run(["sh", "-c", 'echo "$0" > "/proc/sys/$1"', value, path], check=True)

    # Names

    def add_name(self, name: str, *addresses: str) -> None:
        """Let a name resolve from now on, to all of these addresses."""
        self._names += [f"{address} {name}" for address in addresses]
        self._write_names()

    def _write_names(self) -> None:
        lines = ["127.0.0.1 localhost", "::1 localhost", *self._names]
        self.write_file("/etc/hosts", "\n".join(lines) + "\n")

    def hang_name_service(self) -> socket.socket:
        """Let every look-up of a name that /etc/hosts does not have hang, for minutes.

        Returns the socket of the nameserver that never answers: who waits for it to become
        readable knows that somebody's look-up hangs now.
        """
        server = self.open_socket()
        server.bind(("127.0.0.1", 53))
        self.write_file("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n")
        self.write_file("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
        return server

    def syslog(self) -> socket.socket:
        """Open this host's /dev/log, which nobody reads otherwise; recv() gives one record each."""
        log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sockets.append(log)
        log.bind(str(self.root / "dev/log"))
        return log

    def await_address(self, interface: str, address: str) -> None:
        """Return when this machine takes what is sent to an address that it was just given.

        An IPv6 address is in the list at once, and the kernel adds the route to it when it has
        time; what comes before is dropped, though neighbours have had their answer.
        """
        packed = socket.inet_pton(socket.AF_INET6, address.partition("/")[0]).hex()

        def has_route() -> bool:
            with joined(self.pid, "net"), open("/proc/thread-self/net/ipv6_route") as routes:
                for line in routes:
                    to, _, _, _, _, _, _, _, flags, over = line.split()
                    if (to, over) == (packed, interface) and int(flags, 16) & _RTF_LOCAL:
                        return True
            return False

        _await(has_route, f"the way to {address} on {interface}")

    # The end

    def close(self) -> None:
        """Kill whatever runs here. The kernel takes the rest down with the namespaces."""
        assert self._holder.stdin is not None
        self._holder.stdin.close()  # pid 1 reads to the end of it
        for program in self._programs:
            # Before waiting for pid 1, which stays while there is a zombie in its namespace.
            end(program)
        for made in self._sockets:
            made.close()
        self._holder.wait()
        end(self._holder)

    def next_interface(self) -> str:
        """Name one more interface: eth0, eth1, ..."""
        self._interfaces += 1
        return f"eth{self._interfaces - 1}"


class Link:
    """A cable between two hosts: a veth pair."""

    def __init__(self, a: Host, b: Host) -> None:
        self._interfaces = {a: a.next_interface(), b: b.next_interface()}
        self._addresses: list[tuple[Host, str, bool]] = []
        self._up: set[Host] = set()
        peer = ["peer", "name", self._interfaces[b], "netns", str(b.pid)]
        a.tool("ip", "link", "add", "name", self._interfaces[a], "type", "veth", *peer)

    def interface(self, host: Host) -> str:
        """Tell the name of this link's interface on one of its two hosts."""
        return self._interfaces[host]

    def impair(self, impairment: Impairment) -> None:
        """Let netem treat all frames so from now on; those that wait already are not touched."""
        for host, name in self._interfaces.items():
            netem = ["root", "netem", *impairment.netem()]
            host.tool("tc", "qdisc", "replace", "dev", name, *netem)

    def down(self, *hosts: Host) -> None:
        """Take the interfaces of these hosts down, by default both."""
        for host in hosts or self._interfaces:
            host.tool("ip", "link", "set", "dev", self._interfaces[host], "down")
            self._up.discard(host)

    def up(self, *hosts: Host) -> None:
        """Bring the interfaces up, with all their addresses (down takes the IPv6 ones away).

        Of both, the second host's comes first: when the first host can send, it can be answered.
        """
        for host in hosts or reversed(list(self._interfaces)):
            host.tool("ip", "link", "set", "dev", self._interfaces[host], "up")
            self._up.add(host)
        for host, address, dad in self._addresses:
            if not hosts or host in hosts:
                self._set_address(host, address, dad)
        if not hosts:
            _await(self._carries, "a link that carries")

    def add_address(self, host: Host, address: str, *, dad: bool = False) -> None:
        """Give a host's end one more address, ready at once.

        With `dad`, an IPv6 address first goes through duplicate address detection: for two
        seconds or more it is tentative and nothing can be sent from it or to it.
        """
        self._addresses.append((host, address, dad))
        self._set_address(host, address, dad)

    def resolve_impatiently(self) -> None:
        """Let the hosts give up a neighbour that does not answer after 0.6 s instead of 3 s."""
        for host, name in self._interfaces.items():
            for ip in ("ipv4", "ipv6"):
                host.set_sysctl(f"net/{ip}/neigh/{name}/retrans_time_ms", "200")

    def _set_address(self, host: Host, address: str, dad: bool) -> None:
        name = self._interfaces[host]
        if dad:
            host.set_sysctl(f"net/ipv6/conf/{name}/accept_dad", "1")
            host.set_sysctl(f"net/ipv6/conf/{name}/dad_transmits", "2")
        nodad = ["nodad"] if ":" in address and not dad else []
        host.tool("ip", "address", "replace", address, "dev", name, *nodad)
        if nodad and host in self._up:
            host.await_address(name, address)

    def _carries(self) -> bool:
        # Carrier alone is not enough: just before, the kernel drops in silence what is sent.
        for host, name in self._interfaces.items():
            (state,) = json.loads(host.tool("ip", "-json", "link", "show", "dev", name).stdout)
            if state["operstate"] not in ("UP", "UNKNOWN") or "LOWER_UP" not in state["flags"]:
                return False
        return True


@contextlib.contextmanager
def joined(pid: int, kind: str) -> Iterator[None]:
    """Put the calling thread into a namespace of process `pid` while the block lasts.

    "net" counts for sockets, files below /proc/sys/net and children, "pid" for children alone.
    """
    with open(f"/proc/thread-self/ns/{kind}") as home, open(f"/proc/{pid}/ns/{kind}") as there:
        _setns(there)
        try:
            yield
        finally:
            _setns(home)


def _setns(namespace: IO[str]) -> None:
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace.name)


def end(program: subprocess.Popen[str]) -> None:
    """Kill a program, wait until it is gone, and close its pipes."""
    program.kill()
    program.wait()
    for stream in (program.stdin, program.stdout, program.stderr):
        if stream is not None:
            stream.close()


def _await(condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.005)

# SPDX-License-Identifier: GPL-2.0-or-later
"""One panic: a guest boots, its kernel panics, its crash kernel boots, an agent outside listens.

    outcome = run(Crash(kernel=vmlinuz, initramfs=file, arguments="console=ttyS0 ...",
                        networks=[Network(survivor=["10.0.0.2/24"])],
                        agent=["fence_kdump", "-n", "10.0.0.1", "-t", "60", "-v"]))
    assert outcome.status == 0

The crashed node is a guest in QEMU, which emulates (TCG). The survivor is a host of
`tests.support.netlab`, a set of namespaces without uplink or default route; each network is a TAP
device between the two. QEMU itself runs among the survivor's processes, so it dies with them.

What happens, in this order:

1. The guest boots Debian's kernel for virtual machines with an initramfs of small_images.py, which
   loads the crash kernel with `kexec -p`, says PANICS on the console and panics (sysrq-c).
2. The agent is started on the survivor as soon as that line (or `agent_starts`) is read, as a
   cluster would that sees the node fall silent.
3. The crash kernel boots with the initramfs of the caller, which does all the rest: it loads the
   modules of its network devices (virtio-net on PCI, in the order of `networks`, with the MAC
   addresses that `mac()` tells), configures them, starts the sender.
4. It is over when the agent has ended (if there is one) and `until` was read on the console (if
   there is one), when the guest ends, or after `seconds`.

All times are seconds since QEMU was started, by the machine's monotonic clock, taken here: when
this process read the line of the console or the agent, or the frame. So they can be compared.

Everything that runs and every device is gone when run() returns. Two panics may run at the same
time in two threads, but a thread must not end before its run() does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
import re
import selectors
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from tests.support import guest
from tests.support.debian import NotAvailable
from tests.support.messages import MESSAGE, PORT, udp_in_frame
from tests.support.netlab import Lab, why_not
from tests.system.crash import small_images

#: What the first kernel says last of all (panicking_init.sh).
SILENCE = "^(PANICS|falls silent)$"

_ARGUMENTS = f"{guest.ARGUMENTS} quiet"  # of the first kernel
_ETH_P_ALL = 3

# However late this process looks, it looks in this order: a step is announced on the console, then
# it has effects on the network, then the agent sees them. So the times come in the right order.
_CONSOLE, _FRAMES, _AGENT = range(3)


@dataclasses.dataclass(frozen=True)
class After:
    """A moment: so many seconds after a line of the console in which `pattern` is found (re)."""

    pattern: str
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of the node: a virtio NIC in the guest, a TAP device on the survivor."""

    survivor: Sequence[str] = ()  # the survivor's addresses on it, with prefix
    dead: bool = False  # the survivor's end stays down: the node has a carrier, nobody answers
    plugged_in: After | None = None  # the node has no carrier until then


def mac(network: int) -> str:
    """Tell the MAC address of the node's NIC on the n-th network, from 0."""
    return f"52:54:00:7d:00:{network + 1:02x}"


@dataclasses.dataclass(frozen=True)
class Crash:
    """What is to happen. `kexec -p` is given `initramfs` and `arguments`, and the same kernel."""

    initramfs: Path
    arguments: str  # the crash kernel's command line, all of it but what kexec adds itself
    networks: Sequence[Network]
    agent: Sequence[str] = ()  # argv on the survivor
    agent_starts: str = SILENCE  # at the first line of the console that matches this (re.search)
    crashkernel: str = "128M"
    memory: int = 512  # of the guest, MB
    panics: bool = True  # False: the first kernel loads the crash kernel, and then falls silent
    until: str = ""  # a regular expression (re.search) that a line of the console has to match
    seconds: float = 90.0


@dataclasses.dataclass(frozen=True)
class Line:
    """A line that was read at that time."""

    at: float
    text: str


@dataclasses.dataclass(frozen=True)
class Datagram:
    """A UDP datagram to the port 7410 that the node sent into its n-th network."""

    at: float
    network: int
    source: str
    destination: str
    payload: bytes

    def __str__(self) -> str:
        return f"{self.network}: {self.source} -> {self.destination} {self.payload!r}"

    @property
    def is_message(self) -> bool:
        """Whether it begins with a message of version 1, in this machine's byte order."""
        return self.payload[: len(MESSAGE)] == MESSAGE


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of it."""

    status: int | None  # the agent's exit status; None if it did not end (or there was none)
    ended: float | None  # when the agent ended
    said: Sequence[Line]  # what the agent said, stdout and stderr together
    console: Sequence[Line]  # what both kernels and their programs said
    datagrams: Sequence[Datagram]

    def first(self, pattern: str) -> Line | None:
        """Find the first line of the console that matches (re.search)."""
        return next((line for line in self.console if re.search(pattern, line.text)), None)

    def line(self, pattern: str) -> Line:
        """Find the same line, or fail with all that is known. Raises AssertionError."""
        found = self.first(pattern)
        assert found is not None, f"no line with {pattern!r} on the console\n{self}"
        return found

    def messages(self, to: str = "") -> list[Datagram]:
        """List the messages that were seen on the networks, all or those to one address."""
        return [sent for sent in self.datagrams if sent.is_message and to in ("", sent.destination)]

    def check_yes(self, *addresses: str) -> None:
        """Check that a kernel panicked, that its crash kernel told so, and that this was believed.

        The message has to come from one of the node's `addresses`, after the panic, and the agent
        has to say yes after it. Raises AssertionError.
        """
        panic = self.line("Kernel panic - not syncing: sysrq triggered crash")
        told = [sent for sent in self.messages() if sent.source in addresses]
        assert told, f"no message from {addresses}\n{self}"
        assert panic.at < told[0].at, str(self)
        assert self.status == 0, f"the agent does not say yes, but {self.status}\n{self}"
        heard = [line.text for line in self.said if "received valid message from '" in line.text]
        assert heard, f"a yes that does not say from whom\n{self}"
        assert self.ended is not None
        assert told[0].at < self.ended, str(self)

    def __str__(self) -> str:
        """Tell all in the order in which it happened."""
        told = [(line.at, f"console  {line.text}") for line in self.console]
        told += [(line.at, f"agent    {line.text}") for line in self.said]
        told += [(sent.at, f"frame    {sent}") for sent in self.datagrams]
        if self.ended is not None:
            told.append((self.ended, f"agent    ended with status {self.status}"))
        return "\n".join(f"{at:7.3f}  {text}" for at, text in sorted(told))


def run(crash: Crash) -> Outcome:
    """Let a node crash. Raises tests.support.debian.NotAvailable where that is not possible."""
    obstacle = why_not()
    if obstacle is not None:
        raise NotAvailable(obstacle)
    with tempfile.TemporaryDirectory(prefix="crash-") as scratch, Lab() as lab:
        return _Panic(crash, Path(scratch), lab).watch()


class _Panic:
    """A guest, its networks and its agent while they run."""

    def __init__(self, crash: Crash, scratch: Path, lab: Lab) -> None:
        self._crash = crash
        self._survivor = lab.host("survivor")
        # For QEMU, which is to open the TAP devices: a host's /dev has no such file.
        self._survivor.run(["mknod", "/dev/net/tun", "c", "10", "200"], check=True)
        self._selector = selectors.DefaultSelector()
        self._console: list[Line] = []
        self._said: list[Line] = []
        self._datagrams: list[Datagram] = []
        self._agent: subprocess.Popen[str] | None = None
        self._agent_ended: float | None = None
        self._guest_ended = False
        self._due: list[tuple[float, str]] = []  # when to give which order to QEMU's monitor
        self._awaited: dict[str, After] = {}
        orders = [
            order
            for number, network in enumerate(crash.networks)
            for order in self._lay(number, network)
        ]
        kernel = guest.kernel()
        initramfs, monitor = scratch / "initramfs", scratch / "monitor"
        small_images.save_panicking(
            initramfs,
            kernel=kernel,
            initramfs=crash.initramfs,
            arguments=crash.arguments,
            panics=crash.panics,
        )
        self._started = time.monotonic()
        self._qemu = self._survivor.popen(
            guest.command(
                *(kernel, initramfs, f"{_ARGUMENTS} crashkernel={crash.crashkernel}"),
                *(*self._devices(), "-monitor", f"unix:{monitor},server=on,wait=off", "-S"),
                memory=crash.memory,
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._read_lines(self._qemu, _CONSOLE, self._hear_console, self._end_of_guest)
        self._monitor = self._open_monitor(monitor)
        for order in (*orders, "cont"):
            self._order(order)

    def watch(self) -> Outcome:
        """Wait until it is over."""
        try:
            while not self._over():
                waits = [at for at, _ in self._due] + [self._crash.seconds]
                ready = self._selector.select(max(0.0, min(waits) - self._now()))
                for key, _ in sorted(ready, key=lambda each: each[0].data[0]):
                    key.data[1]()
                while self._due and min(self._due)[0] <= self._now():
                    order = min(self._due)
                    self._due.remove(order)
                    self._order(order[1])
        finally:
            self._qemu.kill()
            self._qemu.wait()
            self._monitor.close()
            self._selector.close()
        status = None if self._agent_ended is None or not self._agent else self._agent.wait()
        return Outcome(status, self._agent_ended, self._said, self._console, self._datagrams)

    def _over(self) -> bool:
        if self._guest_ended or self._now() >= self._crash.seconds:
            return True
        until = self._crash.until
        if until and not any(re.search(until, line.text) for line in self._console):
            return False
        return self._agent_ended is not None if self._crash.agent else bool(until)

    def _now(self) -> float:
        return time.monotonic() - self._started

    # The networks

    def _lay(self, number: int, network: Network) -> Iterator[str]:
        """Make the survivor's end of a network; tell what QEMU's monitor is to be told."""
        name = self._survivor.next_interface()
        self._survivor.tool("ip", "tuntap", "add", "dev", name, "mode", "tap")
        for address in network.survivor:
            nodad = ["nodad"] if ":" in address else []
            self._survivor.tool("ip", "address", "add", address, "dev", name, *nodad)
        if not network.dead:
            self._survivor.tool("ip", "link", "set", "dev", name, "up")
        ear = self._survivor.open_socket(socket.AF_PACKET, socket.SOCK_RAW)
        ear.bind((name, _ETH_P_ALL))
        ear.setblocking(False)
        hear = functools.partial(self._hear_frames, ear, number)
        self._selector.register(ear, selectors.EVENT_READ, (_FRAMES, hear))
        if network.plugged_in is not None:
            yield f"set_link net{number} off"
            self._awaited[f"set_link net{number} on"] = network.plugged_in

    def _devices(self) -> Iterator[str]:
        for number in range(len(self._crash.networks)):
            yield "-netdev"
            yield f"tap,id=net{number},ifname=eth{number},script=no,downscript=no,vhost=off"
            yield "-device"
            yield f"virtio-net-pci,netdev=net{number},mac={mac(number)},romfile="

    def _hear_frames(self, ear: socket.socket, network: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    frame = ear.recv(65536)
                except OSError as error:
                    if error.errno != errno.ENETDOWN:
                        raise
                    continue  # told once; what came before can still be read
                found = udp_in_frame(frame)
                if found is not None and found[2] == PORT:
                    source, destination, _, payload = found
                    sent = Datagram(self._now(), network, source, destination, payload)
                    self._datagrams.append(sent)

    # QEMU

    def _open_monitor(self, path: Path) -> socket.socket:
        monitor = socket.socket(socket.AF_UNIX)
        while True:
            try:
                monitor.connect(str(path))
                return monitor
            except OSError as error:
                if self._now() > 10 or self._qemu.poll() is not None:
                    self._give_up(error)
                time.sleep(0.01)

    def _give_up(self, error: OSError) -> NoReturn:
        assert self._qemu.stdout is not None
        self._qemu.kill()
        os.set_blocking(self._qemu.stdout.fileno(), True)
        raise RuntimeError(f"QEMU does not start: {error}: {self._qemu.stdout.read()}")

    def _order(self, order: str) -> None:
        self._monitor.sendall(f"{order}\n".encode())

    # Output of programs

    def _read_lines(
        self,
        program: subprocess.Popen[str],
        rank: int,
        hear: Callable[[str], None],
        end: Callable[[], None],
    ) -> None:
        assert program.stdout is not None
        pipe = program.stdout.fileno()
        os.set_blocking(pipe, False)
        rest = ""

        def read() -> None:
            nonlocal rest
            data = os.read(pipe, 65536)
            *lines, rest = (rest + data.decode(errors="replace")).split("\n")
            for line in lines:
                hear(line.rstrip("\r"))
            if not data:
                self._selector.unregister(pipe)
                end()

        self._selector.register(pipe, selectors.EVENT_READ, (rank, read))

    def _hear_console(self, text: str) -> None:
        now = self._now()
        self._console.append(Line(now, text))
        for order, after in list(self._awaited.items()):
            if re.search(after.pattern, text):
                self._due.append((now + after.seconds, order))
                del self._awaited[order]
        starts = self._crash.agent and re.search(self._crash.agent_starts, text)
        if starts and self._agent is None:
            self._agent = self._survivor.popen(
                self._crash.agent,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            self._read_lines(self._agent, _AGENT, self._hear_agent, self._end_of_agent)

    def _end_of_guest(self) -> None:
        self._guest_ended = True

    def _hear_agent(self, text: str) -> None:
        self._said.append(Line(self._now(), text))

    def _end_of_agent(self) -> None:
        self._agent_ended = self._now()

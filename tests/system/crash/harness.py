# SPDX-License-Identifier: LGPL-2.1-or-later
"""One panic: a guest boots, its kernel panics, its crash kernel boots, an agent outside listens.

    outcome = run(Crash(kernel=vmlinuz, initramfs=file, arguments="console=ttyS0 ...",
                        networks=[Network(survivor=["10.0.0.2/24"])],
                        agent=["fence_kdump", "-n", "10.0.0.1", "-t", "60", "-v"]))
    assert outcome.agent.status == 0

The crashed node is a guest in QEMU, which emulates (TCG). The survivor is a host of
`tests.support.netlab`, a set of namespaces without uplink or default route; each network is a TAP
device between the two. QEMU itself runs among the survivor's processes, so it dies with them.

What happens, in this order:

1. The guest boots Debian's kernel for virtual machines with an initramfs of small_images.py, which
   loads the crash kernel with `kexec -p`, says PANICS on the console and panics (sysrq-c).
2. The agent is started on the survivor as soon as that line (or `agent_starts`) is read, as a
   cluster would that sees the node fall silent. So are the programs `beside` it.
3. The crash kernel boots with the initramfs of the caller, which does all the rest: it loads the
   modules of its network devices (virtio-net on PCI, in the order of `networks`, with the MAC
   addresses that `mac()` tells), configures them, starts the sender.
4. It is over when the agent and those beside it have ended (if there are any) and `until` was read
   on the console (if there is one), when the guest ends, or after `seconds`. An agent that was
   answered may be quicker than the first message that nobody asked for: that is waited for then.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from tests.support import guest
from tests.support.debian import NotAvailable
from tests.support.messages import MESSAGE, PORT, udp_in_frame
from tests.support.netlab import Lab, why_not
from tests.support.packets import STATES, read
from tests.system.crash import small_images

#: What the first kernel says last of all (panicking_init.sh).
SILENCE = "^(PANICS|falls silent)$"

_ARGUMENTS = f"{guest.ARGUMENTS} quiet"  # of the first kernel
_ETH_P_ALL = 3
_PACKET_OUTGOING = 4  # linux/if_packet.h: what the survivor sends

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
class Beside:
    """A program on the survivor, beside the agent.

    It is started as the agent is, `starts` being what `agent_starts` is; or else, if that is "",
    when the agent has ended.
    """

    argv: Sequence[str]
    starts: str = SILENCE
    ends: bool = True  # by itself: it is waited for


@dataclasses.dataclass(frozen=True)
class Crash:
    """What is to happen. `kexec -p` is given `initramfs` and `arguments`, and the same kernel."""

    initramfs: Path
    arguments: str  # the crash kernel's command line, all of it but what kexec adds itself
    networks: Sequence[Network]
    agent: Sequence[str] = ()  # argv on the survivor
    agent_starts: str = SILENCE  # at the first line of the console that matches this (re.search)
    beside: Mapping[str, Beside] = dataclasses.field(default_factory=dict)  # by any names
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
    """A UDP datagram that the node sent into its n-th network."""

    at: float
    network: int
    source: str
    destination: str
    port: int  # that it was sent to
    payload: bytes

    def __str__(self) -> str:
        to = f"{self.destination} port {self.port}"
        return f"{self.network}: {self.source} -> {to} {read(self.payload) or self.payload!r}"

    @property
    def is_message(self) -> bool:
        """Whether it begins with a message of version 1, in this machine's byte order."""
        return self.payload[: len(MESSAGE)] == MESSAGE

    @property
    def is_unasked(self) -> bool:
        """Whether it is a message, to the port 7410, that is no answer to a question."""
        packet = read(self.payload)
        asked = packet is not None and any(packet.nonce)
        return self.port == PORT and self.is_message and not asked

    @property
    def state(self) -> str:
        """What it says of the dump; "" if it says nothing."""
        packet = read(self.payload)
        return STATES[0] if packet is None else packet.state


@dataclasses.dataclass(frozen=True)
class Ended:
    """What came of a program on the survivor."""

    status: int | None = None  # its exit status; None if it did not end (or there was none)
    ended: float | None = None  # when it ended
    said: Sequence[Line] = ()  # stdout and stderr together

    @property
    def text(self) -> str:
        """All that it said."""
        return "\n".join(line.text for line in self.said)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of it."""

    agent: Ended
    beside: Mapping[str, Ended]
    console: Sequence[Line]  # what both kernels and their programs said
    sent: Sequence[Datagram]  # all that the node sent

    @property
    def datagrams(self) -> list[Datagram]:
        """What it sent to the port 7410."""
        return [sent for sent in self.sent if sent.port == PORT]

    def first(self, pattern: str) -> Line | None:
        """Find the first line of the console that matches (re.search)."""
        return next((line for line in self.console if re.search(pattern, line.text)), None)

    def line(self, pattern: str) -> Line:
        """Find the same line, or fail with all that is known. Raises AssertionError."""
        found = self.first(pattern)
        assert found is not None, f"no line with {pattern!r} on the console\n{self}"
        return found

    def messages(self, to: str = "") -> list[Datagram]:
        """List the messages that nobody asked for, all or those to one address."""
        return [sent for sent in self.sent if sent.is_unasked and to in ("", sent.destination)]

    def check_yes(self, *addresses: str, beside: str = "") -> None:
        """Check that a kernel panicked, that its crash kernel told so, and that this was believed.

        A message, or the answer to a question, has to come from one of the node's `addresses`,
        after the panic, and the agent (or that one `beside` it) has to say yes after it. Raises
        AssertionError.
        """
        agent = self.beside[beside] if beside else self.agent
        panic = self.line("Kernel panic - not syncing: sysrq triggered crash")
        told = [sent for sent in self.sent if sent.is_message and sent.source in addresses]
        assert told, f"no message from {addresses}\n{self}"
        assert panic.at < told[0].at, str(self)
        assert agent.status == 0, f"the agent does not say yes, but {agent.status}\n{self}"
        why = "received (valid message from '|signed answer of '.*' from )"
        assert re.search(why, agent.text), f"a yes that does not say from whom\n{self}"
        assert agent.ended is not None
        assert told[0].at < agent.ended, str(self)

    def __str__(self) -> str:
        """Tell all in the order in which it happened."""
        told = [(line.at, f"console  {line.text}") for line in self.console]
        told += [(sent.at, f"frame    {sent}") for sent in self.sent]
        for name, program in {"agent": self.agent, **self.beside}.items():
            told += [(line.at, f"{name:8} {line.text}") for line in program.said]
            if program.ended is not None:
                told.append((program.ended, f"{name:8} ended with status {program.status}"))
        return "\n".join(f"{at:7.3f}  {text}" for at, text in sorted(told))


def run(crash: Crash) -> Outcome:
    """Let a node crash. Raises tests.support.debian.NotAvailable where that is not possible."""
    obstacle = why_not()
    if obstacle is not None:
        raise NotAvailable(obstacle)
    with tempfile.TemporaryDirectory(prefix="crash-") as scratch, Lab() as lab:
        return _Panic(crash, Path(scratch), lab).watch()


class _Program:
    """A program on the survivor, to be started some time."""

    def __init__(self, how: Beside) -> None:
        self.how = how
        self.running: subprocess.Popen[str] | None = None
        self.said: list[Line] = []
        self.ended: float | None = None

    @property
    def over(self) -> bool:
        return self.ended is not None or not self.how.ends

    @property
    def status(self) -> int | None:
        return self.running.wait() if self.running and self.ended is not None else None

    def came_of(self) -> Ended:
        return Ended(self.status, self.ended, self.said)


class _Panic:
    """A guest, its networks, its agent and those beside it while they run."""

    def __init__(self, crash: Crash, scratch: Path, lab: Lab) -> None:
        self._crash = crash
        self._survivor = lab.host("survivor")
        # For QEMU, which is to open the TAP devices: a host's /dev has no such file.
        self._survivor.run(["mknod", "/dev/net/tun", "c", "10", "200"], check=True)
        self._selector = selectors.DefaultSelector()
        self._console: list[Line] = []
        self._sent: list[Datagram] = []
        self._agent = _Program(Beside(crash.agent, crash.agent_starts, ends=bool(crash.agent)))
        self._beside = {name: _Program(how) for name, how in crash.beside.items()}
        programs = (self._agent, *self._beside.values())
        self._unstarted = [program for program in programs if program.how.argv]
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
        beside = {name: program.came_of() for name, program in self._beside.items()}
        return Outcome(self._agent.came_of(), beside, self._console, self._sent)

    def _over(self) -> bool:
        if self._guest_ended or self._now() >= self._crash.seconds:
            return True
        until = self._crash.until
        if until and not any(re.search(until, line.text) for line in self._console):
            return False
        if not (self._crash.agent or until):
            return False
        if not all(program.over for program in (self._agent, *self._beside.values())):
            return False
        return self._agent.status != 0 or any(sent.is_unasked for sent in self._sent)

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
                    frame, address = ear.recvfrom(65536)
                except OSError as error:
                    if error.errno != errno.ENETDOWN:
                        raise
                    continue  # told once; what came before can still be read
                found = udp_in_frame(frame)
                if found is not None and address[2] != _PACKET_OUTGOING:
                    self._sent.append(Datagram(self._now(), network, *found))

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
        for program in [one for one in self._unstarted if one.how.starts]:
            if re.search(program.how.starts, text):
                self._start(program)

    def _end_of_guest(self) -> None:
        self._guest_ended = True

    # The survivor's programs

    def _start(self, program: _Program) -> None:
        self._unstarted.remove(program)
        program.running = self._survivor.popen(
            program.how.argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

        def hear(text: str) -> None:
            program.said.append(Line(self._now(), text))

        def end() -> None:
            program.ended = self._now()
            if program is self._agent:
                for other in [one for one in self._unstarted if not one.how.starts]:
                    self._start(other)

        self._read_lines(program.running, _AGENT, hear, end)

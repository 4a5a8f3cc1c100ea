# SPDX-License-Identifier: GPL-2.0-or-later
"""fence_kdump_send: tells the other nodes "I am dumping", from the crash kernel.

The Python front end. When to send is decided by `wire.Schedule`; this file only moves
things between the name service, the schedule and one socket for each IP family. What it
says and does, native/fence_kdump_send.pyx says and does without Python.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import sys
import time

from kdumpfence import filters, signals, wire
from kdumpfence._version import __version__
from kdumpfence.addresses import FAMILIES, Address, LookUpError, NameFiles, Resolver, literal
from kdumpfence.options import (
    SENDER_OPTIONS,
    SenderOptions,
    UsageError,
    can_be_name,
    sender_from_argv,
    shown,
    usage,
)
from kdumpfence.report import Report, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "fence_kdump_send"

#: What a crash kernel has, and no other: the memory of the kernel that crashed.
DUMP = "/proc/vmcore"

_IP_RECVERR = 11
_IPV6_RECVERR = 25

#: rtnetlink(7): interfaces, addresses and routes of both families.
_NETWORK_CHANGES = 0x1 | 0x10 | 0x40 | 0x100 | 0x400

#: With a count, what the kernel still holds at the end is waited for, so many seconds:
#: a neighbour that does not answer is given up by the kernel after three.
LINGER = 5.0

#: Seconds that one poll takes at most; and while a name is waited for, since the files that
#: it may stand in are looked at after each.
SLICE = 0.5
NAMES_SLICE = 0.1

#: Seconds that a check waits for look-ups.
CHECK_PATIENCE = 10

#: An ICMP error with one of these, from this machine itself, means: it did not leave.
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sender; the exit status: 0, or 1 if nobody was sent anything."""
    arguments = sys.argv[1:] if argv is None else argv
    report = Report(PROGRAM)
    signals.install()
    try:
        options = sender_from_argv(arguments)
        report.verbose = options.verbose
        for complaint in options.complaints:
            report.warning(complaint)
        if options.action == "help":
            write(1, usage(PROGRAM, " NODE...", SENDER_OPTIONS).encode())
            return 0
        if options.action == "version":
            core = f"(kdumpfence, {wire.IMPLEMENTATION} core)"
            write(1, f"{PROGRAM} {__version__} {core}\n".encode())
            return 0
        sender = _Sender(options, report)
        try:
            return sender.check() if options.action == "check" else sender.run()
        finally:
            sender.close()
    except UsageError as error:
        for complaint in error.complaints:
            report.warning(complaint)
        report.error(str(error))
        write(2, usage(PROGRAM, " NODE...", SENDER_OPTIONS).encode())
        return 1
    except signals.Ended as signal:
        report.debug(f"ended by {signal}")
        return 128 + signal.number
    except MemoryError:
        report.error("out of memory")
        return 1
    except OSError as error:
        report.error(f"the system refuses what is needed: {error.strerror}")
        return 1


def script() -> None:
    """The program. Leaves at once: look-ups that hang must not keep it alive."""
    os._exit(main())


class _Channel:
    """The socket of one IP family, and who is reached through it."""

    def __init__(self, family: int) -> None:
        self.sock = _socket.socket(
            family,
            _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK,
            _socket.IPPROTO_UDP,
        )
        # With this the kernel also tells what it could not deliver after all.
        if family == _socket.AF_INET:
            self.sock.setsockopt(_socket.IPPROTO_IP, _IP_RECVERR, 1)
        else:
            self.sock.setsockopt(_socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
            self.sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        try:
            filters.attach(self.sock, filters.NOTHING)  # nobody has anything to say to us
        except OSError:
            pass
        self.transmitter = wire.Transmitter(self.sock, wire.OWN_MESSAGE)
        self.indexes: dict[Address, int] = {}

    def send(self, addresses: Sequence[Address], port: int) -> list[int]:
        """An errno for each address, 0 = the kernel took the message."""
        for address in addresses:
            if address not in self.indexes:
                self.indexes[address] = self.transmitter.add(address.packed, port, address.scope)
        return self.transmitter.send([self.indexes[address] for address in addresses])

    def undelivered(self) -> list[tuple[Address, int]]:
        """Messages that the kernel had taken but that never left this machine."""
        result = []
        for packed, scope, code, by in self.transmitter.failures():
            # From another machine it means that the message did leave this one.
            if code in _UNREACHABLE and (by is None or self._is_own(by)):
                result.append((Address(packed, scope), code))
        self.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        return result

    def _is_own(self, packed: bytes) -> bool:
        """Whether this machine has that address: then a socket can be bound to it."""
        probe = _socket.socket(self.sock.family, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            probe.bind((_socket.inet_ntop(self.sock.family, packed), 0))
            return True
        except OSError as error:
            # EINVAL: a link-local address, which no router reports from afar.
            return error.errno == errno.EINVAL
        finally:
            probe.close()


class _Network:
    """Notices that an interface, an address or a route came, went or changed."""

    def __init__(self) -> None:
        self.sock: _socket.socket | None = None
        try:
            self.sock = _socket.socket(
                _socket.AF_NETLINK,
                _socket.SOCK_RAW | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK,
                _socket.NETLINK_ROUTE,
            )
            self.sock.bind((0, _NETWORK_CHANGES))
        except OSError:  # without it, what fails is tried as often as before
            self.close()

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def changed(self) -> bool:
        """Whether it did so since the last call."""
        changes = False
        for _ in range(1000):  # however much comes: the rest is for the next call
            if self.sock is None:
                break
            try:
                self.sock.recv(1)
                changes = True
            except BlockingIOError:
                break
            except OSError as error:
                changes = True
                if error.errno != errno.ENOBUFS:  # so many that some were lost
                    self.close()
        return changes


class _Sender:
    def __init__(self, options: SenderOptions, report: Report) -> None:
        self.options = options
        self.report = report
        self.family = FAMILIES[options.family]
        self.schedule = wire.Schedule(
            len(options.nodes), options.count, options.interval * 1_000_000_000, time.monotonic_ns()
        )
        #: The destinations of the schedule, and their numbers in it.
        self.addresses: list[Address] = []
        self.numbers: dict[Address, int] = {}
        self.channels: dict[int, _Channel] = {}
        self.complained: set[object] = set()
        self.failed = 0
        names = []
        for number, name in enumerate(options.nodes):
            try:
                if not can_be_name(name):
                    raise LookUpError("neither a host name nor an IP address", True)
                addresses = literal(name, self.family)
            except LookUpError as error:
                self._unresolved(number, error)
                continue
            if addresses is None:
                names.append(name)
            else:
                self._resolved(number, addresses)
        self.resolver = Resolver(names, self.family, retry_last=options.interval)

    def close(self) -> None:
        self.resolver.close()
        for channel in self.channels.values():
            channel.sock.close()

    def _complain(self, about: object, text: str) -> None:
        """Say it once; it is tried again for as long as the program runs."""
        if about not in self.complained:
            self.complained.add(about)
            self.report.error(text)

    def _where(self, destination: int) -> str:
        nodes = ",".join(self.options.nodes[node] for node in self.schedule.nodes(destination))
        return f"node '{nodes}' ({self.addresses[destination]})"

    def _unresolved(self, node: int, error: LookUpError) -> None:
        name = self.options.nodes[node]
        quoted = f"'{name}'" if can_be_name(name) else shown(name)
        again = self.options.action != "check" and not error.permanent
        self._complain(node, f"node {quoted}: {error}{'; will try again' if again else ''}")
        self.failed += 1
        if error.permanent:
            self.schedule.give_up(node)

    def _resolved(self, node: int, addresses: list[Address]) -> None:
        for address in addresses:
            known = self.numbers.get(address)
            if known is not None:
                self.schedule.share(known, node)
            else:
                self.numbers[address] = self.schedule.add(node, time.monotonic_ns())
                self.addresses.append(address)
            self.report.debug(f"'{self.options.nodes[node]}' is {address}", level=1)

    def _names(self) -> list[int]:
        """Take in what the look-ups answered; the nodes that are known by now."""
        known = []
        for name, answer in self.resolver.step():
            node = self.options.nodes.index(name)
            known.append(node)
            if isinstance(answer, LookUpError):
                self._unresolved(node, answer)
            else:
                self._resolved(node, answer)
        return known

    def _send(self) -> None:
        due = self.schedule.due(time.monotonic_ns())
        for family in {self.addresses[number].family for number in due}:
            batch = [number for number in due if self.addresses[number].family == family]
            try:
                if family not in self.channels:
                    self.channels[family] = _Channel(family)
                outcomes = self.channels[family].send(
                    [self.addresses[number] for number in batch], self.options.ipport
                )
            except OSError as error:  # no socket of this family to be had, for now
                outcomes = [error.errno or errno.EIO] * len(batch)
            for number, code in zip(batch, outcomes):
                self._outcome(number, code)

    def _outcome(self, number: int, code: int) -> None:
        now = time.monotonic_ns()
        if code == 0:
            self.schedule.left(number, now)
            if self.report.verbose:
                sent = self.schedule.sent(number)
                self.report.debug(f"message sent to {self._where(number)}, number {sent}", level=1)
        else:
            self.schedule.failed(number, now)
            self._cannot(number, code)

    def _cannot(self, number: int, code: int) -> None:
        if (number, code) not in self.complained:
            why = os.strerror(code)
            self._complain((number, code), f"{self._where(number)}: {why}; will try again")

    def _undelivered(self) -> None:
        for channel in self.channels.values():
            for address, code in channel.undelivered():
                number = self.numbers.get(address)
                if number is not None and self.schedule.lost(number, time.monotonic_ns()):
                    self._cannot(number, code)

    def _wait(self, until: float | None, network: _Network) -> None:
        poller = select.poll()
        poller.register(self.resolver.fd, select.POLLIN)
        for channel in self.channels.values():
            poller.register(channel.sock.fileno(), 0)  # POLLERR comes unasked
        if network.sock is not None:
            poller.register(network.sock.fileno(), select.POLLIN)
        # Never long: a signal that came just before, or to a look-up's thread, does not
        # end a poll, and a stopped process sleeps on for what was left of it.
        left = NAMES_SLICE if self.resolver.unresolved else SLICE
        if until is not None:
            left = min(left, max(0.0, until - time.monotonic()))
        try:
            poller.poll(left * 1000)
        except OSError:  # out of memory, say: it goes on all the same
            time.sleep(0.05)

    def run(self) -> int:
        """Send until it is enough; the exit status."""
        if not os.path.exists(DUMP):
            self.report.warning(
                "no /proc/vmcore here, so nothing has crashed; but other nodes will take this one "
                "for dead"
            )
        network = _Network()
        try:
            return self._run(network)
        finally:
            network.close()

    def _run(self, network: _Network) -> int:
        files = NameFiles()
        linger_ends: float | None = None
        while True:
            names_changed = bool(self.resolver.unresolved) and files.changed()
            if network.changed():
                names_changed = True
                self.schedule.hurry(time.monotonic_ns())
            if names_changed:
                self.resolver.hurry()
            self._names()
            self._send()
            self._undelivered()
            now = time.monotonic()
            if self.schedule.finished(time.monotonic_ns()):
                # Done if all that the kernel took is on its way and none of it came back.
                if linger_ends is None:
                    linger_ends = now + LINGER
                held = any(c.transmitter.pending for c in self.channels.values())
                if now >= linger_ends or not held:
                    self._undelivered()
                    if self.schedule.finished(time.monotonic_ns()):
                        return self._result()
                else:
                    self._wait(min(now + 0.01, linger_ends), network)
                continue
            linger_ends = None
            times = [self.resolver.next_due]
            due = self.schedule.next_due(time.monotonic_ns())
            if due is not None:
                times.append(due / 1e9)
            self._wait(min((t for t in times if t is not None), default=None), network)

    def _result(self) -> int:
        reached = self.schedule.reached
        for number, node in enumerate(self.options.nodes):
            if number not in reached:
                quoted = f"'{node}'" if can_be_name(node) else shown(node)
                self.report.error(f"node {quoted} was never reached")
        return 0 if reached else 1

    def check(self) -> int:
        """Say which way messages would go; 0 if there is one to every node and the options
        are right, else 1.
        """
        ends = time.monotonic() + CHECK_PATIENCE
        asked = {self.options.nodes.index(name) for name in self.resolver.unresolved}
        while True:
            asked.difference_update(self._names())
            if not asked or time.monotonic() >= ends:
                break
            poller = select.poll()
            poller.register(self.resolver.fd, select.POLLIN)
            poller.poll(100)
        for node in sorted(asked):
            self._unresolved(node, LookUpError("the look-up has not answered within 10 seconds"))
        reachable = set()
        for number in range(len(self.addresses)):
            if self._check_way(number):
                reachable.update(self.schedule.nodes(number))
        return 1 if self.options.complaints or len(reachable) < len(self.options.nodes) else 0

    def _check_way(self, number: int) -> bool:
        address = self.addresses[number]
        try:
            interface, source, gateway, local, carrier = wire.find_route(
                address.packed, address.scope
            )
        except OSError as error:
            self.report.error(f"{self._where(number)}: {error.strerror}")
            return False
        if local:
            way = "is this machine itself"
        else:
            way = f"by {_interface_name(interface)}"
            if source:
                way += f", from {Address(source)}"
            if gateway:
                way += f", through {Address(gateway)}"
        write(1, f"{self._where(number)}: {way}\n".encode())
        if not carrier:
            self.report.error(f"{self._where(number)}: the interface has no carrier")
        return carrier


def _interface_name(index: int) -> str:
    try:
        return _socket.if_indextoname(index)
    except OSError:  # it went away
        return str(index)


if __name__ == "__main__":
    script()

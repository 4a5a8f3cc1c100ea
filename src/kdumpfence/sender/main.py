# SPDX-License-Identifier: LGPL-2.1-or-later
"""fence_kdump_send: tells the other nodes "I am dumping", from the crash kernel.

The program in Python, and its loop. What it says and does, the native sender (src/native) says
and does without Python.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import sys
import time

from kdumpfence import signals, wire
from kdumpfence._version import __version__
from kdumpfence.addresses import (
    FAMILIES,
    Address,
    LookUpError,
    NameFiles,
    Resolver,
    interface_name,
    literal,
    why_refused,
)
from kdumpfence.cmdline import UsageError, usage
from kdumpfence.log import Report, write
from kdumpfence.sender.answers import Answers
from kdumpfence.sender.delivery import Delivery
from kdumpfence.sender.options import SENDER_OPTIONS, SenderOptions, sender_from_argv
from kdumpfence.sender.status import Status
from kdumpfence.text import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "fence_kdump_send"

#: What a crash kernel has, and no other: the memory of the kernel that crashed.
DUMP = "/proc/vmcore"

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sender; the exit status: 0, or 1 if nobody was sent anything."""
    arguments = sys.argv[1:] if argv is None else argv
    report = Report(PROGRAM)
    signals.install()
    try:
        options = sender_from_argv(arguments)
        report.verbose = options.verbose
        if options.action == "help":
            write(1, usage(PROGRAM, " NODE...", SENDER_OPTIONS).encode())
            return 0
        if options.action == "version":
            core = f"(kdumpfence, {wire.IMPLEMENTATION} core)"
            write(1, f"{PROGRAM} {__version__} {core}\n".encode())
            return 0
        status = Status(options)
        for complaint in options.complaints:
            report.warning(complaint)
        if options.packets:
            report.debug(str(status), level=1)
        sender = Sender(options, status, report)
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
        report.error(f"cannot continue: {error.strerror}")
        return 1


def script() -> None:
    """The program. Leaves at once: look-ups that hang must not keep it alive."""
    os._exit(main())


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


class Sender:
    """Names, the network and time: what has to be done next."""

    def __init__(self, options: SenderOptions, status: Status, report: Report) -> None:
        self.options = options
        self.report = report
        self.family = FAMILIES[options.family]
        self.delivery = Delivery(options, status, report)
        self.answers = Answers(options.ipport, status, report)
        self.schedule = self.delivery.schedule
        names = []
        for number, name in enumerate(options.nodes):
            try:
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
        """Give the descriptors back."""
        self.resolver.close()
        self.delivery.close()
        self.answers.close()

    def _unresolved(self, node: int, error: LookUpError) -> None:
        quoted = _quoted(self.options.nodes[node])
        again = self.options.action != "check" and not error.permanent
        self.delivery.complain(node, f"node {quoted}: {error}{'; will try again' if again else ''}")
        if error.permanent:
            self.schedule.give_up(node)

    def _resolved(self, node: int, addresses: list[Address]) -> None:
        for address in addresses:
            self.delivery.add(node, address)
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

    def _wait(self, until: float | None, network: _Network, lingers: bool = False) -> None:
        poller = select.poll()
        poller.register(self.resolver.fd, select.POLLIN)
        for lane in self.delivery.lanes():
            # POLLERR comes unasked.
            poller.register(lane.sock.fileno(), 0 if lingers else select.POLLIN)
        for sock in () if lingers else self.answers.sockets():
            poller.register(sock.fileno(), select.POLLIN)
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
        crashed = os.path.exists(DUMP)
        if not crashed:
            self.report.warning(
                "no /proc/vmcore: this machine has not crashed, but other nodes will take it "
                "for dead"
            )
        network = _Network()
        try:
            return self._run(network, crashed)
        finally:
            network.close()

    def _run(self, network: _Network, crashed: bool) -> int:
        files = NameFiles()
        linger_ends: float | None = None
        while True:
            names_changed = bool(self.resolver.unresolved) and files.changed()
            if network.changed():
                names_changed = True
                self.delivery.hurry()
            if names_changed:
                self.resolver.hurry()
            if network.sock is None:  # nobody would tell of changes
                self.schedule.doubt()
            self._names()
            self.delivery.send()
            self.delivery.hear()
            now = time.monotonic()
            if self.schedule.finished(time.monotonic_ns()):
                # Done if all that the kernel took is on its way and none of it came back.
                if linger_ends is None:
                    linger_ends = now + LINGER
                if now >= linger_ends or not self.delivery.held:
                    self.delivery.hear()
                    if self.schedule.finished(time.monotonic_ns()):
                        return self._result()
                else:
                    self._wait(min(now + 0.01, linger_ends), network, lingers=True)
                continue
            linger_ends = None
            # Not before the first messages are out. On a node that lives, an agent or the
            # daemon may want the port.
            if crashed:
                self.answers.open()
            self.answers.answer(self.delivery)
            times = [self.resolver.next_due]
            for due in (self.schedule.next_due(time.monotonic_ns()), self.answers.next_due):
                if due is not None:
                    times.append(due / 1e9)
            self._wait(min((t for t in times if t is not None), default=None), network)

    def _result(self) -> int:
        reached = self.schedule.reached
        for number, node in enumerate(self.options.nodes):
            if number not in reached:
                self.report.error(f"node {_quoted(node)} was never reached")
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
            self._unresolved(node, LookUpError("name lookup timed out after 10 seconds"))
        reachable = set()
        for number in range(len(self.delivery.addresses)):
            if self._check_way(number):
                reachable.update(self.schedule.nodes(number))
        return 1 if self.options.complaints or len(reachable) < len(self.options.nodes) else 0

    def _check_way(self, number: int) -> bool:
        address = self.delivery.addresses[number]
        try:
            interface, source, gateway, local, carrier = wire.find_route(
                address.packed, address.scope
            )
        except OSError as error:
            self.report.error(f"{self.delivery.where(number)}: {error.strerror}")
            return False
        if local:
            way = "is this machine"
        else:
            way = f"by {interface_name(interface)}"
            if source:
                way += f", from {Address(source)}"
            if gateway:
                way += f", through {Address(gateway)}"
        write(1, f"{self.delivery.where(number)}: {way}\n".encode())
        if not carrier:
            self.report.error(f"{self.delivery.where(number)}: the interface has no carrier")
        return carrier


def _quoted(node: str) -> str:
    """For a line; what is refused may be anything."""
    return shown(node) if why_refused(node) else f"'{node}'"


if __name__ == "__main__":
    script()

# SPDX-License-Identifier: GPL-2.0-or-later
"""fence_kdump_send: tells the other nodes "I am dumping", from the crash kernel.

The Python front end. When to send is decided by `wire.Schedule`; this file only moves
things between the name service, the schedule and the sockets of each IP family. What it
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
from kdumpfence.addresses import (
    FAMILIES,
    Address,
    LookUpError,
    NameFiles,
    Resolver,
    literal,
    why_refused,
)
from kdumpfence.cmdline import UsageError, usage
from kdumpfence.log import Report, write
from kdumpfence.own_addresses import is_own
from kdumpfence.sender.options import SENDER_OPTIONS, SenderOptions, sender_from_argv
from kdumpfence.text import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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

#: Nanoseconds that room in a full send buffer is waited for, before another socket is used;
#: and how many of them there may be.
PATIENCE_NS = 5_000_000
MOST_LANES = 8

#: So many messages go out at a time where it is not known whether the neighbours answer, and
#: then their answers are waited for so long at most, in nanoseconds.
AT_A_TIME = 64
ANSWERS_NS = 5_000_000

#: Nanoseconds after which what was sent on trust must have left the machine; and after which
#: the kernel may have given up a neighbour, at the soonest.
TRUST_NS = 50_000_000
GIVES_UP_NS = 400_000_000

#: Bytes of messages that wait for neighbours; with less, those that wait may be sent again when
#: the network has changed. A quarter of the send buffer of one socket.
HELD_AT_MOST = 53_248

#: Of connect(2): there is no way, or no address to come from.
_NO_SOURCE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)

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


class _Lane:
    """One socket of an IP family, and the messages that wait in it for their neighbours."""

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
        self.watched = self.transmitter.watch()
        self.indexes: dict[Address, int] = {}
        #: When messages left through it on trust, if it was not looked at since.
        self.trusting: int | None = None

    def send(self, addresses: Sequence[Address], port: int, told: bool) -> list[int]:
        """An errno for each address, 0 = the kernel took the message."""
        for address in addresses:
            if address not in self.indexes:
                self.indexes[address] = self.transmitter.add(address.packed, port, address.scope)
        which = [self.indexes[address] for address in addresses]
        return self.transmitter.send(which, 0 if told else PATIENCE_NS, told)

    def news(self) -> list[tuple[Address, int]]:
        """Of messages that the kernel had taken: 0 if it left this machine, the errno if not."""
        result = []
        for packed, scope, code, by in self.transmitter.news():
            # From another machine an error means that the message did leave this one.
            if code == 0 or (code in _UNREACHABLE and (by is None or is_own(Address(by)))):
                result.append((Address(packed, scope), code))
        self.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        return result


class _Channel:
    """The sockets of one IP family.

    One, as long as no neighbour keeps the kernel waiting: what waits for one fills the send
    buffer, and must not be in the way of what is for the others.
    """

    def __init__(self, family: int) -> None:
        self.family = family
        self.lanes = [_Lane(family)]
        #: Whether the kernel tells which messages left.
        self.told = self.lanes[0].watched

    def ways(self, told: bool) -> Iterator[_Lane]:
        """The lanes in the order in which they are to be used.

        What may have to wait joins what waits; what is known to leave keeps away from it.
        """
        waiting = [lane for lane in self.lanes if lane.transmitter.pending]
        free = [lane for lane in self.lanes if lane not in waiting]
        yield from waiting + free if told else free
        while True:
            lane = self.another()
            if lane is None:
                break
            yield lane
        yield from [] if told else waiting

    def another(self) -> _Lane | None:
        """One more, if there may be more."""
        if len(self.lanes) == MOST_LANES:
            return None
        try:
            lane = _Lane(self.family)
        except OSError:
            return None
        self.lanes.append(lane)
        return lane


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
        self.started = time.monotonic_ns()
        self.schedule = wire.Schedule(
            len(options.nodes), options.count, options.interval * 1_000_000_000, self.started
        )
        #: The destinations of the schedule, and their numbers in it.
        self.addresses: list[Address] = []
        self.numbers: dict[Address, int] = {}
        self.channels: dict[int, _Channel] = {}
        #: The messages that are under way, and where.
        self.under_way: dict[int, _Lane] = {}
        self.complained: set[object] = set()
        self.failed = 0
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
        self.resolver.close()
        for lane in self._lanes():
            lane.sock.close()

    def _lanes(self) -> list[_Lane]:
        return [lane for channel in self.channels.values() for lane in channel.lanes]

    def _complain(self, about: object, text: str) -> None:
        """Say it once; it is tried again for as long as the program runs."""
        if about not in self.complained:
            self.complained.add(about)
            self.report.error(text)

    def _where(self, destination: int) -> str:
        nodes = ",".join(self.options.nodes[node] for node in self.schedule.nodes(destination))
        return f"node '{nodes}' ({self.addresses[destination]})"

    def _unresolved(self, node: int, error: LookUpError) -> None:
        quoted = _quoted(self.options.nodes[node])
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
        for family in (_socket.AF_INET, _socket.AF_INET6):
            batch = [number for number in due if self.addresses[number].family == family]
            if not batch:
                continue
            try:
                if family not in self.channels:
                    self.channels[family] = _Channel(family)
            except OSError as error:  # no socket of this family to be had, for now
                for number in batch:
                    self._cannot(number, error.errno or errno.EIO)
                continue
            channel = self.channels[family]
            trusted = [number for number in batch if self.schedule.trusted(number)]
            others = batch[len(trusted) :]
            if trusted:
                self._pass(channel, trusted, False)
            ready = []
            for number in others:
                code = self._why_useless(self.addresses[number])
                if code:
                    self._cannot(number, code)
                else:
                    ready.append(number)
            for at in range(0, len(ready), AT_A_TIME):
                began = time.monotonic_ns()
                self._pass(channel, ready[at : at + AT_A_TIME], channel.told)
                # So that neighbours that answer, or a gateway, have done so before the next ones.
                while at + AT_A_TIME < len(ready) and self.under_way:
                    left = began + ANSWERS_NS - time.monotonic_ns()
                    if left <= 0 or not self._poll(left):
                        break
                    self._hear()

    def _pass(self, channel: _Channel, numbers: list[int], told: bool) -> None:
        """Hand messages to the kernel, through as many sockets as it takes."""
        for lane in channel.ways(told):
            outcomes = lane.send(
                [self.addresses[number] for number in numbers], self.options.ipport, told
            )
            now = time.monotonic_ns()
            for number, code in zip(numbers, outcomes):
                if code == 0 and told:
                    self.schedule.taken(number, now)
                    self.under_way[number] = lane
                elif code == 0:
                    self._left(number)
                elif code != errno.EAGAIN:
                    self._cannot(number, code)
            if told:
                self._settle(lane, just_sent=True)
            elif lane.trusting is None:
                lane.trusting = now
            numbers = [n for n, code in zip(numbers, outcomes) if code == errno.EAGAIN]
            if not numbers:
                return
        for number in numbers:
            self._cannot(number, errno.EAGAIN)

    def _why_useless(self, address: Address) -> int:
        """An errno if a message to there would leave from an address that nobody believes.

        Found out before it is sent: the kernel would take it, and ask for a neighbour by it.
        """
        try:
            probe = _socket.socket(address.family, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        except OSError:
            return 0  # nobody knows
        try:
            host = _socket.inet_ntop(address.family, address.packed)
            there = (host, self.options.ipport, 0, address.scope)
            probe.connect(there if len(address.packed) == 16 else there[:2])
            name = probe.getsockname()[0].partition("%")[0]
            source = Address(_socket.inet_pton(address.family, name))
        except OSError as error:
            return error.errno if error.errno in _NO_SOURCE else 0
        finally:
            probe.close()
        useless = not any(source.packed) or (source.loopback and not address.loopback)
        # A link-local one is for the link. Elsewhere the node's own may just be on its way.
        if source.link_local and not address.link_local and self.options.count:
            useless = time.monotonic_ns() - self.started < wire.LATE_NETWORK_NS
        return errno.EADDRNOTAVAIL if useless else 0

    def _left(self, number: int) -> None:
        self.under_way.pop(number, None)
        self.schedule.left(number, time.monotonic_ns())
        if self.report.verbose:
            sent = self.schedule.sent(number)
            self.report.debug(f"message sent to {self._where(number)}, number {sent}", level=1)

    def _cannot(self, number: int, code: int) -> None:
        self.schedule.failed(number, time.monotonic_ns())
        self._say_why(number, code)

    def _lost(self, number: int, code: int) -> None:
        self.under_way.pop(number, None)
        if self.schedule.lost(number, time.monotonic_ns()):
            self._say_why(number, code)

    def _say_why(self, number: int, code: int) -> None:
        if (number, code) not in self.complained:
            why = os.strerror(code)
            self._complain((number, code), f"{self._where(number)}: {why}; will try again")

    def _hear(self) -> None:
        """Take in what became of the messages that the kernel took."""
        for lane in self._lanes():
            self._settle(lane)
        now = time.monotonic_ns()
        for number in self.schedule.overdue(now):
            self._lost(number, errno.EHOSTUNREACH)
        for lane in self._lanes():
            if lane.trusting is not None and now - lane.trusting >= TRUST_NS:
                lane.trusting = None
                if lane.transmitter.pending:
                    self.schedule.doubt()

    def _settle(self, lane: _Lane, just_sent: bool = False) -> None:
        """Take in the news of one lane. Where nothing waits, what did not leave never will."""
        channel = self.channels[lane.sock.family]
        empty = not lane.transmitter.pending
        for address, code in lane.news():
            number = self.numbers.get(address)
            if code == 0 and number is None:
                # It has got another destination on its way (a tunnel, a translated address).
                channel.told = False
            elif code == 0 and number in self.under_way:
                self._left(number)
            elif code and number is not None:
                self._lost(number, code)
        mine = [number for number, where in self.under_way.items() if where is lane]
        if empty and just_sent and mine:
            channel.told = False  # nobody was waited for, and yet nothing is told of them
        now = time.monotonic_ns()
        for number in mine if empty or not channel.told else ():
            if not channel.told:
                self._left(number)  # for all that is known
            elif now - (self.schedule.asked(number) or now) >= GIVES_UP_NS:
                self._lost(number, errno.EHOSTUNREACH)
            else:  # pushed out of a queue, or gone with its interface
                del self.under_way[number]
                self.schedule.failed(number, now)

    def _hurry(self) -> None:
        """The network has changed: what is under way may have been dropped."""
        self._hear()
        held = sum(lane.transmitter.pending for lane in self._lanes())
        # Exactly as many as asked for; or else as far as there is room for more.
        again = held == 0 if self.options.count else held < HELD_AT_MOST
        if again:
            self.under_way.clear()
        self.schedule.hurry(time.monotonic_ns(), again)

    def _poll(self, nanoseconds: int) -> bool:
        """Wait for news of messages."""
        poller = select.poll()
        for lane in self._lanes():
            poller.register(lane.sock.fileno(), 0)  # POLLERR comes unasked
        return bool(poller.poll(nanoseconds / 1e6))

    def _wait(self, until: float | None, network: _Network) -> None:
        poller = select.poll()
        poller.register(self.resolver.fd, select.POLLIN)
        for lane in self._lanes():
            poller.register(lane.sock.fileno(), 0)  # POLLERR comes unasked
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
                self._hurry()
            if names_changed:
                self.resolver.hurry()
            if network.sock is None:  # nobody would tell of changes
                self.schedule.doubt()
            self._names()
            self._send()
            self._hear()
            now = time.monotonic()
            if self.schedule.finished(time.monotonic_ns()):
                # Done if all that the kernel took is on its way and none of it came back.
                if linger_ends is None:
                    linger_ends = now + LINGER
                held = any(lane.transmitter.pending for lane in self._lanes())
                if now >= linger_ends or not held:
                    self._hear()
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


def _quoted(node: str) -> str:
    """For a line; what is refused may be anything."""
    return shown(node) if why_refused(node) else f"'{node}'"


def _interface_name(index: int) -> str:
    try:
        return _socket.if_indextoname(index)
    except OSError:  # it went away
        return str(index)


if __name__ == "__main__":
    script()

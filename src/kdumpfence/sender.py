# SPDX-License-Identifier: GPL-2.0-or-later
"""fence_kdump_send: tells the other nodes "I am dumping", from the crash kernel.

The Python front end. When to send is decided in `schedule`; this file only moves
things between the name service, the schedule and one socket for each IP family.
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
from kdumpfence.addresses import FAMILIES, Address, LookUpError, Resolver, literal
from kdumpfence.options import (
    SENDER_OPTIONS,
    OptionError,
    SenderOptions,
    UsageError,
    sender_from_argv,
    usage,
)
from kdumpfence.report import Report, write
from kdumpfence.schedule import Destination, Schedule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "fence_kdump_send"

_IP_RECVERR = 11
_IPV6_RECVERR = 25

#: With a count, what the kernel still holds at the end is waited for, so many seconds:
#: a neighbour that does not answer is given up by the kernel after three.
LINGER = 5.0

#: Seconds that one poll takes at most.
SLICE = 0.5

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
            report.error(complaint)
        if options.action == "help":
            write(1, usage(PROGRAM, " NODE...", SENDER_OPTIONS).encode())
            return 0
        if options.action == "version":
            core = f"(kdumpfence, {wire.IMPLEMENTATION} core)"
            write(1, f"{PROGRAM} {__version__} {core}\n".encode())
            return 0
        sender = _Sender(options, report)
        try:
            return sender.run()
        finally:
            sender.close()
    except OptionError as error:
        report.error(str(error))
        if isinstance(error, UsageError):
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


def _where(destination: Destination) -> str:
    return f"node '{','.join(destination.nodes)}' ({destination.key})"


class _Sender:
    def __init__(self, options: SenderOptions, report: Report) -> None:
        self.options = options
        self.report = report
        self.family = FAMILIES[options.family]
        now = time.monotonic()
        self.schedule = Schedule(options.nodes, options.count, options.interval, now)
        self.channels: dict[int, _Channel] = {}
        self.complained: set[object] = set()
        names = []
        for name in options.nodes:
            try:
                addresses = literal(name, self.family)
            except LookUpError as error:
                self._unresolved(name, error)
                continue
            if addresses is None:
                names.append(name)
            else:
                self._resolved(name, addresses)
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

    def _unresolved(self, name: str, error: LookUpError) -> None:
        again = "" if error.permanent else "; will try again"
        self._complain(name, f"node '{name}': {error}{again}")
        if error.permanent:
            self.schedule.give_up(name)

    def _resolved(self, name: str, addresses: list[Address]) -> None:
        for address in addresses:
            self.schedule.add(address, name, time.monotonic())
            self.report.debug(f"'{name}' is {address}", level=1)

    def _names(self) -> None:
        for name, answer in self.resolver.step():
            if isinstance(answer, LookUpError):
                self._unresolved(name, answer)
            else:
                self._resolved(name, answer)

    def _send(self) -> None:
        due = self.schedule.due(time.monotonic())
        for family in {d.key.family for d in due if isinstance(d.key, Address)}:
            batch = [d for d in due if isinstance(d.key, Address) and d.key.family == family]
            try:
                if family not in self.channels:
                    self.channels[family] = _Channel(family)
                outcomes = self.channels[family].send(
                    [d.key for d in batch if isinstance(d.key, Address)], self.options.ipport
                )
            except OSError as error:  # no socket of this family to be had, for now
                outcomes = [error.errno or errno.EIO] * len(batch)
            for destination, code in zip(batch, outcomes):
                self._outcome(destination, code)

    def _outcome(self, destination: Destination, code: int) -> None:
        now = time.monotonic()
        where = _where(destination)
        if code == 0:
            self.schedule.left(destination, now)
            self.report.debug(f"message sent to {where}, number {destination.left}", level=1)
        else:
            self.schedule.failed(destination, now)
            self._complain((destination.key, code), f"{where}: {os.strerror(code)}; will try again")

    def _undelivered(self) -> None:
        for channel in self.channels.values():
            for address, code in channel.undelivered():
                destination = self.schedule.lost(address, time.monotonic())
                if destination is not None:
                    self._complain(
                        (address, code),
                        f"{_where(destination)}: {os.strerror(code)}; will try again",
                    )

    def _wait(self, until: float | None) -> None:
        poller = select.poll()
        poller.register(self.resolver.fd, select.POLLIN)
        for channel in self.channels.values():
            poller.register(channel.sock.fileno(), 0)  # POLLERR comes unasked
        # Never long: a signal that came just before, or to a look-up's thread, does not
        # end a poll, and a stopped process sleeps on for what was left of it.
        left = SLICE if until is None else min(SLICE, max(0.0, until - time.monotonic()))
        try:
            poller.poll(left * 1000)
        except OSError:  # out of memory, say: it goes on all the same
            time.sleep(0.05)

    def run(self) -> int:
        linger_ends: float | None = None
        while True:
            self._names()
            self._send()
            self._undelivered()
            now = time.monotonic()
            if self.schedule.finished(now):
                # Done if all that the kernel took is on its way and none of it came back.
                if linger_ends is None:
                    linger_ends = now + LINGER
                held = any(c.transmitter.pending for c in self.channels.values())
                if now >= linger_ends or not held:
                    self._undelivered()
                    if self.schedule.finished(now):
                        return self._result()
                else:
                    self._wait(min(now + 0.01, linger_ends))
                continue
            linger_ends = None
            times = [self.schedule.next_due(now), self.resolver.next_due]
            self._wait(min((t for t in times if t is not None), default=None))

    def _result(self) -> int:
        reached = self.schedule.reached
        for node in self.options.nodes:
            if node not in reached:
                self.report.error(f"node '{node}' was never reached")
        return 0 if reached else 1


if __name__ == "__main__":
    script()

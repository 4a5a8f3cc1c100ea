# SPDX-License-Identifier: LGPL-2.1-or-later
"""What goes out now, and what became of it: between the schedule and the sockets.

When to send is decided by `wire.Schedule`. The kernel takes a message long before it leaves: it
may have to ask for a neighbour, and tells later that nobody answered. What may not be in this
file: names, and waiting for what comes next.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import time

from kdumpfence import sockets, wire
from kdumpfence.addresses import Address
from kdumpfence.sender.sockets import Channel, Lane

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kdumpfence.log import Report
    from kdumpfence.sender.options import SenderOptions
    from kdumpfence.sender.status import Status

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


class Delivery:
    """The messages to all addresses of all nodes."""

    def __init__(self, options: SenderOptions, status: Status, report: Report) -> None:
        self.options = options
        self.status = status
        self.report = report
        self.started = time.monotonic_ns()
        self.schedule = wire.Schedule(
            len(options.nodes), options.count, options.interval * 1_000_000_000, self.started
        )
        #: The destinations of the schedule, and their numbers in it.
        self.addresses: list[Address] = []
        self._numbers: dict[Address, int] = {}
        self._channels: dict[int, Channel] = {}
        #: The messages that are under way, and where.
        self._under_way: dict[int, Lane] = {}
        self._complained: set[object] = set()
        #: What all get that are due at the same time.
        self._message = b""

    def close(self) -> None:
        """Send no more."""
        for lane in self.lanes():
            lane.sock.close()

    def lanes(self) -> list[Lane]:
        """All sockets."""
        return [lane for channel in self._channels.values() for lane in channel.lanes]

    @property
    def held(self) -> int:
        """Bytes of messages that wait for neighbours."""
        return sum(lane.transmitter.pending for lane in self.lanes())

    def complain(self, about: object, text: str) -> None:
        """Say it once; it is tried again for as long as the program runs."""
        if about not in self._complained:
            self._complained.add(about)
            self.report.error(text)

    def where(self, destination: int) -> str:
        """How a line about this destination begins."""
        nodes = ",".join(self.options.nodes[node] for node in self.schedule.nodes(destination))
        return f"node '{nodes}' ({self.addresses[destination]})"

    def knows(self, address: Address) -> bool:
        """Whether messages go there."""
        return address in self._numbers

    def add(self, node: int, address: Address) -> None:
        """Send to this address of the node, too."""
        known = self._numbers.get(address)
        if known is not None:
            self.schedule.share(known, node)
        else:
            self._numbers[address] = self.schedule.add(node, time.monotonic_ns())
            self.addresses.append(address)

    def send(self) -> None:
        """Hand what is due to the kernel."""
        due = self.schedule.due(time.monotonic_ns())
        if due:
            self._message = self.status.message()
        for family in (_socket.AF_INET, _socket.AF_INET6):
            batch = [number for number in due if self.addresses[number].family == family]
            if not batch:
                continue
            try:
                if family not in self._channels:
                    self._channels[family] = Channel(family)
            except OSError as error:  # no socket of this family to be had, for now
                for number in batch:
                    self._cannot(number, error.errno or errno.EIO)
                continue
            channel = self._channels[family]
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
                while at + AT_A_TIME < len(ready) and self._under_way:
                    left = began + ANSWERS_NS - time.monotonic_ns()
                    if left <= 0 or not self._poll(left):
                        break
                    self.hear()

    def _pass(self, channel: Channel, numbers: list[int], told: bool) -> None:
        """Hand messages to the kernel, through as many sockets as it takes."""
        for lane in channel.ways(told):
            outcomes = lane.send(
                [self.addresses[number] for number in numbers],
                self.options.ipport,
                self._message,
                told,
            )
            now = time.monotonic_ns()
            for number, code in zip(numbers, outcomes):
                if code == 0 and told:
                    self.schedule.taken(number, now)
                    self._under_way[number] = lane
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
            name = sockets.local_host(address, self.options.ipport).partition("%")[0]
            source = Address(_socket.inet_pton(address.family, name))
        except OSError as error:  # or else nobody knows
            return error.errno if error.errno in _NO_SOURCE else 0
        useless = not any(source.packed) or (source.loopback and not address.loopback)
        # A link-local one is for the link. Elsewhere the node's own may just be on its way.
        if source.link_local and not address.link_local and self.options.count:
            useless = time.monotonic_ns() - self.started < wire.LATE_NETWORK_NS
        return errno.EADDRNOTAVAIL if useless else 0

    def _left(self, number: int) -> None:
        self._under_way.pop(number, None)
        self.schedule.left(number, time.monotonic_ns())
        if self.report.verbose:
            sent = self.schedule.sent(number)
            self.report.debug(f"message sent to {self.where(number)}, number {sent}", level=1)

    def _cannot(self, number: int, code: int) -> None:
        self.schedule.failed(number, time.monotonic_ns())
        self._say_why(number, code)

    def _lost(self, number: int, code: int) -> None:
        self._under_way.pop(number, None)
        if self.schedule.lost(number, time.monotonic_ns()):
            self._say_why(number, code)

    def _say_why(self, number: int, code: int) -> None:
        if (number, code) not in self._complained:
            why = os.strerror(code)
            self.complain((number, code), f"{self.where(number)}: {why}; will try again")

    def hear(self) -> None:
        """Take in what became of the messages that the kernel took."""
        for lane in self.lanes():
            self._settle(lane)
        now = time.monotonic_ns()
        for number in self.schedule.overdue(now):
            self._lost(number, errno.EHOSTUNREACH)
        for lane in self.lanes():
            if lane.trusting is not None and now - lane.trusting >= TRUST_NS:
                lane.trusting = None
                if lane.transmitter.pending:
                    self.schedule.doubt()

    def _settle(self, lane: Lane, just_sent: bool = False) -> None:
        """Take in the news of one lane. Where nothing waits, what did not leave never will."""
        channel = self._channels[lane.sock.family]
        empty = not lane.transmitter.pending
        for address, code in lane.news():
            number = self._numbers.get(address)
            if code == 0 and number is None:
                # It has got another destination on its way (a tunnel, a translated address).
                channel.told = False
            elif code == 0 and number in self._under_way:
                self._left(number)
            elif code and number is not None:
                self._lost(number, code)
        mine = [number for number, where in self._under_way.items() if where is lane]
        if empty and just_sent and mine:
            channel.told = False  # nobody was waited for, and yet nothing is told of them
        now = time.monotonic_ns()
        for number in mine if empty or not channel.told else ():
            if not channel.told:
                self._left(number)  # for all that is known
            elif now - (self.schedule.asked(number) or now) >= GIVES_UP_NS:
                self._lost(number, errno.EHOSTUNREACH)
            else:  # pushed out of a queue, or gone with its interface
                del self._under_way[number]
                self.schedule.failed(number, now)

    def hurry(self) -> None:
        """The network has changed: what is under way may have been dropped."""
        self.hear()
        # Exactly as many as asked for; or else as far as there is room for more.
        again = self.held == 0 if self.options.count else self.held < HELD_AT_MOST
        if again:
            self._under_way.clear()
        self.schedule.hurry(time.monotonic_ns(), again)

    def _poll(self, nanoseconds: int) -> bool:
        """Wait for news of messages."""
        poller = select.poll()
        for lane in self.lanes():
            poller.register(lane.sock.fileno(), 0)  # POLLERR comes unasked
        return bool(poller.poll(nanoseconds / 1e6))

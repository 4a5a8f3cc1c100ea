# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sends the datagrams of a storm, and keeps count.

Sockets and figures; when a datagram is due and of which kind it is, is told by pacing.py.
"""

from __future__ import annotations

import errno
import ipaddress
import random
import socket
import time
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain, cycle, islice, repeat
from typing import Any

from kdumpfence import wire
from kdumpfence.storm.pacing import NO_END, SECOND, VALID, Evenly, Greatest, Pace, Pacer, Panics
from kdumpfence.storm.payloads import FOREIGN, malformed, messages
from kdumpfence.storm.plan import Address, Hosts, Plan, StormError, exact

#: Of each kind of malformed datagrams there are so many different ones.
VARIANTS = 1024

#: A full send buffer is waited for so long; what then is left counts as failed.
PATIENCE_NS = SECOND

_IPV6_FREEBIND = 78
_RTF_LOCAL = 0x80000000
_IPV6_ROUTES = "/proc/net/ipv6_route"


def sleep(nanoseconds: int) -> None:
    """Wait for the next datagrams to be due."""
    if nanoseconds > 0:
        time.sleep(nanoseconds / SECOND)


class Storm:
    """One storm: whom it plays, what it has sent, and how that went."""

    def __init__(self, plan: Plan) -> None:
        """Prepare it. Raises StormError if datagrams cannot leave; none has then."""
        self.plan = plan
        #: What ended it early.
        self.came: Any = None
        self.failed: dict[str, Counter[int]] = {}
        #: Nanoseconds, and how much of them a processor worked for this.
        self.elapsed = self.worked = 0
        began = time.monotonic_ns()
        self.family = socket.AF_INET if plan.address.version == 4 else socket.AF_INET6
        for hosts in plan.hosts:
            self._check(hosts)
        self.sock = self._socket()
        self.transmitter = wire.Transmitter(self.sock, wire.OWN_MESSAGE)
        #: Where the destinations of each kind begin in the transmitter, and end.
        self.ranges: dict[str, range] = {}
        rng = random.Random(plan.seed)  # noqa: S311  (nothing is secret here)
        try:
            self.pacer = Pacer(self._prepare(rng), plan.most, plan.until)
        except BaseException:
            self.close()
            raise
        self.prepared_in = time.monotonic_ns() - began

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def __enter__(self) -> Storm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------- before it begins

    def _socket(self) -> socket.socket:
        sock = socket.socket(self.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        if self.family == socket.AF_INET6:
            # Without it only addresses of interfaces are taken, and none that a route makes
            # local. With it all are: so `_check` looks at the routes first.
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        return sock

    def _check(self, hosts: Hosts) -> None:
        """Raise StormError if datagrams cannot leave from there; nothing is sent."""
        if self.family == socket.AF_INET6:
            with open(_IPV6_ROUTES, encoding="ascii") as file:
                stranger = not_local(file.read(), int(hosts.first), int(hosts.last))
            if stranger is not None:
                raise _not_ours(ipaddress.IPv6Address(stranger))
        for address in (hosts.first, hosts.last):
            with self._socket() as probe:
                try:
                    probe.bind((str(address), 0))
                except OSError:
                    raise _not_ours(address) from None
                try:
                    probe.connect(self._target)
                except OSError as error:
                    raise StormError(
                        f"nothing can be sent from {address} to {self.plan.address}: "
                        f"{error.strerror}"
                    ) from None

    @property
    def _target(self) -> tuple[str, int] | tuple[str, int, int, int]:
        host, port = str(self.plan.address), self.plan.port
        return (host, port) if self.family == socket.AF_INET else (host, port, 0, self.plan.scope)

    def _prepare(self, rng: random.Random) -> Pace:
        """Make all that there is to send; when to."""
        plan = self.plan
        pace: Pace = Greatest() if plan.rate is None else Evenly(exact(plan.rate))
        order: Iterator[int] | array[int] = iter(range(plan.players.number))
        if plan.period is not None:
            shares = plan.mix.shares
            datagrams = Fraction(plan.players.number * sum(shares.values()), shares[VALID])
            pace = Evenly(datagrams * SECOND / plan.period)
            if plan.spread is not None:
                # Nodes in a random order at sorted moments: the same as each at a random one.
                order = array("I", order)
                rng.shuffle(order)
                moments = sorted(
                    int(rng.random() * plan.spread) for _ in range(plan.players.number)
                )
                pace = Panics(plan.mix, array("q", moments), plan.period)
        said = messages(plan.byteorder)
        for kind in plan.mix.shares:
            if kind == VALID:
                self._add(kind, plan.players, order, said)
            elif kind == FOREIGN:
                self._add(kind, plan.strangers, iter(range(plan.strangers.number)), said)
            else:
                some = (rng.randrange(plan.players.number) for _ in range(VARIANTS))
                made = [malformed(kind, rng.choice(said), rng) for _ in range(VARIANTS)]
                self._add(kind, plan.players, some, made)
        return pace

    def _add(
        self, kind: str, hosts: Hosts, numbers: Iterator[int] | array[int], payloads: list[bytes]
    ) -> None:
        plan, add = self.plan, self.transmitter.add
        destination = plan.address.packed
        first = len(self.transmitter)
        for number, payload in zip(numbers, cycle(payloads)):
            add(destination, plan.port, plan.scope, hosts.packed(number), payload)
        self.ranges[kind] = range(first, len(self.transmitter))

    # ---------------------------------------------------------------- while it lasts

    def run(
        self,
        wait: Callable[[int], object] = sleep,
        every_second: Callable[[int], None] | None = None,
    ) -> None:
        """Send until the end. To be called once.

        `wait` is given nanoseconds until something is due, 0 while there is more to send, and
        may come back earlier; what it returns, unless None, ends the storm and is kept in
        `came`. `every_second` is given the nanoseconds since the beginning.
        """
        pacer = self.pacer
        turns = {
            kind: chain.from_iterable(repeat(numbers)) for kind, numbers in self.ranges.items()
        }
        numbers: Iterator[int] = turns[self.plan.mix.pattern[0]]
        if len(turns) > 1:
            numbers = map(next, cycle([turns[kind] for kind in self.plan.mix.pattern]))
        tick = NO_END if every_second is None else SECOND
        worked = time.thread_time_ns()
        began = time.monotonic_ns()
        while not pacer.over(now := time.monotonic_ns() - began):
            if every_second is not None and now >= tick:
                every_second(now)
                tick = (now // SECOND + 1) * SECOND
            number = pacer.due(now)
            if number:
                pacer.hand(number, now)
                self._send(list(islice(numbers, number)))
            self.came = wait(0 if number else min(pacer.next(), tick) - now)
            if self.came is not None:
                break
        self.elapsed = time.monotonic_ns() - began
        self.worked = time.thread_time_ns() - worked

    def _send(self, which: list[int]) -> None:
        outcomes = self.transmitter.send(which, PATIENCE_NS)
        if outcomes.count(0) == len(outcomes):
            return
        kinds = list(self.ranges)
        starts = [self.ranges[kind].start for kind in kinds]
        for index, code in zip(which, outcomes):
            if code:
                kind = kinds[bisect_right(starts, index) - 1]
                self.failed.setdefault(kind, Counter())[code] += 1

    # ---------------------------------------------------------------- what it came to

    @property
    def errors(self) -> Counter[int]:
        """Datagrams that the kernel refused, by errno."""
        return sum(self.failed.values(), Counter())

    @property
    def sent(self) -> int:
        """Datagrams that the kernel took."""
        return self.pacer.handed - sum(self.errors.values())

    @property
    def missing(self) -> int:
        """Datagrams that were promised and not even tried."""
        planned = self.pacer.planned
        return 0 if planned is None else planned - self.pacer.handed

    def figures(self) -> dict[str, Any]:
        """The summary; times in seconds. kdumpfence(8) explains each."""
        plan, pacer, came = self.plan, self.pacer, self.came
        seconds = self.elapsed / SECOND
        paced = plan.rate is not None or plan.interval is not None
        return {
            "sent": self.sent,
            "seconds": seconds,
            "rate": self.sent / seconds if seconds else None,
            "kinds": {
                kind: number - sum(self.failed.get(kind, Counter()).values())
                for kind, number in plan.mix.counts(pacer.handed).items()
            },
            "failed": {
                errno.errorcode.get(code, str(code)): number
                for code, number in sorted(self.errors.items())
            },
            "missing": self.missing,
            "worked": self.worked / SECOND,
            "late": pacer.late / SECOND if paced else None,
            "together": pacer.together,
            "ended": "complete" if came is None else getattr(came, "name", str(came)),
            "nodes": plan.players.number,
            "foreigners": plan.strangers.number if FOREIGN in plan.mix.shares else 0,
            "destination": str(plan.address),
            "port": plan.port,
            "prepared": self.prepared_in / SECOND,
            "seed": plan.seed,
            "core": wire.IMPLEMENTATION,
        }


def not_local(routes: str, first: int, last: int) -> int | None:
    """The first of these IPv6 addresses that no route makes this machine's own; or None.

    `routes` is as in /proc/net/ipv6_route: destination, length of its prefix, then the
    same of a source, next hop, metric, two counters, flags, interface. The longest prefix
    counts; of two of the same length the local one, which stands in the table asked first.
    """
    known: list[tuple[int, bool, int, int]] = []
    for line in routes.splitlines():
        fields = line.split()
        start, length = int(fields[0], 16), int(fields[1], 16)
        end = start + (1 << (128 - length))
        if start <= last and first < end:
            known.append((length, bool(int(fields[8], 16) & _RTF_LOCAL), start, end))
    # What a route says holds up to where another one begins or ends.
    for at in sorted({first, *(edge for one in known for edge in one[2:] if first < edge <= last)}):
        fitting = [one for one in known if one[2] <= at < one[3]]
        if not fitting or not max(fitting)[1]:
            return at
    return None


def _not_ours(address: Address) -> StormError:
    return StormError(f"source {address} is not an address of this machine; a storm uses no others")

# SPDX-License-Identifier: GPL-2.0-or-later
"""kdumpfence storm: plays any number of nodes that dump, to try what listens to them.

Options, payloads, sockets and figures; when a datagram is due and of which kind it is, is
told by `kdumpfence.storm.pacing`. Every source address is one that this machine has: the kernel
refuses others, and no option here keeps it from that.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import ipaddress
import json
import os
import random
import re
import signal
import socket
import sys
import time
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain, cycle, islice, repeat
from typing import Any, Union

from kdumpfence import wire
from kdumpfence.addresses import LookUpError, cleaned, is_address, literal
from kdumpfence.log import write
from kdumpfence.storm.pacing import (
    MOST_SHARES,
    NO_END,
    SECOND,
    VALID,
    Evenly,
    Greatest,
    Mix,
    Pace,
    Pacer,
    Panics,
)

FOREIGN = "foreign"
KINDS = (VALID, FOREIGN, "empty", "short", "magic", "version", "random", "long")
BYTEORDERS = ("own", "little", "big", "both")

NODES = 100
FOREIGNERS = 1000
#: Of each kind of malformed datagrams there are so many different ones.
VARIANTS = 1024
MOST_RATE = 10**9
MOST_SECONDS = 10**6

#: Of IPv4 networks that nobody has to set up. The strangers are far behind the nodes.
LOOPBACK = "127.0.0.0/8"
LOOPBACK_FOREIGN = "127.128.0.0/9"

#: A full send buffer is waited for so long; what then is left counts as failed.
PATIENCE_NS = SECOND

#: Nanoseconds until a signal is noticed while nothing is due.
_SLICE = SECOND // 10

_IPV6_FREEBIND = 78
_RTF_LOCAL = 0x80000000
_IPV6_ROUTES = "/proc/net/ipv6_route"

_Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
_Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class StormError(Exception):
    """Why it is not done, in one line."""


class NotPossible(StormError):
    """What was given, and what is allowed, in one line."""


# ------------------------------------------------------------------------ options


@dataclasses.dataclass(frozen=True)
class Hosts:
    """So many addresses, one after the other."""

    first: _Address
    number: int

    @property
    def last(self) -> _Address:
        """The last of them."""
        return self.first + (self.number - 1)

    def packed(self, number: int) -> bytes:
        """The address with that number, in network order."""
        return (int(self.first) + number).to_bytes(self.first.max_prefixlen // 8, "big")

    def __str__(self) -> str:
        return f"{self.first} to {self.last}" if self.number > 1 else str(self.first)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be sent; see `plan`."""

    destination: _Address
    scope: int
    port: int
    nodes: Hosts
    foreigners: Hosts
    mix: Mix
    byteorder: str
    #: Datagrams a second; None: the greatest, or by `interval`.
    rate: Fraction | None
    #: Nanoseconds; None: no such rhythm.
    interval: int | None
    within: int | None
    #: The end: a time in nanoseconds, a number of datagrams.
    until: int | None
    most: int
    seed: int
    live: bool
    as_json: bool

    @property
    def hosts(self) -> list[Hosts]:
        """Those that the mix needs."""
        found = [self.foreigners] if FOREIGN in self.mix.shares else []
        return [self.nodes, *found] if set(self.mix.shares) - {FOREIGN} else found


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `kdumpfence storm`."""
    add = parser.add_argument
    add("destination", nargs="?", default="127.0.0.1", metavar="ADDRESS",
        help="to whom: 127.0.0.1 by default")  # fmt: skip
    add("--port", type=_whole("a port", 1, 65535), default=wire.PORT, metavar="N",
        help=f"UDP port, by default {wire.PORT}")  # fmt: skip
    add("--not-loopback", action="store_true",
        help="send to other machines too. DANGER: a cluster there can take this machine for a node "
             "that is dumping, and start its services elsewhere while they run here")  # fmt: skip
    add("--from", dest="network", metavar="NETWORK",
        help=f"the nodes' addresses, all this machine's own; by default {LOOPBACK}")  # fmt: skip
    add("--nodes", type=_whole("a number of nodes", 1, 1 << 24), metavar="N",
        help=f"how many, from the network's first address on; by default {NODES}")  # fmt: skip
    add("--foreign-from", dest="foreign_network", metavar="NETWORK",
        help=f"the addresses of strangers; by default {LOOPBACK_FOREIGN}")  # fmt: skip
    add("--foreigners", type=_whole("a number of strangers", 1, 1 << 24), metavar="N",
        help=f"how many; by default {FOREIGNERS}")  # fmt: skip
    add("--mix", type=_mix, default=Mix({VALID: 1}), metavar="KIND=SHARE,...",
        help=f"kinds: {', '.join(KINDS)}; by default {VALID} alone")  # fmt: skip
    add("--byteorder", choices=BYTEORDERS, default="own",
        help="of the nodes; both: of every other one; by default this machine's own")  # fmt: skip
    add("--rate", type=_decimal("datagrams a second", MOST_RATE), metavar="N",
        help="datagrams a second; by default as many as can be sent")  # fmt: skip
    add("--interval", type=_decimal("seconds", MOST_SECONDS), metavar="SECONDS",
        help="each node repeats its message after so long")  # fmt: skip
    add("--panic-within", dest="within", type=_decimal("seconds", MOST_SECONDS, least=0),
        metavar="SECONDS", help="each node begins at a random moment within so long")  # fmt: skip
    add("--duration", type=_decimal("seconds", MOST_SECONDS), metavar="SECONDS",
        help="end after so long")  # fmt: skip
    add("--count", type=_whole("a number of datagrams", 1, NO_END), metavar="N",
        help="end after so many datagrams")  # fmt: skip
    add("--rounds", type=_whole("a number of rounds", 1, NO_END), metavar="N",
        help="end when each node has sent so many messages")  # fmt: skip
    add("--seed", type=_whole("a seed", 0, NO_END), metavar="N",
        help="the same seed: the same datagrams in the same order")  # fmt: skip
    add("--live", action="store_true", help="figures on stderr every second, terminal or not")
    add("--json", dest="as_json", action="store_true", help="the summary as JSON")


def _whole(what: str, least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,20}", text) and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r}: not {what} ({least} to {most})")

    return parse


def _decimal(what: str, most: int, least: int | None = None) -> Callable[[str], Fraction]:
    allowed = f"more than 0, at most {most}" if least is None else f"{least} to {most}"

    def parse(text: str) -> Fraction:
        if re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,9})?", text):
            number = Fraction(text)
            if number <= most and (number > 0 if least is None else number >= least):
                return number
        raise argparse.ArgumentTypeError(f"{text!r}: not {what} ({allowed}, nine decimals)")

    return parse


def _mix(text: str) -> Mix:
    shares: dict[str, int] = {}
    for part in text.split(","):
        kind, equals, share = part.strip().partition("=")
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"{kind!r}: not among {', '.join(KINDS)}")
        if kind in shares:
            raise argparse.ArgumentTypeError(f"{kind!r} is given twice")
        shares[kind] = _whole("a share", 0, MOST_SHARES)(share) if equals else 1
    try:
        return Mix(shares)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: the shares have to come to 1 to {MOST_SHARES}"
        ) from None


def plan(given: argparse.Namespace) -> Plan:
    """What was asked for, checked as far as that goes without a socket. Raises StormError."""
    destination, scope = _destination(given.destination, given.not_loopback)
    nodes = _hosts("--from", given.network, LOOPBACK, destination, given.nodes, NODES)
    foreigners = nodes
    if FOREIGN in given.mix.shares:
        foreigners = _hosts(
            "--foreign-from",
            given.foreign_network,
            LOOPBACK_FOREIGN,
            destination,
            given.foreigners,
            FOREIGNERS,
        )
        if foreigners.first <= nodes.last and nodes.first <= foreigners.last:  # type: ignore[operator]
            raise NotPossible(
                f"--foreign-from: {foreigners} are among the nodes, {nodes}: take another network"
            )
    mix: Mix = given.mix
    if VALID not in mix.shares:
        for option in ("rounds", "interval"):
            if getattr(given, option) is not None:
                raise NotPossible(f"--{option}: nobody sends valid messages in this --mix")
    if FOREIGN not in mix.shares:
        for option, value in (
            ("foreigners", given.foreigners),
            ("foreign-from", given.foreign_network),
        ):
            if value is not None:
                raise NotPossible(f"--{option}: there is no {FOREIGN!r} in this --mix")
    if given.within is not None and given.interval is None:
        raise NotPossible("--panic-within: only together with --interval")
    if given.interval is not None and given.rate is not None:
        raise NotPossible("--rate and --interval: only one of them")
    if given.within is not None and given.within > given.interval:
        raise NotPossible("--panic-within: longer than --interval")
    most = NO_END if given.count is None else int(given.count)
    rounds = given.rounds
    ends = (given.count, rounds, given.duration)
    if ends == (None, None, None) and given.rate is None and given.interval is None:
        if VALID not in mix.shares:
            raise NotPossible("no end: give --duration, --count or --rate")
        rounds = 1
    if rounds is not None:
        most = min(most, mix.place(nodes.number * rounds), NO_END)
    return Plan(
        destination=destination,
        scope=scope,
        port=given.port,
        nodes=nodes,
        foreigners=foreigners,
        mix=mix,
        byteorder=given.byteorder,
        rate=given.rate,
        interval=_nanoseconds(given.interval),
        within=_nanoseconds(given.within),
        until=_nanoseconds(given.duration),
        most=most,
        seed=random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed,
        live=given.live or (sys.stderr is not None and sys.stderr.isatty()),
        as_json=given.as_json,
    )


def _nanoseconds(seconds: Fraction | None) -> int | None:
    return None if seconds is None else int(seconds * SECOND)


def _destination(text: str, anywhere: bool) -> tuple[_Address, int]:
    """The address and, of a link-local one, the index of its interface."""
    written = cleaned(text)
    if not is_address(written):
        raise NotPossible(f"{text!r}: not an IPv4 or IPv6 address")
    try:
        found = literal(written, socket.AF_UNSPEC)
    except LookUpError as error:
        raise NotPossible(f"{text!r}: {error}") from None
    if not found:
        raise NotPossible(f"{text!r}: no such interface")
    address, scope = ipaddress.ip_address(found[0].packed), found[0].scope
    if not address.is_loopback and not anywhere:
        raise StormError(
            f"{address} is not a loopback address: a cluster that hears this can take this "
            "machine for one that is dumping, and start its services elsewhere; --not-loopback "
            "sends all the same"
        )
    return address, scope


def _hosts(
    option: str,
    text: str | None,
    default: str,
    destination: _Address,
    number: int | None,
    usual: int,
) -> Hosts:
    """The first addresses of a network, without those that no host has."""
    if text is None:
        if destination.version == 6 and option != "--from":
            raise NotPossible(f"{option}: has to be given with an IPv6 address")
        text = default if destination.version == 4 else "::1/128"
    try:
        network: _Network = ipaddress.ip_network(text)
    except ValueError:
        raise NotPossible(f"{option} {text!r}: not a network, like {default}") from None
    if network.version != destination.version:
        raise NotPossible(f"{option} {text!r}: not of the family of {destination}")
    spared = 0
    if network.prefixlen < network.max_prefixlen - 1:
        spared = 2 if network.version == 4 else 1
    room = network.num_addresses - spared
    wanted = min(usual, room) if number is None else number
    if wanted > room:
        raise NotPossible(f"{option} {text}: has {room} addresses, and {wanted} are wanted")
    return Hosts(network.network_address + (1 if spared else 0), wanted)


# ----------------------------------------------------------------------- payloads


def messages(byteorder: str) -> list[bytes]:
    """What valid messages look like; nodes have them in turn."""
    if byteorder == "own":
        return [wire.OWN_MESSAGE]
    chosen = ("little", "big") if byteorder == "both" else (byteorder,)
    return [wire.encode(one) for one in chosen]


def malformed(kind: str, message: bytes, rng: random.Random) -> bytes:
    """A datagram of that kind, made from a valid message."""
    if kind == "empty":
        return b""
    if kind == "short":
        return message[: rng.randint(1, len(message) - 1)]
    if kind == "long":
        return message + rng.getrandbits(8 * 1400).to_bytes(1400, "big")
    while True:
        if kind == "magic":
            made = rng.getrandbits(32).to_bytes(4, "big") + message[4:]
        elif kind == "version":
            made = message[:4] + rng.getrandbits(32).to_bytes(4, "big")
        else:
            size = rng.randint(1, 512)
            made = rng.getrandbits(8 * size).to_bytes(size, "big")
        if made[:8] not in (wire.encode("little"), wire.encode("big")):
            return made


# ------------------------------------------------------------------------ sending


class _Signals:
    """Holds back the signals that end a program, and hands them over when asked.

    So none comes in the middle of a batch, and every datagram is in the summary. One that
    the parent process had ignored (nohup) stays ignored.
    """

    def __init__(self) -> None:
        ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._held = {one for one in ending if signal.getsignal(one) != signal.SIG_IGN}
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, self._held)

    def release(self) -> None:
        """As it was before."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def wait(self, nanoseconds: int) -> signal.Signals | None:
        """Sleep for so long, but no longer than a slice; the signal that came, if one did."""
        if nanoseconds > 0:
            time.sleep(min(nanoseconds, _SLICE) / SECOND)
        # Not with a time-out of its own: behind a SIGCONT, Python takes what it finds in an
        # unset variable for the signal's number.
        info = signal.sigtimedwait(self._held, 0)
        return None if info is None else signal.Signals(info.si_signo)


class _Storm:
    """One storm: whom it plays, what it has sent, and how that went."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        #: The signal that ended it.
        self.came: signal.Signals | None = None
        self.failed: dict[str, Counter[int]] = {}
        #: Nanoseconds, and how much of them a processor worked for this.
        self.elapsed = self.worked = 0
        began = time.monotonic_ns()
        self.family = socket.AF_INET if plan.destination.version == 4 else socket.AF_INET6
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
                        f"nothing can be sent from {address} to {self.plan.destination}: "
                        f"{error.strerror}"
                    ) from None

    @property
    def _target(self) -> tuple[str, int] | tuple[str, int, int, int]:
        host, port = str(self.plan.destination), self.plan.port
        return (host, port) if self.family == socket.AF_INET else (host, port, 0, self.plan.scope)

    def _prepare(self, rng: random.Random) -> Pace:
        """Make all that there is to send; when to."""
        plan = self.plan
        pace: Pace = Greatest() if plan.rate is None else Evenly(plan.rate)
        order: Iterator[int] | array[int] = iter(range(plan.nodes.number))
        if plan.interval is not None:
            shares = plan.mix.shares
            datagrams = Fraction(plan.nodes.number * sum(shares.values()), shares[VALID])
            pace = Evenly(datagrams * SECOND / plan.interval)
            if plan.within is not None:
                # Nodes in a random order at sorted moments: the same as each at a random one.
                order = array("I", order)
                rng.shuffle(order)
                moments = sorted(int(rng.random() * plan.within) for _ in range(plan.nodes.number))
                pace = Panics(plan.mix, array("q", moments), plan.interval)
        said = messages(plan.byteorder)
        for kind in plan.mix.shares:
            if kind == VALID:
                self._add(kind, plan.nodes, order, said)
            elif kind == FOREIGN:
                self._add(kind, plan.foreigners, iter(range(plan.foreigners.number)), said)
            else:
                some = (rng.randrange(plan.nodes.number) for _ in range(VARIANTS))
                made = [malformed(kind, rng.choice(said), rng) for _ in range(VARIANTS)]
                self._add(kind, plan.nodes, some, made)
        return pace

    def _add(
        self, kind: str, hosts: Hosts, numbers: Iterator[int] | array[int], payloads: list[bytes]
    ) -> None:
        plan, add = self.plan, self.transmitter.add
        destination = plan.destination.packed
        first = len(self.transmitter)
        for number, payload in zip(numbers, cycle(payloads)):
            add(destination, plan.port, plan.scope, hosts.packed(number), payload)
        self.ranges[kind] = range(first, len(self.transmitter))

    # ---------------------------------------------------------------- while it lasts

    def run(self, signals: _Signals) -> None:
        """Send until the end, or a signal."""
        pacer, plan = self.pacer, self.plan
        turns = {
            kind: chain.from_iterable(repeat(numbers)) for kind, numbers in self.ranges.items()
        }
        numbers: Iterator[int] = turns[plan.mix.pattern[0]]
        if len(turns) > 1:
            numbers = map(next, cycle([turns[kind] for kind in plan.mix.pattern]))
        worked = time.process_time_ns()
        began = time.monotonic_ns()
        shown = [SECOND if plan.live else NO_END, 0]
        while not pacer.over(now := time.monotonic_ns() - began):
            if now >= shown[0]:
                self._show(now, shown)
            number = pacer.due(now)
            if number:
                pacer.hand(number, now)
                self._send(list(islice(numbers, number)))
                wait = 0
            else:
                wait = min(pacer.next(), shown[0]) - now
            self.came = signals.wait(wait)
            if self.came is not None:
                break
        self.elapsed = time.monotonic_ns() - began
        self.worked = time.process_time_ns() - worked

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

    def _show(self, now: int, shown: list[int]) -> None:
        """A line on stderr; it is lost if nobody reads there."""
        sent = self.sent
        rate = (sent - shown[1]) * SECOND / (now - (shown[0] - SECOND))
        line = f"{now // SECOND} s: {sent} sent, {rate:.0f} a second{_errors(self.errors)}\n"
        write(2, line.encode())
        shown[:] = (now // SECOND + 1) * SECOND, sent

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

    @property
    def status(self) -> int:
        """The exit status."""
        came = self.came
        if came is not None and not (self.plan.most == NO_END and self.plan.until is None):
            return 128 + came
        return 1 if self.errors or (self.missing and came is None) else 0

    def figures(self) -> dict[str, Any]:
        """The summary."""
        plan, pacer, came = self.plan, self.pacer, self.came
        seconds = self.elapsed / SECOND
        paced = plan.rate is not None or plan.interval is not None
        handed = plan.mix.counts(pacer.handed)
        return {
            "sent": self.sent,
            "seconds": seconds,
            "rate": self.sent / seconds if seconds else None,
            "kinds": {
                kind: number - sum(self.failed.get(kind, Counter()).values())
                for kind, number in handed.items()
            },
            "failed": {_name(code): number for code, number in sorted(self.errors.items())},
            "missing": self.missing,
            "worked": self.worked / SECOND,
            "late": pacer.late / SECOND if paced else None,
            "together": pacer.together,
            "ended": "complete" if came is None else came.name,
            "nodes": plan.nodes.number,
            "foreigners": plan.foreigners.number if FOREIGN in plan.mix.shares else 0,
            "destination": str(plan.destination),
            "port": plan.port,
            "prepared": self.prepared_in / SECOND,
            "seed": plan.seed,
            "core": wire.IMPLEMENTATION,
        }

    def summary(self) -> str:
        """The same in words."""
        told = self.figures()
        lines = [f"datagrams sent: {told['sent']}, in {told['seconds']:.3f} s"]
        if told["rate"] is not None:
            lines[0] += f", {told['rate']:.0f} a second"
        lines.append(", ".join(f"{number} {kind}" for kind, number in told["kinds"].items()))
        lines.append(f"from {' and '.join(map(str, self.plan.hosts))}, seed {told['seed']}")
        if told["late"] is not None:
            lines.append(
                f"at most {told['late'] * 1000:.3f} ms late, and {told['together']} at a time"
            )
        if self.errors:
            lines.append("not sent" + _errors(self.errors))
        if self.missing:
            lines.append(f"not sent: {self.missing} for which there was no time")
        if self.came is not None:
            lines.append(f"ended by {self.came.name}")
        return "\n".join(lines)


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


def _not_ours(address: _Address) -> StormError:
    return StormError(
        f"source {address}: not an address of this machine, and others' are never used"
    )


def _name(code: int) -> str:
    return errno.errorcode.get(code, str(code))


def _errors(errors: Counter[int]) -> str:
    """What failed, as in ": 12 EINVAL (Invalid argument), ...", or nothing."""
    told = [f"{number} {_name(code)} ({os.strerror(code)})" for code, number in errors.items()]
    return f"; failed: {', '.join(told)}" if told else ""


def run(given: argparse.Namespace) -> int:
    """Do what was asked for; the exit status. Raises StormError."""
    wanted = plan(given)
    try:
        storm = _Storm(wanted)
    except MemoryError:
        raise StormError(f"out of memory with {wanted.nodes.number} nodes") from None
    signals = _Signals()
    try:
        storm.run(signals)
        print(json.dumps(storm.figures()) if wanted.as_json else storm.summary(), flush=True)
        return storm.status
    finally:
        signals.release()
        storm.close()

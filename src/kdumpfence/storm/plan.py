# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a storm is asked for, checked as far as that goes without a socket.

Complaints name the options of `kdumpfence storm`; the arguments here have the same names.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import random
import socket
from fractions import Fraction
from typing import Union

from kdumpfence import wire
from kdumpfence.addresses import LookUpError, cleaned, is_address, literal
from kdumpfence.storm.pacing import NO_END, SECOND, VALID, Mix
from kdumpfence.storm.payloads import FOREIGN

NODES = 100
FOREIGNERS = 1000

#: Of IPv4 networks that nobody has to set up. The strangers are far behind the nodes.
LOOPBACK = "127.0.0.0/8"
LOOPBACK_FOREIGN = "127.128.0.0/9"

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Number = Union[Fraction, float]


class StormError(Exception):
    """Why there is no storm, in one line."""


class NotPossible(StormError):
    """What was given, and what is allowed, in one line."""


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Consecutive addresses."""

    first: Address
    number: int

    @property
    def last(self) -> Address:
        """The last of them."""
        return self.first + (self.number - 1)

    def packed(self, number: int) -> bytes:
        """The address with that number, in network order."""
        return (int(self.first) + number).to_bytes(self.first.max_prefixlen // 8, "big")

    def __str__(self) -> str:
        return f"{self.first} to {self.last}" if self.number > 1 else str(self.first)


@dataclasses.dataclass
class Plan:
    """What is to be sent; kdumpfence(8) explains each field as an option. Times in seconds."""

    destination: str = "127.0.0.1"
    port: int = wire.PORT
    not_loopback: bool = False
    network: str | None = None
    nodes: int | None = None
    foreign_network: str | None = None
    foreigners: int | None = None
    mix: Mix = Mix({VALID: 1})  # noqa: RUF009  (nobody changes one)
    byteorder: str = "own"
    rate: Number | None = None
    interval: Number | None = None
    within: Number | None = None
    duration: Number | None = None
    count: int | None = None
    rounds: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Work out the rest: addresses, nanoseconds, and the end. Raises StormError."""
        self.address, self.scope = _destination(self.destination, self.not_loopback)
        self.players = _hosts("--from", self.network, LOOPBACK, self.address, self.nodes, NODES)
        self.strangers = self.players
        self._check_strangers()
        if VALID not in self.mix.shares:
            for option, value in (("rounds", self.rounds), ("interval", self.interval)):
                if value is not None:
                    raise NotPossible(f"--{option}: no node sends valid messages in this --mix")
        if self.interval is not None and self.rate is not None:
            raise NotPossible("--rate and --interval: only one of them")
        if self.within is not None:
            if self.interval is None:
                raise NotPossible("--panic-within: needs --interval")
            if self.within > self.interval:
                raise NotPossible("--panic-within: longer than --interval")
        rounds = self.rounds
        if self.count is rounds is self.duration is self.rate is self.interval is None:
            if VALID not in self.mix.shares:
                raise NotPossible("no end: give --duration, --count or --rate")
            rounds = 1
        #: Datagrams at most, and nanoseconds until the end.
        self.most = NO_END if self.count is None else self.count
        if rounds is not None:
            self.most = min(self.most, self.mix.place(self.players.number * rounds), NO_END)
        self.until = _nanoseconds(self.duration)
        #: Of the nodes' rhythm, in nanoseconds.
        self.period, self.spread = _nanoseconds(self.interval), _nanoseconds(self.within)
        if self.seed is None:
            self.seed = random.SystemRandom().randrange(1 << 32)

    def _check_strangers(self) -> None:
        if FOREIGN not in self.mix.shares:
            for option, given in (
                ("foreigners", self.foreigners),
                ("foreign-from", self.foreign_network),
            ):
                if given is not None:
                    raise NotPossible(f"--{option}: there is no {FOREIGN!r} in this --mix")
            return
        nodes, strangers = (
            self.players,
            _hosts(
                "--foreign-from",
                self.foreign_network,
                LOOPBACK_FOREIGN,
                self.address,
                self.foreigners,
                FOREIGNERS,
            ),
        )
        if strangers.first <= nodes.last and nodes.first <= strangers.last:  # type: ignore[operator]
            raise NotPossible(
                f"--foreign-from: {strangers} are among the nodes, {nodes}: take another network"
            )
        self.strangers = strangers

    @property
    def hosts(self) -> list[Hosts]:
        """Those that the mix needs."""
        found = [self.strangers] if FOREIGN in self.mix.shares else []
        return [self.players, *found] if set(self.mix.shares) - {FOREIGN} else found


def exact(number: Number) -> Fraction:
    """The number as it is written: 0.1 is a tenth."""
    return Fraction(str(number))


def _nanoseconds(seconds: Number | None) -> int | None:
    return None if seconds is None else int(exact(seconds) * SECOND)


def _destination(text: str, anywhere: bool) -> tuple[Address, int]:
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
    destination: Address,
    number: int | None,
    usual: int,
) -> Hosts:
    """The first addresses of a network, without those that no host has."""
    if text is None:
        if destination.version == 6 and option != "--from":
            raise NotPossible(f"{option}: required with an IPv6 address")
        text = default if destination.version == 4 else "::1/128"
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise NotPossible(f"{option} {text!r}: not a network such as {default}") from None
    if network.version != destination.version:
        raise NotPossible(f"{option} {text!r}: not of the family of {destination}")
    spared = 0
    if network.prefixlen < network.max_prefixlen - 1:
        spared = 2 if network.version == 4 else 1
    room = network.num_addresses - spared
    wanted = min(usual, room) if number is None else number
    if wanted > room:
        raise NotPossible(f"{option} {text}: has only {room} addresses; {wanted} needed")
    return Hosts(network.network_address + (1 if spared else 0), wanted)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which node has which addresses, and when its names are to be looked up (again).

A plain object without sockets, threads, name service or clock: it is told of nodes and of
the name service's answers, and keeps the core's table of sources in step with them.

An address that two nodes have proves nothing about either of them: a fencing that is
confirmed for the wrong node costs data. It is believed for none, until only one has it.
"""

from __future__ import annotations

import heapq
import ipaddress
from collections.abc import Callable, Iterable, Iterator
from typing import Union

from kdumpfence.addresses import Address, LookUpError, cleaned, literal, split
from kdumpfence.wire import Signed, Sources, is_packet_name

#: Seconds until a name that has no address yet is asked for again: doubled from the first
#: value to the last.
RETRY_FIRST = 0.2
RETRY_LAST = 10.0

#: Seconds after which a name that has addresses is asked for again, ...
REFRESH = 300.0
#: ... but no more than one in so many seconds, however many names there are.
REFRESH_GAP = 0.05

#: The number of all nodes that networks admit; others have numbers from 1 up.
ADMITTED = 0

#: What the name of a node has to be that signs.
NAME_RULE = "a node that signs is named by 1 to 64 ASCII characters without blanks"

#: An address as a key: packed, scope.
Key = tuple[bytes, int]

#: How users give one, or a host name.
AnyAddress = Union[str, ipaddress.IPv4Address, ipaddress.IPv6Address]


def as_text(given: AnyAddress) -> str:
    """An address or name as it is written. TypeError if it is neither."""
    if isinstance(given, str):
        return given
    if isinstance(given, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        return str(given)
    raise TypeError(f"address {given!r}: expected a string or an address of ipaddress")


def address_in(name: str) -> Key | None:
    """The address that a node's name is; None if it is none. Never blocks."""
    if ":" not in name and not name.replace(".", "").isdigit():
        return None  # at once, for most names of a hundred thousand nodes
    try:
        found = literal(cleaned(name), 0)
    except LookUpError:
        return None
    return (found[0].packed, found[0].scope) if found else None


#: Addresses and host names of a node; of a link-local one what is known of it already.
Parsed = tuple[tuple[Key, ...], dict[str, list[Key]]]


class _Node:
    __slots__ = ("claims", "hosts", "literals", "name", "number")

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        # Tuples: there may be a hundred thousand of these.
        self.literals: tuple[Key, ...] = ()
        self.hosts: tuple[str, ...] = ()
        self.claims: tuple[Key, ...] = ()


class _Host:
    """A name of the name service."""

    __slots__ = ("addresses", "delay", "due", "nodes", "outdated")

    def __init__(self, due: float) -> None:
        self.nodes: set[int] = set()
        self.addresses: list[Key] = []
        self.due: float | None = due  # None: being looked up
        self.delay = RETRY_FIRST
        self.outdated = False  # what it means may have changed while it is being looked up


class Nodes:
    """The nodes, by name. `family` is one of `addresses.FAMILIES`' values.

    `sources` gets the addresses of the nodes, each with the number of its node (1 and up). With
    `signed` that gets the names instead: no address matters then, and no name is looked up.
    Not to be used by two threads at a time.
    """

    def __init__(self, family: int, sources: Sources, signed: Signed | None = None) -> None:
        #: AF_UNSPEC: both.
        self.family = family
        self._sources = sources
        self._signed = signed
        #: Called when an address that was nobody's has become a node's, or that of several.
        self.on_claim: Callable[[Key], None] | None = None
        #: Called before an address is a node's no more that was its alone.
        self.on_leave: Callable[[Key], None] | None = None
        self._numbers: dict[str, int] = {}
        self._nodes: dict[int, _Node] = {}
        self._last_number = 0
        #: Who has an address: a number, or several where it is shared.
        self._owners: dict[Key, int | tuple[int, ...]] = {}
        self._shared: set[Key] = set()
        self._hosts: dict[str, _Host] = {}
        self._unresolved: set[str] = set()
        #: (when, host): one entry counts, that with the host's own time.
        self._asks: list[tuple[float, str]] = []

    # ---------------------------------------------------------------- nodes

    def add(self, name: str, addresses: Iterable[AnyAddress], now: float) -> None:
        """There is this node, with these addresses and host names (none: its own name).

        If there is one of that name, these replace what it had. ValueError, with nothing
        changed, if one of them can never be a node's address.
        """
        self.put(name, self.parsed(name, addresses), now)

    def parsed(self, name: str, addresses: Iterable[AnyAddress]) -> Parsed:
        """The addresses and host names of a node, checked; for `put`. Changes nothing."""
        if isinstance(addresses, (str, bytes)) or not isinstance(addresses, Iterable):
            kind = type(addresses).__name__
            raise TypeError(f"node {name!r}: expected a list of addresses, not {kind}")
        if not name:
            raise ValueError("node '': a name needs at least one character")
        # As keys of a dict: each once, in their order.
        literals: dict[Key, None] = {}
        # With what is known of them already: an interface that is made anew, as a bond may be,
        # has another number, so a link-local address is asked for again as names are.
        hosts: dict[str, list[Key]] = {}
        written = [as_text(given) for given in addresses]
        parts = [part for text in written for part in split(text) or [text]]
        for text in parts or [cleaned(name)]:
            found = self._literal(name, text)
            keys = [(address.packed, address.scope) for address in found or ()]
            if found is None or found[0].scope:
                hosts[text] = keys
            else:
                literals.update((key, None) for key in keys)
        if name not in hosts:
            own = address_in(name)
            if own is not None and own not in literals and [own] not in hosts.values():
                raise ValueError(
                    f"node {name!r}: has an address for a name, but not as one of its addresses"
                )
        if self._signed is not None:
            if not is_packet_name(name):
                raise ValueError(f"node {name!r}: {NAME_RULE}")
            literals, hosts = {}, {}
        return tuple(literals), hosts

    def put(self, name: str, parsed: Parsed, now: float) -> None:
        """`add` a node with what `parsed` has found of it."""
        literals, hosts = parsed
        if self._signed is not None:
            self._signed.add(name)
        number = self._numbers.get(name)
        if number is None:
            self._last_number += 1
            number = self._last_number
            self._numbers[name] = number
            self._nodes[number] = _Node(name, number)
        node = self._nodes[number]
        before = node.hosts
        node.literals, node.hosts = literals, tuple(hosts)
        for host, keys in hosts.items():
            if host not in self._hosts:
                due = now + REFRESH if keys else now
                self._hosts[host] = _Host(due)
                heapq.heappush(self._asks, (due, host))
                self._unresolved.add(host)
            its = self._hosts[host]
            if keys and its.addresses != keys:
                its.addresses = keys
                self._unresolved.discard(host)
                for other in its.nodes - {number}:
                    self._claim(self._nodes[other])
            its.nodes.add(number)
        self._leave(node, [host for host in before if host not in hosts])
        self._claim(node)

    def remove(self, name: str) -> None:
        """Know this node no more. KeyError if it is not known."""
        node = self._nodes[self._numbers[name]]
        if self._signed is not None:
            self._signed.discard(name)
        hosts, node.literals, node.hosts = node.hosts, (), ()
        self._leave(node, hosts)
        self._claim(node)
        del self._nodes[self._numbers.pop(name)]

    def name_of(self, number: int) -> str | None:
        """The name of the node with this number; None if it was removed."""
        node = self._nodes.get(number)
        return None if node is None else node.name

    def has(self, packed: bytes, scope: int) -> bool:
        """Whether a node that was told of has this address."""
        return (packed, scope) in self._owners

    def owner_of(self, key: Key) -> str | None:
        """The node that has this address; None if none has it, or several."""
        owners = self._owners_of(key)
        return self._nodes[owners[0]].name if len(owners) == 1 else None

    def keys_of(self, name: str) -> tuple[Key, ...]:
        """The addresses of this node, as far as they are known; those of others among them."""
        number = self._numbers.get(name)
        return () if number is None else self._nodes[number].claims

    def __contains__(self, name: object) -> bool:
        return name in self._numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def places(self) -> int:
        """How many addresses and names they have, all together."""
        return sum(len(node.literals) + len(node.hosts) for node in self._nodes.values())

    @property
    def unresolved(self) -> list[str]:
        """The nodes with a name, their own or another, that has no address so far."""
        numbers = {number for host in self._unresolved for number in self._hosts[host].nodes}
        return [self._nodes[number].name for number in sorted(numbers)]

    @property
    def shared(self) -> list[str]:
        """The addresses that more than one node has, which count for none of them."""
        return [str(Address(*key)) for key in sorted(self._shared)]

    def _literal(self, name: str, text: str) -> list[Address] | None:
        try:
            return literal(text, self.family)
        except LookUpError as error:
            shown = repr(name) if text == name else f"{name!r}: address {text!r}"
            hint = "; a network is given in networks" if "/" in text else ""
            raise ValueError(f"node {shown}: {error}{hint}") from None

    def _leave(self, node: _Node, hosts: Iterable[str]) -> None:
        for name in hosts:
            host = self._hosts[name]
            host.nodes.discard(node.number)
            if not host.nodes:
                del self._hosts[name]
                self._unresolved.discard(name)

    def _claim(self, node: _Node) -> None:
        """Bring owners and sources in step with what the node says that it has."""
        claims = node.literals
        if node.hosts:
            resolved = (key for host in node.hosts for key in self._hosts[host].addresses)
            claims = tuple(dict.fromkeys((*claims, *resolved)))
        before, node.claims = node.claims, claims
        for key in before:
            if key not in claims:
                self._own(key, tuple(n for n in self._owners_of(key) if n != node.number))
        for key in claims:
            if key not in before:
                self._own(key, (*self._owners_of(key), node.number))

    def _owners_of(self, key: Key) -> tuple[int, ...]:
        owners = self._owners.get(key, ())
        return owners if isinstance(owners, tuple) else (owners,)

    def _own(self, key: Key, owners: tuple[int, ...]) -> None:
        packed, scope = key
        before = self._owners.get(key)
        if isinstance(before, int) and owners != (before,) and self.on_leave is not None:
            self.on_leave(key)
        new = bool(owners) and before is None
        if len(owners) == 1:
            self._owners[key] = owners[0]
            self._sources.add(packed, scope, owners[0])
        else:
            self._sources.discard(packed, scope)
            if owners:
                self._owners[key] = owners
            else:
                del self._owners[key]
        if len(owners) > 1:
            self._shared.add(key)
        else:
            self._shared.discard(key)
        if new and self.on_claim is not None:
            self.on_claim(key)

    # ---------------------------------------------------------------- names

    @property
    def next_ask(self) -> float | None:
        """When a name is to be looked up next; None: none, before an answer comes."""
        while self._asks:
            due, name = self._asks[0]
            host = self._hosts.get(name)
            if host is not None and host.due == due:
                return due
            heapq.heappop(self._asks)
        return None

    def ask(self, now: float, most: int) -> list[str]:
        """The names that are to be looked up now, `most` of them at most.

        `answered` is to be told what came of each.
        """
        names: list[str] = []
        while len(names) < most:
            due = self.next_ask
            if due is None or due > now:
                break
            name = heapq.heappop(self._asks)[1]
            self._hosts[name].due = None
            names.append(name)
        return names

    def answered(self, name: str, answer: list[Address] | LookUpError, now: float) -> None:
        """What the name service said to a name that was asked for.

        A failure changes nothing: a node that has had addresses keeps them while the name
        service is away.
        """
        host = self._hosts.get(name)
        if host is None or host.due is not None:
            return
        if isinstance(answer, LookUpError):
            wait = host.delay
            host.delay = min(2 * host.delay, RETRY_LAST)
            if host.addresses:
                wait = max(wait, RETRY_LAST)
        else:
            host.addresses = [(address.packed, address.scope) for address in answer]
            host.delay = RETRY_FIRST
            self._unresolved.discard(name)
            for number in host.nodes:
                self._claim(self._nodes[number])
            wait = max(REFRESH, REFRESH_GAP * len(self._hosts))
        if host.outdated:
            host.outdated = False
            wait = RETRY_FIRST
        host.due = now + wait
        heapq.heappush(self._asks, (host.due, name))

    def hurry(self, now: float) -> None:
        """What names mean may have changed: all of them are to be looked up again."""
        self._asks = []
        for name, host in self._hosts.items():
            host.delay = RETRY_FIRST
            if host.due is not None:
                host.due = now
                self._asks.append((now, name))
            else:
                host.outdated = True
        heapq.heapify(self._asks)

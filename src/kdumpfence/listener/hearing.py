# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whose messages the reading thread counted, told to `dumps` under the names of their nodes.

A source is a node's, or of a network and then a node of its own as long as its dump lasts; or it
signs, and has its name from that. Where the kernel counts, most of what it counted is not told of:
who is silent comes out of the core, and figures are looked up when somebody wants them.

What may not be in this file: rules of who is dumping (`dumps`), and where events go
(`event_queue`).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection, Iterable

from kdumpfence.addresses import Address
from kdumpfence.listener.clock import Clock
from kdumpfence.listener.dumps import Dumps, Said
from kdumpfence.listener.events import Dump, Event
from kdumpfence.listener.networks import Network, is_in
from kdumpfence.listener.nodes import ADMITTED, Key, Nodes, address_in
from kdumpfence.listener.reader import Reader
from kdumpfence.own_addresses import OwnAddresses
from kdumpfence.wire import Signed, Sources, is_packet_name

#: What statuses said, as `Sources.heard` has it.
_Told = tuple[tuple[int, str, int, int], ...]

#: Sources that are dealt with at a time: some milliseconds.
MOST = 2048


class Hearing:
    """Holds `reader.lock` in the hands of whoever calls.

    `tell` takes the events, `changed` is called when something has become of a dump because an
    address has another owner.
    """

    def __init__(
        self,
        reader: Reader,
        nodes: Nodes,
        sources: Sources,
        signed: Signed | None,
        networks: Collection[Network],
        dumps: Dumps,
        clock: Clock,
        tell: Callable[[Event], None],
        changed: Callable[[], None],
    ) -> None:
        self._reader = reader
        self._nodes = nodes
        self._sources = sources
        self._signed = signed
        self._networks = networks
        self._dumps = dumps
        self._clock = clock
        self._tell = tell
        self._changed = changed
        #: Addresses of this machine.
        self.own = OwnAddresses()
        # Under way and admitted by a network: name -> (packed, scope).
        self._admitted: dict[str, Key] = {}
        #: Somebody deals with what was heard; a signal handler may come in between.
        self.busy = False
        dumps.ask = self._ask
        if signed is None:
            nodes.on_leave = self._leaving
            if networks:
                nodes.on_claim = self._claimed

    @property
    def admitted(self) -> int:
        """How many nodes there are at the moment that a network admitted."""
        return len(self._admitted)

    def listens_for(self, node: str) -> bool:
        """See `Listener.listens_for`. Needs no lock."""
        if node in self._nodes:
            return True
        if self._signed is not None:
            return bool(self._networks) and is_packet_name(node)
        address = address_in(node)
        if address is None or shown(*address) != node:  # it would not be named so
            return False
        return is_in(address, self._networks)

    def restore_admitted(self, node: str) -> None:
        """It was a network's; meanwhile its address may have become a node's."""
        address = address_in(node)
        if self._signed is None and address is not None:
            self._admitted[node] = address
            if self._nodes.has(*address):
                self._claimed(address)

    def hear_all(self, most: int = MOST) -> int:
        """Deal with what was heard; of how many nodes, `most` at most."""
        if self._signed is not None:
            named = self._signed.heard(most)
            self._hear_named(named)
            return len(named)
        heard = self._sources.heard(most)
        self._hear(heard)
        return len(heard)

    def _hear_waiting(self) -> None:
        """Deal with all that was heard by now."""
        busy, self.busy = self.busy, True
        try:
            for _ in range(1 + len(self._sources) // MOST):
                if self.hear_all() < MOST:
                    break
        finally:
            self.busy = busy

    def _ask(self, node: str) -> None:
        """Silence of this node is about to count, as far as was told of it."""
        if self.fold(node):
            self._hear_waiting()

    def fold(self, node: str) -> bool:
        """Have heard what the kernel has counted of this node; whether anything is to be heard."""
        if not self._reader.counts_in_kernel:
            return False
        waits = [self._sources.fold(*key) for key in self._keys_of(node)]
        return any(waits)

    def newest(self, dump: Dump) -> Dump:
        """A dump with what was not told of it yet."""
        if self._reader.counts_in_kernel:
            for key in self._keys_of(dump.node):
                last_ns, messages = self._sources.peek(*key)
                if messages:
                    last = last_ns * 1e-9 + self._clock.base
                    dump = self._dumps.longer(dump, shown(*key), last, messages, 0)
        return dump

    def _keys_of(self, node: str) -> Iterable[Key]:
        """The addresses by which a node is known, if its name is not all that counts."""
        if self._signed is not None:
            return ()
        admitted = self._admitted.get(node)
        return self._nodes.keys_of(node) if admitted is None else (admitted,)

    def _hear_named(
        self, heard: Iterable[tuple[str, bytes, int, int, int, int, int, _Told]]
    ) -> None:
        """As `_hear`, of nodes that sign: their names say who they are, not their addresses."""
        for name, packed, scope, port, first_ns, last_ns, messages, told in heard:
            if name not in self._nodes:  # others would not be released: it spares asking
                self._admitted[name] = (packed, scope)
            self._decide(name, shown(packed, scope), port, first_ns, last_ns, messages, told)

    def _hear(self, heard: Iterable[tuple[int, bytes, int, int, int, int, int, _Told]]) -> None:
        name_of, has, own = self._nodes.name_of, self._nodes.has, self.own
        in_kernel = self._reader.counts_in_kernel
        own.renew(time.monotonic())
        for number, packed, scope, port, first_ns, last_ns, messages, told in heard:
            address = shown(packed, scope)
            node = name_of(number)
            if node is None:
                if number != ADMITTED:
                    continue  # removed meanwhile
                node = address
            key = (packed, scope)
            if not messages or key in own:
                # Nothing that counts, but nobody else looks after it any more either.
                self._dumps.watch(node, False)
                if messages and number == ADMITTED:
                    self._sources.discard(packed, scope)
                continue
            if number == ADMITTED:
                if has(packed, scope):
                    # Shared by several nodes, one of which may be called by this address.
                    self._sources.discard(packed, scope)
                    continue
                self._admitted[node] = key
            if not in_kernel:
                self._decide(node, address, port, first_ns, last_ns, messages, told)
                continue
            before = self._dumps.get(node)
            counted = before is not None and self._dumps.is_watched(node)
            so_far = messages if before is None else messages + before.messages
            self._dumps.watch(node, self._sources.watch(packed, scope, so_far))
            self._decide(
                node, address, port, first_ns, last_ns, messages, told, before if counted else None
            )

    def _decide(
        self,
        node: str,
        address: str,
        port: int,
        first_ns: int,
        last_ns: int,
        messages: int,
        told: _Told,
        counted: Dump | None = None,
    ) -> None:
        """What the node was heard to say, as `Sources.heard` has it.

        `counted`: its dump, if the kernel has counted the node's messages so far.
        """
        base = self._clock.base
        first, last = first_ns * 1e-9 + base, last_ns * 1e-9 + base
        if told:
            said = [Said(session, state, at * 1e-9 + base, n) for session, state, at, n in told]
            events = self._dumps.told(node, address, last, messages, first, said, port)
        else:
            event = self._dumps.heard(node, address, last, messages, first, port)
            if counted is None:  # as of all that begin, of which there may be very many
                if event is not None:
                    self._tell(event)
                return
            events = [] if event is None else [event]
        if counted is not None and not self._reader.tell_repeats:
            events = self._without_repeats(events, counted)
        for event in events:
            self._tell(event)

    def _without_repeats(self, events: list[Event], before: Dump) -> list[Event]:
        """The same for who does not want to be told that this dump goes on.

        Where it is heard from and who says so is news: it says whose `figures` are this dump's.
        """
        events = [event for event in events if event.kind != "dumping"]
        now = self._dumps.get(before.node)
        if now is None or now.since != before.since:
            return events
        if (now.addresses, now.sessions) != (before.addresses, before.sessions):
            events.append(Event("dumping", now.node, now.last, *now[1:]))
        return events

    def _claimed(self, address: Key) -> None:
        """An address that a network may have admitted has become a node's, or several ones'.

        What that machine says goes on, under the name of the node.
        """
        node = shown(*address)
        if self._admitted.get(node) != address:
            return
        del self._admitted[node]
        name = self._nodes.owner_of(address)
        if name == node:
            return  # it is the same machine, and nothing has happened to it
        if name is not None and name not in self._dumps:
            self._clock.rename(node, name)
        for event in self._dumps.rename(node, name, self._clock.now()):
            self._tell(event)
        self._clock.forget(node)
        self._changed()

    def _leaving(self, address: Key) -> None:
        """An address is about to be its node's no more: what was counted there is that node's."""
        if not self._reader.counts_in_kernel:
            return
        node = self._nodes.owner_of(address)
        self._sources.dismiss(*address)
        if not self.busy:  # else a signal handler is here, in the middle of it
            self._hear_waiting()
        if node is not None:
            self._dumps.watch(node, False)
            self._changed()

    def forget(self, node: str) -> None:
        """Nothing is known of this node's last dump any more.

        That is later than its end if the node told of that: else who makes up nodes of a network
        could have more of them than there is room for.
        """
        self._clock.forget(node)
        admitted = self._admitted.pop(node, None)
        if admitted is not None:
            # Its room is free again, unless it has just sent the first message of another dump.
            if self._signed is not None:
                self._signed.release(node)
            else:
                self._sources.release(*admitted)


def shown(packed: bytes, scope: int) -> str:
    """An address as the name of a node, and in the addresses of its dump."""
    if scope:
        return str(Address(packed, scope))
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)

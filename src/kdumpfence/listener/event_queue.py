# SPDX-License-Identifier: GPL-2.0-or-later
"""What the reading thread counted becomes events, and waits here until somebody takes them.

The thread counts each message at its source, in a table of the core (`reader`). `collect` takes
out of that table which sources were heard since the last time, and lets `dumps` decide. How many
messages there were does not matter, only from how many sources.

**First read, then decide.** A process that was stopped (SIGSTOP, a paused guest, a machine
that slept) finds the messages of that time in its sockets' queues. Silence is decided only
up to a moment before which all that had arrived was read: the reading thread says which.

What may not be in this file: rules of who is dumping (`dumps`), and waiting (`listener`).
"""

from __future__ import annotations

import collections
import contextlib
import math
import socket
import time
from collections.abc import Iterable

from kdumpfence.addresses import Address
from kdumpfence.listener.clock import Clock
from kdumpfence.listener.dumps import Dump, Dumps, Event, Said
from kdumpfence.listener.nodes import ADMITTED, Nodes
from kdumpfence.listener.reader import Reader
from kdumpfence.own_addresses import OwnAddresses
from kdumpfence.wire import Signed, Sources

#: What statuses said, as `Sources.heard` has it.
_Told = tuple[tuple[int, str, int, int], ...]

#: Events and sources that are dealt with at a time: some milliseconds.
MOST = 2048

#: Seconds between two looks at what was heard, so that there is something to be seen.
REST = 0.02

#: Seconds between two decisions over who fell silent.
DECIDE = 0.02


class EventQueue:
    """The events that nobody has taken yet.

    Any thread may use it; each event goes to one of them. Taking and putting back is one step
    each, without a lock, for signal handlers interrupt it; everything else holds `reader.lock`.
    """

    def __init__(
        self,
        reader: Reader,
        nodes: Nodes,
        sources: Sources,
        signed: Signed | None,
        dumps: Dumps,
    ) -> None:
        self._reader = reader
        self._nodes = nodes
        self._sources = sources
        self._signed = signed
        self._dumps = dumps
        self._clock = Clock()
        self._own = OwnAddresses()
        # Under way and admitted by a network: name -> (packed, scope).
        self._admitted: dict[str, tuple[bytes, int]] = {}
        self._ready: collections.deque[Event] = collections.deque()
        self._rang = False
        #: When `collect` is worth a call, by CLOCK_MONOTONIC.
        self.rest_until = 0.0

    # -------------------------------------------------------------------- taking what is there

    def __len__(self) -> int:
        return len(self._ready)

    def pop(self) -> Event:
        """The next event. IndexError if there is none."""
        return self._ready.popleft()

    def take(self) -> list[Event]:
        """The next events, `MOST` at most."""
        taken: list[Event] = []
        with contextlib.suppress(IndexError):
            while len(taken) < MOST:
                taken.append(self._ready.popleft())
        self.ring_for_the_rest()
        return taken

    def put_back(self, events: list[Event]) -> None:
        """These were taken, and are the next ones again."""
        self._ready.extendleft(reversed(events))
        self.ring_for_the_rest()

    def ring_for_the_rest(self) -> None:
        """Whoever waits for the bell is to come again for what is left."""
        if self._ready and not self._rang:
            self._rang = True
            self._reader.bell.ring()

    # --------------------------------------------------------------------------- what is known

    def forget(self, node: str) -> None:
        """The node was removed; if it was dumping, it is silent now."""
        with self._reader.lock:
            self._tell(self._dumps.forget(node, self._clock.now()))
            self._clock.forget(node)

    def restore(self, dumps: Iterable[Dump], ended: Iterable[Event]) -> None:
        """See `Listener.restore`."""
        with self._reader.lock:
            now = self._clock.now()
            for dump in dumps:
                self._dumps.restore(self._clock.restored(dump), now)
            for event in ended:
                dump = self._clock.restored(Dump(event.node, *event[3:]))
                when = event.when - (event.last - dump.last)  # on the same clock
                self._dumps.restore_end(dump, event.kind, when, now)
            self._schedule()

    def known(self) -> tuple[float, list[Dump], list[str]]:
        """The time, the dumps under way (Unix times), and the nodes' addresses that are our own."""
        with self._reader.lock:
            self._own.renew(time.monotonic())
            own = sorted(str(Address(*key)) for key in self._own if self._nodes.has(*key))
            dumps = self._clock.all_told(self._dumps.snapshot())
            return self._clock.unix(self._clock.now()), dumps, own

    # ------------------------------------------------------------------------ making new ones

    def collect(self) -> None:
        """Take what was heard, decide, and put the events where they are taken from.

        RuntimeError if the reading thread has died.
        """
        reader = self._reader
        with reader.lock:
            if reader.failure is not None:
                raise RuntimeError("the reading thread has died") from reader.failure
            reader.bell.hush()
            self._rang = False
            self._clock.follow()
            # First the moment, then what was heard: all of it that came before that moment
            # is in the table by now.
            through = reader.through
            number = self._hear_all()
            more = number == MOST
            self.rest_until = time.monotonic() + REST if number and not more else 0.0
            if not more:
                for event in self._dumps.tick(through + self._clock.base, MOST):
                    self._tell(event)
                for node in self._dumps.forgotten():
                    self._forget(node)
            now = self._clock.now()
            for name, lost in reader.new_losses().items():
                self._tell(Event("overflow", name, now, now, now, lost, ()))
            if not self._schedule() or more:
                self._rang = True
                reader.bell.ring()

    def _hear_all(self) -> int:
        """Deal with what was heard; of how many nodes, MOST at most."""
        if self._signed is not None:
            named = self._signed.heard(MOST)
            self._hear_named(named)
            return len(named)
        heard = self._sources.heard(MOST)
        self._hear(heard)
        return len(heard)

    def _hear_named(
        self, heard: Iterable[tuple[str, bytes, int, int, int, int, int, _Told]]
    ) -> None:
        """As `_hear`, of nodes that sign: their names say who they are, not their addresses."""
        for name, packed, scope, _, first_ns, last_ns, messages, told in heard:
            if name not in self._nodes:  # others would not be released: it spares asking
                self._admitted[name] = (packed, scope)
            self._decide(name, _shown(packed, scope), first_ns, last_ns, messages, told)

    def _hear(self, heard: Iterable[tuple[int, bytes, int, int, int, int, int, _Told]]) -> None:
        name_of = self._nodes.name_of
        self._own.renew(time.monotonic())
        for number, packed, scope, _, first_ns, last_ns, messages, told in heard:
            if (packed, scope) in self._own:
                if number == ADMITTED:
                    self._sources.discard(packed, scope)
                continue
            address = _shown(packed, scope)
            node = name_of(number)
            if node is None:
                if number != ADMITTED:
                    continue  # removed meanwhile
                if self._nodes.has(packed, scope):
                    # Shared by several nodes, one of which may be called by this address.
                    self._sources.discard(packed, scope)
                    continue
                node = address
                self._admitted[node] = (packed, scope)
            self._decide(node, address, first_ns, last_ns, messages, told)

    def _decide(
        self, node: str, address: str, first_ns: int, last_ns: int, messages: int, told: _Told
    ) -> None:
        """What the node was heard to say, as `Sources.heard` has it."""
        base = self._clock.base
        first, last = first_ns * 1e-9 + base, last_ns * 1e-9 + base
        if not told:
            self._tell(self._dumps.heard(node, address, last, messages, first))
            return
        said = [Said(session, state, at * 1e-9 + base, n) for session, state, at, n in told]
        for event in self._dumps.told(node, address, last, messages, first, said):
            self._tell(event)

    def _tell(self, event: Event | None) -> None:
        if event is None:
            return
        if event.kind == "began":
            self._clock.forget(event.node)  # what there is is of the dump before
        self._ready.append(self._clock.told(event))
        if event.kind == "silent":
            self._forget(event.node)

    def _forget(self, node: str) -> None:
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

    def _schedule(self) -> bool:
        """Have it read until the next decision is due; False if one is due now."""
        reader, base = self._reader, self._clock.base
        due = self._dumps.next_due
        if due is None:
            reader.read_through(math.inf)
        elif due <= reader.through + base:
            return False
        else:
            reader.read_through(max(due - base, reader.through + DECIDE))
        return True


def _shown(packed: bytes, scope: int) -> str:
    if scope:
        return str(Address(packed, scope))
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)

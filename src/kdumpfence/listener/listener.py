# SPDX-License-Identifier: GPL-2.0-or-later
"""Listens for any number of nodes, and tells what happens to them as events.

Who is dumping is decided in `dumps`, which node has which address in `nodes`, what is a
message in the core; this file only moves things between them. What may not be in it: files,
a daemon's settings, anything about a cluster.

Two sides, and a table of the core between them: a thread reads the sockets and has the
core count each message at its source (`reading`). Whoever wants the events takes out of that
table which sources were heard since the last time, and lets `dumps` decide. How many messages
there were does not matter, only from how many sources.

**First read, then decide.** A process that was stopped (SIGSTOP, a paused guest, a machine
that slept) finds the messages of that time in its sockets' queues. Silence is decided only
up to a moment before which all that had arrived was read: the reading thread says which.
"""

from __future__ import annotations

import collections
import contextlib
import ipaddress
import math
import os
import select
import socket
import threading
import time
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import NamedTuple

from kdumpfence.addresses import FAMILIES, Address
from kdumpfence.listener.dumps import REPEAT, SILENCE, Dump, Dumps, Event
from kdumpfence.listener.nodes import Nodes, is_nobodys
from kdumpfence.listener.port_owners import claim
from kdumpfence.listener.reader import Reading, open_sockets
from kdumpfence.own_addresses import OwnAddresses
from kdumpfence.sockets import deepen, guard
from kdumpfence.wire import PORT, Sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

__all__ = ["Dump", "Event", "Listener", "Snapshot"]

#: Events and sources that are dealt with at a time: some milliseconds.
MOST = 2048

#: Seconds between two looks at what was heard, so that there is something to be seen.
REST = 0.02

#: Seconds between two decisions over who fell silent.
DECIDE = 0.02

#: Seconds; lost datagrams are told of at most that often.
OVERFLOW_REPEAT = 5.0

#: Seconds by which the system's clock has to jump to be followed.
CLOCK_STEP = 0.5
MOST_CLOCK_STEPS = 64

#: Seconds; a signal that came just before a poll does not end it, so none is longer.
SLICE = 0.5

#: Seconds; the thread ends at once unless the machine is in trouble.
JOIN = 10.0

#: What numbers the core and the kernel take.
MOST_ROOM = (1 << 32) - 1
MOST_QUEUE = 1 << 30

#: The number of all nodes that networks admit; others have numbers from 1 up.
_ADMITTED = 0


class Snapshot(NamedTuple):
    """What a `Listener` knows at a moment."""

    #: Unix time.
    when: float
    #: The dumps under way, in the order in which they began; times are Unix times.
    dumps: list[Dump]
    #: How many nodes it was told of (without those that networks admitted).
    nodes: int
    #: The nodes that have a name without an address so far.
    unresolved: list[str]
    #: Datagrams by verdict: "accepted", those of `kdumpfence.REASONS`, and "unread": dropped
    #: by the kernel, for want of room or, in a flood, because they were no messages.
    counts: dict[str, int]
    #: Addresses that more than one node has. Messages from there count for none of them.
    shared: list[str]
    #: Addresses of nodes that are this machine's own. Messages from there do not count.
    own: list[str]
    #: Why messages may not reach it, in a line, as when somebody else holds the port too; "" if
    #: nothing is known of it. What a firewall drops is not.
    deaf: str = ""


class _Clock:
    """A clock that only goes forwards, and what its times are as Unix times.

    Its times begin as Unix times and then follow CLOCK_MONOTONIC. When the system's clock is
    set, later times are told by the new one; earlier ones, and so the beginning of a dump,
    stay what they were.
    """

    def __init__(self) -> None:
        self.base = time.time() - time.monotonic()
        self._steps: list[float] = []
        self._ahead = [0.0]

    def now(self) -> float:
        return time.monotonic() + self.base

    def follow(self) -> None:
        """See whether the system's clock was set."""
        now = self.now()
        ahead = time.time() - now
        if abs(ahead - self._ahead[-1]) > CLOCK_STEP:
            self._steps.append(now)
            self._ahead.append(ahead)
            if len(self._steps) > MOST_CLOCK_STEPS:
                del self._steps[0], self._ahead[0]

    @property
    def stepped(self) -> bool:
        return bool(self._steps)

    def unix(self, moment: float) -> float:
        return moment + self._ahead[bisect_right(self._steps, moment)]

    def event(self, event: Event) -> Event:
        return event._replace(
            when=self.unix(event.when), since=self.unix(event.since), last=self.unix(event.last)
        )

    def dump(self, dump: Dump) -> Dump:
        return dump._replace(since=self.unix(dump.since), last=self.unix(dump.last))


def _network(text: str, families: Iterable[int]) -> tuple[bytes, int]:
    """(packed, prefix length). ValueError if it is no network that nodes can be in."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"network {text!r}: {error}") from None
    if "%" in str(text):  # which ip_network drops without a word
        raise ValueError(f"network {text!r}: one of all interfaces, without %, is allowed")
    if is_nobodys(network):
        raise ValueError(f"network {text!r}: no node can have an address in it")
    packed, prefix = network.network_address.packed, network.prefixlen
    if prefix >= 96 and packed[:12] == b"\0" * 10 + b"\xff\xff":
        packed, prefix = packed[12:], prefix - 96  # IPv4-mapped: on the wire it is IPv4
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    if family not in families:
        other = "ipv6" if family == socket.AF_INET else "ipv4"
        raise ValueError(f"network {text!r}: not an {other} network")
    return packed, prefix


def _check_sockets(sockets: list[socket.socket]) -> None:
    if not sockets:
        raise ValueError("sockets: at least one bound UDP socket is wanted")
    for sock in sockets:
        family, kind = sock.family, sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        if family not in (socket.AF_INET, socket.AF_INET6) or kind != socket.SOCK_DGRAM:
            raise ValueError(f"socket {sock.fileno()}: not a UDP socket")
        if not sock.getsockname()[1]:
            raise ValueError(f"socket {sock.fileno()}: not bound to a port")


class Listener:
    """Listens for nodes that are dumping, and tells what happens.

    Use it as a context manager, and iterate over it with `for` or `async for`: it yields an
    `Event` for each thing that happens, until `close` is called. Several threads may do so;
    each event goes to one of them.

    `nodes`: {name: addresses or host names of the node}, or names (addresses) alone. Host
    names are looked up in the background, again and again until they have addresses, and
    from then on every five minutes or when /etc/hosts changes. An address that several
    nodes have counts for none of them: give a node with two names as one node. Neither does one
    of this machine, nor a loopback address unless it is given as such.

    `networks`, such as "192.0.2.0/24": who sends a message from there is a node, named by its
    address, while its dump lasts; at most `room` of them at a time.

    What this machine sends itself is never heard, whatever its source address: any user can
    choose it. For trials loopback addresses count, if they are given as such: as addresses
    (127.0.0.1, not "localhost"), or as networks within 127.0.0.0/8.

    `silence`, `repeat`: see `kdumpfence.listener.dumps.Dumps`. `family` is "auto" (both), "ipv4" or
    "ipv6". `port` 0 takes any that is free. `sockets` are bound UDP sockets to be used
    instead of opening some, as those of socket activation; they are closed with the Listener,
    and do not share their port any more (SO_REUSEADDR, SO_REUSEPORT). What lies in the queues of
    IPv6 ones is lost, unless a Listener had them before.
    `queue` is the number of bytes asked of the kernel for each socket's queue; without
    CAP_NET_ADMIN it gives no more than net.core.rmem_max.

    Raises ValueError for what cannot be, with one line that says what, and OSError if the
    port cannot be listened to.

    All times that it tells are Unix times, seconds. It decides by CLOCK_MONOTONIC.

    A process that forks must not use it in the child. `close` may be called by any thread
    and by signal handlers; iteration ends then.
    """

    _reading: Reading | None = None

    def __init__(
        self,
        nodes: Mapping[str, Iterable[str]] | Iterable[str] = (),
        networks: Iterable[str] = (),
        *,
        port: int = PORT,
        family: str = "auto",
        silence: float = SILENCE,
        repeat: float = REPEAT,
        room: int = 131072,
        sockets: Iterable[socket.socket] | None = None,
        queue: int = 1 << 26,
    ) -> None:
        if isinstance(nodes, (str, bytes)) or isinstance(networks, (str, bytes)):
            raise TypeError("nodes, networks: a list is wanted, not a string")
        if family not in FAMILIES:
            raise ValueError(f"family {family!r}: {', '.join(FAMILIES)} are allowed")
        if not 0 <= port <= 65535:
            raise ValueError(f"port {port}: 0 to 65535 are allowed")
        if not 0 <= room <= MOST_ROOM:
            raise ValueError(f"room {room}: 0 to {MOST_ROOM} are allowed")
        if not 1 <= queue <= MOST_QUEUE:
            raise ValueError(f"queue {queue}: 1 to {MOST_QUEUE} bytes are allowed")
        wanted = FAMILIES[family]
        families = (socket.AF_INET, socket.AF_INET6) if wanted == socket.AF_UNSPEC else (wanted,)
        self._clock = _Clock()
        self._dumps = Dumps(silence, repeat)
        self._sources = Sources(room=room)
        for text in networks:
            self._sources.admit(*_network(text, families), _ADMITTED)
        self._nodes = Nodes(wanted, self._sources)
        self._own = OwnAddresses()
        now = time.monotonic()
        pairs = nodes.items() if isinstance(nodes, Mapping) else ((name, ()) for name in nodes)
        for name, addresses in pairs:
            self._nodes.add(name, addresses, now)
        # Restored, and begun later than the clock says that it is: node -> (first message, and
        # by how much its times are ahead of the clock).
        self._ahead: dict[str, tuple[float, float]] = {}
        # Under way and admitted by a network: name -> (packed, scope).
        self._admitted: dict[str, tuple[bytes, int]] = {}
        self._ready: collections.deque[Event] = collections.deque()
        self._rest_until = 0.0
        self._rang = False
        if sockets is None:
            opened = open_sockets(families, port)
        else:
            opened = list(sockets)
            _check_sockets(opened)
            for sock in opened:
                claim(sock)
                guard(sock)
        for sock in opened:
            deepen(sock, queue)
        self._port: int = opened[0].getsockname()[1]
        try:
            reading = Reading(self._nodes, self._sources, opened)
            self._lock = reading.lock
            reading.start()
            self._reading = reading
        except BaseException:
            if sockets is None:
                for sock in opened:
                    sock.close()
            raise

    # -------------------------------------------------------------------------- the nodes

    @property
    def port(self) -> int:
        """The UDP port that it listens to."""
        return self._port

    def add(self, name: str, addresses: Iterable[str] = ()) -> None:
        """Listen for this node too, or, if it is known, with these addresses from now on.

        Without `addresses` its name is its address. ValueError if one can never be a node's.
        """
        with self._lock:
            self._nodes.add(name, addresses, time.monotonic())
        self._in_use.poke()

    def remove(self, name: str) -> None:
        """Do not listen for this node any more. "silent" is told if it was dumping.

        KeyError if there is no such node.
        """
        with self._lock:
            self._nodes.remove(name)
            self._tell(self._dumps.forget(name, self._clock.now()))
        self._in_use.bell.ring()

    def restore(self, dumps: Iterable[Dump]) -> None:
        """These dumps were under way before a restart (Unix times); they go on.

        To be called before the first event is taken. Their silence counts from now on.
        ValueError for a node that is dumping already.
        """
        with self._lock:
            now = self._clock.now()
            for told in dumps:
                dump = told
                ahead = max(told.since, told.last) - now
                if ahead > 0:
                    # The clock was set back meanwhile, or will be right only later. The dump
                    # keeps the times and the length that it had; its silence counts from now.
                    self._ahead[told.node] = (told.since, ahead)
                    dump = told._replace(since=told.since - ahead, last=now)
                self._dumps.restore(dump, now)
            self._schedule()

    # ------------------------------------------------------------------------- the events

    def events(self, timeout: float | None = None) -> list[Event]:
        """What happened; waits for it at most `timeout` seconds (None: no end).

        [] if nothing did, or the Listener is closed. At most some thousand at a time: call
        it again. RuntimeError if the reading thread has died.
        """
        bell = self._in_use.bell
        until = math.inf if timeout is None else time.monotonic() + timeout
        with bell.held() as usable:
            while usable and not bell.closed:
                if not self._ready:
                    rest = min(self._rest_until, until) - time.monotonic()
                    if rest > 0:
                        time.sleep(rest)
                    self._collect()
                taken = self._take()
                if taken:
                    return taken
                left = until - time.monotonic()
                if left <= 0:
                    break
                poller = select.poll()
                poller.register(bell.readable, select.POLLIN)
                poller.poll(min(left, SLICE) * 1e3)
        return []

    def __iter__(self) -> Listener:
        return self

    def __next__(self) -> Event:
        while not self.closed:
            try:
                return self._ready.popleft()
            except IndexError:
                self._put_back(self.events())
        raise StopIteration

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Event:
        import asyncio  # those who get here have it anyway

        while not self.closed:
            if not self._ready:
                # Others have their turn, even if there is no end of events.
                await asyncio.sleep(max(0.0, self._rest_until - time.monotonic()))
                self._collect()
            try:
                event = self._ready.popleft()
            except IndexError:
                await self._rung()
                continue
            self._ring_for_the_rest()
            return event
        raise StopAsyncIteration

    async def _rung(self) -> None:
        """Wait for the bell in this task's event loop."""
        import asyncio

        with self._in_use.bell.held() as usable:
            if not usable:
                return
            # One of its own: several tasks may wait, and it stays when the bell is closed.
            fd = os.dup(self._in_use.bell.readable)
        loop = asyncio.get_running_loop()
        rung: asyncio.Future[None] = loop.create_future()
        try:
            loop.add_reader(fd, _set, rung)
            await rung
        finally:
            loop.remove_reader(fd)
            os.close(fd)

    def _put_back(self, events: list[Event]) -> None:
        self._ready.extendleft(reversed(events))
        self._ring_for_the_rest()

    def _take(self) -> list[Event]:
        taken: list[Event] = []
        with contextlib.suppress(IndexError):
            while len(taken) < MOST:
                taken.append(self._ready.popleft())
        self._ring_for_the_rest()
        return taken

    def _ring_for_the_rest(self) -> None:
        """Whoever waits for `fileno` is to come again for what is left."""
        if self._ready and not self._rang:
            self._rang = True
            self._in_use.bell.ring()

    def _collect(self) -> None:
        """Take what was heard, decide, and put the events where they are taken from."""
        reading = self._in_use
        with self._lock:
            if reading.failure is not None:
                raise RuntimeError("the reading thread has died") from reading.failure
            reading.bell.hush()
            self._rang = False
            self._clock.follow()
            # First the moment, then what was heard: all of it that came before that moment
            # is in the table by now.
            through = reading.through
            heard = self._sources.heard(MOST)
            self._hear(heard)
            now = time.monotonic()
            more = len(heard) == MOST
            self._rest_until = now + REST if heard and not more else 0.0
            if not more:
                for event in self._dumps.tick(through + self._clock.base, MOST):
                    self._tell(event)
            self._tell_losses(now)
            if not self._schedule() or more:
                self._rang = True
                reading.bell.ring()

    def _hear(self, heard: Iterable[tuple[int, bytes, int, int, int, int, int]]) -> None:
        name_of, decide, base = self._nodes.name_of, self._dumps.heard, self._clock.base
        self._own.renew(time.monotonic())
        for number, packed, scope, _, first_ns, last_ns, messages in heard:
            if (packed, scope) in self._own:
                if number == _ADMITTED:
                    self._sources.discard(packed, scope)
                continue
            address = _show(packed, scope)
            node = name_of(number)
            if node is None:
                if number != _ADMITTED:
                    continue  # removed meanwhile
                if self._nodes.has(packed, scope):
                    # Shared by several nodes, one of which may be called by this address.
                    self._sources.discard(packed, scope)
                    continue
                node = address
                self._admitted[node] = (packed, scope)
            event = decide(node, address, last_ns * 1e-9 + base, messages, first_ns * 1e-9 + base)
            if event is not None:
                self._tell(event)

    def _tell(self, event: Event | None) -> None:
        if event is None:
            return
        if event.kind == "silent":
            admitted = self._admitted.pop(event.node, None)
            if admitted is not None:
                # Its room is free again, unless it has just sent the first message of another dump.
                self._sources.release(*admitted)
        told = self._clock.event(event) if self._clock.stepped else event
        if event.node in self._ahead:
            since, ahead = self._ahead[event.node]
            told = told._replace(since=since, last=event.last + ahead)
            if event.kind == "silent":
                del self._ahead[event.node]
        self._ready.append(told)

    def _tell_losses(self, now: float) -> None:
        reading = self._in_use
        if now < reading.tell_again:
            return
        losses = reading.losses()
        if losses == reading.told:
            return
        when = now + self._clock.base
        for name, before in reading.told.items():
            if losses[name] > before:
                number = losses[name] - before
                self._tell(Event("overflow", name, when, when, when, number, ()))
        reading.told = losses
        reading.tell_again = now + OVERFLOW_REPEAT

    def _schedule(self) -> bool:
        """Have it read until the next decision is due; False if one is due now."""
        reading = self._in_use
        due = self._dumps.next_due
        if due is None:
            reading.read_through(math.inf)
        elif due <= reading.through + self._clock.base:
            return False
        else:
            reading.read_through(max(due - self._clock.base, reading.through + DECIDE))
        return True

    # ---------------------------------------------------------------------------- the rest

    def snapshot(self) -> Snapshot:
        """What is known now, as of the last event that was made. From any thread."""
        with self._lock:
            when = self._clock.unix(self._clock.now())
            dumps = known = self._dumps.snapshot()
            if self._clock.stepped:
                dumps = [self._clock.dump(dump) for dump in known]
            if self._ahead:
                for at, dump in enumerate(known):
                    if dump.node in self._ahead:
                        since, ahead = self._ahead[dump.node]
                        dumps[at] = dumps[at]._replace(since=since, last=dump.last + ahead)
            nodes, unresolved, shared = (
                len(self._nodes),
                self._nodes.unresolved,
                self._nodes.shared,
            )
            self._own.renew(time.monotonic())
            own = sorted(str(Address(*key)) for key in self._own if self._nodes.has(*key))
        reading = self._in_use
        return Snapshot(when, dumps, nodes, unresolved, reading.counts, shared, own, reading.deaf)

    def fileno(self) -> int:
        """A descriptor that can be read when there are events, for poll; -1 when closed.

        Not for reading: call `events(0)` then, which may come to nothing all the same.
        """
        return -1 if self.closed else self._in_use.bell.readable

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._in_use.bell.closed

    @property
    def _in_use(self) -> Reading:
        if self._reading is None:
            raise RuntimeError("this Listener was never made")
        return self._reading

    def close(self) -> None:
        """Stop listening, and end all iterations. Events that nobody took are lost.

        The sockets are closed when it returns; from a signal handler, soon afterwards.
        """
        reading = self._in_use
        reading.stop()
        # A signal handler may have interrupted what the thread waits for. Whether a lock is held
        # here has no other name; threading's own conditions ask so, too.
        held_here: bool = reading.lock._is_owned()  # type: ignore[attr-defined]
        if threading.current_thread() is not reading.thread and not held_here:
            reading.thread.join(JOIN)

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        reading = self._reading
        if reading is not None and not reading.bell.closed:
            reading.stop()  # first: the warning may be an exception
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=1)

    def __repr__(self) -> str:
        return f"<kdumpfence.Listener on port {self._port}/udp>"


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _show(packed: bytes, scope: int) -> str:
    if scope:
        return str(Address(packed, scope))
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)

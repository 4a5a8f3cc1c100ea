# SPDX-License-Identifier: GPL-2.0-or-later
"""Listens for any number of nodes: sockets, the thread that reads them, and the events.

Who is dumping is decided in `dumps`, which node has which address in `nodes`, what is a
message in the core; this file only moves things between them. What may not be in it: files,
a daemon's settings, anything about a cluster.

Two sides, and a table of the core between them:

- One thread reads the sockets, with the compiled core without Python's lock, so that the
  kernel's queue is emptied whatever Python does meanwhile. It counts each message at its
  source and makes no object of it.
- Whoever wants the events takes out of that table which sources were heard since the last
  time, and lets `dumps` decide. How many messages there were does not matter, only from how
  many sources.

**First read, then decide.** A process that was stopped (SIGSTOP, a paused guest, a machine
that slept) finds the messages of that time in its sockets' queues. Silence is decided only
up to a moment before which all that had arrived was read: the reading thread says which.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import ipaddress
import math
import os
import select
import socket
import threading
import time
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import NamedTuple

from kdumpfence import filters
from kdumpfence.addresses import FAMILIES, Address, NameFiles, Resolver
from kdumpfence.dumps import REPEAT, SILENCE, Dump, Dumps, Event
from kdumpfence.nodes import Nodes
from kdumpfence.wire import PORT, Receiver, Sources

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

#: Seconds between two looks of the reading thread at the kernel's counters and name files.
UPKEEP = 1.0

#: Seconds; lost datagrams are told of at most that often.
OVERFLOW_REPEAT = 5.0

#: Seconds that the kernel drops what is no message, after a queue was overfull.
FENCE = 30.0

#: Names that are being looked up at a time.
LOOK_UPS = 256

#: Seconds by which the system's clock has to jump to be followed.
CLOCK_STEP = 0.5
MOST_CLOCK_STEPS = 64

#: Datagrams that are read at a time, and bytes of each: a message is 8, the rest is a trailer.
BATCH = 256
SIZE = 64

#: Seconds; a signal that came just before a poll does not end it, so none is longer.
SLICE = 0.5

#: Seconds; the thread ends at once unless the machine is in trouble.
JOIN = 10.0

#: The number of all nodes that networks admit; others have numbers from 1 up.
_ADMITTED = 0

#: Bytes of a queue that a datagram takes at least.
_DATAGRAM_ROOM = 512

_SO_DETACH_FILTER = 27
_SO_RCVBUFFORCE = 33

#: What counts as a loss, by its name among the counts.
_LOSSES = ("unread", "crowded")


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


class _Bell:
    """A pipe that is readable when somebody is to look; whoever uses it keeps it open.

    No lock is held, so that it can be rung and closed from a signal handler: adding to a set
    and taking from a list are one step each.
    """

    def __init__(self) -> None:
        self._ends = list(os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        self.readable, self.writable = self._ends
        self.closed = False
        self._users: set[object] = set()

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Its descriptors stay open meanwhile; False if they are closed already."""
        user = object()
        self._users.add(user)
        try:
            yield bool(self._ends)
        finally:
            self._users.discard(user)
            self._dispose()

    def ring(self) -> None:
        with self.held() as usable:
            if usable:
                with contextlib.suppress(BlockingIOError):  # full, so it can be read
                    os.write(self.writable, b"12345678")

    def hush(self) -> None:
        with self.held() as usable, contextlib.suppress(BlockingIOError):
            while usable and len(os.read(self.readable, 65536)) == 65536:
                pass

    def close(self) -> None:
        """Close it as soon as nobody uses it."""
        self.closed = True
        self._dispose()

    def _dispose(self) -> None:
        while self.closed and not self._users:
            try:
                os.close(self._ends.pop())
            except IndexError:
                break


def _open_socket(family: int, port: int) -> socket.socket:
    """A UDP socket bound to the port. OSError if another program holds it."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("", port))
        # Not before: of two sockets that share a port the kernel would give all to the newer,
        # and the older program would never know. From now on an agent's may come, which is
        # connected to its node.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _open_sockets(families: Iterable[int], port: int) -> list[socket.socket]:
    opened: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family in families:
            try:
                opened.append(_open_socket(family, port))
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                missing = error  # this kernel has no IPv6, say
                continue
            port = port or opened[0].getsockname()[1]
        if not opened and missing is not None:
            raise missing
    except OSError as error:
        for sock in opened:
            sock.close()
        why = os.strerror(error.errno or 0)
        if error.errno == errno.EADDRINUSE:
            why += " (another program holds it)"
        raise OSError(error.errno, f"port {port}/udp: {why}") from None
    return opened


def _deepen(sock: socket.socket, queue: int) -> None:
    for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, queue)
            return
        except OSError:
            continue


def _nanoseconds(moment: float) -> int | None:
    return None if moment == math.inf else max(0, round(moment * 1e9))


class _Reading:
    """The thread that reads, and all that it uses. It knows no `Listener`, so that one that
    nobody refers to any more is collected though its thread runs.

    Times are CLOCK_MONOTONIC, seconds.
    """

    def __init__(self, nodes: Nodes, sources: Sources, sockets: list[socket.socket]) -> None:
        self.nodes = nodes
        # One that a thread may take twice, since signal handlers may come here.
        self.lock = threading.RLock()
        self.bell = _Bell()
        self._wake = _Bell()
        self._resolver = Resolver((), nodes.family)
        self._name_files = NameFiles()
        self._sources = sources
        self._sockets = sockets
        self._receiver = Receiver(sources, None, batch=BATCH, size=SIZE)
        for sock in sockets:
            self._receiver.add_socket(sock)
        #: All that had arrived before this moment is in the table of sources.
        self.through = -math.inf
        self._due = math.inf  # what `through` is to reach next
        self._deadline = -math.inf  # until when the thread waits at most
        self._upkeep = 0.0
        self._fenced_until = 0.0
        self._unread = 0
        #: Losses that were told of, and when others may be.
        self.told = dict.fromkeys(_LOSSES, 0)
        self.tell_again = -math.inf
        #: What the counts were when the sockets were closed.
        self._final_counts: dict[str, int] | None = None
        #: Why the thread ended, if it was not asked to.
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="kdumpfence-listener", daemon=True)

    # ------------------------------------------------ for other threads and signal handlers

    def start(self) -> None:
        self.thread.start()

    def poke(self) -> None:
        """There is something to be seen to."""
        self._wake.ring()

    def read_through(self, moment: float) -> None:
        """`through` is wanted to reach that moment when it has come; the bell will ring."""
        self._due = moment
        if moment < self._deadline:
            self.poke()

    @property
    def counts(self) -> dict[str, int]:
        """Datagrams so far, by verdict."""
        final = self._final_counts
        if final is None:
            final = {**self._receiver.counts, "unread": self._receiver.dropped}
        return dict(final)

    def stop(self) -> None:
        """Ask the thread to end. Takes no lock and waits for nothing."""
        for bell in (self.bell, self._wake):
            bell.close()  # first, for who is woken looks whether it is
            bell.ring()

    # ------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        with self.bell.held() as bell, self._wake.held() as wake:
            try:
                while bell and wake and not self._wake.closed:
                    self._turn()
            except BaseException as failure:
                self.failure = failure
                self.bell.ring()
            finally:
                self._final_counts = self.counts
                for sock in self._sockets:
                    sock.close()
                self._resolver.close()

    def _turn(self) -> None:
        self._deadline = math.inf  # whoever wants less meanwhile pokes
        moments = [self._upkeep, self._names()]
        if self._due > self.through:
            moments.append(self._due)
        self._deadline = min(moments)
        self._count(_nanoseconds(self._deadline))
        self._wake.hush()
        now = time.monotonic()
        if now >= self._upkeep:
            self._upkeep = now + UPKEEP
            self._look_after(now)
        if self.through < self._due <= now:
            self._read_all()
            self.through = now
            self.bell.ring()

    def _count(self, deadline_ns: int | None) -> None:
        wake = (self._wake.readable, self._resolver.fd)
        try:
            self._receiver.count(deadline_ns, wake, self.bell.writable)
        except OSError as error:
            if error.errno not in (errno.ENOMEM, errno.EINTR, errno.ENOBUFS):
                raise
            time.sleep(0.05)  # short of memory: what wakes it is looked at all the same

    def _read_all(self) -> None:
        """Read what has arrived so far.

        No more than the queues can have held: a flood must not keep it for ever.
        """
        room = sum(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // _DATAGRAM_ROOM
            for sock in self._sockets
        )
        poller = select.poll()
        for sock in self._sockets:
            poller.register(sock.fileno(), select.POLLIN)
        until = sum(self._receiver.counts.values()) + room
        while poller.poll(0) and sum(self._receiver.counts.values()) <= until:
            self._receiver.count(0)

    def _names(self) -> float:
        """Look names up, and take the answers; when to come again."""
        now = time.monotonic()
        with self.lock:
            for name, answer in self._resolver.step():
                self._resolver.discard(name)
                self.nodes.answered(name, answer, now)
            room = LOOK_UPS - len(self._resolver.unresolved)
            for name in self.nodes.ask(now, room):
                self._resolver.add(name)
                room -= 1
            again = self.nodes.next_ask if room else None
        for name, answer in self._resolver.step():  # which starts them
            with self.lock:
                self._resolver.discard(name)
                self.nodes.answered(name, answer, now)
        moments = [moment for moment in (again, self._resolver.next_due) if moment is not None]
        return min(moments, default=math.inf)

    def _look_after(self, now: float) -> None:
        """What is to be done now and then."""
        if self._name_files.changed():
            self._resolver.hurry()
            with self.lock:
                self.nodes.hurry(now)
        unread = self._receiver.dropped
        if unread > self._unread:
            self._fence(True)
            self._fenced_until = now + FENCE
        elif self._fenced_until and now >= self._fenced_until:
            self._fence(False)
            self._fenced_until = 0.0
        self._unread = unread
        if now >= self.tell_again and self.losses() != self.told:
            self.bell.ring()

    def losses(self) -> dict[str, int]:
        """Datagrams that were lost, as of the last look."""
        return {"unread": self._unread, "crowded": self._receiver.counts["crowded"]}

    def _fence(self, up: bool) -> None:
        """In a flood let the kernel drop what is no message, before it takes room."""
        if up == bool(self._fenced_until):
            return
        for sock in self._sockets:
            with contextlib.suppress(OSError):  # then it is read and judged, as ever
                if up:
                    filters.attach(sock, filters.program("udp", 0, messages_only=True))
                else:
                    sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _network(text: str, families: Iterable[int]) -> tuple[bytes, int]:
    """(packed, prefix length). ValueError if it is no network that nodes can be in."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"network {text!r}: {error}") from None
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    if family not in families:
        other = "ipv6" if network.version == 4 else "ipv4"
        raise ValueError(f"network {text!r}: not an {other} network")
    return network.network_address.packed, network.prefixlen


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
    nodes have counts for none of them: give a node with two names as one node.

    `networks`, such as "192.0.2.0/24": who sends a message from there is a node, named by its
    address, while its dump lasts; at most `room` of them at a time.

    `silence`, `repeat`: see `kdumpfence.dumps.Dumps`. `family` is "auto" (both), "ipv4" or
    "ipv6". `port` 0 takes any that is free. `sockets` are bound UDP sockets to be used
    instead of opening some, as those of socket activation; they are closed with the Listener.
    `queue` is the number of bytes asked of the kernel for each socket's queue; without
    CAP_NET_ADMIN it gives no more than net.core.rmem_max.

    Raises ValueError for what cannot be, with one line that says what, and OSError if the
    port cannot be listened to.

    All times that it tells are Unix times, seconds. It decides by CLOCK_MONOTONIC.

    A process that forks must not use it in the child. `close` may be called by any thread
    and by signal handlers; iteration ends then.
    """

    _reading: _Reading | None = None

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
        if room < 0:
            raise ValueError(f"room {room}: 0 or more is allowed")
        if queue < 1:
            raise ValueError(f"queue {queue}: 1 byte or more is allowed")
        wanted = FAMILIES[family]
        families = (socket.AF_INET, socket.AF_INET6) if wanted == socket.AF_UNSPEC else (wanted,)
        self._clock = _Clock()
        self._dumps = Dumps(silence, repeat)
        self._sources = Sources(room=room)
        for text in networks:
            self._sources.admit(*_network(text, families), _ADMITTED)
        self._nodes = Nodes(wanted, self._sources)
        now = time.monotonic()
        pairs = nodes.items() if isinstance(nodes, Mapping) else ((name, ()) for name in nodes)
        for name, addresses in pairs:
            self._nodes.add(name, addresses, now)
        # Under way and admitted by a network: name -> (packed, scope).
        self._admitted: dict[str, tuple[bytes, int]] = {}
        self._ready: collections.deque[Event] = collections.deque()
        self._rest_until = 0.0
        self._rang = False
        if sockets is None:
            opened = _open_sockets(families, port)
        else:
            opened = list(sockets)
            _check_sockets(opened)
        for sock in opened:
            _deepen(sock, queue)
        self._port: int = opened[0].getsockname()[1]
        try:
            self._reading = _Reading(self._nodes, self._sources, opened)
            self._lock = self._reading.lock
            self._reading.start()
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
            for dump in dumps:
                self._dumps.restore(dump._replace(last=min(dump.last, now)), now)
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

    def _hear(self, heard: Iterable[tuple[int, bytes, int, int, int, int]]) -> None:
        name_of, decide, base = self._nodes.name_of, self._dumps.heard, self._clock.base
        for number, packed, scope, _, last_ns, messages in heard:
            address = _show(packed, scope)
            node = name_of(number)
            if node is None:
                if number != _ADMITTED:
                    continue  # removed meanwhile
                node = address
                self._admitted[node] = (packed, scope)
            event = decide(node, address, last_ns * 1e-9 + base, messages)
            if event is not None:
                self._tell(event)

    def _tell(self, event: Event | None) -> None:
        if event is None:
            return
        if event.kind == "silent":
            admitted = self._admitted.pop(event.node, None)
            if admitted is not None and not self._nodes.has(*admitted):
                self._sources.discard(*admitted)  # its room is free again
        self._ready.append(self._clock.event(event) if self._clock.stepped else event)

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
            dumps = self._dumps.snapshot()
            if self._clock.stepped:
                dumps = [self._clock.dump(dump) for dump in dumps]
            nodes, unresolved, shared = (
                len(self._nodes),
                self._nodes.unresolved,
                self._nodes.shared,
            )
        return Snapshot(when, dumps, nodes, unresolved, self._in_use.counts, shared)

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
    def _in_use(self) -> _Reading:
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
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=1)
            reading.stop()

    def __repr__(self) -> str:
        return f"<kdumpfence.Listener on port {self._port}/udp>"


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _show(packed: bytes, scope: int) -> str:
    if scope:
        return str(Address(packed, scope))
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the reading thread counted becomes events, and waits here until somebody takes them.

The thread counts each message at its source, in a table of the core (`reader`). `collect` has
those that were heard since the last time told to `dumps` (`hearing`), which decides. How many
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
import time
from collections.abc import Collection, Iterable

from kdumpfence.addresses import Address
from kdumpfence.listener.clock import Clock
from kdumpfence.listener.dumps import Dumps
from kdumpfence.listener.events import AnyEvent, Dump, Event, Overflow, checked, checked_end
from kdumpfence.listener.hearing import MOST, Hearing
from kdumpfence.listener.networks import Network
from kdumpfence.listener.nodes import Nodes
from kdumpfence.listener.reader import Reader
from kdumpfence.wire import Signed, Sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kdumpfence.listener.events import Counter

#: Seconds between two looks at what was heard, so that there is something to be seen.
REST = 0.02

#: Seconds that a look waits until the thread has read what a decision needs: it takes less than a
#: millisecond, unless the machine is in trouble.
READING = 5.0
#: Seconds between two looks whether it has: from the first value to the last.
LOOK_FIRST, LOOK_LAST = 0.0005, 0.02

#: Events that wait for somebody who takes them: so many at least, and with many nodes a beginning
#: and an end of each that there can be.
MOST_WAITING = 1 << 16


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
        networks: Collection[Network],
        room: int,
        dumps: Dumps,
        clock: Clock,
    ) -> None:
        self._reader = reader
        self._nodes = nodes
        self._sources = sources
        self._room = room if networks else 0
        self._dumps = dumps
        self._clock = clock
        self._hearing = Hearing(
            reader, nodes, sources, signed, networks, dumps, clock, self._tell, self._go_on
        )
        self._ready: collections.deque[AnyEvent] = collections.deque()
        # Whose beginning or going on is among those, put there by a look.
        self._waiting: set[str] = set()
        self._untaken = 0  # events that were given up
        self._looks = False  # nobody is about to take events: somebody just looks
        self._rang = False
        self._next_reading = 0.0  # when `has_read` may have the thread read again
        #: When `collect` is worth a call, by CLOCK_MONOTONIC.
        self.rest_until = 0.0

    # -------------------------------------------------------------------- taking what is there

    def __len__(self) -> int:
        return len(self._ready)

    def pop(self) -> AnyEvent:
        """The next event. IndexError if there is none."""
        event = self._ready.popleft()
        self._waiting.discard(event.node)
        return event

    def take(self) -> list[AnyEvent]:
        """The next events, `MOST` at most."""
        taken: list[AnyEvent] = []
        with contextlib.suppress(IndexError):
            while len(taken) < MOST:
                taken.append(self.pop())
        self.ring_for_the_rest()
        return taken

    def put_back(self, events: list[AnyEvent]) -> None:
        """These were taken, and are the next ones again."""
        self._ready.extendleft(reversed(events))
        self.ring_for_the_rest()

    def ring_for_the_rest(self) -> None:
        """Whoever waits for the bell is to come again for what is left."""
        if self._ready and not self._rang:
            self._rang = True
            self._reader.bell.ring()

    # --------------------------------------------------------------------------- what is known

    def listens_for(self, node: str) -> bool:
        """See `Listener.listens_for`. Without the lock, which is held for milliseconds."""
        return self._hearing.listens_for(node)

    def forget(self, node: str) -> None:
        """The node was removed; if it was dumping, it is silent now."""
        with self._reader.lock:
            self._tell(self._dumps.forget(node, self._clock.now()))
            self._clock.forget(node)
            self.ring_for_the_rest()

    def restore(self, dumps: Iterable[Dump], ended: Iterable[Event]) -> None:
        """See `Listener.restore`: all of them, or, with a ValueError, none."""
        under_way = [checked(dump) for dump in dumps]
        over = [checked_end(event) for event in ended]
        with self._reader.lock:
            names: set[str] = set()
            for node in [dump.node for dump in under_way] + [dump.node for dump, _, _ in over]:
                if node in names:
                    raise ValueError(f"node {node!r}: is there twice")
                names.add(node)
                self._dumps.check_new(node)
                if not self._hearing.listens_for(node):
                    raise ValueError(f"node {node!r}: neither one of the nodes nor in a network")
            now = self._clock.now()
            for dump in under_way:
                self._dumps.restore(self._clock.restored(dump), now)
            for ending, kind, when in over:
                dump = self._clock.restored(ending)
                on_our_clock = when - (ending.last - dump.last)
                self._dumps.restore_end(dump, kind, on_our_clock, now)
            for node in names.difference(self._nodes):
                self._hearing.restore_admitted(node)
            self._go_on()

    def _go_on(self) -> None:
        """Something was done from outside: have what follows from it looked after."""
        if not self._schedule():
            self._rang = True
            self._reader.bell.ring()
        self.ring_for_the_rest()

    def known(self, dumps: bool) -> tuple[float, list[Dump], list[str]]:
        """The time, the dumps under way (Unix times) if they are wanted, and the nodes' addresses
        that are our own.
        """
        with self._reader.lock:
            self._hearing.own.renew(time.monotonic())
            own = sorted(str(Address(*key)) for key in self._hearing.own if self._nodes.has(*key))
            found = self._clock.all_told(self._dumps.snapshot()) if dumps else []
            return self._clock.unix(self._clock.now()), found, own

    def figures(self) -> bytes:
        """See `Listener.figures`."""
        with self._reader.lock:
            return self._sources.figures(self._clock.unix_base)

    # -------------------------------------------------------------------------------- looks

    def look(self) -> None:
        """What was heard, and who fell silent, until this was called is known from now on.

        The events wait for whoever takes them. RuntimeError if the reading thread has died, or
        does not read.
        """
        began = time.monotonic()
        self._reader.catch_up()
        self._look_since(began)

    def _look_since(self, began: float) -> None:
        self._look()
        due = self._dumps.next_due
        if due is not None and self._await_reading(due, began):
            self._look()

    def find_all(self, nodes: Iterable[str], fresh: bool) -> list[Dump | None]:
        """As `find`, for all of them; if not `fresh`, without a look."""
        wanted = list(nodes)
        if fresh:
            began = time.monotonic()
            with self._reader.lock:
                for node in wanted:
                    self._hearing.fold(node)
            self._look_since(began)
        # Only to look into the kernel's table takes the lock, which is held for milliseconds;
        # without it each is what it was at a moment.
        in_kernel = self._reader.counts_in_kernel
        with self._reader.lock if in_kernel else contextlib.nullcontext():
            found = map(self._dumps.get, wanted)
            return [
                None if dump is None else self._clock.told(self._hearing.newest(dump))
                for dump in found
            ]

    def find(self, node: str) -> Dump | None:
        """The dump of this node now (Unix times). RuntimeError as `look`."""
        began = time.monotonic()
        with self._reader.lock:
            self._hearing.fold(node)
        self._look()
        if node in self._dumps and self._await_reading(self._dumps.over(node), began):
            self._look()
        with self._reader.lock:
            dump = self._dumps.get(node)
            return None if dump is None else self._clock.told(dump)

    def latest(self, node: str, fresh: bool) -> Dump | None:
        """See `Listener.latest`."""
        if fresh:
            self._reader.catch_up()
            with self._reader.lock:
                self._hearing.fold(node)
            self._look()
        with self._reader.lock:
            dump = self._dumps.latest(node)
            return None if dump is None else self._clock.told(self._hearing.newest(dump))

    def has_read(self, moment: float) -> bool:
        """See `Listener.has_read`."""
        reader = self._reader
        if reader.failure is not None:
            raise RuntimeError("the reading thread has died") from reader.failure
        if reader.through >= moment:
            return True
        # Who asks often must not keep the thread from its work.
        now = time.monotonic()
        if now >= self._next_reading:
            self._next_reading = now + max(REST, reader.decide)
            reader.read_now(now)
        return False

    def _look(self) -> None:
        # In pieces, so that nobody waits long for the lock; and no more of them than there can be:
        # what was heard of each node, and what fell silent.
        for _ in range(2 + 2 * (len(self._nodes) + self._room) // MOST):
            with self._reader.lock:
                if self._hearing.busy:  # a signal handler, in the middle of it
                    return
                self._looks = True
                try:
                    more = self._collect()
                finally:
                    self._looks = False
                self.ring_for_the_rest()
            if not more:
                return

    def _await_reading(self, due: float, began: float) -> bool:
        """Have all read that had come when a look began, if there was silence to decide by then.

        False if there was none. The thread may have read it since, of its own accord: then the
        look has to come again all the same. RuntimeError if the thread does not read.
        """
        reader = self._reader
        if reader.held_here or due - self._clock.base > began:
            return False
        if reader.through < began:
            reader.read_now(began)
        # By its naps and not by the clock: a process that was stopped has lost no time.
        nap, waited = LOOK_FIRST, 0.0
        while reader.through < began and not reader.bell.closed and reader.failure is None:
            if waited >= READING:
                raise RuntimeError(f"the reading thread has not read for {READING:g} s")
            time.sleep(nap)
            waited += nap
            nap = min(2 * nap, LOOK_LAST)
        return True

    # ------------------------------------------------------------------------ making new ones

    def collect(self) -> None:
        """Take what was heard, decide, and put the events where they are taken from.

        RuntimeError if the reading thread has died.
        """
        with self._reader.lock:
            if not self._hearing.busy:
                self._collect()
                if self._untaken:
                    lost, self._untaken = self._untaken, 0
                    self._tell_loss("untaken", lost)

    def _collect(self) -> bool:
        """Whether there is more, since not everything is dealt with at a time."""
        reader = self._reader
        if reader.failure is not None:
            raise RuntimeError("the reading thread has died") from reader.failure
        self._hearing.busy = True
        try:
            reader.bell.hush()
            self._rang = False
            self._clock.follow()
            # First the moment, then what was heard: all of it that came before that moment
            # is in the table by now.
            through = reader.through
            number = self._hearing.hear_all(MOST)
            more = number == MOST
            self.rest_until = time.monotonic() + REST if number and not more else 0.0
            if not more:
                for event in self._dumps.tick(through + self._clock.base, MOST):
                    self._tell(event)
                for node in self._dumps.forgotten():
                    self._hearing.forget(node)
            for counter, lost in reader.new_losses().items():
                self._tell_loss(counter, lost)
            more |= not self._schedule()
            if more:
                self._rang = True
                reader.bell.ring()
            return more
        finally:
            self._hearing.busy = False

    def _tell(self, event: Event | None) -> None:
        if event is None:
            return
        if event.kind == "began":
            self._clock.forget(event.node)  # what there is is of the dump before
        if self._looks and event.kind in ("began", "dumping"):
            # Looks may be many, and nobody may take what they find: that a dump goes on is told
            # once until somebody does.
            if event.kind == "dumping" and event.node in self._waiting:
                return
            self._waiting.add(event.node)
        self._put(self._clock.told(event))
        if event.kind == "silent":
            self._hearing.forget(event.node)

    def _put(self, event: AnyEvent) -> None:
        waiting = len(self._ready)
        if waiting >= MOST_WAITING and waiting >= 2 * (len(self._nodes) + self._hearing.admitted):
            self.pop()
            self._untaken += 1
        self._ready.append(event)

    def _tell_loss(self, counter: Counter, lost: int) -> None:
        when = self._clock.unix(self._clock.now())
        self._put(Overflow("overflow", "", when, counter, lost))

    def _schedule(self) -> bool:
        """Have it read until the next decision is due; False if one is due now."""
        reader, base = self._reader, self._clock.base
        due = self._dumps.next_due
        if due is None:
            reader.read_through(math.inf)
        elif due <= reader.through + base:
            return False
        else:
            reader.read_through(max(due - base, reader.through + reader.decide))
        return True

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads the sockets of a `Listener`, in a thread that does nothing else for long.

The core counts each message at its source, the compiled one without Python's lock, so the
kernel's queue is emptied whatever Python does meanwhile. The thread comes out of the core for
names that resolved, once a second to look after the queues, and when it is to say how far it
has read: `Reader.through`.

What may not be in this file: who is dumping, and events.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import math
import select
import socket
import time

from kdumpfence import filters
from kdumpfence.addresses import NameFiles, Resolver
from kdumpfence.listener import port_rivals
from kdumpfence.listener.answers import Answers
from kdumpfence.listener.bell import Bell
from kdumpfence.listener.nodes import Nodes
from kdumpfence.listener.threads import make_thread
from kdumpfence.own_addresses import look_up_node
from kdumpfence.sockets import udp_program
from kdumpfence.unpatched import Threads, original
from kdumpfence.wire import PACKET_BYTES, Receiver, Signed, Sources, signing_core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kdumpfence.listener.events import Counter
    from kdumpfence.listener.kernel.counting import Counting

#: Seconds between two looks of the reading thread at the kernel's counters and name files.
UPKEEP = 1.0

#: Seconds by which such a look may be late.
LATE = 10.0

#: Seconds that the kernel drops what is no message, after a queue was overfull.
FENCE = 30.0

#: Names that are being looked up at a time.
LOOK_UPS = 256

#: Datagrams that are read at a time, and bytes of each: it is to be seen whether it is a packet.
BATCH = 256
SIZE = PACKET_BYTES + 8

#: Nanoseconds that the core rests after a batch that was not full, which costs a fraction of
#: being woken for each datagram; but not where a queue cannot hold what comes meanwhile.
REST_NS = 1_000_000
REST_QUEUE = 1 << 21

#: Seconds between two looks at what the kernel counted, and between two decisions over who fell
#: silent: from the first to the last, so that looks at very many nodes have this share of the
#: thread's time. Who asks does not wait for that: `catch_up`, `read_now`.
SWEEP_FIRST, SWEEP_LAST = 0.02, 1.0
SWEEP_SHARE = 0.005
#: Seconds between two looks, at most: the kernel's numbers begin again some time.
SWEEP_MOST = 60.0

#: Seconds for which the sum of what the kernel counted will do for those who ask all the time.
COUNT_EVERY = 1.0

#: Instead of nanoseconds after which a node is told of again.
NEVER = -1

#: Questions between two looks at the queues that make a flood, if one was overfull.
FLOOD = 1000

#: What the kernel drops: nothing; what is neither a message nor a question; what is no message.
NOTHING, RUBBISH, ALL = range(3)

#: Seconds to wait for the thread that answers, when it ends.
PATIENCE = 5.0

#: Bytes of a queue that a datagram takes at least.
_DATAGRAM_ROOM = 512

#: Seconds; lost datagrams are told of at most that often.
OVERFLOW_REPEAT = 5.0


def _nanoseconds(moment: float) -> int | None:
    return None if moment == math.inf else max(0, round(moment * 1e9))


def _wait_for_memory(error: OSError) -> None:
    """Wait a little if the kernel was short of it, which passes; raise any other error."""
    if error.errno not in (errno.ENOMEM, errno.EINTR, errno.ENOBUFS):
        raise error
    original("time", "sleep")(0.05)


class Reader:
    """The thread that reads `sockets` into `sources`, and all that it uses.

    It keeps `nodes` in step with the name service, and hands questions on to `answers`. It knows no
    `Listener`, so that one that nobody refers to any more is collected though its thread runs.
    Whoever touches `nodes` holds `lock`. Times are CLOCK_MONOTONIC, seconds.
    """

    def __init__(
        self,
        nodes: Nodes,
        sources: Sources,
        signed: Signed | None,
        sockets: list[socket.socket],
        answers: Answers | None = None,
        counting: Counting | None = None,
        tell_repeats: bool = True,
    ) -> None:
        #: Whether it is told of what the kernel counts that a dump goes on.
        self.tell_repeats = self._tells_repeats = tell_repeats
        self.nodes = nodes
        self._sources = sources
        self._counting = counting
        self._next_counting: Counting | None = None
        # One that a thread may take twice, since signal handlers may come here.
        self.lock = _thread.RLock()
        self.bell = Bell()
        self._wake = Bell()
        self._resolver = Resolver((), nodes.family, ask=look_up_node, threads=Threads())
        self._name_files = NameFiles()
        self._sockets = sockets
        self.answers = answers
        questions = None if answers is None else answers.questions
        made = Receiver if signed is None else signing_core().Receiver
        self._receiver = made(
            sources, None, signed=signed, batch=BATCH, size=SIZE, questions=questions
        )
        for sock in sockets:
            self._receiver.add_socket(sock)
        self._room = [sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for sock in sockets]
        self._rest_ns = REST_NS if min(self._room) >= REST_QUEUE else 0
        #: All that had arrived before this moment is in the table of sources.
        self.through = -math.inf
        #: Seconds between two decisions over who fell silent, at least.
        self.decide = SWEEP_FIRST
        self._sweep_at = math.inf
        if counting is not None:
            counting.share(sources)
            self._sweep_at = 0.0
        self._due = math.inf  # what `through` is to reach next
        self._wanted = -math.inf  # what it is to reach at once
        self._deadline = -math.inf  # until when the thread waits at most
        self._upkeep = 0.0
        self._port: int = sockets[0].getsockname()[1]
        self._deaf = port_rivals.why_deaf(sockets, self._port)
        self._look_again = time.monotonic() + port_rivals.EVERY
        self._fence_up = NOTHING
        if counting is not None:
            self._attach()
        self._fenced_until = 0.0
        self._questions_until = math.inf
        self._unread = 0
        self._read = self._asked = 0  # datagrams, and questions among them, as of the last look
        # Losses that were told of, and when others may be.
        self._told: dict[Counter, int] = {"unread": 0, "crowded": 0}
        self._tell_again = -math.inf
        #: What the kernel had counted, and when it had.
        self._counted, self._counted_at = 0, -math.inf
        #: What the counts were when the sockets were closed.
        self._final_counts: dict[str, int] | None = None
        #: Why the thread ended, if it was not asked to.
        self.failure: BaseException | None = None
        self.thread = make_thread(self._run, "kdumpfence-listener")

    # ------------------------------------------------ for other threads and signal handlers

    def start(self) -> None:
        """From now on the sockets are its own. RuntimeError if there is no thread to be had."""
        try:
            if self.answers is not None:
                self.answers.start()
            self.thread.start()
        except BaseException:
            if self.answers is not None:
                self.answers.stop()
            self._resolver.close()
            raise

    def poke(self) -> None:
        """There is something to be seen to."""
        self._wake.ring()

    def read_through(self, moment: float) -> None:
        """`through` is wanted to reach that moment when it has come; the bell will ring."""
        self._due = moment
        if moment < self._deadline:
            self.poke()

    def read_now(self, moment: float) -> None:
        """`through` is to reach that moment, which has come, as soon as can be."""
        with self.lock:
            self._wanted = max(self._wanted, moment)
        self.poke()

    def count_with(self, counting: Counting) -> None:
        """Let this count in the kernel from now on, instead of what does so now."""
        with self.lock:
            unused, self._next_counting = self._next_counting, counting
            if self._final_counts is not None:  # it has ended
                unused, self._next_counting = counting, None
        if unused is not None:
            unused.close()
        self.poke()

    def catch_up(self) -> None:
        """Take all that the kernel has counted by now into the table of sources."""
        if self._counting is not None and self._sources.sweep():
            self.bell.ring()

    @property
    def counts(self) -> dict[str, int]:
        """Datagrams so far, by verdict."""
        self._counted_at = -math.inf
        return self.lately_counted()

    def lately_counted(self) -> dict[str, int]:
        """As `counts`, with what the kernel had counted COUNT_EVERY seconds ago or later."""
        final = self._final_counts
        if final is None:
            now = time.monotonic()
            if now >= self._counted_at + COUNT_EVERY:
                self._counted, self._counted_at = self._sources.counted, now
            final = {**self._receiver.counts, "unread": self._receiver.dropped}
            final["accepted"] += self._counted
        return dict(final)

    def new_losses(self) -> dict[Counter, int]:
        """Datagrams lost since this last told of some, by their name among the counts.

        {} if there are none, or within OVERFLOW_REPEAT seconds of the last time.
        """
        now, before, losses = time.monotonic(), self._told, self._losses()
        if now < self._tell_again or losses == before:
            return {}
        self._told, self._tell_again = losses, now + OVERFLOW_REPEAT
        return {name: n - before[name] for name, n in losses.items() if n > before[name]}

    @property
    def held_here(self) -> bool:
        """Whether this thread has what the reading thread may wait for: then it must not wait for
        that one. So it is in a signal handler that interrupted a call of the Listener.
        """
        held: bool = self.lock._is_owned()  # type: ignore[attr-defined]
        return held or self._sources.held_here

    @property
    def counts_in_kernel(self) -> bool:
        """Whether the kernel counts messages that say nothing new."""
        return self._counting is not None

    @property
    def deaf(self) -> str:
        """Why messages may not be heard; "" if nothing is known of it."""
        if self.failure is not None:
            return f"port {self._port}/udp: not read any more: {type(self.failure).__name__}"
        if self._upkeep and time.monotonic() - self._upkeep > LATE:
            return f"port {self._port}/udp: not read for more than {LATE:.0f} s"
        return self._deaf

    def stop(self) -> None:
        """Ask the thread to end. Takes no lock and waits for nothing."""
        self.bell.close()
        self._wake.close()
        if self.answers is not None:
            self.answers.stop()

    # ------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        asked = contextlib.nullcontext() if self.answers is None else self.answers.held()
        with self.bell.held() as bell, self._wake.held() as wake, asked:
            try:
                while bell and wake and not self._wake.closed:
                    self._turn()
            except BaseException as failure:
                self.failure = failure
                self.bell.ring()
            finally:
                counting = self._stop_counting()
                self._final_counts = self.counts
                if counting is not None:
                    self._sources.unshare()
                    counting.close()
                with self.lock:
                    if self._next_counting is not None:
                        self._next_counting.close()
                        self._next_counting = None
                if self.answers is not None:
                    self.answers.stop()
                    self.answers.join(PATIENCE)
                for sock in self._sockets:
                    sock.close()
                self._resolver.close()

    def _turn(self) -> None:
        self._deadline = math.inf  # whoever wants less meanwhile pokes
        if self._next_counting is not None:
            self._exchange()
        if self._counting is not None:
            self._counting.renew()
        moments = [self._upkeep, self._sweep_at, self._look_up_names()]
        if self._due > self.through:
            moments.append(self._due)
        if self._wanted > self.through:
            moments.append(self._wanted)
        self._deadline = min(moments)
        self._count(_nanoseconds(self._deadline))
        self._wake.hush()
        now = time.monotonic()
        if now >= self._upkeep:
            self._upkeep = now + UPKEEP
            self._look_after(now)
        wanted = now >= self._sweep_at or self._tells_repeats != self.tell_repeats
        if wanted and self._sweep():
            self.bell.ring()
        if self.through < self._due <= now or self.through < self._wanted:
            try:
                self._read_all()
            except OSError as error:
                _wait_for_memory(error)  # not all was read: so not so far yet
                return
            self.through = now
            self.bell.ring()

    def _count(self, deadline_ns: int | None) -> None:
        wake = (self._wake.readable, self._resolver.fd)
        try:
            self._receiver.count(deadline_ns, wake, self.bell.writable, self._rest_ns)
        except OSError as error:
            _wait_for_memory(error)  # what wakes it is looked at all the same

    def _read_all(self) -> None:
        """Read what has arrived so far.

        No more than the queues can have held: a flood must not keep it for ever.
        """
        room = sum(self._room) // _DATAGRAM_ROOM
        poller = original("select", "poll")()
        for sock in self._sockets:
            poller.register(sock.fileno(), select.POLLIN)
        until = sum(self._receiver.counts.values()) + room
        for _ in range(1 + room // BATCH):
            if not poller.poll(0) or sum(self._receiver.counts.values()) > until:
                break
            self._receiver.count(0)

    def _sweep(self) -> bool:
        """Look at what the kernel counted; whether there is news in it.

        That is who fell silent, and, if somebody wants to know, who goes on.
        """
        counting = self._counting
        if counting is None:
            return False
        began, used = time.monotonic(), time.thread_time()
        self._tells_repeats = tell = self.tell_repeats
        again_ns = counting.again_ns if tell else NEVER
        news = self._sources.sweep(again_ns)
        self.decide = (time.thread_time() - used) / SWEEP_SHARE
        self.decide = min(max(SWEEP_FIRST, self.decide), SWEEP_LAST)
        most = min(SWEEP_LAST, again_ns * 1e-9 / 4) if tell else SWEEP_MOST
        # Nobody can be silent before. A moment later, for one rounds and the other does not.
        silence = self._sources.next_silence * 1e-9 + 0.001
        self._sweep_at = max(began + self.decide, min(silence, began + most))
        return news

    def _exchange(self) -> None:
        """Go on with another table. What comes meanwhile is queued, for the lease has ended."""
        with self.lock:
            counting, self._next_counting = self._next_counting, None
        before = self._counting
        if counting is None or before is None:
            return
        before.revoke()
        self._sources.unshare()  # whoever was in there is news, and in the new one then
        counting.share(self._sources)
        self._counting = counting
        self._attach()
        before.close()
        self._sweep_at = 0.0
        self.bell.ring()

    def _stop_counting(self) -> Counting | None:
        """Leave the sockets, which others may have as well, as they would be without it."""
        counting, self._counting = self._counting, None
        if counting is not None:
            counting.revoke()
            self._attach()
        return counting

    def _look_up_names(self) -> float:
        """Take the answers, and ask for other names; when to come again."""
        now = time.monotonic()
        self._take_answers(now)
        with self.lock:
            room = LOOK_UPS - len(self._resolver.unresolved)
            for name in self.nodes.ask(now, room):
                self._resolver.add(name)
                room -= 1
            again = self.nodes.next_ask if room else None
        self._take_answers(now)  # which starts the look-ups
        moments = [moment for moment in (again, self._resolver.next_due) if moment is not None]
        return min(moments, default=math.inf)

    def _take_answers(self, now: float) -> None:
        for name, answer in self._resolver.step():
            with self.lock:
                self._resolver.discard(name)
                self.nodes.answered(name, answer, now)

    def _look_after(self, now: float) -> None:
        """What is to be done every UPKEEP seconds: name files, who else holds the port, floods."""
        if self._name_files.changed():
            self._resolver.hurry()
            with self.lock:
                self.nodes.hurry(now)
        if now >= self._look_again:
            self._look_again = now + port_rivals.EVERY
            self._deaf = port_rivals.why_deaf(self._sockets, self._port)
        unread, counts = self._receiver.dropped, self._receiver.counts
        read, asked = sum(counts.values()), counts["question"]
        if now >= self._questions_until:
            self._questions_until = math.inf
            self._fence(RUBBISH)
        if unread > self._unread:
            self._fenced_until = now + FENCE
            if max(FLOOD, (read - self._read) / 2) < asked - self._asked:
                # No question is worth a message. Not prolonged by those that it keeps out: they
                # may be the true ones.
                self._questions_until = now + FENCE
                self._fence(ALL)
            else:
                self._fence(max(self._fence_up, RUBBISH))
        elif now >= self._fenced_until:
            self._fence(NOTHING)
        self._unread, self._read, self._asked = unread, read, asked
        if now >= self._tell_again and self._losses() != self._told:
            self.bell.ring()

    def _losses(self) -> dict[Counter, int]:
        """Datagrams that were lost, as of the last look, by their name among the counts."""
        return {"unread": self._unread, "crowded": self._receiver.counts["crowded"]}

    def _fence(self, up: int) -> None:
        """In a flood let the kernel drop what is no message, before it takes room."""
        if self.answers is None and up == RUBBISH:
            up = ALL  # nobody wants the questions
        if up == self._fence_up:
            return
        self._fence_up = up
        self._attach()

    def _attach(self) -> None:
        up = self._fence_up
        attach = filters.attach if self._counting is None else self._counting.attach
        for sock in self._sockets:
            with contextlib.suppress(OSError):  # then the one that it has stays
                attach(sock, udp_program(sock, messages_only=up > NOTHING, questions=up == RUBBISH))

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The one small server of the daemon: a thread that answers clients over stream sockets.

What a client can cost is bounded in connections, bytes and seconds, so one that is slow, gone or
rude costs the daemon nothing, and holds up nobody else. An answer may go on later, piece by piece,
as things happen: the client keeps its place meanwhile. Short questions are answered as they come;
long ones, and answers that go on, share a few milliseconds of each turn, so nobody waits for them.
What may not be in this file: what is asked and answered.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Optional, Protocol

from kdumpfence.signals import Wakeup

#: Seconds until the next try when the process has no descriptor left for a client.
_PAUSE = 0.5

#: Seconds that the end waits for an answer that is being made.
_LAST_ANSWER = 1.0

#: Bytes that clients together may leave unread, and from which size on an answer is looked at.
_MOST_UNREAD = 1 << 26
_LARGE = 1 << 20

#: Bytes that are read at a time.
_PIECE = 1 << 16

#: Connections that are accepted in a turn. Each may cost an older one its place: that one is to
#: have had turns to ask.
_MOST_NEW = 16

#: Bytes of a question that is answered at once, with what was sent behind it.
_SHORT = 1024

#: Seconds of each turn for longer questions and for answers that go on; one piece at least.
_LONG_TURN = 0.002


class Limits(NamedTuple):
    """What clients can cost."""

    #: At a time; for one more, the one that was quiet longest has to go.
    clients: int
    #: Bytes of a question.
    question: int
    #: Seconds that a client may take for its question.
    quiet: float
    #: Seconds in which it has to read its answer, or a piece of it; None: in what is left of
    #: `quiet`.
    unread: float | None = None


class More(Protocol):
    """The rest of an answer, which comes later and perhaps in pieces."""

    #: When to ask for it at the latest, CLOCK_MONOTONIC; it may change with each piece.
    due: float

    def next(self) -> bytes | None:
        """The next piece; b"" if there is none yet, None if there will be none.

        A piece that takes more than a few milliseconds is too large: return b"" on the way.
        """


class Answer(NamedTuple):
    """What a client gets."""

    data: bytes
    #: What it sent behind its question.
    rest: bytes = b""
    #: Whether to hang up afterwards.
    last: bool = False
    #: What comes after `data`.
    more: More | None = None


#: The answer to what a client has sent; None: the question is not complete.
Respond = Callable[[bytes], Optional[Answer]]


class BoundedServer:
    """Answers whoever connects to `listener`, from `start` on, in a thread with this name."""

    def __init__(
        self, name: str, listener: socket.socket, limits: Limits, respond: Respond
    ) -> None:
        self._name = name
        self._listener = listener
        self._limits = limits
        self._respond = respond
        self._clients: dict[int, _Client] = {}
        #: Those whose answer goes on later.
        self._waiting: set[_Client] = set()
        #: Those with a long question, or an answer that may go on, in the order of their turns.
        self._long: dict[_Client, None] = {}
        self._news = False
        self._closing = False
        self._wakeup = Wakeup()
        self._thread: threading.Thread | None = None
        self._accept_at = math.inf  # when to take in clients again; CLOCK_MONOTONIC as all times
        self._look_at = math.inf  # when somebody may be overdue, or due for more
        self._epoll = select.epoll()
        self._epoll.register(listener, select.EPOLLIN)
        self._epoll.register(self._wakeup, select.EPOLLIN)
        listener.setblocking(False)

    def start(self) -> None:
        """Answer from now on. RuntimeError if there can be no thread."""
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        thread.start()
        self._thread = thread  # not before: `close` waits for it

    def news(self) -> None:
        """There may be something for those whose answer goes on later. From any thread."""
        # Who waits is among them before it looks for more, so nobody sleeps over this.
        if self._waiting and not self._news:
            self._news = True
            self._wakeup.wake()

    def close(self) -> None:
        """Hang up on all clients, at once; a second time does nothing."""
        if self._closing:
            return
        self._closing = True
        self._wakeup.wake()
        if self._thread is None:
            self._hang_up()
        else:
            self._thread.join(_LAST_ANSWER)
            if self._thread.is_alive():
                return  # it still makes an answer; its sockets go with the process
        self._wakeup.close()

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)
        self._epoll.close()
        self._listener.close()

    def _turn(self) -> None:
        """One round: answer who asked, take in who came, drop who is overdue."""
        at = min(self._look_at, self._accept_at)
        wait = -1 if at == math.inf else max(0.0, at - time.monotonic())
        for fd, event in self._epoll.poll(0 if self._long else wait):
            client = self._clients.get(fd)
            if client is not None:
                if client.ended and event & (select.EPOLLHUP | select.EPOLLERR):
                    self._drop(client)
                else:
                    self._serve(client)
            elif fd == self._wakeup.fileno():
                self._wakeup.clear()
            elif fd == self._listener.fileno():
                self._accept()
        if self._news:
            self._news = False  # first: what comes from now on is news again
            self._long.update(dict.fromkeys(self._waiting))
        now = time.monotonic()
        if now >= self._look_at:
            self._look(now)
        if now >= self._accept_at:
            self._accept_at = math.inf
            self._epoll.register(self._listener, select.EPOLLIN)
        self._go_on_for_a_while()

    def _look(self, now: float) -> None:
        """Drop who is overdue; whose answer is due gets a turn."""
        self._look_at = math.inf
        for client in list(self._clients.values()):
            if client.overdue <= now:
                self._drop(client)
            elif client.more is not None and not client.unsent and client.more.due <= now:
                self._long[client] = None
        self._look_at = min(map(self._next_look, self._clients.values()), default=math.inf)

    def _next_look(self, client: _Client) -> float:
        if client.more is not None and not client.unsent and client not in self._long:
            return min(client.overdue, client.more.due)
        return client.overdue

    def _go_on_for_a_while(self) -> None:
        """Long questions and answers, one piece after the other."""
        end = time.monotonic() + _LONG_TURN
        while self._long and not self._closing:
            client = next(iter(self._long))
            del self._long[client]
            self._serve(client, its_turn=True)
            if time.monotonic() >= end:
                break

    # Each system call lets another thread have the interpreter, and to get it back can take a
    # while when that one is busy. So as few of them as can be stand between a question and its
    # answer.

    def _accept(self) -> None:
        for _ in range(_MOST_NEW):
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError:
                # No descriptor left: the next poll would come back at once, for ever.
                self._epoll.unregister(self._listener)
                self._accept_at = time.monotonic() + _PAUSE
                return
            if len(self._clients) >= self._limits.clients:
                self._drop(min(self._clients.values(), key=lambda one: one.active))
            client = _Client(sock, self._limits.quiet)
            self._clients[client.fd] = client
            self._serve(client)  # most have asked by now

    def _serve(self, client: _Client, its_turn: bool = False) -> None:
        """Go on with the client as far as it goes without waiting.

        `its_turn`: with its long question, or its answer that goes on.
        """
        if client.gone:  # to make room, in this very round
            return
        try:
            with contextlib.suppress(BlockingIOError):
                if its_turn:
                    self._go_on(client)
                elif not client.unsent:
                    self._read(client)
                if client.unsent:
                    self._send(client)
            if not client.gone:
                self._await(client)
        except OSError:
            self._drop(client)

    def _await(self, client: _Client) -> None:
        """Come back when it has room for the answer, or else when it says something."""
        if client.unsent:
            event = select.EPOLLOUT
        else:
            enough = client.ended or len(client.unread) > self._limits.question
            event = 0 if enough else select.EPOLLIN
        if client.awaited < 0:
            self._epoll.register(client.fd, event)
        elif client.awaited != event:
            self._epoll.modify(client.fd, event)
        client.awaited = event
        self._look_at = min(self._look_at, self._next_look(client))

    def _read(self, client: _Client) -> None:
        if client.ended:
            return
        data = client.sock.recv(_PIECE, socket.MSG_DONTWAIT)
        client.active = time.monotonic()
        client.unread += data
        client.ended = not data  # it asks no more, but may still wait for its answer
        if client.more is None and not client.asks:
            self._asked(client)
        elif client.more is not None and len(client.unread) > self._limits.question:
            self._drop(client)

    def _asked(self, client: _Client) -> None:
        """Answer at once if that is short, and else when it is its turn."""
        if len(client.unread) > _SHORT:
            client.asks = True
            self._long[client] = None
        else:
            self._answer(client)

    def _answer(self, client: _Client) -> None:
        """Answer the first question that is there, if there is one."""
        client.asks = False
        answer = self._respond(client.unread) if client.unread else None
        if answer is None:
            if client.ended or len(client.unread) > self._limits.question:
                self._drop(client)
            return
        data, client.unread, client.last, client.more = answer
        self._put(client, data)
        if client.more is not None and not data:
            self._long[client] = None

    def _put(self, client: _Client, data: bytes) -> None:
        """It gets this, and is to read it in time. ConnectionError if that would be too much."""
        client.unsent = memoryview(data)
        if len(data) > _LARGE:
            unread = sum(len(one.unsent) for one in self._clients.values())
            if unread > _MOST_UNREAD:
                raise ConnectionError("clients leave too much unread")
        if self._limits.unread is not None:
            client.overdue = time.monotonic() + self._limits.unread

    def _go_on(self, client: _Client) -> None:
        """Its long question, or the next piece of its answer, if there is one."""
        if client.more is None:
            self._answer(client)
            return
        self._waiting.add(client)
        piece = client.more.next()
        if piece == b"":
            client.overdue = math.inf  # it waits for us
            if client.more.due <= time.monotonic():
                self._long[client] = None  # behind the others
            return
        self._waiting.discard(client)
        if piece is None:
            client.more = None
            self._answered(client)
        else:
            self._put(client, piece)

    def _send(self, client: _Client) -> None:
        while client.unsent:
            sent = client.sock.send(client.unsent, socket.MSG_DONTWAIT)
            client.unsent = client.unsent[sent:]
        client.active = time.monotonic()
        if client.more is not None:
            self._long[client] = None
        else:
            self._answered(client)

    def _answered(self, client: _Client) -> None:
        """It has its whole answer."""
        if client.last:
            self._drop(client)
            return
        client.overdue = client.active + self._limits.quiet
        if client.unread or client.ended:
            self._asked(client)  # another one came along with this one; its answer leaves next turn

    def _drop(self, client: _Client) -> None:
        client.gone = True
        del self._clients[client.fd]
        self._waiting.discard(client)
        self._long.pop(client, None)
        with contextlib.suppress(OSError):
            client.sock.close()


class _Client:
    """One connection."""

    def __init__(self, sock: socket.socket, quiet: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.gone = False
        self.ended = False  # nothing more comes from it
        self.awaited = -1  # the events for which it is registered; -1: it is not
        self.unread = b""
        self.unsent = memoryview(b"")
        self.asks = False  # a long question, which waits for its turn
        self.more: More | None = None  # what is to be sent after that
        self.last = False  # to be closed after this answer
        self.active = time.monotonic()
        self.overdue = self.active + quiet

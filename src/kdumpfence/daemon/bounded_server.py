# SPDX-License-Identifier: LGPL-2.1-or-later
"""The one small server of the daemon: a thread that answers clients over stream sockets.

What a client can cost is bounded in connections, bytes and seconds, so one that is slow, gone or
rude costs the daemon nothing, and holds up nobody else. What may not be in this file: what is
asked and answered.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Optional

from kdumpfence.signals import Wakeup

#: Seconds until the next try when the process has no descriptor left for a client.
_PAUSE = 0.5

#: Seconds that the end waits for an answer that is being made.
_LAST_ANSWER = 1.0


class Limits(NamedTuple):
    """What clients can cost."""

    #: At a time; for one more, the one that was quiet longest has to go.
    clients: int
    #: Bytes of a question.
    question: int
    #: Seconds that a client may take for its question.
    quiet: float
    #: Seconds in which it has to read its answer; None: in what is left of `quiet`.
    unread: float | None = None


class Answer(NamedTuple):
    """What a client gets."""

    data: bytes
    #: What it sent behind its question.
    rest: bytes = b""
    #: Whether to hang up afterwards.
    last: bool = False


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
        self._clients: set[_Client] = set()
        self._closing = False
        self._wakeup = Wakeup()
        self._thread: threading.Thread | None = None
        self._accept_at = 0.0  # CLOCK_MONOTONIC; 0: at any time
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        listener.setblocking(False)

    def start(self) -> None:
        """Answer from now on. RuntimeError if there can be no thread."""
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        thread.start()
        self._thread = thread  # not before: `close` waits for it

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
        for client in list(self._clients):
            self._drop(client)
        self._selector.close()
        self._listener.close()

    def _turn(self) -> None:
        """One round: answer who asked, take in who came, drop who is overdue."""
        for key, _ in self._selector.select(self._wait()):
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.data, _Client):
                self._serve(key.data)
        now = time.monotonic()
        for client in [one for one in self._clients if one.overdue <= now]:
            self._drop(client)
        if self._accept_at and self._accept_at <= now:
            self._accept_at = 0.0
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _wait(self) -> float | None:
        times = [client.overdue for client in self._clients]
        if self._accept_at:
            times.append(self._accept_at)
        return max(0.0, min(times) - time.monotonic()) if times else None

    # Each system call lets another thread have the interpreter, and to get it back can take 5 ms
    # when that one is busy. So as few of them as can be stand between a question and its answer.

    def _accept(self) -> None:
        # One a turn: who was taken in is served before the next one comes.
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return
        except OSError:
            # No descriptor left: the next select would come back at once, for ever.
            self._selector.unregister(self._listener)
            self._accept_at = time.monotonic() + _PAUSE
            return
        if len(self._clients) >= self._limits.clients:
            self._drop(min(self._clients, key=lambda one: one.active))
        client = _Client(sock, self._limits.quiet)
        self._clients.add(client)
        self._serve(client)  # most have asked by now

    def _serve(self, client: _Client) -> None:
        """Go on with the client as far as it goes without waiting."""
        if client.gone:  # to make room, in this very round
            return
        try:
            with contextlib.suppress(BlockingIOError):
                if not client.unsent:
                    self._read(client)
                if client.unsent:
                    self._send(client)
            if not client.gone:
                self._await(client)
        except OSError:
            self._drop(client)

    def _await(self, client: _Client) -> None:
        """Come back when it has room for the answer, or else when it says something."""
        event = selectors.EVENT_WRITE if client.unsent else selectors.EVENT_READ
        if client.awaited == 0:
            self._selector.register(client.sock, event, client)
        elif client.awaited != event:
            self._selector.modify(client.sock, event, client)
        client.awaited = event

    def _read(self, client: _Client) -> None:
        data = client.sock.recv(self._limits.question, socket.MSG_DONTWAIT)
        client.active = time.monotonic()
        client.unread += data
        if data:
            self._answer(client)
        if not data or (not client.unsent and len(client.unread) > self._limits.question):
            self._drop(client)

    def _answer(self, client: _Client) -> None:
        """Answer the first question that is there, if there is one."""
        answer = self._respond(client.unread)
        if answer is not None:
            client.unsent, client.unread, client.last = memoryview(answer.data), *answer[1:]
            if self._limits.unread is not None:
                client.overdue = time.monotonic() + self._limits.unread

    def _send(self, client: _Client) -> None:
        while client.unsent:
            sent = client.sock.send(client.unsent, socket.MSG_DONTWAIT)
            client.unsent = client.unsent[sent:]
        if client.last:
            self._drop(client)
            return
        client.active = time.monotonic()
        client.overdue = client.active + self._limits.quiet
        self._answer(client)  # it may have come along with this one; its answer leaves next turn

    def _drop(self, client: _Client) -> None:
        client.gone = True
        self._clients.remove(client)
        if client.awaited:
            self._selector.unregister(client.sock)
        with contextlib.suppress(OSError):
            client.sock.close()


class _Client:
    """One connection."""

    def __init__(self, sock: socket.socket, quiet: float) -> None:
        self.sock = sock
        self.gone = False
        self.awaited = 0  # the event for which it is registered
        self.unread = b""
        self.unsent = memoryview(b"")
        self.last = False  # to be closed after this answer
        self.active = time.monotonic()
        self.overdue = self.active + quiet

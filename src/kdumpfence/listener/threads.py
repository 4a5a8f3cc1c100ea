# SPDX-License-Identifier: LGPL-2.1-or-later
"""Threads of the system, and a wait that lets others have their turn, with gevent and eventlet too.

What may not be in this file: what the threads do.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from kdumpfence.unpatched import is_patched, original


class Thread(Protocol):
    """What is used of a thread."""

    @property
    def ident(self) -> int | None:
        """Its number once it runs."""

    def start(self) -> None:
        """Begin. RuntimeError if there is no thread to be had."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""


class _SystemThread:
    """A thread of the system beside a `threading` that has none."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self._ended: Any = original("_thread", "allocate_lock")()
        self.ident: int | None = None

    def start(self) -> None:
        self._ended.acquire()
        try:
            self.ident = original("_thread", "start_new_thread")(self._all, ())
        except BaseException:
            self._ended.release()
            raise

    def join(self, timeout: float | None = None) -> None:
        if self._ended.acquire(timeout=-1 if timeout is None else timeout):
            self._ended.release()

    def _all(self) -> None:
        try:
            self._run()
        finally:
            self._ended.release()


def make_thread(run: Callable[[], None], name: str) -> Thread:
    """A thread that ends with the program."""
    if is_patched():
        return _SystemThread(run)
    return threading.Thread(target=run, name=name, daemon=True)


def is_this(thread: Thread) -> bool:
    """Whether it is the one that asks."""
    number: int = original("_thread", "get_ident")()
    return thread.ident == number


def wait_readable(fd: int, seconds: float) -> None:
    """Wait until it can be read, for so long at most, as the program's other threads do."""
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.poll(seconds * 1e3)
        return
    # eventlet, which takes it amiss if two wait for one descriptor.
    own = os.dup(fd)
    try:
        select.select([own], [], [], seconds)
    finally:
        os.close(own)


def system_sockets(given: Iterable[socket.socket]) -> list[socket.socket]:
    """The same sockets, for a thread of the system; with gevent and eventlet copies of them."""
    if not is_patched():
        return list(given)
    made = original("socket", "socket")
    return [made(sock.family, sock.type, sock.proto, os.dup(sock.fileno())) for sock in given]

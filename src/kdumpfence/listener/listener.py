# SPDX-License-Identifier: GPL-2.0-or-later
"""The public interface: hears any number of nodes, and tells what happens to them as events.

This file checks what it is given, opens the sockets, and hands events to whoever waits for them,
in a thread or in asyncio. A thread reads the sockets (`reader`), what it counted becomes events
(`event_queue`), who is dumping is decided in `dumps`, which node has which address in `nodes`,
and what is a message in the core. What may not be in it: files, a daemon's settings, anything
about a cluster.
"""

from __future__ import annotations

import math
import os
import select
import socket
import threading
import time
import warnings
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import NamedTuple

from kdumpfence.addresses import FAMILIES, socket_families
from kdumpfence.keys import DEFAULT_PATH, Keys
from kdumpfence.listener.answers import Answers
from kdumpfence.listener.bell import Bell
from kdumpfence.listener.cluster_keys import AUTHS, cluster_keys, read_keys
from kdumpfence.listener.dumps import REPEAT, SILENCE, Dump, Dumps, Event
from kdumpfence.listener.event_queue import EventQueue
from kdumpfence.listener.nodes import ADMITTED, Nodes, parsed_network
from kdumpfence.listener.reader import Reader
from kdumpfence.listener.sockets import open_sockets, taken_over
from kdumpfence.sockets import deepen
from kdumpfence.text import shown
from kdumpfence.wire import PORT, Questions, Signed, Sources, signing_core

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

__all__ = ["Dump", "Event", "Listener", "Snapshot"]

#: Seconds; a signal that came just before a poll does not end it, so none is longer.
SLICE = 0.5

#: Seconds; the thread ends at once unless the machine is in trouble.
JOIN = 10.0

#: What numbers the core and the kernel take.
MOST_ROOM = (1 << 32) - 1
MOST_QUEUE = 1 << 30


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
    #: Why messages may not reach it, in one line, such as that another program shares the port;
    #: "" if nothing is known to be wrong. Firewalls are not looked at.
    deaf: str = ""
    #: How many questions it has answered.
    answers: int = 0
    #: The name with which it answers, and the last one that was asked for if that was another; "".
    answers_as: str = ""
    asked_for: str = ""


class Listener:
    """Listens for nodes that are dumping, and yields an `Event` for each thing that happens.

    Use it as a context manager, and iterate over it with `for` or `async for` until `close` is
    called. Several threads may do so; each event goes to one of them.

    `nodes`: {name: addresses or host names of the node}, or names alone that are addresses or
    host names themselves. Host names are looked up in the background, again and again until they
    have addresses, and from then on every five minutes and when /etc/hosts changes. An address
    that several nodes have counts for none of them: give a machine with two names as one node. Nor
    does an address of this machine count, nor a loopback address that a name leads to.

    `networks`, such as "192.0.2.0/24": whoever sends a message from there is a node while its
    dump lasts, named by its address; at most `room` of them at a time.

    What this machine sends to itself is never heard, whatever its source address, which any user
    can choose. For trials loopback counts if it is given as such: as addresses (127.0.0.1, not
    "localhost"), or as networks within 127.0.0.0/8.

    `auth`: "none", or "sha256": only messages count that are signed with a key of the cluster, or
    with one derived from it, and that cannot have been recorded earlier. A node is then known by
    its name, wherever it speaks from; its addresses, and whether names have any, do not matter. Of
    `networks` it is named by the name that it signs with.

    `answer`: the name with which this machine answers questions whether it is alive, see
    docs/protocol.md. None: they are only counted. A crash kernel does not answer.

    `key_file`: what both are done with. Messages are believed by the cluster's keys; with `auth` it
    is /etc/kdumpfence/key unless given. Answers are signed with this node's key, or, without a
    key file, not signed. `keys`: the same, from elsewhere.

    `silence`, `repeat`: seconds, see `kdumpfence.listener.dumps.Dumps`.
    `family`: "auto" (both), "ipv4" or "ipv6". `port`: 0 takes any that is free.
    `sockets`: bound UDP sockets to be used instead of opening some, such as those of socket
    activation. They are closed with the Listener, and no longer share their port (SO_REUSEADDR,
    SO_REUSEPORT). What lies in the queue of an IPv6 one is lost, unless a Listener had it before.
    `queue`: bytes asked of the kernel for each socket's queue; without CAP_NET_ADMIN it gives at
    most net.core.rmem_max.

    Raises ValueError or TypeError with one line that says what cannot be, and OSError if it cannot
    listen on the port.

    All times that it tells are Unix times, float seconds; it decides by CLOCK_MONOTONIC.

    A process that forks must not use it in the child. `close` may be called from any thread and
    from signal handlers.
    """

    _reader: Reader | None = None
    _signed: Signed | None = None

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
        auth: str = "none",
        answer: str | None = None,
        key_file: str | None = None,
        keys: Keys | None = None,
    ) -> None:
        if isinstance(nodes, (str, bytes)) or isinstance(networks, (str, bytes)):
            raise TypeError("nodes, networks: expected a list, not a string")
        if family not in FAMILIES:
            raise ValueError(f"family {family!r}: must be one of {', '.join(FAMILIES)}")
        if auth not in AUTHS:
            raise ValueError(f"auth {auth!r}: must be one of {', '.join(AUTHS)}")
        if key_file is not None and auth == "none" and answer is None:
            raise ValueError(f"key_file {key_file!r}: needs auth='sha256' or answer")
        if key_file is not None and keys is not None:
            raise ValueError(f"key_file {key_file!r}: not with keys")
        for what, number, least, most, unit in (
            ("port", port, 0, 65535, ""),
            ("room", room, 0, MOST_ROOM, ""),
            ("queue", queue, 1, MOST_QUEUE, " bytes"),
        ):
            if not least <= number <= most:
                raise ValueError(f"{what} {number}: must be {least} to {most}{unit}")
        dumps = Dumps(silence, repeat)
        if auth != "none" and keys is None:
            key_file = key_file or DEFAULT_PATH
        self._key_file = key_file
        if key_file is not None:
            keys = read_keys(key_file)
        if auth == "none":
            sources, questions = Sources(room=room), Questions
        else:
            core = signing_core()
            sources, questions = core.Sources(room=room), core.Questions
            self._signed = core.Signed(sources, self._believed(keys))
        for text in networks:
            sources.admit(*parsed_network(text, FAMILIES[family]), ADMITTED)
        self._nodes = Nodes(FAMILIES[family], sources, self._signed)
        now = time.monotonic()
        pairs = nodes.items() if isinstance(nodes, Mapping) else ((name, ()) for name in nodes)
        for name, addresses in pairs:
            self._nodes.add(name, addresses, now)
        if sockets is not None:
            opened = taken_over(sockets)
        else:
            opened = open_sockets(socket_families(family), port)
        for sock in opened:
            deepen(sock, queue)
        self._port: int = opened[0].getsockname()[1]
        try:
            if answer is None:
                answers = None
            else:
                answers = Answers(opened, answer, keys, questions)
            reader = Reader(self._nodes, sources, self._signed, opened, answers)
            self._events = EventQueue(reader, self._nodes, sources, self._signed, dumps)
            reader.start()
            self._reader = reader
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
        with self._in_use.lock:
            self._nodes.add(name, addresses, time.monotonic())
        self._in_use.poke()

    def remove(self, name: str) -> None:
        """Do not listen for this node any more. "silent" is told if it was dumping.

        KeyError if there is no such node.
        """
        with self._in_use.lock:
            self._nodes.remove(name)
            self._events.forget(name)
        self._in_use.bell.ring()

    def reload_keys(self, keys: Keys | None = None) -> list[int]:
        """Use these keys, or what the key file has now; the ids of those that are believed.

        Dumps go on, and nothing is missed. ValueError if they cannot be used; then the keys stay
        what they were.
        """
        if keys is None:
            if self._key_file is None:
                return []
            keys = read_keys(self._key_file)
        believed = [] if self._signed is None else self._believed(keys)
        if self._signed is not None:
            self._signed.use(believed)
        answers = self._in_use.answers
        if answers is not None:
            answers.answer_as(answers.node, keys)
        return [number for number, _ in believed]

    def _believed(self, keys: Keys | None) -> list[tuple[int, bytes]]:
        assert keys is not None
        whence = "keys" if self._key_file is None else f"key file {shown(self._key_file)}"
        return cluster_keys(keys, whence)

    def restore(self, dumps: Iterable[Dump], ended: Iterable[Event] = ()) -> None:
        """These dumps were under way before a restart (Unix times); they go on.

        `ended`: the events "finished" or "failed" of nodes' last dumps, if they are no older than
        a day or so: what is still heard of these dumps begins no new ones. To be called before the
        first event is taken. Their silence counts from now on. ValueError for a node that is
        dumping already.
        """
        self._events.restore(dumps, ended)

    def answer_as(self, node: str, keys: Keys | None = None) -> None:
        """Answer with this name and these keys from now on.

        RuntimeError if it was made without `answer`, ValueError for what no packet can carry.
        """
        answers = self._in_use.answers
        if answers is None:
            raise RuntimeError("this Listener answers no questions: make it with answer=NAME")
        answers.answer_as(node, keys)

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
                if not self._events:
                    rest = min(self._events.rest_until, until) - time.monotonic()
                    if rest > 0:
                        time.sleep(rest)
                    self._events.collect()
                taken = self._events.take()
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
                return self._events.pop()
            except IndexError:
                self._events.put_back(self.events())
        raise StopIteration

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Event:
        import asyncio  # those who get here have it anyway

        while not self.closed:
            if not self._events:
                # Others have their turn, even if there is no end of events.
                await asyncio.sleep(max(0.0, self._events.rest_until - time.monotonic()))
                self._events.collect()
            try:
                event = self._events.pop()
            except IndexError:
                await _rung(self._in_use.bell)
                continue
            self._events.ring_for_the_rest()
            return event
        raise StopAsyncIteration

    # ---------------------------------------------------------------------------- the rest

    def snapshot(self) -> Snapshot:
        """What is known now, as of the last event that was made. From any thread."""
        reader = self._in_use
        with reader.lock:
            when, dumps, own = self._events.known()
            nodes, unresolved = len(self._nodes), self._nodes.unresolved
            shared = self._nodes.shared
        answers = reader.answers
        return Snapshot(
            when,
            dumps,
            nodes,
            unresolved,
            reader.counts,
            shared,
            own,
            reader.deaf,
            *((answers.sent, answers.node, answers.asked_for) if answers else ()),
        )

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
    def _in_use(self) -> Reader:
        if self._reader is None:
            raise RuntimeError("this Listener was not initialised")
        return self._reader

    def close(self) -> None:
        """Stop listening, and end all iterations. Events that nobody took are lost.

        The sockets are closed when it returns; from a signal handler, soon afterwards.
        """
        reader = self._in_use
        reader.stop()
        # A signal handler may have interrupted what the thread waits for. Whether a lock is held
        # here has no other name; threading's own conditions ask so, too.
        held_here: bool = reader.lock._is_owned()  # type: ignore[attr-defined]
        if threading.current_thread() is not reader.thread and not held_here:
            reader.thread.join(JOIN)

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
        reader = self._reader
        if reader is not None and not reader.bell.closed:
            reader.stop()  # first: the warning may be an exception
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=1)

    def __repr__(self) -> str:
        return f"<kdumpfence.Listener on port {self._port}/udp>"


async def _rung(bell: Bell) -> None:
    """Wait for the bell in this task's event loop."""
    import asyncio

    with bell.held() as usable:
        if not usable:
            return
        # One of its own: several tasks may wait, and it stays when the bell is closed.
        fd = os.dup(bell.readable)
    loop = asyncio.get_running_loop()
    rung: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(fd, _set, rung)
        await rung
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

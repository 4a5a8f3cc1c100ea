# SPDX-License-Identifier: LGPL-2.1-or-later
"""The public interface: hears any number of nodes, and tells what happens to them as events.

This file checks what it is given, opens the sockets, and hands events to whoever waits for them,
in a thread or in asyncio. A thread reads the sockets (`reader`), what it counted becomes events
(`event_queue`), who is dumping is decided in `dumps`, which node has which address in `nodes`,
and what is a message in the core. What may not be in it: files, a daemon's settings, anything
about a cluster.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
import warnings
from collections.abc import Iterable
from types import TracebackType

from kdumpfence.addresses import FAMILIES, socket_families
from kdumpfence.keys import DEFAULT_PATH, Keys
from kdumpfence.listener.answers import Answers
from kdumpfence.listener.arguments import (
    GivenNodes,
    check_numbers,
    check_times,
    check_words,
    current_names,
    pairs,
    parsed_hosts,
)
from kdumpfence.listener.clock import Clock
from kdumpfence.listener.cluster_keys import cluster_keys, read_keys
from kdumpfence.listener.dumps import REPEAT, SILENCE, Dumps
from kdumpfence.listener.event_queue import EventQueue
from kdumpfence.listener.events import (
    Dump,
    Event,
    ListenerClosed,
    Overflow,
    Snapshot,
)
from kdumpfence.listener.kernel.growing import Growing
from kdumpfence.listener.networks import IPNetwork, parsed_network
from kdumpfence.listener.nodes import ADMITTED, AnyAddress, Nodes, address_in, as_text
from kdumpfence.listener.reader import Reader
from kdumpfence.listener.sockets import open_sockets, taken_over
from kdumpfence.listener.taking import CLOSED, Taking
from kdumpfence.listener.threads import is_this, system_sockets
from kdumpfence.sockets import deepen
from kdumpfence.text import shown
from kdumpfence.wire import PORT, Questions, Signed, Sources, signing_core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from typing_extensions import Unpack

    from kdumpfence.listener.arguments import OldNames
    from kdumpfence.listener.kernel.counting import Counting

__all__ = ["Dump", "Event", "Listener", "ListenerClosed", "Overflow", "Snapshot"]

#: Seconds; the thread ends at once unless the machine is in trouble.
JOIN = 10.0


class Listener(Taking):
    """Listens for nodes that are dumping, and yields an `Event` for each thing that happens.

    Use it as a context manager, and iterate over it with `for` or `async for` until `close` is
    called. Several threads may do so; each event goes to one of them.

    `nodes`: {name: addresses or host names of the node}, or names alone that are addresses or
    host names themselves. Host names are looked up in the background, again and again until they
    have addresses, and from then on every five minutes and when /etc/hosts changes. An address
    that several nodes have counts for none of them: give a machine with two names as one node. Nor
    does an address of this machine count, nor a loopback address that a name leads to.

    `networks`, such as "192.0.2.0/24": whoever sends a message from there is a node while its
    dump lasts, named by its address; at most `max_admitted` of them at a time. Addresses and
    networks may be objects of `ipaddress`.

    What this machine sends to itself is never heard, whatever its source address, which any user
    can choose. For trials loopback counts if it is given as such: as addresses (127.0.0.1, not
    "localhost"), or as networks within 127.0.0.0/8.

    `auth`: "none", or "sha256": only messages count that are signed with a key of the cluster, or
    with one derived from it, and that cannot have been recorded earlier. A node is then known by
    its name, wherever it speaks from; its addresses, and whether names have any, do not matter. Of
    `networks` it is named by the name that it signs with.

    `answer_as`: the name with which this machine answers questions whether it is alive, see
    docs/protocol.md. None: they are only counted. A crash kernel does not answer.

    `key_file`: what both are done with. Messages are believed by the cluster's keys; with `auth` it
    is /etc/kdumpfence/key unless given. Answers are signed with this node's key, or, without a
    key file, not signed. `keys`: the same, from elsewhere.

    `counting`: "user": this process reads every message. "kernel": the kernel counts those that
    repeat what is known, and OSError says why if it cannot; that needs CAP_BPF. "auto": whichever
    can be had. Or what `kdumpfence.listener.kernel.counting.load` made of the `sockets`, for a
    program that has given up its rights since. That a dump goes on, or is over because of silence,
    is told up to a second later then, and at once to those who ask.

    `tell_repeats`: False: that a dump goes on whose messages the kernel counts is no event, but
    `dumps` and `figures` have it.

    `silence_timeout`, `repeat_interval`: seconds, see `kdumpfence.listener.dumps.Dumps`.
    `family`: "auto" (both), "ipv4" or "ipv6". `port`: 0 takes any that is free. `host`: an
    address of this machine to listen on, or several; None: all of them.
    `sockets`: bound UDP sockets to be used instead of opening some, such as those of socket
    activation. They are closed with the Listener, and no longer share their port (SO_REUSEADDR,
    SO_REUSEPORT). What lies in the queue of an IPv6 one is lost, unless a Listener had it before.
    `receive_buffer`: bytes asked of the kernel for each socket's queue; without CAP_NET_ADMIN it
    gives at most net.core.rmem_max.

    Raises ValueError or TypeError with one line that says what cannot be, and OSError if it cannot
    listen on the port.

    All times that it tells are Unix times, float seconds; it decides by CLOCK_MONOTONIC.

    A process that forks must not use it in the child. `close` may be called from any thread and
    from signal handlers.
    """

    _signed: Signed | None = None
    #: What counts in the kernel, if it may be replaced: see `Growing`.
    _table: Growing | None = None

    def __init__(
        self,
        nodes: GivenNodes = (),
        networks: Iterable[str | IPNetwork] = (),
        *,
        host: AnyAddress | Iterable[AnyAddress] | None = None,
        port: int = PORT,
        family: Literal["auto", "ipv4", "ipv6"] = "auto",
        silence_timeout: float = SILENCE,
        repeat_interval: float = REPEAT,
        max_admitted: int = 131072,
        sockets: Iterable[socket.socket] | None = None,
        receive_buffer: int = 1 << 26,
        auth: Literal["none", "sha256"] = "none",
        answer_as: str | None = None,
        key_file: str | None = None,
        keys: Keys | None = None,
        counting: Literal["auto", "kernel", "user"] | Counting = "user",
        tell_repeats: bool = True,
        **old_names: Unpack[OldNames],
    ) -> None:
        if old_names:
            by_name = locals()
            silence_timeout, repeat_interval, max_admitted, receive_buffer, answer_as = (
                current_names(old_names, by_name)
            )
        given = pairs(nodes)
        if isinstance(networks, (str, bytes)):
            raise TypeError("networks: expected a list, not a string")
        check_words(family, auth, counting)
        if key_file is not None and auth == "none" and answer_as is None:
            raise ValueError(f"key_file {key_file!r}: needs auth='sha256' or answer_as")
        if key_file is not None and keys is not None:
            raise ValueError(f"key_file {key_file!r}: not with keys")
        check_numbers(port, max_admitted, receive_buffer)
        check_times(silence_timeout, repeat_interval)
        hosts = parsed_hosts(host, FAMILIES[family])
        if hosts and sockets is not None:
            raise ValueError("host: not with sockets, which are bound already")
        clock = Clock()
        dumps = Dumps(silence_timeout, repeat_interval, clock.base)
        if auth != "none" and keys is None:
            key_file = key_file or DEFAULT_PATH
        self._key_file = key_file
        if key_file is not None:
            keys = read_keys(key_file)
        if auth == "none":
            sources, questions = Sources(room=max_admitted), Questions
        else:
            core = signing_core()
            sources, questions = core.Sources(room=max_admitted), core.Questions
            self._signed = core.Signed(sources, self._believed(keys))
        admitted = [parsed_network(network, FAMILIES[family]) for network in networks]
        for network in admitted:
            sources.admit(*network, ADMITTED)
        self._nodes = Nodes(FAMILIES[family], sources, self._signed)
        now = time.monotonic()
        for name, addresses in given:
            self._nodes.add(name, addresses, now)
        if sockets is not None:
            sockets = list(sockets)
            opened = taken_over(system_sockets(sockets))
        else:
            opened = open_sockets(socket_families(family), port, hosts)
        for sock in opened:
            deepen(sock, receive_buffer)
        self._port: int = opened[0].getsockname()[1]
        counted: Counting | None = None
        try:
            if answer_as is None:
                answers = None
            else:
                answers = Answers(opened, answer_as, keys, questions)
            if isinstance(counting, str):
                self._table = Growing(counting, opened, max_admitted if admitted else 0, dumps)
                counted = self._table.first(self._nodes.places, self._signed is not None)
            else:
                counted = counting
            reader = Reader(
                self._nodes, sources, self._signed, opened, answers, counted, tell_repeats
            )
            self._events = EventQueue(
                reader, self._nodes, sources, self._signed, admitted, max_admitted, dumps, clock
            )
            reader.start()
            self._reader = reader
        except BaseException:
            if counted is not None:
                sources.unshare()
                counted.close()
            for sock in opened:
                if sockets is None or sock not in sockets:
                    sock.close()
            raise
        for sock in sockets or ():
            if sock not in opened:
                sock.close()  # a copy of it is in use

    # -------------------------------------------------------------------------- the nodes

    @property
    def port(self) -> int:
        """The UDP port that it listens to."""
        return self._port

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes that it was told of, in their order."""
        with self._in_use.lock:
            return list(self._nodes)

    def add(self, name: AnyAddress, addresses: Iterable[AnyAddress] = ()) -> None:
        """Listen for this node too, or, if it is known, with these addresses from now on.

        Without `addresses` its name is its address. If one of `networks` had admitted such an
        address, and its machine is dumping, that dump goes on under this name: it is "silent" under
        the old one, and "dumping" under the new one, with the same `since`. ValueError if one can
        never be a node's, ListenerClosed (here and below) after `close`.
        """
        with self._open.lock:
            self._nodes.add(as_text(name), addresses, time.monotonic())
        self._make_room()
        self._in_use.poke()

    def remove(self, name: AnyAddress) -> None:
        """Do not listen for this node any more. "silent" is told if it was dumping.

        KeyError if there is no such node.
        """
        with self._open.lock:
            self._remove(as_text(name))
        self._in_use.bell.ring()

    def replace_nodes(self, nodes: GivenNodes) -> None:
        """Listen for these nodes from now on, and for no others that it was told of before.

        As `remove` for all that are not among them, and `add` for all that are, in one step; nodes
        whose addresses stay what they were are not touched. ValueError or TypeError, with nothing
        changed, if one of them cannot be.
        """
        wanted = dict(pairs(nodes))
        _ = self._open
        self._events.look()  # an address that moves takes along what was not looked at
        with self._open.lock:
            checked = {name: self._nodes.parsed(name, its) for name, its in wanted.items()}
            for name in [name for name in self._nodes if name not in checked]:
                self._remove(name)
            now = time.monotonic()
            for name, parsed in checked.items():
                self._nodes.put(name, parsed, now)
        self._make_room()
        self._in_use.poke()
        self._in_use.bell.ring()

    def _make_room(self) -> None:
        """Have a larger table in the kernel if there are too many nodes by now."""
        if self._table is not None:
            larger = self._table.larger(self._nodes.places)
            if larger is not None:
                self._in_use.count_with(larger)

    def _remove(self, name: str) -> None:
        self._nodes.remove(name)
        self._events.forget(name)

    def listens_for(self, node: AnyAddress) -> bool:
        """Whether a dump can be this node's: it was told of it, or its name is an address in one of
        the networks (with `auth` any name, if there are networks).
        """
        return self._events.listens_for(as_text(node))

    def reload_keys(self, keys: Keys | None = None) -> list[int]:
        """Use these keys, or what the key file has now; the ids of those that are believed.

        Dumps go on, and nothing is missed. ValueError if they cannot be used; then the keys stay
        what they were.
        """
        answers = self._open.answers
        if keys is None:
            if self._key_file is None:
                return []
            keys = read_keys(self._key_file)
        believed = [] if self._signed is None else self._believed(keys)
        if self._signed is not None:
            self._signed.use(believed)
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
        first event is taken, and before the first look (`dump`, `snapshot`). Their silence counts
        from now on.

        ValueError, with nothing changed, for what no Listener has told, such as a time that is no
        finite number, or an address that is none; for a node that is there twice, is dumping
        already, or is not listened for (`listens_for`).
        """
        with self._open.lock:
            self._events.restore(dumps, ended)

    def answer_as(self, node: str, keys: Keys | None = None) -> None:
        """Answer with this name and these keys from now on.

        RuntimeError if it was made without `answer`, ValueError for what no packet can carry.
        """
        answers = self._open.answers
        if answers is None:
            raise RuntimeError("this Listener answers no questions: make it with answer_as=NAME")
        answers.answer_as(node, keys)

    # ---------------------------------------------------------------------------- the rest

    def dump(self, node: AnyAddress) -> Dump | None:
        """The dump of this node, now; None if it is not dumping.

        From any thread, as often as you like: it takes some microseconds, or, if the node may have
        fallen silent, until the reading thread has read what came by now. Events of what it finds
        can be taken later. ListenerClosed after `close`, and RuntimeError if the reading thread has
        died, or does not read for 5 seconds: nothing that is out of date is ever told.
        """
        _ = self._open
        found = self._events.find(as_text(node))
        _ = self._open  # closed meanwhile: then that is what was known before
        return found

    def dumps(self, nodes: Iterable[AnyAddress], fresh: bool = True) -> list[Dump | None]:
        """As `dump`, for several nodes at once: what is known of each, in their order.

        `fresh`: see `snapshot`.
        """
        _ = self._open
        found = self._events.find_all([as_text(node) for node in nodes], fresh)
        _ = self._open
        return found

    def latest(self, node: AnyAddress, fresh: bool = True) -> Dump | None:
        """What was heard of this node last; None if nothing was that matters.

        As `dump`, but of a dump that ended as its node said too, with what came since, as long as
        messages of it may come; and whether the node has fallen silent is not asked. Its `heard`
        tells whether a message came after a moment at which `has_read` was true. If not `fresh`, as
        of the last look or event. ListenerClosed after `close`, RuntimeError if the reading thread
        has died.
        """
        _ = self._open
        return self._events.latest(as_text(node), fresh)

    def has_read(self, moment: float) -> bool:
        """Whether all that had arrived before this moment (CLOCK_MONOTONIC) has been read.

        Then whatever is heard later arrived later. Never waits: if it is not so yet it soon will
        be, so ask again. ListenerClosed after `close`, RuntimeError if the reading thread has died.
        """
        _ = self._open
        return self._events.has_read(moment)

    def node_of(self, name: AnyAddress) -> str | None:
        """The node that has this name, or this address; None if there is none, or several have it.

        Only nodes that it was told of. With `auth` addresses do not matter, and belong to nobody.
        """
        text = as_text(name)
        with self._open.lock:
            if text in self._nodes:
                return text
            key = address_in(text)
            return None if key is None else self._nodes.owner_of(key)

    def __contains__(self, node: object) -> bool:
        """Whether this node is dumping now, as `dump` says. `nodes` are those it listens for."""
        if isinstance(node, (str, ipaddress.IPv4Address, ipaddress.IPv6Address)):
            return self.dump(node) is not None
        return False

    @property
    def counts(self) -> dict[str, int]:
        """Datagrams so far by verdict, as `Snapshot.counts`; also after `close`."""
        return self._in_use.counts

    def snapshot(self, fresh: bool = True, dumps: bool = True) -> Snapshot:
        """What is known now; without the `dumps` if nobody wants them. From any thread.

        Events of what it finds can be taken later. If a hundred thousand nodes have just spoken,
        that takes a second: a program that takes events all the time, and tells of no dump before
        it took its beginning, can do with what was known at its last event (not `fresh`). After
        `close`: what was known then; if the reading thread has died or does not read, what was
        known before, and `deaf` says so.
        """
        reader = self._in_use
        if fresh and not self.closed:
            with contextlib.suppress(RuntimeError):  # `deaf` tells
                self._events.look()
        with reader.lock:
            when, found, own = self._events.known(dumps)
            nodes, unresolved = len(self._nodes), self._nodes.unresolved
            shared = self._nodes.shared
        answers = reader.answers
        return Snapshot(
            when,
            found,
            nodes,
            unresolved,
            reader.counts if fresh else reader.lately_counted(),
            shared,
            own,
            reader.deaf,
            *((answers.sent, answers.node, answers.asked_for) if answers else (0, "", "")),
            "kernel" if reader.counts_in_kernel else "user",
        )

    @property
    def tell_repeats(self) -> bool:
        """See above; may be changed at any time."""
        return self._in_use.tell_repeats

    @tell_repeats.setter
    def tell_repeats(self, tell: bool) -> None:
        self._in_use.tell_repeats = tell
        self._in_use.poke()

    def figures(self) -> bytes:
        """What the kernel has counted of all dumps at this moment, for whoever writes it down.

        32 bytes for each address, in this machine's byte order: the address (16 bytes; IPv4 as
        ::ffff:a.b.c.d), its interface (4), the messages of the dump (4), and the last of them
        (8: a double, Unix time). Of messages that are read, events tell.
        """
        return self._events.figures()

    @property
    def _open(self) -> Reader:
        """As `_in_use`. ListenerClosed if it was closed."""
        if self.closed:
            raise ListenerClosed(CLOSED)
        return self._in_use

    def close(self) -> None:
        """Stop listening, and end all iterations. Events that nobody took are lost.

        The sockets are closed when it returns; from a signal handler, soon afterwards.
        """
        reader = self._in_use
        reader.stop()
        if not is_this(reader.thread) and not reader.held_here:
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

    async def __aenter__(self) -> Listener:
        return self

    async def __aexit__(
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

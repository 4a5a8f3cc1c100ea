# SPDX-License-Identifier: LGPL-2.1-or-later
"""Answers "alive" to the questions that a `Listener` hears: this machine runs.

In a thread of its own, so that reading messages waits for nothing here: the reading thread hands
questions on (`wire.Questions`), few at a time, and drops what is too much. What may not be in this
file: what is a question, and messages.

A crash kernel never says so. The kernel shows /proc/vmcore there and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket

from kdumpfence.addresses import Address, is_address
from kdumpfence.keys import Keys
from kdumpfence.links import hears_vrfs
from kdumpfence.listener.bell import Bell
from kdumpfence.listener.threads import make_thread
from kdumpfence.sockets import tell_destination, through
from kdumpfence.unpatched import original
from kdumpfence.wire import (
    Packet,
    Questions,
    decode_packet,
    encode_packet,
    is_packet_name,
)

#: Where a crash kernel shows the memory of the kernel that crashed.
VMCORE = "/proc/vmcore"

#: One that `wire.Questions` hands out.
_Question = tuple[int, bytes, int, int, bytes, int, bytes]


class Answers:
    """The thread that answers what comes to `sockets`, once it is `start`ed.

    As this node, signed with its key if `keys` have one; ValueError for a name that no packet can
    carry. `questions`: of the core whose `Receiver` hands them on.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        node: str,
        keys: Keys | None,
        questions: type[Questions],
    ) -> None:
        self._sockets = sockets
        self._inside = [hears_vrfs(sock) for sock in sockets]
        self._bell = Bell()
        #: For the reading thread.
        self.questions = questions(self._bell.writable)
        # Replaced as a whole: name, key id, key.
        self._as = ("", 0, b"")
        #: Answers that were sent.
        self.sent = 0
        #: The last name that was asked for and is not ours; "" if there was none.
        self.asked_for = ""
        self.answer_as(node, keys)
        for sock in sockets:
            tell_destination(sock)
        self._thread = make_thread(self._run, "kdumpfence-answers")

    def answer_as(self, node: str, keys: Keys | None) -> None:
        """From now on answer as that node."""
        if not is_packet_name(node):
            raise ValueError(f"answer {node!r}: not 1 to 64 ASCII characters without blanks")
        its = keys and keys.of(node)
        key_id, key = its.signs if its else (0, b"")
        self._as = (node, key_id, key)
        self.asked_for = ""
        self.questions.know(key_id, key)

    @property
    def node(self) -> str:
        """The name that it answers with."""
        return self._as[0]

    def start(self) -> None:
        """Begin. RuntimeError if there is no thread to be had."""
        self._thread.start()

    def held(self) -> contextlib.AbstractContextManager[bool]:
        """Questions may be handed on meanwhile."""
        return self._bell.held()

    def stop(self) -> None:
        """Ask the thread to end. Takes no lock and waits for nothing."""
        self._bell.close()

    def join(self, seconds: float) -> None:
        """Wait for its end: it does not use the sockets any more."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        with self._bell.held() as usable:
            poller = original("select", "poll")()
            if usable:
                poller.register(self._bell.readable, select.POLLIN)
            while usable and not self._bell.closed:
                poller.poll()
                self._bell.hush()
                if not os.path.exists(VMCORE):
                    for question in self.questions.take():
                        self._answer(question)
                else:
                    self.questions.take()

    def _answer(self, question: _Question) -> None:
        at, packed, scope, port, destination, interface, data = question
        asked = decode_packet(data)
        node, key_id, key = self._as
        if asked is None:  # a receiver hands on nothing else
            return
        if asked.name.lower() != node.lower() and not is_address(asked.name):
            self.asked_for = asked.name
        answer = encode_packet(Packet("alive", node, key_id=key_id, nonce=asked.nonce), key)
        ipv6 = len(destination) == 16
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        if scope:
            scope = interface  # inside a VRF it is the VRF's
        # Inside a VRF routes are looked up from there; else the kernel knows the way, but not
        # which link is meant by an address that each link may have, be it ours.
        near = scope or Address(destination).link_local
        way = through(family, interface if near or self._inside[at] else 0, destination)
        host = socket.inet_ntop(family, packed)
        to = (host, port, 0, scope) if ipv6 else (host, port)
        with contextlib.suppress(OSError):  # no way to there, a firewall, a full queue
            self._sockets[at].sendmsg([answer], way, socket.MSG_DONTWAIT, to)
            self.sent += 1

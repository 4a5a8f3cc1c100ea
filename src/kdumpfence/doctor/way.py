# SPDX-License-Identifier: LGPL-2.1-or-later
"""The way between this node and each other one: firewalls and routes, without a crash.

Each other node's kdumpfenced is asked whether it is alive, as docs/protocol.md says: the question
goes to the port on which it would hear messages. Nothing else is sent. An answer that reaches this
machine and not the socket was dropped by this machine's own firewall: a packet socket sees it,
since packets come there before they are filtered (packet(7)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kdumpfence import addresses, sockets
from kdumpfence.addresses import Address
from kdumpfence.doctor import corosync, firewall, listeners
from kdumpfence.doctor.cluster import joined
from kdumpfence.doctor.finding import Finding, Unknown, fails, ok, unknown, warning
from kdumpfence.doctor.machine import Machine
from kdumpfence.text import shown
from kdumpfence.wire import (
    PORT,
    Packet,
    attach_filter,
    decode_packet,
    encode_packet,
    is_packet_name,
)

#: Seconds for an answer, and between two questions to the same address.
_PATIENCE = 1.0
_EVERY = 0.3

_ETH_P_ALL = 3
_OUTGOING = 4  # PACKET_OUTGOING
_NONCE = 40  # where it stands in a packet

# What became of a question.
ANSWERED, REFUSED, REJECTED = "answered", "refused", "rejected"
NO_WAY, DROPPED_HERE, SILENT = "no way", "dropped here", "silent"
FATES = (ANSWERED, REFUSED, REJECTED, NO_WAY, DROPPED_HERE, SILENT)


class _Question:
    """A question to one address, asked again until something comes back."""

    def __init__(self, node: str, text: str, address: Address, nonce: bytes) -> None:
        self.node = node
        self.text = text
        self.fate = SILENT
        self.answered_as = ""
        self._data = encode_packet(Packet("question", node, nonce=nonce))
        self._nonce = nonce
        self.packed = address.packed
        self.sock = socket.socket(address.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self.sock.connect(sockets.peer(address, PORT))
        except OSError as error:
            self.fate = NO_WAY
            self.answered_as = error.strerror or ""

    @property
    def open(self) -> bool:
        """Whether an answer may still come."""
        return self.fate == SILENT

    def _failed(self, error: OSError) -> None:
        """What an ICMP message said; a way there was when the socket was connected."""
        if error.errno == errno.ECONNREFUSED:
            self.fate = REFUSED
        elif error.errno not in (errno.EAGAIN, errno.ENOBUFS):
            self.fate = REJECTED

    def ask(self) -> None:
        """Send it."""
        try:
            self.sock.send(self._data)
        except OSError as error:
            self._failed(error)

    def hear(self) -> None:
        """Read what came."""
        try:
            packet = decode_packet(self.sock.recv(2048))
        except OSError as error:
            self._failed(error)
            return
        if packet is not None and packet.nonce == self._nonce and packet.kind != "question":
            self.fate = ANSWERED
            self.answered_as = packet.name if packet.kind == "alive" else ""


class Asked(NamedTuple):
    """What became of the question to one address of a node."""

    node: str
    address: str
    fate: str
    name: str  #: as which it answered; of NO_WAY the reason


def ask(nodes: Iterable[tuple[str, str, Address]]) -> list[Asked]:
    """Ask all of these at once: node, how its address is written, the address. Takes a second."""
    nonce = os.urandom(16)
    with contextlib.ExitStack() as opened:
        spy = _spy(nonce)
        if spy is not None:
            opened.enter_context(spy)
        questions = []
        for node, text, address in nodes:
            name = node if is_packet_name(node) else "node"
            with contextlib.suppress(OSError):  # a family that this machine does not have
                questions.append(_Question(name, text, address, nonce))
                opened.enter_context(questions[-1].sock)
        _wait(questions)
        if spy is not None:
            seen = set(_seen(spy, nonce))
            for one in questions:
                if one.open and one.packed in seen:
                    one.fate = DROPPED_HERE
        return [Asked(one.node, one.text, one.fate, one.answered_as) for one in questions]


def _wait(questions: list[_Question]) -> None:
    poller = select.poll()
    by_fd = {one.sock.fileno(): one for one in questions}
    for fd in by_fd:
        poller.register(fd, select.POLLIN)
    end = time.monotonic() + _PATIENCE
    due = 0.0
    while any(one.open for one in questions):
        now = time.monotonic()
        if now >= end:
            return
        if now >= due:
            due = now + _EVERY
            for one in questions:
                if one.open:
                    one.ask()
        for fd, _ in poller.poll(max(0.0, min(due, end) - now) * 1000):
            by_fd[fd].hear()
            if not by_fd[fd].open:
                poller.unregister(fd)


# ------------------------------------------------------------------ what the firewall drops


def _spy(nonce: bytes) -> socket.socket | None:
    """A packet socket that sees what has this nonce; None without the right to have one."""
    try:
        spy = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL)
        )
    except OSError:
        return None
    try:
        attach_filter(spy, _filter(int.from_bytes(nonce[:4], "big")))
    except OSError:
        spy.close()
        return None
    return spy


def _filter(start: int) -> bytes:
    """Classic BPF: packets over IPv4 or IPv6 with this where a nonce begins (linux/filter.h)."""
    at = 8 + _NONCE  # behind the header of IP
    program = (
        (0x30, 0, 0, 0),  # A = the first byte
        (0x54, 0, 0, 0xF0),
        (0x15, 3, 0, 0x60),  # IPv6: over there
        (0xB1, 0, 0, 0),  # X = length of IPv4's header
        (0x40, 0, 0, at),  # A = the word there
        (0x15, 2, 3, start),
        (0x20, 0, 0, 40 + at),
        (0x15, 0, 1, start),
        (0x06, 0, 0, 0xFFFF),
        (0x06, 0, 0, 0),
    )
    return b"".join(struct.pack("=HBBI", *one) for one in program)


def _seen(spy: socket.socket, nonce: bytes) -> Iterator[bytes]:
    """From which addresses answers came to this machine, whatever became of them."""
    while True:
        try:
            data, about = spy.recvfrom(2048)
        except OSError:
            return
        ipv6 = data[:1] and data[0] >> 4 == 6
        start = 48 if ipv6 else 4 * (data[0] & 15) + 8
        if about[2] != _OUTGOING and data[start + _NONCE : start + _NONCE + 16] == nonce:
            yield data[8:24] if ipv6 else data[12:16]


# ------------------------------------------------------------------ checks


def nodes_answer(machine: Machine) -> Iterator[Finding]:
    """Each other node answers at each of its addresses."""
    if not machine.runs or listeners.only_elsewhere(machine):
        return
    wanted = []
    for node in corosync.others(machine):
        for ring in node.rings:
            for found in corosync.resolve(machine, ring):
                with contextlib.suppress(addresses.LookUpError):
                    literal = addresses.literal(found, addresses.FAMILIES["auto"])
                    wanted += [(node.name, found, one) for one in literal or ()]
    answers = ask(wanted)
    if not answers:
        raise Unknown("no address of another node is known")
    yield from judge(answers, firewall.active(machine))


def judge(answers: list[Asked], wall: firewall.Firewall) -> Iterator[Finding]:
    """What the fates of all questions mean."""
    fine = []
    for node in dict.fromkeys(one.node for one in answers):
        its = [one for one in answers if one.node == node]
        by_fate = {fate: [one.address for one in its if one.fate == fate] for fate in FATES}
        strangers = {one.name for one in its if one.fate == ANSWERED and one.name}
        foreign = [name for name in strangers if name.lower() != node.lower()]
        if foreign:
            yield warning(
                "nodes answer",
                f"{node} answers as {', '.join(map(shown, foreign))}",
                "set node in /etc/kdumpfence/kdumpfenced.toml there to the cluster's name for it, "
                "or correct the address in corosync.conf",
            )
        if by_fate[DROPPED_HERE]:
            yield fails(
                "way here",
                f"answers of {node} ({joined(by_fate[DROPPED_HERE])}) reach this machine, and its "
                "firewall drops them",
                wall.opening(by_fate[DROPPED_HERE]),
            )
        if by_fate[NO_WAY]:
            why = next(one.name for one in its if one.fate == NO_WAY)
            yield fails(
                "way there",
                f"no way to {node} ({joined(by_fate[NO_WAY])}): {why}",
                f"ip route get {by_fate[NO_WAY][0]}",
            )
        for fate, text in (
            (REJECTED, "the question is rejected, most likely by its firewall"),
            (SILENT, "it is down, or the question is dropped, most likely by its firewall"),
        ):
            if by_fate[fate]:
                state = warning if by_fate[ANSWERED] else fails
                yield state(
                    "way there",
                    f"no answer of {node} ({joined(by_fate[fate])}): {text}",
                    f"on {node}: {wall.opening_there()}; then kdumpfence doctor way there as well",
                )
        if by_fate[REFUSED]:
            yield unknown(
                "nodes answer",
                f"nobody answers at {node} ({joined(by_fate[REFUSED])}): no kdumpfenced runs "
                "there, or its firewall refuses",
                f"on {node}: systemctl enable --now kdumpfenced",
            )
        if len(by_fate[ANSWERED]) == len(its) and not foreign:
            fine.append(node)
    if fine:
        yield ok("nodes answer", f"{joined(fine)}, at each address")


def port_open(machine: Machine) -> Iterator[Finding]:
    """Messages get through the firewall of this machine, if somebody listens here."""
    if not machine.runs or listeners.only_elsewhere(machine):
        return
    wall = firewall.active(machine)
    closed = wall.closed
    if closed is None:
        return
    if closed:
        state = fails if wall.certain else warning
        yield state("port open", closed, wall.opening([]))
    else:
        yield ok("port open", wall.name)


CHECKS = (nodes_answer, port_open)

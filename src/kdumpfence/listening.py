# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens the sockets that hear a port that others may hold as well.

Two kinds of sockets, each read by a `wire.Receiver` of its own:

- *proof* sockets. The kernel lets nothing into their queues but whole messages from
  the node's addresses, so no flood can fill them. They are what the wait waits for.
- *census* sockets. They get everything that is sent to the port, so that what was
  rejected can be counted and named. They are read when there is time for it, and
  nothing is lost but a count when their queues overflow.

With the right to (CAP_NET_RAW; a fence agent runs as root) both are raw sockets: each
gets its own copy of every datagram, whoever has bound the port, and nobody is disturbed
by it. Without, they are UDP sockets that share the port (SO_REUSEADDR): one for each
address of the node, connected to (address, port 0), which the kernel prefers for what
comes from there; and one that is not connected, because a connected socket hears only
what is sent to the local address that the route chose.
What may not be in this file: what a message means.
"""

from __future__ import annotations

import _socket
import errno
import posix
import time

from kdumpfence import filters
from kdumpfence.wire import Receiver, Sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kdumpfence.addresses import Address

_SO_RCVBUFFORCE = 33
_IPV6_RECVPKTINFO = 49

#: Bytes; the kernel doubles it. A datagram of 8 bytes takes 832, so a queue holds some
#: 2,500. Not more: in a flood every agent on the host fills one for each family.
QUEUE_SIZE = 1 << 20

#: Seconds between attempts to open what could not be opened.
RETRY = 0.1

#: What raising a raw socket is refused with, by capabilities, seccomp or SELinux.
_NOT_PERMITTED = (errno.EPERM, errno.EACCES)


class PortError(Exception):
    """The port cannot be listened to; the text says why."""


def _deepen(sock: _socket.socket) -> None:
    """A deep queue; as deep as the system allows, for who may not ask for more."""
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _SO_RCVBUFFORCE, QUEUE_SIZE)
    except OSError:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, QUEUE_SIZE)


def _filter(sock: _socket.socket, instructions: list[filters.Instruction]) -> None:
    try:
        filters.attach(sock, instructions)
    except OSError:
        pass  # the receive loop judges all the same


def _raw_kind(family: int) -> str:
    return "raw4" if family == _socket.AF_INET else "raw6"


def _open_raw(family: int, port: int) -> _socket.socket:
    sock = _socket.socket(family, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _socket.IPPROTO_UDP)
    try:
        _filter(sock, filters.program(_raw_kind(family), port))
        _deepen(sock)
        if family == _socket.AF_INET6:
            # Its checksum covers the address that the datagram was sent to.
            sock.setsockopt(_socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _open_udp(family: int, port: int, share: bool) -> _socket.socket:
    """A UDP socket bound to the port; without `share` only if nobody else holds it."""
    sock = _socket.socket(family, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, _socket.IPPROTO_UDP)
    try:
        if family == _socket.AF_INET6:
            sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        if share:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        _deepen(sock)
        sock.bind(("", port))
        # From now on others that share may come.
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_udp(address: Address, port: int) -> _socket.socket:
    """A UDP socket that shares the port and hears only this address."""
    sock = _open_udp(address.family, port, share=True)
    try:
        _filter(sock, filters.program("udp", port, messages_only=True))
        host = _socket.inet_ntop(address.family, address.packed)
        sock.connect((host, 0) if len(address.packed) == 4 else (host, 0, 0, address.scope))
    except BaseException:
        sock.close()
        raise
    return sock


def _open_census_udp(family: int, port: int) -> _socket.socket | None:
    """A UDP socket for everything that comes to the port; None if others share it.

    The kernel gives what nobody is connected for to the newest socket alone, so among
    others that share the port it would take their datagrams away.
    """
    try:
        return _open_udp(family, port, share=False)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    _open_udp(family, port, share=True).close()  # EADDRINUSE again if it is not shared
    return None


class Listening:
    """The sockets that hear one port, and the two receivers over them.

    `families` are AF_INET, AF_INET6 or both; one that the kernel does not have is
    left out. `use_raw=False` does without raw sockets even if they are permitted.
    Raises PortError if the port cannot be heard at all, now or later.
    """

    def __init__(self, port: int, families: tuple[int, ...], use_raw: bool = True) -> None:
        self.port = port
        self.sources = Sources()
        self.strangers = Sources()
        self.proof = Receiver(self.sources, None, port=port, batch=16)
        self.census = Receiver(self.sources, self.strangers, port=port, batch=16)
        #: Whether raw sockets do the work.
        self.raw = False
        #: Why something is not open yet; "" if all is.
        self.obstacle = ""
        self._addresses: list[Address] = []
        self._raw_proof: list[_socket.socket] = []
        self._sockets: list[_socket.socket] = []
        #: Readable when a census socket has something; its descriptors for poll.
        self.census_fds: list[int] = []
        self._unopened: list[Address | int] = []  # addresses to connect to, families to bind
        self._next_try = 0.0
        try:
            if use_raw:
                self.raw = self._open_all_raw(families)
            if not self.raw:
                self._unopened += list(families)
                self.retry()
                if not self._sockets and not self._unopened and self.obstacle:
                    raise PortError(self.obstacle)
        except BaseException:
            self.close()
            raise

    def _open_all_raw(self, families: tuple[int, ...]) -> bool:
        """Whether raw sockets may be had, and are."""
        for family in families:
            try:
                sock = _open_raw(family, self.port)
                self._keep(sock, self.proof)
                self._raw_proof.append(sock)
                self._keep(_open_raw(family, self.port), self.census)
            except OSError as error:
                if error.errno in _NOT_PERMITTED:
                    break
                if error.errno != errno.EAFNOSUPPORT:
                    self.obstacle = f"raw socket: {posix.strerror(error.errno or 0)}"
        if not self._raw_proof:
            return False
        self._restrict()
        return True

    def _keep(self, sock: _socket.socket, receiver: Receiver) -> None:
        self._sockets.append(sock)
        receiver.add_socket(sock)
        if receiver is self.census:
            self.census_fds.append(sock.fileno())

    def _restrict(self) -> None:
        """Let nothing but messages of the known addresses into the proof queues."""
        for sock in self._raw_proof:
            _filter(
                sock,
                filters.program(
                    _raw_kind(sock.family),
                    self.port,
                    messages_only=True,
                    sources=self._addresses,
                ),
            )

    def add(self, addresses: list[Address]) -> None:
        """Hear these addresses too: they are the node's."""
        for address in addresses:
            self.sources.add(address.packed, address.scope)
            self._addresses.append(address)
        if self.raw:
            self._restrict()
        else:
            self._unopened += addresses
            self._next_try = 0.0
            self.retry()

    @property
    def next_try(self) -> float | None:
        """When `retry` wants to be called (time.monotonic); None: all is open."""
        return self._next_try if self._unopened else None

    def retry(self) -> None:
        """Open what could not be opened: a port still held, a network still down."""
        if not self._unopened or time.monotonic() < self._next_try:
            return
        left: list[Address | int] = []
        self.obstacle = ""
        for wanted in self._unopened:
            try:
                if isinstance(wanted, int):
                    census = _open_census_udp(wanted, self.port)
                    if census is not None:
                        self._keep(census, self.census)
                else:
                    self._keep(_connect_udp(wanted, self.port), self.proof)
            except OSError as error:
                why = posix.strerror(error.errno or 0)
                if error.errno == errno.EADDRINUSE:
                    why += " (another program holds it; with CAP_NET_RAW both would hear)"
                where = f"port {self.port}/udp"
                if not isinstance(wanted, int) and error.errno != errno.EADDRINUSE:
                    where = f"the way to {wanted}"
                self.obstacle = f"{where}: {why}"
                if error.errno == errno.EAFNOSUPPORT:
                    continue
                if error.errno in _NOT_PERMITTED and isinstance(wanted, int):
                    raise PortError(self.obstacle) from None
                left.append(wanted)
        self._unopened = left
        self._next_try = time.monotonic() + RETRY

    @property
    def counts(self) -> dict[str, int]:
        """Datagrams heard, by verdict; `unread` are those that the kernel dropped.

        It drops for want of room, and, without raw sockets, what is no message.
        """
        counts = self.census.counts
        counts["accepted"] = max(counts["accepted"], self.proof.counts["accepted"])
        counts["unread"] = self.census.dropped + self.proof.dropped
        return counts

    def close(self) -> None:
        """Close all sockets."""
        for sock in self._sockets:
            sock.close()
        self._sockets = []

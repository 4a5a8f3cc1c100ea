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
by it. They hear what a UDP socket would hear that is bound to the port, and no more: whether
that takes in VRFs is udp_l3mdev_accept's to say.

Without, they are UDP sockets that share the port (SO_REUSEADDR): one for each address of the
node, connected to (address, port 0), which the kernel prefers for what comes from there; and
one that is not connected, because a connected socket hears only what is sent to the local
address that the route chose.

No socket is read that has not had the guard of `filters` from before it heard anything: without
it any user of this machine could be the node.
What may not be in this file: what a message means.
"""

from __future__ import annotations

import _socket
import errno
import posix
import time

from kdumpfence import filters
from kdumpfence.addresses import Address
from kdumpfence.links import Links, hears_vrfs, is_bound
from kdumpfence.wire import Receiver, Sources

_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPING = 37
_STAMPS = 1 << 3 | 1 << 4  # SOF_TIMESTAMPING_RX_SOFTWARE, SOF_TIMESTAMPING_SOFTWARE
_IP_PKTINFO = 8
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


def _stamp(sock: _socket.socket) -> None:
    """Have the kernel tell when each datagram arrived; see `Receiver.end`."""
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _SO_TIMESTAMPING, _STAMPS)
    except OSError:
        pass  # then only what is read in time counts


def _tell_interface(sock: _socket.socket) -> None:
    """Have the kernel tell where each datagram came in, and, for IPv6, where it was sent to."""
    if sock.family == _socket.AF_INET6:
        sock.setsockopt(_socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(_socket.IPPROTO_IP, _IP_PKTINFO, 1)


def _filter(sock: _socket.socket, instructions: list[filters.Instruction]) -> None:
    """Put a filter on a socket that must not be read without."""
    try:
        filters.attach(sock, instructions)
    except OSError as error:
        raise PortError(f"cannot attach a socket filter: {error.strerror}") from None


def _raw_kind(family: int) -> str:
    return "raw4" if family == _socket.AF_INET else "raw6"


def _open_raw(family: int, interface: bytes = b"") -> _socket.socket:
    """A raw socket for UDP that hears nothing yet."""
    sock = _socket.socket(family, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _socket.IPPROTO_UDP)
    try:
        # It has heard everything since it was made: that is thrown away when it gets its filter.
        _filter(sock, filters.NOTHING)
        if interface:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_BINDTODEVICE, interface)
        _deepen(sock)
        _stamp(sock)
        _tell_interface(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def _empty(sock: _socket.socket) -> None:
    while True:
        try:
            sock.recv(1, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            pass  # one that something was told of


def _open_udp(family: int, port: int, share: bool, messages_only: bool = False) -> _socket.socket:
    """A UDP socket bound to the port; without `share` only if nobody else holds it."""
    sock = _socket.socket(family, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, _socket.IPPROTO_UDP)
    try:
        _filter(
            sock,
            filters.program(
                "udp",
                port,
                messages_only=messages_only,
                inside=hears_vrfs(sock),
                refused=0 if messages_only else filters.CUT,
            ),
        )
        if family == _socket.AF_INET6:
            sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        if share:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        _deepen(sock)
        _stamp(sock)
        _tell_interface(sock)
        sock.bind(("", port))
        # From now on others that share may come.
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_udp(address: Address, port: int) -> _socket.socket:
    """A UDP socket that shares the port and hears only this address."""
    # Without a way to there it would be bound, not connected, and closed: until then it is the
    # newest on the port, and takes away what comes for others.
    _local_host(address)
    sock = _open_udp(address.family, port, share=True, messages_only=True)
    try:
        sock.connect(_peer(address, 0))
    except BaseException:
        sock.close()
        raise
    return sock


def _peer(address: Address, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    host = _socket.inet_ntop(address.family, address.packed)
    return (host, port) if len(address.packed) == 4 else (host, port, 0, address.scope)


def _local_host(address: Address) -> str:
    """The address of this machine that it would send from to there. OSError if there is no way."""
    sock = _socket.socket(address.family, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(_peer(address, 9))
        return str(sock.getsockname()[0])
    finally:
        sock.close()


def _interface_of(name: str) -> int:
    """Its index; 0 if there is no such interface."""
    try:
        return _socket.if_nametoindex(name)
    except OSError:
        return 0


def _newest_interface() -> int:
    """The greatest interface index: one that is made gets a greater one."""
    return max((index for index, _ in _socket.if_nameindex()), default=0)


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
        #: Where valid messages came from beside `sources`: addresses, and the interface.
        self.strangers = Sources()
        self.proof = Receiver(self.sources, self.strangers, port=port, batch=16)
        self.census = Receiver(self.sources, self.strangers, port=port, batch=16)
        #: Whether raw sockets do the work.
        self.raw = False
        #: Why something is not open yet; "" if all is.
        self.obstacle = ""
        self._addresses: list[Address] = []
        #: Of link-local ones, the name of the interface.
        self._interfaces: dict[Address, str] = {}
        self._newest = 0  # interface, of those that may have been named otherwise before
        self._raw: list[tuple[_socket.socket, Receiver]] = []
        self._inside = False  # raw sockets that hear VRFs
        self._vrfs: set[int] = set()  # that are dealt with
        self._connected: dict[Address, _socket.socket] = {}
        self._sockets: list[_socket.socket] = []
        #: Readable when a census socket has something; its descriptors for poll.
        self.census_fds: list[int] = []
        self._unopened: list[Address | int] = []  # addresses to connect to, families to bind
        self._next_try = 0.0
        try:
            self._links: Links | None = Links()
        except OSError:
            self._links = None
        try:
            if use_raw and self._links is not None:
                self.raw = self._open_all_raw(families, self._links)
            if not self.raw:
                self._unopened += list(families)
                self.retry()
                if not self._sockets and not self._unopened and self.obstacle:
                    raise PortError(self.obstacle)
        except BaseException:
            self.close()
            raise

    def _open_all_raw(self, families: tuple[int, ...], links: Links) -> bool:
        """Whether raw sockets may be had, and are."""
        for family in families:
            try:
                self._raw.append((_open_raw(family), self.proof))
                self._raw.append((_open_raw(family), self.census))
            except OSError as error:
                if error.errno in _NOT_PERMITTED:
                    break
                if error.errno != errno.EAFNOSUPPORT:
                    self.obstacle = f"raw socket: {posix.strerror(error.errno or 0)}"
        if not self._raw:
            return False
        # One that is bound, as by `ip vrf exec`, hears its VRF, and only that.
        self._inside = is_bound(self._raw[0][0]) or links.udp_hears_vrfs
        for sock, receiver in self._raw:
            self._begin(sock, receiver)
        self._meet_vrfs(links)
        return True

    def _begin(self, sock: _socket.socket, receiver: Receiver) -> None:
        """From now on this raw socket hears."""
        _empty(sock)
        _filter(sock, self._program(sock, receiver, self._addresses[:0]))
        self._keep(sock, receiver)
        self._restrict(sock, receiver)

    def _meet_vrfs(self, links: Links) -> None:
        """Deal with the VRFs that there are now: hear them, or keep them out."""
        if links.vrfs == self._vrfs:
            return
        new, self._vrfs = links.vrfs - self._vrfs, set(links.vrfs)
        if not self._inside:
            for sock, receiver in self._raw:
                self._restrict(sock, receiver)
        elif not links.raw_hears_vrfs and not is_bound(self._raw[0][0]):
            for index in new:
                self._open_in_vrf(index)

    def _open_in_vrf(self, index: int) -> None:
        """Raw sockets for a VRF that UDP sockets hear, and raw ones only if bound to it."""
        try:
            name = _socket.if_indextoname(index).encode()
            for family in {sock.family for sock, _ in self._raw}:
                for receiver in (self.proof, self.census):
                    sock = _open_raw(family, name)
                    self._raw.append((sock, receiver))
                    self._begin(sock, receiver)
        except OSError as error:
            self.obstacle = f"raw socket: {posix.strerror(error.errno or 0)}"

    def _keep(self, sock: _socket.socket, receiver: Receiver) -> None:
        self._sockets.append(sock)
        receiver.add_socket(sock)
        if receiver is self.census:
            self.census_fds.append(sock.fileno())

    def _program(
        self, sock: _socket.socket, receiver: Receiver, sources: list[Address] | None
    ) -> list[filters.Instruction]:
        proof = receiver is self.proof
        return filters.program(
            _raw_kind(sock.family),
            self.port,
            messages_only=proof,
            sources=sources if proof else None,
            vrfs=() if self._inside else sorted(self._vrfs),
            inside=self._inside,
        )

    def _restrict(self, sock: _socket.socket, receiver: Receiver) -> None:
        """Let nothing but messages of the known addresses into a proof queue.

        A kernel that has no memory for a long list (net.core.optmem_max) gets a filter without:
        an older list would keep out the newer addresses. While one filter takes the place of
        another it counts both.
        """
        whole = self._program(sock, receiver, self._addresses)
        for program in (whole, self._program(sock, receiver, None), whole):
            try:
                filters.attach(sock, program)
            except OSError:
                continue
            if program is whole:
                return

    def add(self, addresses: list[Address]) -> None:
        """Hear these addresses too: they are the node's."""
        for address in addresses:
            self.sources.add(address.packed, address.scope)
            self._addresses.append(address)
            self._remember_interface(address)
        if self.raw:
            for sock, receiver in self._raw:
                if receiver is self.proof:
                    self._restrict(sock, receiver)
        else:
            self._unopened += addresses
            self._next_try = 0.0
            self.retry()

    def _remember_interface(self, address: Address) -> None:
        if not address.scope:
            return
        try:
            self._interfaces[address] = _socket.if_indextoname(address.scope)
        except OSError:
            return  # it has just gone; nobody knows what it was called
        self._newest = self._newest or _newest_interface()

    def changed(self) -> bool:
        """Whether something has changed with the interfaces, and `moved` is to be called."""
        try:
            return self._links is not None and self._links.changed()
        except OSError:
            return False

    def moved(self) -> dict[Address, Address]:
        """Follow the interfaces; which addresses are others now, before and after.

        An interface that is deleted and made anew, as a bond may be, has another index: a
        link-local address keeps to the interface's name. What is in the queues is to be read
        before, or it is judged by what the interfaces are called now.
        """
        assert self._links is not None
        if self.raw:
            self._meet_vrfs(self._links)
        moved: dict[Address, Address] = {}
        for before, name in list(self._interfaces.items()):
            index = _interface_of(name)
            if index in (0, before.scope):
                continue
            after = Address(before.packed, index)
            moved[before] = after
            if index <= self._newest:
                # It was there before under another name, and what came through it was not
                # the node's then.
                self.strangers.discard(after.packed, index)
            self.sources.discard(before.packed, before.scope)
            self._addresses.remove(before)
            del self._interfaces[before]
        if self._newest:
            self._newest = _newest_interface()
        for before in moved:
            if before in self._connected:
                self._disconnect(before)
            elif before in self._unopened:
                self._unopened.remove(before)
        if moved:
            self.add(list(moved.values()))
        # What a connected socket hears is sent to the address of this machine that it had then.
        for address, sock in list(self._connected.items()):
            try:
                local = _local_host(address)
            except OSError:  # no way to there at the moment
                continue
            if local != sock.getsockname()[0]:
                self._disconnect(address)
                self._unopened.append(address)
                self._next_try = 0.0
        self.retry()
        return moved

    def _disconnect(self, address: Address) -> None:
        sock = self._connected.pop(address)
        self.proof.discard_socket(sock)
        self._sockets.remove(sock)
        sock.close()

    def believes(self, interface: int) -> bool:
        """Whether a UDP socket would have heard what came through this interface.

        The kernel decides that for UDP sockets; for raw ones only as far as a filter knew of the
        VRFs when the datagram came.
        """
        if not self.raw or self._inside or self._links is None:
            return True
        return interface != 0 and not self._links.in_vrf(interface)

    def heard(self, address: Address) -> bool:
        """Whether a valid message came from there before anybody knew whose address it is."""
        return any(
            packed == address.packed
            and (interface == address.scope if address.scope else self.believes(interface))
            for packed, interface in self.strangers
        )

    def end(self, moment: float) -> None:
        """Nothing that arrives after this moment (time.monotonic) counts."""
        for receiver in (self.proof, self.census):
            receiver.end(round(moment * 1e9))

    @property
    def fds(self) -> list[int]:
        """What can be read when `changed` is to be asked; for poll."""
        return [] if self._links is None else [self._links.fd]

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
                    sock = _connect_udp(wanted, self.port)
                    self._keep(sock, self.proof)
                    self._connected[wanted] = sock
            except PortError as error:
                if not self._sockets:
                    raise
                self.obstacle = str(error)
                left.append(wanted)
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
        for sock, _ in self._raw:
            sock.close()
        self._sockets, self._raw = [], []
        if self._links is not None:
            self._links.close()

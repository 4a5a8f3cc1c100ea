# SPDX-License-Identifier: LGPL-2.1-or-later
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

Where signed packets alone are believed, nothing that comes to the port decides but what has the
node's name, from whatever address: with raw sockets the proof queues take that, and nothing else.
Then no socket here is waited for; all of them are looked at now and then.

What may not be in this file: what a message means.
"""

from __future__ import annotations

import _socket
import errno
import posix
import time

from kdumpfence import filters, sockets
from kdumpfence.addresses import Address
from kdumpfence.links import Links, is_bound
from kdumpfence.wire import Receiver, Sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from kdumpfence.wire import Arrival

_SO_TIMESTAMPING = 37
_STAMPS = 1 << 3 | 1 << 4  # SOF_TIMESTAMPING_RX_SOFTWARE, SOF_TIMESTAMPING_SOFTWARE
_IPV6_CHECKSUM = 7

#: Bytes; the kernel doubles it. A datagram of 8 bytes takes 832 (Linux 6.18) or 896 (6.12, 7.2),
#: so a queue holds some 2,400. Not more: in a flood every agent on the host fills one for each
#: family.
QUEUE_SIZE = 1 << 20

#: Seconds between attempts to open what could not be opened.
RETRY = 0.1

#: What raising a raw socket is refused with, by capabilities, seccomp or SELinux.
_NOT_PERMITTED = (errno.EPERM, errno.EACCES)


#: Networks in which everybody is.
_ANYWHERE = ((bytes(4), 0), (bytes(16), 0), (b"\x7f\0\0\0", 8), (bytes(15) + b"\1", 128))

#: Who may have sent a packet, until it has been looked at: more than come in one look.
_MOST_SENDERS = 1 << 15


class PortError(Exception):
    """The port cannot be listened to; the text says why."""


def _stamp(sock: _socket.socket) -> None:
    """Have the kernel tell when each datagram arrived; see `Receiver.end`."""
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _SO_TIMESTAMPING, _STAMPS)
    except OSError:
        pass  # then only what is read in time counts


def _open_raw(family: int, interface: bytes = b"") -> _socket.socket:
    """A raw socket for UDP that hears nothing yet."""
    sock = _socket.socket(family, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _socket.IPPROTO_UDP)
    try:
        # It has heard everything since it was made: that is thrown away when it gets its filter.
        sockets.attach(sock, filters.NOTHING)
        if interface:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_BINDTODEVICE, interface)
        sockets.set_queue(sock, QUEUE_SIZE)
        _stamp(sock)
        sockets.tell_destination(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def _open_udp(family: int, port: int, share: bool, messages_only: bool = False) -> _socket.socket:
    """A UDP socket bound to the port; without `share` only if nobody else holds it."""
    sock = _socket.socket(family, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, _socket.IPPROTO_UDP)
    try:
        sockets.prepare_udp(sock, messages_only)
        if share:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        sockets.set_queue(sock, QUEUE_SIZE)
        _stamp(sock)
        sockets.tell_destination(sock)
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
    sockets.local_host(address)
    sock = _open_udp(address.family, port, share=True, messages_only=True)
    try:
        sock.connect(sockets.peer(address, 0))
    except BaseException:
        sock.close()
        raise
    return sock


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


class _RawSockets:
    """Two for each family, and for each VRF that has to be listened to: for proof and census."""

    def __init__(self, listening: Listening, families: tuple[int, ...], links: Links) -> None:
        self._listening = listening
        self._links = links
        self._opened: list[tuple[_socket.socket, Receiver]] = []
        #: The filter that each of them has.
        self._filters: dict[_socket.socket, list[filters.Instruction]] = {}
        self._speaking: dict[int, _socket.socket] = {}
        self._vrfs: set[int] = set()  # that are dealt with
        try:
            for family in families:
                try:
                    for receiver in (listening.proof, listening.census):
                        self._opened.append((_open_raw(family), receiver))
                except sockets.FilterRefusedError:
                    raise
                except OSError as error:
                    if error.errno in _NOT_PERMITTED:
                        break
                    if error.errno != errno.EAFNOSUPPORT:
                        self._fails(error)
            if not self:
                return
            # One that is bound, as by `ip vrf exec`, hears its VRF, and only that.
            self._bound = is_bound(self._opened[0][0])
            #: Whether they hear VRFs.
            self.inside = self._bound or links.udp_hears_vrfs
            for sock, receiver in self._opened:
                self._begin(sock, receiver)
            self.meet_vrfs()
        except BaseException:
            self.close()
            raise

    def __bool__(self) -> bool:
        """Whether raw sockets may be had, and are."""
        return bool(self._opened)

    def _begin(self, sock: _socket.socket, receiver: Receiver) -> None:
        """From now on this socket hears."""
        sockets.empty(sock)
        program = self._program(sock, receiver, [])
        sockets.attach(sock, program)
        self._filters[sock] = program
        self._listening.keep(sock, receiver)
        self._restrict(sock, receiver)

    def _fails(self, error: OSError) -> None:
        self._listening.obstacle = f"raw socket: {posix.strerror(error.errno or 0)}"

    def meet_vrfs(self) -> None:
        """Deal with the VRFs that there are now: hear them, or keep them out."""
        links = self._links
        if links.vrfs == self._vrfs:
            return
        new, self._vrfs = links.vrfs - self._vrfs, set(links.vrfs)
        if not self.inside:
            for sock, receiver in self._opened:
                self._restrict(sock, receiver)
        elif not links.raw_hears_vrfs and not self._bound:
            for index in new:
                self._open_in_vrf(index)

    def _open_in_vrf(self, index: int) -> None:
        """Open those for a VRF that UDP sockets hear, and raw ones only if bound to it."""
        try:
            name = _socket.if_indextoname(index).encode()
            for family in {sock.family for sock, _ in self._opened}:
                for receiver in (self._listening.proof, self._listening.census):
                    self._opened.append((_open_raw(family, name), receiver))
                    self._begin(*self._opened[-1])
        except OSError as error:
            self._fails(error)

    def _program(
        self, sock: _socket.socket, receiver: Receiver, sources: list[Address] | None
    ) -> list[filters.Instruction]:
        proof = receiver is self._listening.proof
        packets = self._listening.packets if proof else None
        return filters.program(
            "raw4" if sock.family == _socket.AF_INET else "raw6",
            self._listening.port,
            messages_only=proof,
            sources=sources if proof and packets is None else None,
            packets=packets,
            questions=proof,
            vrfs=() if self.inside else sorted(self._vrfs),
            inside=self.inside,
        )

    def _restrict(self, sock: _socket.socket, receiver: Receiver) -> None:
        """Let nothing but messages of the known addresses into a proof queue.

        A kernel that has no memory for a long list (net.core.optmem_max) gets a filter without:
        an older list would keep out the newer addresses. While one filter takes the place of
        another it counts both.
        """
        whole = self._program(sock, receiver, self._listening.addresses)
        if self._filters[sock] != whole and not self._attach(sock, whole):
            self._attach(sock, self._program(sock, receiver, None))
            self._attach(sock, whole)

    def _attach(self, sock: _socket.socket, program: list[filters.Instruction]) -> bool:
        """Whether the socket could be given this filter."""
        try:
            filters.attach(sock, program)
        except OSError:
            return False
        self._filters[sock] = program
        return True

    def let_in(self) -> None:
        """Take new addresses into the filters."""
        for sock, receiver in self._opened:
            if receiver is self._listening.proof:
                self._restrict(sock, receiver)

    def say(self, address: Address, port: int, data: bytes, vrf: int) -> None:
        """Send from the port, whoever has bound it. Raises OSError."""
        family = address.family
        sock = self._speaking.get(family)
        if sock is None:
            sock = _socket.socket(
                family, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _socket.IPPROTO_UDP
            )
            self._speaking[family] = sock
            filters.attach(sock, filters.NOTHING)
            if family == _socket.AF_INET6:
                sock.setsockopt(_socket.IPPROTO_IPV6, _IPV6_CHECKSUM, 6)
        words = (self._listening.port, port, 8 + len(data), 0)  # no checksum, or the kernel's
        header = b"".join(word.to_bytes(2, "big") for word in words)
        way = sockets.through(family, vrf)
        sock.sendmsg([header, data], way, _socket.MSG_DONTWAIT, sockets.peer(address, 0))

    def close(self) -> None:
        for sock in (*(sock for sock, _ in self._opened), *self._speaking.values()):
            sock.close()


class _UdpSockets:
    """One for all that comes, and one connected to each address of the node.

    Raises PortError if the port cannot be heard at all.
    """

    def __init__(self, listening: Listening, families: tuple[int, ...]) -> None:
        self._listening = listening
        self._connected: dict[Address, _socket.socket] = {}
        #: Addresses to connect to, families to bind.
        self._unopened: list[Address | int] = list(families)
        self._next_try = 0.0
        self.retry()
        if not listening.census_fds and not self._unopened and listening.obstacle:
            raise PortError(listening.obstacle)

    @property
    def next_try(self) -> float | None:
        return self._next_try if self._unopened else None

    def connect(self, addresses: list[Address]) -> None:
        """Hear these as well, as soon as may be."""
        self._unopened += addresses
        self._next_try = 0.0
        self.retry()

    def disconnect(self, address: Address) -> None:
        """Hear it no more."""
        if address in self._unopened:
            self._unopened.remove(address)
        sock = self._connected.pop(address, None)
        if sock is not None:
            self._listening.drop(sock)

    def follow(self) -> None:
        """What a connected socket hears is sent to the address that this machine had then."""
        for address, sock in list(self._connected.items()):
            try:
                local = sockets.local_host(address)
            except OSError:  # no way to there at the moment
                continue
            if local != sock.getsockname()[0]:
                self.disconnect(address)
                self._unopened.append(address)
                self._next_try = 0.0
        self.retry()

    def retry(self) -> None:
        if not self._unopened or time.monotonic() < self._next_try:
            return
        left: list[Address | int] = []
        self._listening.obstacle = ""
        for wanted in self._unopened:
            try:
                self._open(wanted)
            except sockets.FilterRefusedError as error:
                if not self._listening.census_fds and not self._connected:
                    raise PortError(str(error.strerror)) from None
                self._listening.obstacle = str(error.strerror)
                left.append(wanted)
            except OSError as error:
                self._listening.obstacle = self._why(wanted, error)
                if error.errno == errno.EAFNOSUPPORT:
                    continue
                if error.errno in _NOT_PERMITTED and isinstance(wanted, int):
                    raise PortError(self._listening.obstacle) from None
                left.append(wanted)
        self._unopened = left
        self._next_try = time.monotonic() + RETRY

    def _open(self, wanted: Address | int) -> None:
        if isinstance(wanted, int):
            census = _open_census_udp(wanted, self._listening.port)
            if census is not None:
                self._listening.keep(census, self._listening.census)
        else:
            sock = _connect_udp(wanted, self._listening.port)
            self._listening.keep(sock, self._listening.proof)
            self._connected[wanted] = sock

    def _why(self, wanted: Address | int, error: OSError) -> str:
        why = posix.strerror(error.errno or 0)
        where = f"port {self._listening.port}/udp"
        if error.errno == errno.EADDRINUSE:
            why += " (held by another program; with CAP_NET_RAW both could listen)"
        elif not isinstance(wanted, int):
            where = f"route to {wanted}"
        return f"{where}: {why}"


class Listening:
    """The sockets that hear one port, and the two receivers over them.

    `families` are AF_INET, AF_INET6 or both; one that the kernel does not have is
    left out. `use_raw=False` does without raw sockets even if they are permitted. `names`: of
    the node, where its signed packets alone are believed.
    Raises PortError if the port cannot be heard at all, now or later.
    """

    def __init__(
        self,
        port: int,
        families: tuple[int, ...],
        use_raw: bool = True,
        names: Iterable[str] | None = None,
    ) -> None:
        self.port = port
        #: What the node's packets have, at which offsets; None: its messages count.
        self.packets: list[dict[int, bytes]] | None = None
        self.sources = Sources()
        #: Where valid messages came from beside `sources`: addresses, and the interface.
        self.strangers = Sources()
        if names is None:
            self._senders = None
            self.proof = Receiver(self.sources, self.strangers, port=port, batch=16)
        else:
            self.packets = [{8: b"kdf1", 56: name.encode().ljust(64, b"\0")} for name in names]
            self._senders = Sources(_MOST_SENDERS)
            for network in _ANYWHERE:
                self._senders.admit(*network)
            self.proof = Receiver(self._senders, port=port, batch=16)
        self.census = Receiver(self.sources, self.strangers, port=port, batch=16)
        #: Why something is not open yet; "" if all is.
        self.obstacle = ""
        #: The node's, so far.
        self.addresses: list[Address] = []
        #: Of link-local ones, the name of the interface.
        self._interfaces: dict[Address, str] = {}
        self._newest = 0  # interface, of those that may have been named otherwise before
        self._sockets: list[_socket.socket] = []
        #: Readable when a socket has something that is not waited for; descriptors for poll.
        self.census_fds: list[int] = []
        self._raw: _RawSockets | None = None
        self._udp: _UdpSockets | None = None
        try:
            self._links: Links | None = Links()
        except OSError:
            self._links = None
        try:
            if use_raw and self._links is not None:
                self._raw = _RawSockets(self, families, self._links) or None
            if self._raw is None:
                self._udp = _UdpSockets(self, families)
        except sockets.FilterRefusedError as error:
            self.close()
            raise PortError(str(error.strerror)) from None
        except BaseException:
            self.close()
            raise

    @property
    def raw(self) -> bool:
        """Whether raw sockets do the work."""
        return self._raw is not None

    def keep(self, sock: _socket.socket, receiver: Receiver) -> None:
        """Have one of the receivers read this socket, too."""
        self._sockets.append(sock)
        receiver.add_socket(sock)
        if receiver is self.census or self.packets is not None:
            self.census_fds.append(sock.fileno())

    def drop(self, sock: _socket.socket) -> None:
        """Close one that the proof came by."""
        self.proof.discard_socket(sock)
        self._sockets.remove(sock)
        if self.packets is not None:
            self.census_fds.remove(sock.fileno())
        sock.close()

    def add(self, addresses: list[Address]) -> None:
        """Hear these addresses too: they are the node's."""
        for address in addresses:
            self.sources.add(address.packed, address.scope)
            self.addresses.append(address)
            self._remember_interface(address)
        if self._raw is not None:
            self._raw.let_in()
        if self._udp is not None:
            self._udp.connect(addresses)

    def look(self, census: int, proof: int) -> list[Arrival]:
        """What has come, at most so many batches of each socket of a kind, without waiting."""
        arrivals = self.proof.take(proof) if proof else []
        if self._senders is not None:
            for arrival in arrivals:
                self._senders.discard(arrival.packed, arrival.scope)
        return arrivals + self.census.take(census)

    def vrfs(self) -> Iterable[int]:
        """The VRFs that are heard from outside."""
        return self._links.vrfs if self._links is not None and self._links.udp_hears_vrfs else ()

    def say(self, address: Address, port: int, data: bytes, vrf: int) -> bool:
        """Whether this could be sent from the port that is heard. Never waits."""
        if self._raw is None:
            return False
        try:
            self._raw.say(address, port, data, vrf)
        except OSError:
            return False
        return True

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
        if self._raw is not None:
            self._raw.meet_vrfs()
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
            self.addresses.remove(before)
            del self._interfaces[before]
            if self._udp is not None:
                self._udp.disconnect(before)
        if self._newest:
            self._newest = _newest_interface()
        if moved:
            self.add(list(moved.values()))
        if self._udp is not None:
            self._udp.follow()
        return moved

    def believes(self, interface: int) -> bool:
        """Whether a UDP socket would have heard what came through this interface.

        The kernel decides that for UDP sockets; for raw ones only as far as a filter knew of the
        VRFs when the datagram came.
        """
        if self._raw is None or self._raw.inside or self._links is None:
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
        return None if self._udp is None else self._udp.next_try

    def retry(self) -> None:
        """Open what could not be opened: a port still held, a network still down."""
        if self._udp is not None:
            self._udp.retry()

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
        if self._raw is not None:
            self._raw.close()
        if self._links is not None:
            self._links.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""The core in plain Python: turns bytes into messages and moves datagrams.

The twin of ``_kdumpwire.pyx`` for installations without a compiled core, and the
place where the interface of both is documented. Whatever one does, the other does
too: the same results, exceptions, messages and counters.

What may be in this file: mechanism. What may not: Pacemaker, argv, logging, files,
or any decision about a node. Only `kdumpfence.wire` may import it.

A message is 8 bytes: uint32 magic 0x1B302A40 and uint32 version 1, both in the byte
order of the machine that sent them. Bytes behind these 8 are its trailer.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from typing_extensions import Buffer

IMPLEMENTATION = "pure"

#: Why a datagram is no message of a known node, in the order of the looks:
#: fewer than 8 bytes; magic number wrong in both byte orders; a version other than 1;
#: raw sockets only: lengths that contradict each other; UDP checksum wrong;
#: a valid message, but from an unknown address.
REASONS = ("short", "magic", "version", "malformed", "checksum", "stranger")

_MESSAGE_BYTES = 8
_LITTLE = bytes.fromhex("402a301b01000000")
_BIG = bytes.fromhex("1b302a4000000001")
_MAGICS = (_LITTLE[:4], _BIG[:4])
_ELSEWHERE = "elsewhere"

_SO_ATTACH_FILTER = 26
_SO_RXQ_OVFL = 40
_SO_MEMINFO = 55
_SK_MEMINFO_DROPS = 8
_TIOCOUTQ = 0x5411
_IP_RECVERR = 11
_IPV6_RECVERR = 25
_IPV6_PKTINFO = 50
_ORIGINS_ICMP = (2, 3)  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6

#: Nanoseconds. A process that is stopped (SIGSTOP, a debugger, a paused guest) sleeps on
#: after SIGCONT for what was left of its poll, however late that makes it; and a signal
#: that came just before the poll, or to another thread, does not end it. So no single
#: poll is long.
_SLICE = 500_000_000
#: A flood must not keep the wait alive behind its deadline.
_LATE_ROUNDS = 256

_QUIET_ERRORS = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)


class Rejected(ValueError):
    """These bytes do not begin with a message; `reason` is one of REASONS."""

    def __init__(self, reason: str) -> None:
        ValueError.__init__(self, f"not a message: {reason}")
        self.reason = reason


class Message:
    """What a datagram said.

    `version` is 1; `byteorder`, "little" or "big", is that of the sending machine;
    `trailer` holds the bytes behind the first 8, without interpretation.
    """

    __slots__ = ("byteorder", "trailer", "version")

    def __init__(self, version: int, byteorder: str, trailer: bytes = b"") -> None:
        object.__setattr__(self, "version", version)
        object.__setattr__(self, "byteorder", byteorder)
        object.__setattr__(self, "trailer", trailer)

    if TYPE_CHECKING:
        version: int
        byteorder: str
        trailer: bytes

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"attribute {name!r} of a message cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"attribute {name!r} of a message cannot be set")

    def __reduce__(self) -> tuple[type[Message], tuple[int, str, bytes]]:
        return (Message, (self.version, self.byteorder, self.trailer))

    def __eq__(self, other: object) -> bool:
        if type(other) is not Message:
            return NotImplemented
        return (self.version, self.byteorder, self.trailer) == (
            other.version,
            other.byteorder,
            other.trailer,
        )

    def __hash__(self) -> int:
        return hash((self.version, self.byteorder, self.trailer))

    def __repr__(self) -> str:
        return (
            f"Message(version={self.version!r}, byteorder={self.byteorder!r}, "
            f"trailer={self.trailer!r})"
        )


def encode(byteorder: str) -> bytes:
    """The 8 bytes of a message from a machine of that byte order, "little" or "big"."""
    if byteorder == "little":
        return _LITTLE
    if byteorder == "big":
        return _BIG
    raise ValueError(f"byteorder {byteorder!r}: not 'little' or 'big'")


def _check(data: bytes | memoryview) -> str:
    """"accepted", or why these bytes do not begin with a message."""
    head = bytes(data[:_MESSAGE_BYTES])
    if len(head) < _MESSAGE_BYTES:
        return "short"
    if head in (_LITTLE, _BIG):
        return "accepted"
    return "version" if head[:4] in _MAGICS else "magic"


def _make_message(data: bytes | memoryview) -> Message:
    byteorder = "little" if data[0] == _LITTLE[0] else "big"
    return Message(1, byteorder, bytes(data[_MESSAGE_BYTES:]))


def decode(data: Buffer) -> Message:
    """The message that these bytes begin with, in whichever byte order.

    Raises `Rejected` with its `reason`: "short", "magic" or "version".
    """
    view = memoryview(data).cast("B")
    verdict = _check(view)
    if verdict != "accepted":
        raise Rejected(verdict)
    return _make_message(view)


def _zero_counts() -> dict[str, int]:
    return dict.fromkeys(("accepted", *REASONS), 0)


def validate(data: Buffer) -> dict[str, int]:
    """Count the verdicts over 8-byte messages packed one behind the other.

    Keys are "accepted" and REASONS; a rest of fewer than 8 bytes is one "short".
    """
    view = memoryview(data).cast("B")
    whole = len(view) - len(view) % _MESSAGE_BYTES
    counts = _zero_counts()
    words: dict[int, int] = {}
    # Few distinct words stand behind millions of messages: classify each but once.
    for word in view[:whole].cast("Q"):
        words[word] = words.get(word, 0) + 1
    for word, number in words.items():
        counts[_check(struct.pack("=Q", word))] += number
    if whole != len(view):
        counts["short"] += 1
    return counts


def _fold(data: bytes, total: int) -> int:
    """One's-complement sum of 16-bit big-endian words (RFC 1071)."""
    if len(data) & 1:
        data += b"\0"
    total += sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _checksum_fits(source: bytes, destination: bytes, udp: bytes) -> bool:
    """Whether the UDP checksum fits; a raw socket's datagrams come unverified.

    Accepted beside the right sum: 0 over IPv4 (RFC 768: not computed), and the bare
    pseudo-header sum, which is what a datagram from this machine or its guests
    carries while the rest is left to a network card that it never meets.
    """
    field = (udp[6] << 8) | udp[7]
    if field == 0:
        return len(source) == 4
    pseudo = _fold(source + destination, 17 + len(udp))
    return field == pseudo or _fold(udp, pseudo) == 0xFFFF


def _pack_host(host: str) -> bytes:
    """The address of a name that the socket layer wrote: 4 bytes, or 16."""
    if ":" not in host:
        return _socket.inet_pton(_socket.AF_INET, host)
    packed = _socket.inet_pton(_socket.AF_INET6, host)
    return packed[12:] if packed[:12] == b"\0" * 10 + b"\xff\xff" else packed


def _show_host(packed: bytes) -> str:
    """The same the other way round; IPv4-mapped IPv6 addresses become IPv4."""
    if len(packed) not in (4, 16):
        raise ValueError(f"address of {len(packed)} bytes: 4 or 16 are allowed")
    if packed[:12] == b"\0" * 10 + b"\xff\xff":
        packed = packed[12:]
    return _socket.inet_ntop(_socket.AF_INET if len(packed) == 4 else _socket.AF_INET6, packed)


class Sources:
    """Known source addresses, each with the caller's number for its node.

    An address is its 4 or 16 bytes in network order, with the interface index as
    `scope` if it is link-local. Looking one up takes the same time however many
    there are. Neither to be changed nor looked into while a `Receiver` in another thread
    uses it (RuntimeError).
    """

    def __init__(self) -> None:
        # Keyed as recvfrom shows a peer, so that the receive loop converts nothing.
        self._nodes: dict[tuple[str, int], int] = {}
        self._busy = 0

    def _check_idle(self) -> None:
        if self._busy:
            raise RuntimeError("a receiver in another thread is using these sources")

    def add(self, packed: bytes, scope: int = 0, node: int = 0) -> None:
        """Know this address; one that is there already gets the new number."""
        key = (_show_host(packed), scope)
        self._check_idle()
        self._nodes[key] = node

    def discard(self, packed: bytes, scope: int = 0) -> bool:
        """Forget this address; whether it was known."""
        key = (_show_host(packed), scope)
        self._check_idle()
        return self._nodes.pop(key, None) is not None

    def find(self, packed: bytes, scope: int = 0) -> int | None:
        """The number of this address's node; None for a stranger."""
        key = (_show_host(packed), scope)
        self._check_idle()
        return self._nodes.get(key)

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        self._check_idle()
        return iter([(_pack_host(host), scope) for host, scope in self._nodes])


class Arrival:
    """An accepted datagram: who sent it, when, and what it said.

    `node` is the number given to `Sources.add`; `packed`, `scope` and `port` are the
    sender's address; `when_ns` is CLOCK_MONOTONIC when its batch was read.
    """

    __slots__ = ("message", "node", "packed", "port", "scope", "when_ns")

    def __init__(
        self, node: int, packed: bytes, scope: int, port: int, when_ns: int, message: Message
    ) -> None:
        self.node = node
        self.packed = packed
        self.scope = scope
        self.port = port
        self.when_ns = when_ns
        self.message = message

    def __repr__(self) -> str:
        return (
            f"Arrival(node={self.node}, packed={self.packed!r}, scope={self.scope}, "
            f"port={self.port}, when_ns={self.when_ns}, message={self.message!r})"
        )


class Receiver:
    """Reads datagrams from UDP or raw sockets and believes messages of known sources.

    `sources` are the nodes' addresses. Addresses of others that sent a valid message
    are added to `strangers`, up to `stranger_room` of them. `port` is the UDP port
    that counts on raw sockets (a UDP socket has its own). `batch` datagrams at most are
    read at a time, and of each at most `size` bytes.

    Raw sockets are AF_INET or AF_INET6 with IPPROTO_UDP; the latter need
    IPV6_RECVPKTINFO, or nothing they hear has a checksum that fits.
    """

    def __init__(
        self,
        sources: Sources,
        strangers: Sources | None = None,
        *,
        port: int = 7410,
        batch: int = 32,
        size: int = 65535,
        stranger_room: int = 1024,
    ) -> None:
        if not 1 <= batch <= 1024:
            raise ValueError(f"batch {batch}: 1 to 1024 are allowed")
        if not 64 <= size <= 65535:
            raise ValueError(f"size {size}: 64 to 65535 are allowed")
        self._sources = sources
        self._strangers = strangers
        self._stranger_room = stranger_room
        self._port = port
        self._batch = batch
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
        self._sockets: list[_socket.socket] = []
        self._dropped: list[int] = []
        self._counts = _zero_counts()
        self._errors = 0
        self._busy = False

    def add_socket(self, sock: _socket.socket) -> None:
        """Read this socket too. It stays the caller's to close, afterwards."""
        if sock.fileno() < 0:
            raise ValueError("the socket is closed")
        if self._busy:
            raise RuntimeError("this receiver is in use in another thread")
        self._sockets.append(sock)
        self._dropped.append(0)

    def _judge_raw(
        self, sock: _socket.socket, data: memoryview, address: tuple[object, ...], truncated: bool,
        destination: bytes,
    ) -> tuple[str, memoryview, int, bytes]:
        """Strip the headers: (verdict so far, payload, source port, UDP datagram)."""
        source_port = 0
        if sock.family == _socket.AF_INET:
            header = (data[0] & 15) * 4 if len(data) >= 20 else 0
            if header < 20 or len(data) < header:
                return "malformed", data, 0, b""
            data = data[header:]
        if len(data) < 8:
            return "malformed", data, 0, b""
        source_port, port, length = struct.unpack_from(">HHH", data)
        if port != self._port:
            return _ELSEWHERE, data, source_port, b""
        # What the IP packet carries behind the UDP length is not part of the datagram.
        if length < 8 or length > len(data) or truncated:
            return "malformed", data, source_port, b""
        return "accepted", data[8:length], source_port, bytes(data[:length])

    def _read(self, number: int, found: list[Arrival]) -> bool:
        """Read one datagram of that socket; False if there was none. May raise OSError."""
        sock = self._sockets[number]
        raw = sock.type == _socket.SOCK_RAW
        if not raw:
            # The hot path: nothing is converted or allocated that need not be.
            length, address = sock.recvfrom_into(self._buffer, 0, _socket.MSG_DONTWAIT)
            payload = self._view[:length]
            verdict = _check(payload)
            source_port = address[1]
            udp = destination = b""
        else:
            length, control, flags, address = sock.recvmsg_into(
                [self._buffer], 96, _socket.MSG_DONTWAIT
            )
            destination = b""
            for level, kind, value in control:
                if level == _socket.SOL_SOCKET and kind == _SO_RXQ_OVFL:
                    self._dropped[number] = struct.unpack("=I", value[:4])[0]
                elif level == _socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO:
                    destination = value[:16]
            verdict, payload, source_port, udp = self._judge_raw(
                sock, self._view[:length], address, bool(flags & _socket.MSG_TRUNC), destination
            )
            if verdict == _ELSEWHERE:
                return True
            if verdict == "accepted":
                verdict = _check(payload)
        if verdict != "accepted":
            self._counts[verdict] += 1
            return True
        host = address[0]
        scope = address[3] if len(address) == 4 else 0
        if raw:
            packed = _pack_host(host)
            if sock.family == _socket.AF_INET:
                destination = bytes(self._view[16:20])
            if not destination or not _checksum_fits(packed, destination, udp):
                self._counts["checksum"] += 1
                return True
        if host[:7] == "::ffff:" and "." in host:
            host = host[7:]
        node = self._sources._nodes.get((host, scope))
        if node is None:
            self._counts["stranger"] += 1
            strangers = self._strangers
            if strangers is not None and len(strangers._nodes) < self._stranger_room:
                strangers._nodes[host, scope] = 0
            return True
        self._counts["accepted"] += 1
        found.append(
            Arrival(
                node,
                _pack_host(host),
                scope,
                source_port,
                time.monotonic_ns(),
                _make_message(payload),
            )
        )
        return True

    def _read_batch(self, number: int, found: list[Arrival]) -> int:
        """Read at most a batch of one socket: how many, or -1 after an error."""
        got = 0
        try:
            while got < self._batch:
                self._read(number, found)
                got += 1
        except OSError as error:
            if error.errno not in _QUIET_ERRORS:
                # ICMP errors, an interface that went away: the wait goes on.
                self._errors += 1
                if got == 0:
                    return -1
        return got

    def _enter(self) -> None:
        """Nobody else may use the buffer or change the tables until `_leave`."""
        if self._busy:
            raise RuntimeError("this receiver is in use in another thread")
        if any(sock.fileno() < 0 for sock in self._sockets):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._busy = True
        self._sources._busy += 1
        if self._strangers is not None:
            self._strangers._busy += 1

    def _leave(self) -> None:
        self._busy = False
        self._sources._busy -= 1
        if self._strangers is not None:
            self._strangers._busy -= 1

    def receive(self, deadline_ns: int | None, wake: Sequence[int] = ()) -> list[Arrival]:
        """Wait for messages of known sources.

        Returns them as soon as there are any, or [] at `deadline_ns` (CLOCK_MONOTONIC,
        nanoseconds; None: no end) or when one of the descriptors in `wake` can be read.
        What already lay in the queues at the deadline is still read. Signal handlers
        run meanwhile; what they raise is passed on. Raises OSError if a socket was closed.
        """
        self._enter()
        try:
            return self._wait_and_read(deadline_ns, wake)
        finally:
            self._leave()

    def _wait_and_read(self, deadline_ns: int | None, wake: Sequence[int]) -> list[Arrival]:
        poller = select.poll()
        numbers = {}
        for number, sock in enumerate(self._sockets):
            poller.register(sock.fileno(), select.POLLIN)
            numbers[sock.fileno()] = number
        for fd in wake:
            poller.register(fd, select.POLLIN)
        late = _LATE_ROUNDS
        while True:
            left = _SLICE
            if deadline_ns is not None:
                left = max(0, min(left, deadline_ns - time.monotonic_ns()))
            ready = poller.poll(left / 1e6)
            if not ready:
                if deadline_ns is not None and time.monotonic_ns() >= deadline_ns:
                    return []
                continue
            progress = woken = False
            for fd, events in ready:
                ready_number = numbers.get(fd)
                if ready_number is None:
                    woken = True
                    continue
                if events & select.POLLNVAL:
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                found: list[Arrival] = []
                progress |= self._read_batch(ready_number, found) > 0
                if found:
                    return found
            if woken:
                return []
            if not progress:
                # Only errors: never spin on a socket that keeps failing.
                time.sleep(0.001)
            if left == 0:
                late -= 1
                if late <= 0:
                    return []

    def take(self, batches: int = 1) -> list[Arrival]:
        """Read at most that many batches of each socket, without waiting."""
        found: list[Arrival] = []
        self._enter()
        try:
            for number in range(len(self._sockets)):
                for _ in range(batches):
                    if self._read_batch(number, found) < self._batch:
                        break
        finally:
            self._leave()
        return found

    @property
    def counts(self) -> dict[str, int]:
        """Datagrams read so far: "accepted", and those rejected by REASONS."""
        return dict(self._counts)

    @property
    def errors(self) -> int:
        """Reads that failed, by ICMP errors for instance."""
        return self._errors

    @property
    def dropped(self) -> int:
        """Datagrams that the kernel dropped unread, most of them for want of room.

        On a UDP socket that includes what a socket filter dropped.
        """
        for number, sock in enumerate(self._sockets):
            # SO_RXQ_OVFL tells only of drops before the last datagram read;
            # SO_MEMINFO (Linux 4.12) of all.
            try:
                info = sock.getsockopt(_socket.SOL_SOCKET, _SO_MEMINFO, 64)
            except OSError:
                continue
            if len(info) >= 4 * (_SK_MEMINFO_DROPS + 1):
                self._dropped[number] = struct.unpack_from("=I", info, 4 * _SK_MEMINFO_DROPS)[0]
        return sum(self._dropped)


def attach_filter(sock: _socket.socket, code: bytes) -> None:
    """Put a classic BPF program on the socket, in the place of the one it has.

    `code` is an array of struct sock_filter (linux/filter.h), 8 bytes each, in the byte
    order of this machine. Raises OSError if the kernel does not take it.
    """
    import array

    if len(code) % 8:
        raise ValueError(f"filter of {len(code)} bytes: not a multiple of 8")
    instructions = array.array("B", code)
    pointer, length = instructions.buffer_info()
    # struct sock_fprog: the kernel copies the instructions before the call returns.
    program = struct.pack("@HP", length // 8, pointer)
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0)) from None


class Transmitter:
    """Sends one payload to any number of destinations over one UDP socket.

    Not to be used while it sends in another thread (RuntimeError).
    """

    def __init__(self, sock: _socket.socket, payload: bytes) -> None:
        if sock.fileno() < 0:
            raise ValueError("the socket is closed")
        self._sock = sock
        self._length = 4 if sock.family == _socket.AF_INET else 16
        self._payload = payload
        self._names: list[tuple[str, int] | tuple[str, int, int, int]] = []
        self._busy = False

    def _check_idle(self) -> None:
        if self._busy:
            raise RuntimeError("this transmitter is in use in another thread")

    def add(self, packed: bytes, port: int, scope: int = 0) -> int:
        """Add a destination; its index."""
        if len(packed) != self._length:
            raise ValueError(
                f"address of {len(packed)} bytes: this socket's family has {self._length}"
            )
        if not 1 <= port <= 65535:
            raise ValueError(f"port {port}: 1 to 65535 are allowed")
        self._check_idle()
        # Not _show_host: a mapped address stays IPv6 for an IPv6 socket.
        host = _socket.inet_ntop(self._sock.family, packed)
        self._names.append((host, port) if self._length == 4 else (host, port, 0, scope))
        return len(self._names) - 1

    def __len__(self) -> int:
        return len(self._names)

    def send(
        self, which: Iterable[int] | None = None, patience_ns: int = 20_000_000
    ) -> list[int]:
        """Send to those destinations (None: to all), in that order.

        Returns an errno for each, 0 = the kernel took it. A full send buffer is waited
        for, `patience_ns` nanoseconds in all; what then is left has EAGAIN.
        """
        chosen = None if which is None else list(which)
        self._check_idle()
        if chosen is None:
            chosen = list(range(len(self._names)))
        for index in chosen:
            if not 0 <= index < len(self._names):
                raise IndexError(f"destination {index}: 0 to {len(self._names) - 1} are allowed")
        self._busy = True
        try:
            return self._send(chosen, patience_ns)
        finally:
            self._busy = False

    def _send(self, chosen: list[int], patience_ns: int) -> list[int]:
        outcomes: list[int] = []
        until: int | None = None
        flags = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL
        tries = 0
        while len(outcomes) < len(chosen):
            try:
                self._sock.sendto(self._payload, flags, self._names[chosen[len(outcomes)]])
                outcomes.append(0)
                tries = 0
                continue
            except OSError as error:
                code = error.errno or errno.EIO
            if code in _QUIET_ERRORS:
                if until is None:
                    until = time.monotonic_ns() + patience_ns
                left = until - time.monotonic_ns()
                if left > 0:
                    poller = select.poll()
                    poller.register(self._sock.fileno(), select.POLLOUT)
                    if poller.poll(left / 1e6):
                        continue
                outcomes += [code] * (len(chosen) - len(outcomes))
                break
            # The error may be an older datagram's, reported on this occasion (IP_RECVERR):
            # only one that comes again belongs to this destination.
            tries += 1
            if tries == 3:
                outcomes.append(code)
                tries = 0
        return outcomes

    def failures(self, most: int = 1024) -> list[tuple[bytes, int, int, bytes | None]]:
        """What became known since of datagrams that the kernel had taken.

        The socket needs IP_RECVERR (IPV6_RECVERR). Returns at most `most` tuples
        (destination, its scope, errno, address of the host that said so by ICMP or None).
        """
        result: list[tuple[bytes, int, int, bytes | None]] = []
        while len(result) < most:
            try:
                _, control, _, address = self._sock.recvmsg(
                    64, 512, _socket.MSG_ERRQUEUE | _socket.MSG_DONTWAIT
                )
            except InterruptedError:
                continue
            except OSError:
                break
            for level, kind, value in control:
                if (level, kind) not in (
                    (_socket.IPPROTO_IP, _IP_RECVERR),
                    (_socket.IPPROTO_IPV6, _IPV6_RECVERR),
                ):
                    continue
                code, origin = struct.unpack_from("=IB", value)
                by = None
                if origin in _ORIGINS_ICMP:
                    by = _unpack_sockaddr(value[16:])
                if isinstance(address, tuple):
                    packed = _socket.inet_pton(self._sock.family, address[0])
                    scope = address[3] if len(address) == 4 else 0
                    result.append((packed, scope, code, by))
        return result

    @property
    def pending(self) -> int:
        """Bytes of memory of datagrams that were taken but have not left the machine.

        Those wait for a neighbour's hardware address, or in a device's queue.
        """
        import fcntl

        try:
            queued = fcntl.ioctl(self._sock.fileno(), _TIOCOUTQ, b"\0" * 4)
        except OSError:
            return 0
        return int(struct.unpack("=i", queued)[0])


def _unpack_sockaddr(raw: bytes) -> bytes | None:
    """The address in a C sockaddr_in or sockaddr_in6."""
    family = struct.unpack_from("=H", raw)[0] if len(raw) >= 2 else 0
    if family == _socket.AF_INET and len(raw) >= 8:
        return raw[4:8]
    if family == _socket.AF_INET6 and len(raw) >= 24:
        return raw[8:24]
    return None

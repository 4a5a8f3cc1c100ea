# SPDX-License-Identifier: LGPL-2.1-or-later
"""The core in plain Python: turns bytes into messages and moves datagrams.

The twin of ``_kdumpwire.pyx`` for installations without a compiled core, and the
place where the interface of both is documented. Whatever one does, the other does
too: the same results, exceptions, messages and counters. So both have the same parts, in the
same order, with the same names.

What may be in this file: mechanism. What may not: Pacemaker, argv, logging, files,
or any decision about a node. Only `kdumpfence.wire` may import it.

A message is 8 bytes: uint32 magic 0x1B302A40 and uint32 version 1, both in the byte
order of the machine that sent them. Bytes behind these 8 are its trailer.
"""

from __future__ import annotations

import _socket
import _thread
import array
import errno
import fcntl
import os
import posix
import select
import struct
import sys
import time

from kdumpfence.unpatched import original

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from typing_extensions import Buffer

    _Told = tuple[int, str, int, int]
    #: Source port, first, last, messages, what statuses said: see `Sources.heard`.
    _Heard = tuple[int, int, int, int, tuple[_Told, ...]]

IMPLEMENTATION = "pure"

#: Whether there is `Signed`: whether it was built with HMAC-SHA256, which Python has.
SIGNS = True

#: Why a datagram is no message of a known node, in the order of the looks:
#: fewer than 8 bytes; magic number wrong in both byte orders; a version other than 1;
#: raw sockets only: lengths that contradict each other; UDP checksum wrong;
#: a valid message, but from an unknown address; one from an address that would have been
#: admitted, had there been room; a question, which asks this machine whether it is alive.
#: Where messages have to be signed (`Signed`) a stranger's name is unknown, not its address; and
#: not signed; with a key id that is none of ours; with a MAC that does not fit; of a session that
#: was not confirmed yet, or no newer than what was heard of it.
REASONS = (
    "short", "magic", "version", "malformed", "checksum", "stranger", "crowded", "question",
    "unsigned", "key", "forged", "replayed",
)  # fmt: skip

_MESSAGE_BYTES = 8
_LITTLE = bytes.fromhex("402a301b01000000")
_BIG = bytes.fromhex("1b302a4000000001")
_MAGICS = (_LITTLE[:4], _BIG[:4])
_ELSEWHERE = "elsewhere"

_SO_ATTACH_FILTER = 26
_SO_MEMINFO = 55
_SK_MEMINFO_DROPS = 8
_TIOCOUTQ = 0x5411
_IP_RECVERR = 11
_IPV6_RECVERR = 25
_IP_PKTINFO = 8
_IPV6_PKTINFO = 50
_SO_TIMESTAMPING = 37  # and the type of what it brings
_STAMPED = 1 << 3  # SOF_TIMESTAMPING_RX_SOFTWARE
_CONTROL_BYTES = 128
_IPV6_RECVPKTINFO = 49
# What has a UDP socket tell the address that a datagram was sent to.
_ASKED_FOR_4 = (_socket.IPPROTO_IP, _IP_PKTINFO)
_ASKED_FOR_6 = (_socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO)
_ORIGINS_ICMP = (2, 3)  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6
_ORIGIN_TIMESTAMPING = 4
# linux/net_tstamp.h: SOFTWARE and OPT_CMSG for the socket, TX_SCHED with a message. OPT_PKTINFO
# does nothing here, but is refused by kernels (before 4.13) some of which would refuse the
# messages that ask to be told of.
_TELL_WITH_ADDRESSES = 1 << 4 | 1 << 10 | 1 << 13
_TELL = [(_socket.SOL_SOCKET, _SO_TIMESTAMPING, struct.pack("=I", 1 << 8))]

#: Nanoseconds. A process that is stopped (SIGSTOP, a debugger, a paused guest) sleeps on
#: after SIGCONT for what was left of its poll, however late that makes it; and a signal
#: that came just before the poll, or to another thread, does not end it. So no single
#: poll is long.
_SLICE = 500_000_000
#: A flood must not keep the wait alive behind its deadline.
_LATE_ROUNDS = 256

_QUIET_ERRORS = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)


# ------------------------------------------------------------ the codec: codec.pxi


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


def _check_message(data: bytes | memoryview) -> str:
    """Return why these bytes do not begin with a message, or "accepted"."""
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
    verdict = _check_message(view)
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
        counts[_check_message(struct.pack("=Q", word))] += number
    if whole != len(view):
        counts["short"] += 1
    return counts


# ------------------------------------------------------------ packets: packet.pxi

#: Bytes of a packet, whatever its kind: so no answer is larger than its question.
PACKET_BYTES = 152

#: What a status says, by its number in a packet; "" is that of the other kinds.
STATES = ("", "started", "dumping", "finished", "failed")

_PACKET = struct.Struct(">8s4sHBBIIQQ16s64s")
_MAC_BYTES = 32
_KEY_BYTES = 32
_NAME_BYTES = 64
#: Those of STATES in which a dump is over.
_ENDS = ("finished", "failed")
_HEADS = {b"KDFQUEST": "question", b"KDFALIVE": "alive", _LITTLE: "status", _BIG: "status"}
_TRAILER = (b"kdf1", PACKET_BYTES - _MESSAGE_BYTES)


class Packet:
    """What a datagram of PACKET_BYTES says; docs/protocol.md has its layout.

    `kind`: "status", "question" or "alive". `name`: the node that speaks, or is asked: 1 to 64
    ASCII characters from "!" to "~". `state`: of a status one of STATES, else "". `key_id`: 0 if
    it is not signed. `interval` (milliseconds), `session` and `sequence`: 0 but in a status.
    `nonce`: 16 bytes; zeroes in a status that answers nothing. ValueError for what cannot be in a
    packet.
    """

    __slots__ = ("interval", "key_id", "kind", "name", "nonce", "sequence", "session", "state")

    def __init__(
        self,
        kind: str,
        name: str,
        *,
        state: str = "",
        key_id: int = 0,
        interval: int = 0,
        session: int = 0,
        sequence: int = 0,
        nonce: bytes = bytes(16),
    ) -> None:
        if kind not in ("status", "question", "alive"):
            raise ValueError(f"kind {kind!r}: not 'status', 'question' or 'alive'")
        if state not in STATES or (state == "") == (kind == "status"):
            raise ValueError(f"state {state!r}: not one of a packet of kind {kind!r}")
        if not is_packet_name(name):
            raise ValueError(f"name {name!r}: not 1 to 64 ASCII characters without blanks")
        for what, number, bits in (
            ("key_id", key_id, 32),
            ("interval", interval, 32),
            ("session", session, 64),
            ("sequence", sequence, 64),
        ):
            if not 0 <= number < 1 << bits:
                raise ValueError(f"{what} {number}: not a number of {bits} bits")
            if number and kind != "status" and what != "key_id":
                raise ValueError(f"{what} {number}: only a status has one")
        if len(nonce) != 16:
            raise ValueError(f"nonce of {len(nonce)} bytes: not 16")
        self.kind = kind
        self.name = name
        self.state = state
        self.key_id = key_id
        self.interval = interval
        self.session = session
        self.sequence = sequence
        self.nonce = nonce

    def _fields(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        if type(other) is not Packet:
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return (
            f"Packet({self.kind!r}, {self.name!r}, state={self.state!r}, key_id={self.key_id!r}, "
            f"interval={self.interval!r}, session={self.session!r}, "
            f"sequence={self.sequence!r}, nonce={self.nonce!r})"
        )


def is_packet_name(name: str) -> bool:
    """Whether a packet can carry this node name."""
    return 0 < len(name) <= _NAME_BYTES and all("!" <= letter <= "~" for letter in name)


def _check_key(key: bytes) -> None:
    if len(key) != _KEY_BYTES:
        raise ValueError(f"key of {len(key)} bytes: not {_KEY_BYTES}")


def mac(key: bytes, data: Buffer) -> bytes:
    """HMAC-SHA256 (RFC 2104), 32 bytes. The key is one of 32 bytes; ValueError for another."""
    from hmac import digest  # which brings OpenSSL with it, and is seldom needed

    _check_key(key)
    return digest(key, memoryview(data).cast("B"), "sha256")


def encode_packet(packet: Packet, key: bytes = b"", byteorder: str = sys.byteorder) -> bytes:
    """The bytes of a packet. One with a key id is signed with `key`, 32 bytes.

    `byteorder`: of the message that a status begins with; all else has but one. ValueError for a
    key id without a key, or a key without one.
    """
    if (packet.key_id != 0) != bool(key):
        raise ValueError("a packet has a key id and is signed with a key, or has neither")
    if packet.kind == "status":
        head = encode(byteorder)
    else:
        head = b"KDFQUEST" if packet.kind == "question" else b"KDFALIVE"
    data = _PACKET.pack(
        head,
        *_TRAILER,
        1 if key else 0,
        STATES.index(packet.state),
        packet.key_id,
        packet.interval,
        packet.session,
        packet.sequence,
        packet.nonce,
        packet.name.encode(),
    )
    return data + (mac(key, data) if key else bytes(_MAC_BYTES))


def decode_packet(data: Buffer) -> Packet | None:
    """The packet that these bytes are, its MAC aside; None if they are none."""
    view = bytes(memoryview(data).cast("B"))
    if len(view) != PACKET_BYTES:
        return None
    head, magic, length, auth, state, key_id, interval, session, sequence, nonce, padded = (
        _PACKET.unpack_from(view)
    )
    kind = _HEADS.get(head)
    if kind is None or (magic, length) != _TRAILER:
        return None
    if auth != (1 if key_id else 0) or (not auth and any(view[_PACKET.size :])):
        return None
    if state >= len(STATES) or (state == 0) == (kind == "status"):
        return None
    if kind != "status" and (interval or session or sequence):
        return None
    name = padded.rstrip(b"\0").decode("latin-1")
    if not is_packet_name(name):
        return None
    return Packet(
        kind,
        name,
        state=STATES[state],
        key_id=key_id,
        interval=interval,
        session=session,
        sequence=sequence,
        nonce=nonce,
    )


def packet_fits(data: Buffer, key: bytes) -> bool:
    """Whether these bytes are a packet signed with this key, 32 bytes. Takes the same time for
    every wrong MAC.
    """
    from hmac import compare_digest

    _check_key(key)
    view = bytes(memoryview(data).cast("B"))
    if len(view) != PACKET_BYTES:
        return False
    # The MAC first: what comes in masses is forged, and the rest takes longer.
    if not compare_digest(mac(key, view[: _PACKET.size]), view[_PACKET.size :]):
        return False
    packet = decode_packet(view)
    return packet is not None and packet.key_id != 0


def _add_words(data: bytes, total: int) -> int:
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
    pseudo = _add_words(source + destination, 17 + len(udp))
    return field == pseudo or _add_words(udp, pseudo) == 0xFFFF


# ------------------------------------------------------ known sources: sources.pxi


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


def _key(host: str, scope: int) -> str | tuple[str, int]:
    """What a source is filed under: as recvfrom shows a peer, so that nothing is converted."""
    if host[:7] == "::ffff:" and "." in host:
        host = host[7:]
    return (host, scope) if scope else host


def _as_number(packed: bytes) -> int:
    """An address as a number of 128 bits; IPv4 as ::ffff:a.b.c.d."""
    return int.from_bytes(packed, "big") | (0xFFFF << 32 if len(packed) == 4 else 0)


def _is_loopback(number: int) -> bool:
    """Whether this is in 127.0.0.0/8 or is ::1."""
    return number >> 24 == 0xFFFF7F or number == 1


#: What a source said, of which so many are kept.
_MOST_TOLD = 4


class _Source:
    __slots__ = (
        "admitted",
        "entry",
        "first",
        "host",
        "last",
        "messages",
        "node",
        "place",
        "port",
        "scope",
        "seen",
        "told",
    )

    def __init__(self, host: str, scope: int, node: int) -> None:
        self.host = host
        self.scope = scope
        self.node = node
        self.port = 0
        self.first = 0  # when it was heard first since last given out
        self.last = 0  # when it was heard last
        self.messages = 0  # since it was last given out as heard
        self.place = -1  # its place in the row of those heard
        self.entry = -1  # that it has in a table shared with the kernel; -1: none
        self.seen = 0  # of the messages in that entry
        self.admitted = False
        #: (session, state, when, `messages` at that time) of statuses since it was last given out.
        self.told: tuple[_Told, ...] = ()


class Sources:
    """Known source addresses, each with the caller's number for its node.

    An address is its 4 or 16 bytes in network order, with the interface index as
    `scope` if it is link-local. Looking one up takes the same time however many
    there are. May be changed and looked into while a `Receiver` in another thread uses it.

    At most `room` addresses are known at a time because `admit` allows them; those that
    were added are not counted.
    """

    def __init__(self, room: int = 1 << 17) -> None:
        if not 0 <= room < 1 << 32:
            raise OverflowError(f"room {room}: 0 to {(1 << 32) - 1} are allowed")
        self._room = room
        self._admitted = 0
        self._known: dict[str | tuple[str, int], _Source] = {}
        #: Address, mask, number; whether no IPv4 address is in it, whatever its prefix; whether
        #: loopback addresses are.
        self._networks: list[tuple[int, int, int, bool, bool]] = []
        # Heard and not given out yet; the first one's place is _given.
        self._heard: list[_Source] = []
        self._given = 0
        # Signal handlers may come here too.
        self._lock = _thread.RLock()
        self._shared: _Shared | None = None
        self._counted = 0  # messages that the kernel had counted at the last look

    def add(self, packed: bytes, scope: int = 0, node: int = 0) -> None:
        """Know this address; one that is there already gets the new number."""
        host = _show_host(packed)
        with self._lock:
            source = self._known.setdefault(_key(host, scope), _Source(host, scope, node))
            if source.entry >= 0 and source.node != node:
                if source.admitted:  # what that machine says goes on, as this node's
                    self._fold(source)
                self._forget_entry(source)  # for this node its next message is news
            source.node = node
            self._admitted -= source.admitted
            source.admitted = False

    def discard(self, packed: bytes, scope: int = 0) -> bool:
        """Forget this address; whether it was known."""
        with self._lock:
            return self._discard(_key(_show_host(packed), scope))

    def _discard(self, key: str | tuple[str, int]) -> bool:
        source = self._known.pop(key, None)
        if source is None:
            return False
        self._forget_entry(source)
        self._admitted -= source.admitted
        if source.place >= 0:
            # The newest of those heard takes its place.
            newest = self._heard.pop()
            if newest is not source:
                self._heard[source.place - self._given] = newest
                newest.place = source.place
        return True

    def release(self, packed: bytes, scope: int = 0) -> bool:
        """Forget this address if it is known because of `admit`; whether that was so.

        Not while messages of it wait to be given out, which would be lost.
        """
        with self._lock:
            source = self._known.get(_key(_show_host(packed), scope))
            if source is not None:
                self._fold(source)
            if source is None or not source.admitted or source.place >= 0:
                return False
            return self.discard(packed, scope)

    def find(self, packed: bytes, scope: int = 0) -> int | None:
        """The number of this address's node; None for a stranger."""
        source = self._known.get(_key(_show_host(packed), scope))
        return None if source is None else source.node

    def admit(self, packed: bytes, prefix: int, node: int = 0) -> None:
        """Let a receiver add who sends a message from this network, under that number.

        Discarding such a source makes room for another. Of networks that overlap the first
        counts. No IPv6 network has IPv4 addresses in it, not ::/0 either; one of IPv4-mapped
        addresses is an IPv4 network. Loopback addresses are only in 127.0.0.0/8, parts of it and
        ::1/128, not in 0.0.0.0/0, say. Raises ValueError for a prefix that the address has not.
        """
        bits = 8 * len(packed)
        if bits not in (32, 128):
            raise ValueError(f"address of {len(packed)} bytes: 4 or 16 are allowed")
        if not 0 <= prefix <= bits:
            raise ValueError(f"prefix {prefix}: 0 to {bits} are allowed")
        mask = (1 << 128) - (1 << (bits - prefix))
        network = _as_number(packed)
        if network & ~mask:
            raise ValueError("network with bits set behind its prefix")
        with self._lock:
            prefix += 128 - bits
            loopback = prefix >= 104 and _is_loopback(network)
            self._networks.append((network, mask, node, prefix < 96, loopback))

    def heard(
        self, most: int = 65536
    ) -> list[tuple[int, bytes, int, int, int, int, int, tuple[_Told, ...]]]:
        """Who was heard by `Receiver.count` since last given out here, at most `most` of them.

        Those heard first come first, except that a source that is discarded meanwhile leaves
        its place to the newest. Each is (number of its node, address, scope, source port
        of the first message since last given out, its time, that of the last one, how many,
        what statuses said); times are CLOCK_MONOTONIC in nanoseconds.

        Of statuses there is the first of each session, and its first with each end of a dump:
        (session, state, its time, how many messages there were by then, itself included), in
        the order in which they came. If there were more than four, some are left out, but the
        last end is not.
        """
        with self._lock:
            return [
                (source.node, _pack_host(source.host), source.scope, *told)
                for source, told in self._give(most)
            ]

    def _give(self, most: int) -> list[tuple[_Source, _Heard]]:
        given = self._heard[: max(0, most)]
        del self._heard[: len(given)]
        self._given += len(given)
        result = []
        for one in given:
            self._fold(one)
            told = (one.port, one.first, one.last, min(one.messages, 0xFFFFFFFF), one.told)
            result.append((one, told))
            one.place = -1
            one.messages = 0
            one.told = ()
        return result

    def _network(self, host: str) -> int | None:
        """The number of the first network that this address is in; None if it is in none."""
        number = _as_number(_pack_host(host))
        is_ipv4 = number >> 32 == 0xFFFF
        is_loopback = _is_loopback(number)
        for network, mask, node, ipv6, loopback in self._networks:
            if (ipv6 and is_ipv4) or (is_loopback and not loopback):
                continue
            if number & mask == network:
                return node
        return None

    def _admit_stranger(self, host: str, scope: int) -> _Source | str:
        """An unknown source sent a message: it is known now, or the verdict."""
        node = self._network(host)
        if node is None:
            return "stranger"
        key = _key(host, scope)
        source = _Source(key if isinstance(key, str) else key[0], scope, node)
        return source if self._admit(key, source) else "crowded"

    def _admit(self, key: str | tuple[str, int], source: _Source) -> bool:
        """Know this source too; whether there was room."""
        if self._admitted >= self._room:
            return False
        source.admitted = True
        self._admitted += 1
        self._known[key] = source
        return True

    def _hear(self, source: _Source, now: int, port: int) -> None:
        """A message came from there."""
        self._hear_more(source, now, now, 1, port)

    def _hear_more(self, source: _Source, first: int, last: int, more: int, port: int) -> None:
        """So many messages came from there, the first and the last of them then."""
        source.last = last
        source.messages += more
        if source.place < 0:
            source.first = first
            source.port = port
            self._line_up(source)

    def _line_up(self, source: _Source) -> None:
        """Have this source given out, which was not to be."""
        source.place = self._given + len(self._heard)
        self._heard.append(source)

    def _tell(self, source: _Source, now: int, data: Buffer) -> None:
        """The message that was just counted for this source says more, if it is a status.

        If there is no room for it any more, an end takes the last place all the same: what
        happened last counts, and no end is missed.
        """
        packet = decode_packet(data)
        if packet is None:
            return
        end = packet.state in _ENDS
        told = source.told
        for session, state, _, _ in told:
            if session == packet.session and (state == packet.state or not (end or state in _ENDS)):
                return
        if len(told) == _MOST_TOLD:
            if not end:
                return
            told = told[:-1]
        messages = min(source.messages, 0xFFFFFFFF)
        source.told = (*told, (packet.session, packet.state, now, messages))

    def share(self, table: Buffer, seed: int, quiet_ns: int, silent_ns: int) -> None:
        """Count together with a program in the kernel, which has the same table and `seed`.

        `kdumpfence.listener.kernel.program` says what is in it; it has to be full of zeros, and a
        multiple of 128 bytes long. Once a source was heard by `Receiver.count`, the kernel
        counts its messages until none has come for `silent_ns` nanoseconds, or the source is
        discarded. After `quiet_ns` without one the next message is not for the kernel to count,
        and another source may have the place. Whether there is room for a source makes no
        difference but to the cost. Whoever loses its place is given out by `heard`, with no
        messages if there are none; unless it is discarded, or becomes another node's.
        """
        with self._lock:
            if self._shared is not None:
                raise RuntimeError("these sources share a table already")
            self._shared = _Shared(table, seed, quiet_ns, silent_ns)

    def sweep(self, again_ns: int = 0) -> bool:
        """Look at what the kernel counted; whether `heard` has something now, and had not.

        That is who has been silent for `silent_ns`, and who has sent something `again_ns`
        nanoseconds or more after its last message that was given out; not if that is negative.
        When the first of these messages came is not known: it is told as the time of the one
        before. To be called every `silent_ns` at least, and before the kernel has counted 2**32.
        """
        with self._lock:
            shared = self._shared
            if shared is None:
                return False
            before = bool(self._heard)
            now = time.monotonic_ns()
            shared.earliest = now
            for entry, source in list(shared.owners.items()):
                last = shared.last(entry)
                if now - last >= shared.silent_ns:
                    self._dismiss(source)
                    continue
                shared.earliest = min(shared.earliest, last)
                if shared.messages(entry) - shared.zeros[entry] & 0xFFFFFFFF >= _PLENTY:
                    self._fold(source)
                    shared.zeros[entry] = source.seen
                elif 0 <= again_ns <= last - source.last and source.place < 0:
                    self._fold(source)
            self._count()
            return bool(self._heard) and not before

    def fold(self, packed: bytes, scope: int = 0) -> bool:
        """Have heard what the kernel has counted of this source; whether `heard` has it now."""
        with self._lock:
            shared, source = self._shared, self._known.get(_key(_show_host(packed), scope))
            if source is None:
                return False
            if shared is not None and source.entry >= 0:
                if time.monotonic_ns() - shared.last(source.entry) >= shared.silent_ns:
                    self._dismiss(source)
                else:
                    self._fold(source)
            return source.place >= 0

    def dismiss(self, packed: bytes, scope: int = 0) -> None:
        """Have this source given out, if the kernel counts its messages, and no more of them."""
        with self._lock:
            source = self._known.get(_key(_show_host(packed), scope))
            if source is not None and source.entry >= 0:
                self._dismiss(source)

    def watch(self, packed: bytes, scope: int, messages: int) -> bool:
        """Whether this source will be given out when it is silent: the kernel counts it.

        Its dump has so many messages, as far as they were given out; for `figures`.
        """
        with self._lock:
            shared, source = self._shared, self._known.get(_key(_show_host(packed), scope))
            if shared is None or source is None or source.entry < 0:
                return False
            messages = min(messages, _PLENTY >> 1) + source.messages
            shared.zeros[source.entry] = source.seen - messages
            return True

    def peek(self, packed: bytes, scope: int = 0) -> tuple[int, int]:
        """When this source was heard last, and how many messages came since it was given out."""
        with self._lock:
            shared, source = self._shared, self._known.get(_key(_show_host(packed), scope))
            if source is None:
                return 0, 0
            last, messages = source.last, source.messages
            if shared is not None and source.entry >= 0:
                last = max(last, shared.last(source.entry))
                messages += shared.more(source)
            return last, messages

    def figures(self, base: float = 0.0) -> bytes:
        """What is known of all sources whose messages the kernel counts, 32 bytes of each.

        The address as 16 bytes, its scope and the messages of its dump (two unsigned words), and
        its last one (a double): seconds of CLOCK_MONOTONIC, and `base`.
        """
        with self._lock:
            shared = self._shared
            if shared is None:
                return b""
            return b"".join(
                struct.pack(
                    "=16sIId",
                    _as_ipv6(source),
                    source.scope,
                    shared.messages(entry) - shared.zeros[entry] & 0xFFFFFFFF,
                    shared.last(entry) * 1e-9 + base,
                )
                for entry, source in sorted(shared.owners.items())
            )

    def unshare(self) -> None:
        """Share no table any more, after the kernel has stopped counting; `heard` has the rest."""
        with self._lock:
            shared = self._shared
            if shared is None:
                return
            self._count()
            for source in self._known.values():
                if source.entry >= 0:
                    self._dismiss(source)
            shared.release()
            self._shared = None

    @property
    def shared(self) -> int:
        """How many sources the kernel counts messages of."""
        return 0 if self._shared is None else len(self._shared.owners)

    @property
    def next_silence(self) -> int:
        """Nobody whose messages the kernel counts is silent before, as of the last `sweep`."""
        return 0 if self._shared is None else self._shared.earliest + self._shared.silent_ns

    @property
    def held_here(self) -> bool:
        """Whether this is a signal handler that interrupted one of these calls."""
        # Whether a lock is held here has no other name; threading's own conditions ask so, too.
        held: bool = self._lock._is_owned()  # type: ignore[attr-defined]
        return held

    @property
    def counted(self) -> int:
        """Messages that the kernel counted, and that nobody read."""
        with self._lock:
            self._count()
            return self._counted

    def _count(self) -> None:
        """Add up what the kernel has counted by now: less than 2**32 since the last time."""
        if self._shared is not None:
            total = self._shared.total()
            self._counted += (total - self._shared.sum) & 0xFFFFFFFF
            self._shared.sum = total

    def _fold(self, source: _Source) -> None:
        """What the kernel counted since the last time was heard of this source, if it has an entry.

        Nobody wrote down when the first of these came: as soon after the one before as may be.
        No gap between any two of them was one that makes a difference.
        """
        shared = self._shared
        if shared is None or source.entry < 0:
            return
        more = shared.more(source)
        # It may have moved, with what was counted where it was before.
        if more or (source.messages and source.place < 0):
            source.seen = (source.seen + more) & 0xFFFFFFFF
            last = max(source.last, shared.last(source.entry))
            self._hear_more(source, source.last, last, more, source.port)

    def _forget_entry(self, source: _Source) -> None:
        """It has an entry no more, if it had one."""
        if self._shared is not None and source.entry >= 0:
            self._shared.forget(source.entry)
            source.entry = -1

    def _dismiss(self, source: _Source) -> None:
        """As `_forget_entry`, and it is given out: with what was counted, if anything was."""
        self._fold(source)
        self._forget_entry(source)
        if source.place < 0:
            source.first = source.last
            self._line_up(source)

    def _share(self, source: _Source, now: int) -> None:
        """A message of this source was read: the kernel may count those that repeat it."""
        shared = self._shared
        if shared is None:
            return
        if source.entry >= 0:
            self._fold(source)
            shared.renew(source.entry, now)
            return
        address = _as_ipv6(source)
        buckets = shared.places(address, source.scope)
        # The emptier one: so a table can be rather full before anybody is in another one's way.
        free = max((shared.free(bucket) for bucket in buckets), key=len)
        entry = free[-1] if free else self._make_room(shared, buckets, now)
        if entry is not None:
            shared.take(entry, source, address, now)

    def _make_room(self, shared: _Shared, buckets: list[range], now: int) -> int | None:
        """An entry of these two full buckets that is free by now; None if that cannot be."""
        both = [entry for bucket in buckets for entry in bucket]
        quiet = next((entry for entry in both if shared.is_quiet(entry, now)), None)
        if quiet is not None:
            self._dismiss(shared.owners[quiet])
            return quiet
        return next((entry for entry in both if self._move(shared, entry)), None)

    def _move(self, shared: _Shared, entry: int) -> bool:
        """Let the source that has this entry have one in its other bucket; whether it could be."""
        source, zero = shared.owners[entry], shared.zeros[entry]
        buckets = shared.places(_as_ipv6(source), source.scope)
        free = shared.free(buckets[entry in buckets[0]])
        if not free:
            return False
        seen = source.seen
        # It has both for a moment: no message of it comes to be read because of this.
        shared.take(free[-1], source, _as_ipv6(source), shared.last(entry))
        shared.renew(source.entry, shared.last(entry))
        shared.forget(entry)
        counted = shared.messages(entry)
        source.messages += (counted - seen) & 0xFFFFFFFF
        shared.zeros[source.entry] -= counted - zero
        return True

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        with self._lock:
            known = list(self._known.values())
        return iter([(_pack_host(source.host), source.scope) for source in known])


# ------------------------------------------- counted in the kernel as well: shared.pxi

#: Entries of a bucket, and bytes of an entry.
_BUCKET, _ENTRY = 4, 32


#: Messages of a dump after which they are taken out of an entry, well before that begins again.
_PLENTY = 1 << 31

#: The time in an entry that nobody has: not 0, for the clock begins there.
_NEVER_HEARD = 1 << 63


def _as_ipv6(source: _Source) -> bytes:
    """Its address as 16 bytes."""
    packed = _pack_host(source.host)
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


class _Shared:
    """The table that a program in the kernel and the sources share."""

    def __init__(self, table: Buffer, seed: int, quiet_ns: int, silent_ns: int) -> None:
        self._memory = memory = memoryview(table)
        self._buckets = len(memory) // (_BUCKET * _ENTRY)
        if not self._buckets or len(memory) % (_BUCKET * _ENTRY):
            raise ValueError(f"table of {len(memory)} bytes: must be a multiple of 128")
        # As numbers of 32 and of 64 bits: an entry has eight of these, or four.
        self._words, self._wide = memory.cast("I"), memory.cast("Q")
        self._seed = seed
        self._quiet_ns = quiet_ns
        self.silent_ns = silent_ns
        self.earliest = time.monotonic_ns()  # nobody's last message was before, at the last look
        self.sum = 0  # of the messages of all entries, at the last look
        #: Who has an entry, and what its messages were when that one's dump began.
        self.owners: dict[int, _Source] = {}
        self.zeros: dict[int, int] = {}

    def places(self, address: bytes, scope: int) -> list[range]:
        """The entries that an address may have, in two buckets."""
        high, low = (int.from_bytes(half, sys.byteorder) for half in (address[:8], address[8:]))
        whole = (1 << 64) - 1
        mixed = (high ^ self._seed) * 0x9E3779B97F4A7C15 & whole
        mixed ^= mixed >> 32
        mixed = (mixed ^ low ^ (scope << 32)) * 0xD6E8FEB86659FD93 & whole
        mixed ^= mixed >> 32
        # Only its upper half depends on all of the address.
        mixed = (mixed * 0xD6E8FEB86659FD93 & whole) >> 32
        other = (mixed * 0x9E3779B97F4A7C15 & whole) >> 32
        firsts = [one * self._buckets >> 32 for one in (mixed, other)]
        return [range(one * _BUCKET, (one + 1) * _BUCKET) for one in firsts]

    def free(self, bucket: range) -> list[int]:
        """Those of its entries that nobody has."""
        return [entry for entry in bucket if entry not in self.owners]

    def is_quiet(self, entry: int, now: int) -> bool:
        """Whether the next message of its source is news."""
        return now - self.last(entry) > self._quiet_ns

    def last(self, entry: int) -> int:
        """When a message was counted there last."""
        return self._wide[4 * entry + 2]

    def messages(self, entry: int) -> int:
        """How many were counted there so far, modulo 2**32."""
        return self._words[8 * entry + 6]

    def total(self) -> int:
        """How many were counted so far in all entries, modulo 2**32."""
        return sum(self._words[6::8]) & 0xFFFFFFFF

    def more(self, source: _Source) -> int:
        """Messages that were counted for it and not heard of."""
        return (self.messages(source.entry) - source.seen) & 0xFFFFFFFF

    def renew(self, entry: int, now: int) -> None:
        """A message of its source was read."""
        if self.last(entry) < now:
            self._wide[4 * entry + 2] = now

    def take(self, entry: int, source: _Source, address: bytes, now: int) -> None:
        """Give a free entry to that source."""
        source.entry = entry
        self.owners[entry] = source
        self.zeros[entry] = source.seen = self.messages(entry)
        # The time comes last: without one the kernel counts nothing there.
        self._wide[4 * entry + 2] = _NEVER_HEARD
        self._words[8 * entry + 7] = source.scope
        self._wide[4 * entry] = int.from_bytes(address[:8], sys.byteorder)
        self._wide[4 * entry + 1] = int.from_bytes(address[8:], sys.byteorder)
        self._wide[4 * entry + 2] = now

    def forget(self, entry: int) -> None:
        """Nobody has it any more. Its number stays: it is part of the sum."""
        del self.owners[entry], self.zeros[entry]
        # The time comes first: whoever finds half of an address there has no message counted.
        self._wide[4 * entry + 2] = _NEVER_HEARD
        self._wide[4 * entry + 1] = self._wide[4 * entry] = 0

    def release(self) -> None:
        """Whoever made the memory may do away with it."""
        self._words.release()
        self._wide.release()
        self._memory.release()


# -------------------------------------------------------- signed messages: signed.pxi

#: Sessions of a node that are believed at a time: the sender's, and those of calls that tell how
#: the dump ended.
_SESSIONS = 4

#: A session that was not heard for so long has to answer again: whoever kept messages of a crash
#: from us cannot bring them up later.
_SESSION_NS = 30_000_000_000

#: A nonce is asked with for so long, and an answer with it believed for as long again at most.
_NONCE_NS = 5_000_000_000

#: On average a node is asked once in so long; after a pause so many questions may come at once, for
#: as many sessions may have to be asked about if somebody repeats what he recorded.
_QUESTION_NS = 200_000_000
_QUESTIONS_AT_ONCE = 20

#: Pauses after two questions about a session that were not answered: doubled from the first to the
#: last.
_FIRST_GAP_NS = 1_000_000_000
_LAST_GAP_NS = 16_000_000_000

#: Questions that a batch may bring about.
_QUESTIONS = 256

#: Sizes of tables in which names and sessions are found by a hash: nobody can make them grow.
_BUDGETS = 1 << 16
_ASKED_SESSIONS = 1 << 12
_FORGOTTEN = 1 << 12


class _Session:
    __slots__ = ("heard", "number", "sequence")

    def __init__(self, number: int) -> None:
        self.number = number
        self.sequence = 0  # the highest that was heard
        self.heard = 0  # when it was believed last


class _SignedNode:
    """A node that has to sign; `source`: what it has among the sources."""

    __slots__ = ("host", "keys", "name", "scope", "sessions", "source")

    def __init__(self, name: str, source: _Source) -> None:
        self.name = name
        self.source = source
        self.keys: dict[int, bytes] = {}  # by the id of the cluster's key
        self.host = ""  # where it spoke from last
        self.scope = 0
        self.sessions: list[_Session] = []


class _AskedSession:
    __slots__ = ("gap", "news", "next", "of", "times")

    def __init__(self, of: tuple[str, int]) -> None:
        self.of = of  # a name and a session of it
        self.news = 0, ""  # the highest sequence that was asked about, and where it came from
        self.next = 0  # when it may be asked about again
        self.gap = 0
        self.times = 0


class Signed:
    """Nodes whose messages count only if they are signed, for `Receiver.count`.

    A node is known by its name, wherever it speaks from. Only packets count that are signed with
    its key, in sessions that have answered a question of ours: so nothing that was recorded can be
    repeated later, not after a restart either, though nothing is stored. The first packet of a
    session counts as "replayed", and brings about a question to where it came from, or, by turns,
    to that address and the receiving socket's own port. docs/protocol.md has the rules.

    A node whose name was not added counts if it speaks from one of the networks of `sources`, of
    which nothing else may be used. `keys`: see `use`. ValueError for names that no packet carries.
    """

    def __init__(self, sources: Sources, keys: Sequence[tuple[int, bytes]]) -> None:
        from hmac import compare_digest

        self._same = compare_digest
        self._sources = sources
        self._nodes: dict[str, _SignedNode] = {}
        self._derive_by: dict[int, bytes] = {}
        self._secret = os.urandom(_KEY_BYTES)  # what nonces are made with
        self._budgets = array.array("q", bytes(8 * _BUDGETS))
        self._asked: dict[int, _AskedSession] = {}
        self._forgotten = array.array("q", bytes(8 * _FORGOTTEN))
        self._questions: list[tuple[bytes, tuple[str, int], bool]] = []
        self._taken = False
        self.use(keys)

    def use(self, keys: Sequence[tuple[int, bytes]]) -> None:
        """Believe what is signed with keys derived from these of the cluster: (key id, 32 bytes).

        One or two. What was heard so far stays as it is.
        """
        if not 1 <= len(keys) <= 2:
            raise ValueError(f"{len(keys)} keys: 1 or 2 are allowed")
        made: dict[int, bytes] = {}
        for number, key in keys:
            if len(key) != _KEY_BYTES:
                raise ValueError(f"key of {len(key)} bytes: not {_KEY_BYTES}")
            if not 0 < number < 1 << 32:
                raise ValueError(f"key id {number}: 1 to {(1 << 32) - 1} are allowed")
            # The first half of HKDF (RFC 5869); of two keys with one id the first counts.
            made.setdefault(number, mac(bytes(_KEY_BYTES), key))
        with self._sources._lock:
            self._derive_by = made
            for node in self._nodes.values():
                node.keys.clear()

    def add(self, name: str) -> None:
        """Know this node, whatever network it speaks from."""
        self._check(name)
        sources = self._sources
        with sources._lock:
            known = self._nodes.get(name)
            if known is None:
                source = sources._known[name, -1] = _Source(name, -1, 0)
                self._nodes[name] = _SignedNode(name, source)
            else:
                sources._admitted -= known.source.admitted
                known.source.admitted = False

    def discard(self, name: str) -> bool:
        """Forget this node; whether it was known."""
        self._check(name)
        with self._sources._lock:
            return self._discard(name)

    def release(self, name: str) -> bool:
        """Forget this node if it is known because of a network; see `Sources.release`."""
        self._check(name)
        with self._sources._lock:
            source = self._sources._known.get((name, -1))
            if source is None or not source.admitted or source.place >= 0:
                return False
            return self._discard(name)

    def _check(self, name: str) -> None:
        if not is_packet_name(name):
            raise ValueError(f"name {name!r}: not 1 to 64 ASCII characters without blanks")

    def _discard(self, name: str) -> bool:
        if self._nodes.pop(name, None) is None:
            return False
        self._forget(name)
        return self._sources._discard((name, -1))

    def _forget(self, name: str) -> None:
        """A session of this name is forgotten: nobody can tell any more what was heard of it.

        So the answers to all questions that are open are not believed any more: they might be
        repeated.
        """
        self._forgotten[hash(name) % _FORGOTTEN] += 1

    def heard(
        self, most: int = 65536
    ) -> list[tuple[str, bytes, int, int, int, int, int, tuple[_Told, ...]]]:
        """As `Sources.heard`, with the name in the place of the number, and where it spoke last."""
        with self._sources._lock:
            result = []
            for source, told in self._sources._give(most):
                node = self._nodes[source.host]
                result.append((node.name, _pack_host(node.host), node.scope, *told))
        return result

    # ----------------------------------------------- for the receive loop, which holds the lock

    def _judge(self, data: bytes, address: tuple[str, int], now: int) -> str | _Source:
        """What the node has among the sources that a message is to be believed of, or the verdict.

        The cheap looks come first; nothing but a MAC that fits changes anything.
        """
        packet = decode_packet(data)
        if packet is None or not packet.key_id:
            return "unsigned"
        if packet.key_id not in self._derive_by:
            return "key"
        node = self._nodes.get(packet.name)
        if node is None:
            if self._sources._network(address[0]) is None:
                return "stranger"
            node = _SignedNode(packet.name, _Source(packet.name, -1, 0))
        key = self._key(node, packet.key_id)
        if not self._same(mac(key, data[: _PACKET.size]), data[_PACKET.size :]):
            return "forged"
        session = next((one for one in node.sessions if one.number == packet.session), None)
        if session is not None and packet.sequence <= session.sequence:
            return "replayed"
        if session is None or now - session.heard > _SESSION_NS:
            if not self._answers(packet, now):
                self._ask(packet, key, address, now)
                return "replayed"
            if packet.name not in self._nodes:
                if not self._sources._admit((packet.name, -1), node.source):
                    return "crowded"
                self._nodes[packet.name] = node
            self._asked.pop(hash((packet.name, packet.session)) % _ASKED_SESSIONS, None)
            if session is None:
                session = self._new_session(node, packet.session)
        session.sequence = packet.sequence
        session.heard = now
        node.host, node.scope = address[0], address[3] if len(address) == 4 else 0
        return node.source

    def _new_session(self, node: _SignedNode, number: int) -> _Session:
        if len(node.sessions) == _SESSIONS:
            node.sessions.remove(min(node.sessions, key=lambda one: one.heard))
            self._forget(node.name)
        node.sessions.append(_Session(number))
        return node.sessions[-1]

    def _key(self, node: _SignedNode, number: int) -> bytes:
        key = node.keys.get(number)
        if key is None:
            info = b"kdumpfence node key " + node.name.encode() + b"\1"
            key = node.keys[number] = mac(self._derive_by[number], info)
        return key

    def _nonce(self, name: str, period: int) -> bytes:
        """What a node is asked with in a period of _NONCE_NS: known without being kept."""
        forgotten = self._forgotten[hash(name) % _FORGOTTEN]
        return mac(self._secret, name.encode() + struct.pack("=Qq", forgotten, period))[:16]

    def _answers(self, packet: Packet, now: int) -> bool:
        """Whether it has the nonce of a question that was sent just now."""
        period = now // _NONCE_NS
        # What was sent unasked costs no MAC.
        return any(packet.nonce) and packet.nonce in (
            self._nonce(packet.name, period),
            self._nonce(packet.name, period - 1),
        )

    def _ask(self, packet: Packet, key: bytes, address: tuple[str, int], now: int) -> None:
        """Ask who sent this, if it is worth a question.

        Messages of old crashes that are repeated must not use up what the node is allowed, or
        whoever repeats them keeps its next crash from being believed. So each session is asked
        about less and less often, and only for what is newer: or as new, and came another way.
        """
        of = packet.name, packet.session
        budget, place = hash(packet.name) % _BUDGETS, hash(of) % _ASKED_SESSIONS
        asked = self._asked.get(place)
        news = packet.sequence, address[0]
        if asked is not None and asked.of == of:
            if now < asked.next or news[0] < asked.news[0] or news == asked.news:
                return
        else:
            asked = _AskedSession(of)
        paid = self._budgets[budget]
        if (
            paid > now + (_QUESTIONS_AT_ONCE - 1) * _QUESTION_NS
            or len(self._questions) == _QUESTIONS
        ):
            return
        self._budgets[budget] = max(paid, now) + _QUESTION_NS
        self._asked[place] = asked
        asked.news = news
        # Two at a time: a node with two networks may hear only one of them.
        if asked.times & 1:
            asked.gap = min(2 * asked.gap, _LAST_GAP_NS) or _FIRST_GAP_NS
            asked.next = now + asked.gap
        # Never more than one for a message, which would make us an amplifier: so by turns.
        same_port = bool(asked.times & 2)
        asked.times += 1
        nonce = self._nonce(packet.name, now // _NONCE_NS)
        question = Packet("question", packet.name, key_id=packet.key_id, nonce=nonce)
        self._questions.append((encode_packet(question, key), address, same_port))

    def _send(self, sock: _socket.socket) -> None:
        """Send the questions; what cannot be sent at once is not."""
        for data, address, same_port in self._questions:
            to = (address[0], sock.getsockname()[1], *address[2:]) if same_port else address
            try:
                sock.sendto(data, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL, to)
            except OSError:
                pass
        self._questions.clear()


# ---------------------------------------------------------- questions: questions.pxi

_MOST_WAITING = 32  # of each kind
_ANSWERS = 50  # a second, to each kind at most


class _Waiting:
    """Questions of one kind."""

    __slots__ = ("credit", "credited", "questions")

    def __init__(self) -> None:
        self.questions: list[tuple[int, bytes, int, int, bytes, int, bytes]] = []
        self.credit = 0  # nanoseconds: an answer costs a second's _ANSWERS-th part
        self.credited = 0

    def affords(self, now: int) -> bool:
        """Whether one more answer is within the limit; it counts as given then."""
        self.credit = min(1_000_000_000, self.credit + now - self.credited)
        self.credited = now
        if self.credit < 1_000_000_000 // _ANSWERS:
            return False
        self.credit -= 1_000_000_000 // _ANSWERS
        return True


class Questions:
    """Questions that a `Receiver` read, from where they are read to whoever answers them.

    50 a second are kept that are signed with our key (`know`), and as many of all others; the rest
    is dropped and counted: a flood fills no memory, and wakes nobody. So it is with those that
    were sent to a multicast or broadcast address, or came from port 0. A compiled core that was
    built without a library for it cannot tell which are signed. May be used by two threads.

    When there is something to be taken after there was nothing, the descriptor `bell` is written
    to: 8 bytes, a 1 for an eventfd.
    """

    def __init__(self, bell: int = -1) -> None:
        self._bell = bell
        self._key = (0, b"")
        self._ours, self._others = _Waiting(), _Waiting()
        self._dropped = 0
        self._lock: _thread.LockType = original("_thread", "allocate_lock")()

    def know(self, key_id: int, key: bytes) -> None:
        """Our key, 32 bytes, and the id of the cluster's that it comes from; 0: there is none."""
        if not 0 <= key_id < 1 << 32:
            raise OverflowError(f"key id {key_id}: not a number of 32 bits")
        if key_id:
            _check_key(key)
        self._key = (key_id, key)

    def take(self) -> list[tuple[int, bytes, int, int, bytes, int, bytes]]:
        """All that there are, first those that are signed with our key.

        Each is (which of the receiver's sockets it came to, its sender's address, scope and port,
        the address that it was sent to, the interface that it came through, its bytes).
        """
        with self._lock:
            taken = [*self._ours.questions, *self._others.questions]
            self._ours.questions.clear()
            self._others.questions.clear()
        return taken

    @property
    def dropped(self) -> int:
        """How many were not kept."""
        return self._dropped

    def _put(self, question: tuple[int, bytes, int, int, bytes, int, bytes]) -> bool:
        """One that was read; whether the bell is to be rung."""
        _, _, _, port, destination, _, data = question
        key_id, key = self._key
        ours = key_id and data[16:20] == key_id.to_bytes(4, "big") and packet_fits(data, key)
        waiting = self._ours if ours else self._others
        with self._lock:
            if (
                not destination
                or port == 0
                or len(waiting.questions) == _MOST_WAITING
                or not waiting.affords(time.monotonic_ns())
            ):
                self._dropped += 1
                return False
            rings = not self._ours.questions and not self._others.questions
            waiting.questions.append(question)
        return rings


# --------------------------------------------------- the receive loop: receive.pxi


class Arrival:
    """An accepted datagram: who sent it, when, and what it said.

    `node` is the number given to `Sources.add`; `packed`, `scope` and `port` are the
    sender's address; `interface` is the index of the one that it came through, 0 if the
    socket does not tell (IP_PKTINFO, IPV6_RECVPKTINFO); `when_ns` is CLOCK_MONOTONIC when its
    batch was read.
    """

    __slots__ = ("interface", "message", "node", "packed", "port", "scope", "when_ns")

    def __init__(
        self,
        node: int,
        packed: bytes,
        scope: int,
        interface: int,
        port: int,
        when_ns: int,
        message: Message,
    ) -> None:
        self.node = node
        self.packed = packed
        self.scope = scope
        self.interface = interface
        self.port = port
        self.when_ns = when_ns
        self.message = message

    def __repr__(self) -> str:
        return (
            f"Arrival(node={self.node}, packed={self.packed!r}, scope={self.scope}, "
            f"interface={self.interface}, port={self.port}, when_ns={self.when_ns}, "
            f"message={self.message!r})"
        )


class _Socket:
    """One that a receiver reads."""

    __slots__ = ("addressed", "dropped", "number", "sock", "stamped", "timeout")

    def __init__(self, sock: _socket.socket, number: int, asked: bool) -> None:
        self.sock = sock
        self.number = number
        #: Whether each datagram comes with the address that it was sent to.
        self.addressed = False
        if asked and sock.type == _socket.SOCK_DGRAM:
            ipv4 = sock.family == _socket.AF_INET
            level, option = _ASKED_FOR_4 if ipv4 else _ASKED_FOR_6
            self.addressed = bool(sock.getsockopt(level, option))
        self.dropped = 0
        self.timeout: float | None = None  # that it has when nobody reads
        try:
            stamping = sock.getsockopt(_socket.SOL_SOCKET, _SO_TIMESTAMPING)
        except OSError:
            stamping = 0
        self.stamped = bool(stamping & _STAMPED)

    def look_for_drops(self) -> None:
        """Bring `dropped` up to date, if the kernel tells."""
        # SO_MEMINFO (Linux 4.12) costs nothing before it is asked for. SO_RXQ_OVFL would
        # cost for each datagram, and tells only of drops before the last one that was read.
        try:
            info = self.sock.getsockopt(_socket.SOL_SOCKET, _SO_MEMINFO, 64)
        except OSError:
            return
        if len(info) >= 4 * (_SK_MEMINFO_DROPS + 1):
            told = struct.unpack_from("=I", info, 4 * _SK_MEMINFO_DROPS)[0]
            # The kernel's count has 32 bits, which a flood uses up in an hour. What seems to
            # go back by less than half of them was asked for before somebody else asked.
            more = (told - self.dropped) & 0xFFFFFFFF
            if more < 1 << 31 or not self.dropped:
                self.dropped += more


def _destination(control: Sequence[tuple[int, int, bytes]]) -> tuple[bytes, int]:
    """What a datagram was sent to if that is this host alone, else b""; and the interface."""
    for level, kind, value in control:
        if level == _socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO:
            interface = struct.unpack_from("=I", value, 16)[0]
            return (value[:16] if value[0] != 0xFF else b""), interface
        if level == _socket.IPPROTO_IP and kind == _IP_PKTINFO:
            # struct in_pktinfo: what this host answers from, and then what the header says. They
            # are the same unless it is a multicast or a broadcast.
            interface = struct.unpack_from("=I", value)[0]
            return (value[4:8] if value[4:8] == value[8:12] else b""), interface
    return b"", 0


# Longer than a class should be, for it documents the interface of both cores.
class Receiver:
    """Reads datagrams from UDP or raw sockets and believes messages of known sources.

    `sources` are the nodes' addresses. Addresses of others that sent a valid message
    are added to `strangers`, up to `stranger_room` of them, each with the interface that it
    came through in place of the scope if the socket tells. `port` is the UDP port
    that counts on raw sockets (a UDP socket has its own). `batch` datagrams at most are
    read at a time, and of each at most `size` bytes.

    Raw sockets are AF_INET or AF_INET6 with IPPROTO_UDP; the latter need
    IPV6_RECVPKTINFO, or nothing they hear has a checksum that fits. Of UDP sockets control
    data is only looked at if they have SO_TIMESTAMPING when they are added.

    With `signed`, of these sources, only messages count that it believes: `count` only, and
    UDP sockets only; `size` is more than PACKET_BYTES then.

    `questions` gets the questions that came, from UDP sockets that have IP_PKTINFO or
    IPV6_RECVPKTINFO when they are added. For that, and to know what a status says, `size` has
    to be more than PACKET_BYTES.
    """

    def __init__(
        self,
        sources: Sources,
        strangers: Sources | None = None,
        *,
        signed: Signed | None = None,
        port: int = 7410,
        batch: int = 32,
        size: int = 65535,
        stranger_room: int = 1024,
        questions: Questions | None = None,
    ) -> None:
        if not 1 <= batch <= 1024:
            raise ValueError(f"batch {batch}: 1 to 1024 are allowed")
        least = 64 if signed is None else PACKET_BYTES + 1
        if not least <= size <= 65535:
            raise ValueError(f"size {size}: {least} to 65535 are allowed")
        if signed is not None:
            if signed._sources is not sources or signed._taken:
                raise ValueError("signed: not of these sources, or another receiver's")
            signed._taken = True
        self._signed = signed
        self._sources = sources
        self._strangers = strangers
        self._stranger_room = stranger_room
        self._port = port
        self._batch = batch
        self._questions = questions
        self._buffer = bytearray(size)
        #: Bytes of a datagram that is only counted: all that makes a difference.
        self._read_of_each = min(size, PACKET_BYTES + 1)
        self._view = memoryview(self._buffer)
        self._sockets: list[_Socket] = []
        self._forgotten = 0  # dropped, of sockets that were discarded
        self._unread = 0  # dropped and not counted, as was told of last
        self._end: int | None = None
        self._ahead = 0  # by how much CLOCK_REALTIME was ahead when it was looked at last before
        self._counts = _zero_counts()
        self._errors = 0
        self._tallied = 0  # by the `count` in hand
        self._news = False  # the batch in hand is the first that somebody is to be told of
        self._busy = False

    def _check_idle(self) -> None:
        if self._busy:
            raise RuntimeError("this receiver is in use in another thread")

    def add_socket(self, sock: _socket.socket) -> None:
        """Read this socket too. It stays the caller's to close, afterwards."""
        if sock.fileno() < 0:
            raise ValueError("the socket is closed")
        self._check_idle()
        if self._signed is not None and sock.type == _socket.SOCK_RAW:
            raise ValueError("signed messages are read from UDP sockets alone")
        self._sockets.append(_Socket(sock, len(self._sockets), self._questions is not None))

    def discard_socket(self, sock: _socket.socket) -> None:
        """Read this socket no more. ValueError if it is not read."""
        self._check_idle()
        for one in self._sockets:
            if one.sock is sock:
                one.look_for_drops()
                self._forgotten += one.dropped
                self._sockets.remove(one)
                for number, other in enumerate(self._sockets):
                    other.number = number
                return
        raise ValueError("not a socket of this receiver")

    def end(self, end_ns: int | None) -> None:
        """Pass over what arrives after this moment (CLOCK_MONOTONIC, nanoseconds; None: nothing).

        It is as if it had not come: neither returned by `receive` and `take` nor counted nor
        remembered. When a datagram arrived is known by the kernel's stamp if its socket has
        SO_TIMESTAMPING with SOF_TIMESTAMPING_RX_SOFTWARE and SOF_TIMESTAMPING_SOFTWARE;
        without, what is read after the end counts as late. If the system's clock, which stamps
        are by, was set meanwhile, what is read after the end may count as late though it was not.
        """
        self._check_idle()
        self._end = None if end_ns is None else max(0, end_ns)
        self._ahead = time.time_ns()
        self._ahead -= time.monotonic_ns()

    def _latest_stamp(self) -> int | None:
        """The CLOCK_REALTIME of the latest datagram before the end; None: all that is read was.

        Whoever sets the clock, or slows it down, meanwhile does not make a datagram come earlier:
        of the two differences between the clocks, before the end and now, the smaller one counts.
        """
        if self._end is None:
            return None
        # In this order: if something comes between the two, a datagram seems later than it was.
        ahead = time.time_ns()
        now = time.monotonic_ns()
        ahead -= now
        if now <= self._end:
            self._ahead = ahead
            return None
        return max(0, self._end + min(ahead, self._ahead))

    def _judge_raw(
        self, sock: _socket.socket, data: memoryview, truncated: bool
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

    def _read(self, one: _Socket, found: list[Arrival] | None) -> None:
        """Read one datagram of that socket into `found`; without, count it. May raise OSError."""
        sock = one.sock
        raw = sock.type == _socket.SOCK_RAW
        stamped = one.stamped
        interface = stamp = 0
        udp = destination = b""
        control: Sequence[tuple[int, int, bytes]] = ()
        if not (raw or stamped or one.addressed):
            length, address = sock.recvfrom_into(self._buffer, 0, _socket.MSG_DONTWAIT)
            flags = 0
        else:
            length, control, flags, address = sock.recvmsg_into(
                [self._buffer], _CONTROL_BYTES, _socket.MSG_DONTWAIT
            )
            for level, kind, value in control:
                if level == _socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO:
                    destination = value[:16]
                    interface = struct.unpack_from("=I", value, 16)[0]
                elif level == _socket.IPPROTO_IP and kind == _IP_PKTINFO:
                    interface = struct.unpack_from("=I", value)[0]
                elif level == _socket.SOL_SOCKET and kind == _SO_TIMESTAMPING:
                    seconds, nanoseconds = struct.unpack_from("@ll", value)
                    stamp = seconds * 1_000_000_000 + nanoseconds
        # Without a stamp it came before the kernel began to stamp, just after the option was set.
        latest = None if found is None else self._latest_stamp()
        if latest is not None and (not stamped or stamp > latest):
            return
        payload = self._view[:length]
        if not raw:
            verdict = _check_message(payload)
            source_port = address[1]
        else:
            verdict, payload, source_port, udp = self._judge_raw(
                sock, payload, bool(flags & _socket.MSG_TRUNC)
            )
            if verdict == _ELSEWHERE:
                return
            if verdict == "accepted":
                verdict = _check_message(payload)
        host: str = address[0]
        scope = address[3] if len(address) == 4 else 0
        if verdict == "magic" and self._is_question(payload):
            verdict = "question"
            self._ask(one, control, host, scope, source_port, bytes(payload))
        if verdict != "accepted":
            self._counts[verdict] += 1
            return
        if scope and interface and (raw or stamped):
            scope = interface  # inside a VRF the name has the VRF's instead
        if raw:
            packed = _pack_host(host)
            if sock.family == _socket.AF_INET:
                destination = bytes(self._view[16:20])
            if not destination or not _checksum_fits(packed, destination, udp):
                self._counts["checksum"] += 1
                return
        sources = self._sources
        source: _Source | str | None = sources._known.get(_key(host, scope))
        if source is None:
            source = sources._admit_stranger(host, scope)
        if isinstance(source, str):
            self._rejected(source, host, interface or scope)
            return
        self._counts["accepted"] += 1
        now = time.monotonic_ns()
        if found is None:
            self._tallied += 1
            sources._share(source, now)
            sources._hear(source, now, source_port)
            if self._is_packet_long(payload):
                sources._tell(source, now, payload)
            return
        packed = _pack_host(host)
        message = _make_message(payload)
        found.append(Arrival(source.node, packed, scope, interface, source_port, now, message))

    def _is_packet_long(self, data: Buffer) -> bool:
        return len(memoryview(data)) == PACKET_BYTES < self._read_of_each

    def _is_question(self, data: Buffer) -> bool:
        if not self._is_packet_long(data):
            return False
        packet = decode_packet(data)
        return packet is not None and packet.kind == "question"

    def _ask(
        self,
        one: _Socket,
        control: Sequence[tuple[int, int, bytes]],
        host: str,
        scope: int,
        port: int,
        data: bytes,
    ) -> None:
        """Hand this question on."""
        questions = self._questions
        if questions is None:
            return
        destination, interface = _destination(control)
        question = (one.number, _pack_host(host), scope, port, destination, interface, data)
        if questions._put(question) and questions._bell >= 0:
            self._ring(questions._bell)

    def _rejected(self, verdict: str, host: str, scope: int) -> None:
        """A valid message, but from an unknown address."""
        self._counts[verdict] += 1
        strangers = self._strangers
        if verdict == "stranger" and strangers is not None and len(strangers) < self._stranger_room:
            strangers.add(_pack_host(host), scope)

    def _ended(self, error: OSError, got: int) -> int:
        """What a batch comes to that this error ended."""
        if error.errno in _QUIET_ERRORS:
            return got
        # ICMP errors, an interface that went away: the wait goes on.
        self._errors += 1
        return got or -1

    def _read_batch(self, one: _Socket, found: list[Arrival] | None) -> int:
        """Read at most a batch of one socket: how many, or -1 after an error."""
        heard = self._sources._heard
        with self._sources._lock:
            quiet = not heard
            got = self._read_locked(one, found)
            # Looked at under the lock, or somebody could empty it between the two looks.
            self._news = quiet and bool(heard)
        return got

    def _read_locked(self, one: _Socket, found: list[Arrival] | None) -> int:
        if self._signed is None and found is None and one.sock.type == _socket.SOCK_DGRAM:
            return self._count_udp(one)
        got = 0
        try:
            while got < self._batch:
                if self._signed is not None:
                    self._count_signed(one, self._signed)
                else:
                    self._read(one, found)
                got += 1
        except OSError as error:
            return self._ended(error, got)
        finally:
            if self._signed is not None:
                self._signed._send(one.sock)
        return got

    def _count_signed(self, one: _Socket, signed: Signed) -> None:
        """Read one datagram, and count it if it is signed. May raise OSError."""
        control: Sequence[tuple[int, int, bytes]] = ()
        if not one.addressed:
            data, address = one.sock.recvfrom(PACKET_BYTES + 1, _socket.MSG_DONTWAIT)
        else:
            data, control, _, address = one.sock.recvmsg(
                PACKET_BYTES + 1, _CONTROL_BYTES, _socket.MSG_DONTWAIT
            )
        verdict = _check_message(data)
        if verdict == "accepted":
            now = time.monotonic_ns()
            source = signed._judge(data, address, now)
            if isinstance(source, str):
                verdict = source
            else:
                self._sources._hear(source, now, address[1])
                self._sources._tell(source, now, data)
                self._tallied += 1
        elif verdict == "magic" and self._is_question(data):
            verdict = "question"
            scope = address[3] if len(address) == 4 else 0
            self._ask(one, control, address[0], scope, address[1], data)
        self._counts[verdict] += 1

    def _count_udp(self, one: _Socket) -> int:
        """`_read_batch` for a UDP socket whose messages are only counted.

        The hot path: nothing is called, converted or allocated that need not be.
        """
        sock = one.sock
        receive, how = sock.recvfrom, (self._read_of_each, _socket.MSG_DONTWAIT)
        receive_all = sock.recvmsg if one.addressed else None
        how_all = (self._read_of_each, _CONTROL_BYTES, _socket.MSG_DONTWAIT)
        little, big = _LITTLE, _BIG
        is_ipv4 = sock.family == _socket.AF_INET
        sources = self._sources
        known, heard, given = sources._known, sources._heard, sources._given
        shared = sources._shared is not None
        control: Sequence[tuple[int, int, bytes]] = ()
        rejected = got = 0
        now = time.monotonic_ns()
        try:
            for got in range(self._batch):  # noqa: B007
                if receive_all is None:
                    data, address = receive(*how)
                else:
                    data, control, _, address = receive_all(*how_all)
                if data != little and data != big:  # noqa: PLR1714
                    verdict = _check_message(data)
                    if verdict != "accepted":
                        rejected += 1
                        if verdict == "magic" and self._is_question(data):
                            verdict = "question"
                            scope = 0 if is_ipv4 else address[3]
                            self._ask(one, control, address[0], scope, address[1], data)
                        self._counts[verdict] += 1
                        continue
                try:
                    source = known[address[0] if is_ipv4 else _key(address[0], address[3])]
                except KeyError:
                    scope = 0 if is_ipv4 else address[3]
                    admitted = sources._admit_stranger(address[0], scope)
                    if isinstance(admitted, str):
                        rejected += 1
                        self._rejected(admitted, address[0], _destination(control)[1] or scope)
                        continue
                    source = admitted
                if shared:
                    sources._share(source, now)
                source.last = now
                messages = source.messages
                source.messages = messages + 1
                if not messages:
                    source.first = now
                    source.port = address[1]
                    source.place = given + len(heard)
                    heard.append(source)
                if len(data) == PACKET_BYTES < how[0]:
                    sources._tell(source, now, data)
            got = self._batch
        except OSError as error:
            return self._ended(error, got)
        finally:
            self._counts["accepted"] += got - rejected
            self._tallied += got - rejected
        return got

    def _check_reports(self) -> None:
        if self._signed is not None:
            raise RuntimeError("signed messages are only counted")

    def _enter(self) -> None:
        """Nobody else may use the buffer until `_leave`."""
        self._check_idle()
        if any(one.sock.fileno() < 0 for one in self._sockets):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._busy = True
        # One with a time-out waits for it in each read, MSG_DONTWAIT or not.
        for one in self._sockets:
            one.timeout = one.sock.gettimeout()
            if one.timeout:
                one.sock.settimeout(0)

    def _leave(self) -> None:
        for one in self._sockets:
            if one.timeout and one.sock.fileno() >= 0:
                one.sock.settimeout(one.timeout)
        self._busy = False

    def receive(self, deadline_ns: int | None, wake: Sequence[int] = ()) -> list[Arrival]:
        """Wait for messages of known sources.

        Returns them as soon as there are any, or [] at `deadline_ns` (CLOCK_MONOTONIC,
        nanoseconds; None: no end) or when one of the descriptors in `wake` can be read.
        What already lay in the queues at the deadline is still read. Signal handlers
        run meanwhile; what they raise is passed on. Raises OSError if a socket was closed.
        """
        self._check_reports()
        self._enter()
        found: list[Arrival] = []
        try:
            self._wait_and_read(deadline_ns, wake, found, -1)
        finally:
            self._leave()
        return found

    def count(
        self,
        deadline_ns: int | None,
        wake: Sequence[int] = (),
        bell: int = -1,
        rest_ns: int = 0,
    ) -> int:
        """Read until `deadline_ns` or until a descriptor in `wake` can be read; see `receive`.

        Messages of known sources are counted in `sources`, where `Sources.heard` has them: no
        object is made for a datagram. Returns how many there were.

        Whenever there is something to be had there after there was nothing, the descriptor
        `bell` is written to: 8 bytes, a 1 for an eventfd. With a bell the compiled core does
        not come back to Python before the end, not for signals either, and runs without the
        GIL: for a thread that does nothing else, so that reading waits for nobody.

        After a batch that was not full it rests for `rest_ns` nanoseconds (0 to 999999999;
        `wake` ends it): to be woken for each datagram costs more than to read it. The
        sockets' queues must hold what comes meanwhile.
        """
        if not 0 <= rest_ns < 1_000_000_000:
            raise ValueError(f"rest of {rest_ns} ns: 0 to 999999999 are allowed")
        self._enter()
        self._tallied = 0
        try:
            self._wait_and_read(deadline_ns, wake, None, bell, rest_ns)
        finally:
            self._leave()
        return self._tallied

    def _ring(self, bell: int) -> None:
        try:
            posix.write(bell, struct.pack("=Q", 1))
        except BlockingIOError:
            pass  # it is full, so it rings already
        except OSError:
            self._errors += 1

    def _wait_and_read(
        self,
        deadline_ns: int | None,
        wake: Sequence[int],
        found: list[Arrival] | None,
        bell: int,
        rest_ns: int = 0,
    ) -> None:
        poll = original("select", "poll")
        poller, resting = poll(), poll()
        sockets = {one.sock.fileno(): one for one in self._sockets}
        for fd in sockets:
            poller.register(fd, select.POLLIN)
        for fd in wake:
            poller.register(fd, select.POLLIN)
            resting.register(fd, select.POLLIN)
        late = _LATE_ROUNDS
        while True:
            self._latest_stamp()  # for the look at the clocks
            left = _SLICE
            if deadline_ns is not None:
                left = max(0, min(left, deadline_ns - time.monotonic_ns()))
            ready = poller.poll(left / 1e6)
            if not ready:
                if deadline_ns is not None and time.monotonic_ns() >= deadline_ns:
                    return
                continue
            progress = woken = full = False
            for fd, events in ready:
                one = sockets.get(fd)
                if one is None:
                    woken = True
                    continue
                if events & select.POLLNVAL:
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                got = self._read_batch(one, found)
                progress |= got > 0
                full |= got == self._batch
                if found:
                    return
                if self._news and bell >= 0:
                    self._ring(bell)
            if woken:
                return
            if progress and not full and rest_ns and left:
                # A reader that is woken for each datagram costs more than the datagram.
                resting.poll(min(rest_ns, left) / 1e6)
            if not progress:
                # Only errors: never spin on a socket that keeps failing.
                original("time", "sleep")(0.001)
            if left == 0:
                late -= 1
                if late <= 0:
                    return

    def take(self, batches: int = 1) -> list[Arrival]:
        """Read at most that many batches of each socket, without waiting."""
        found: list[Arrival] = []
        self._check_reports()
        self._enter()
        try:
            for one in self._sockets:
                for _ in range(batches):
                    if self._read_batch(one, found) < self._batch:
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

        On a UDP socket that includes what a socket filter dropped, but not what was counted by one.
        """
        for one in self._sockets:
            one.look_for_drops()
        dropped = self._forgotten + sum(one.dropped for one in self._sockets)
        counted = self._sources.counted
        if not counted:
            return dropped
        # In this order it never seems more than it was.
        self._unread = max(self._unread, dropped - counted)
        return self._unread


# --------------------------------------------------------- the send loop: send.pxi


class Transmitter:
    """Sends a payload to any number of destinations over one UDP socket.

    Not to be used while it sends in another thread (RuntimeError).
    """

    def __init__(self, sock: _socket.socket, payload: bytes) -> None:
        if sock.fileno() < 0:
            raise ValueError("the socket is closed")
        self._sock = sock
        self._length = 4 if sock.family == _socket.AF_INET else 16
        self._payload = payload
        self._names: list[tuple[str, int] | tuple[str, int, int, int]] = []
        #: Of destinations that have them: a source address as control data, a payload.
        self._sources: dict[int, list[tuple[int, int, bytes]]] = {}
        self._payloads: dict[int, bytes] = {}
        self._busy = False

    def watch(self) -> bool:
        """Let the kernel tell what becomes of messages; whether it can tell which ones left.

        For a socket with IP_RECVERR (IPV6_RECVERR); see `send` and `news`.
        """
        level, name = (
            (_socket.IPPROTO_IP, _IP_PKTINFO)
            if self._length == 4
            else (_socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO)
        )
        try:
            self._sock.setsockopt(level, name, 1)
            self._sock.setsockopt(_socket.SOL_SOCKET, _SO_TIMESTAMPING, _TELL_WITH_ADDRESSES)
        except OSError:
            return False
        return True

    def _check_idle(self) -> None:
        if self._busy:
            raise RuntimeError("this transmitter is in use in another thread")

    @property
    def payload(self) -> bytes:
        """What is sent to the destinations that have none of their own; may be replaced."""
        return self._payload

    @payload.setter
    def payload(self, payload: bytes) -> None:
        self._check_idle()
        self._payload = payload

    def add(
        self,
        packed: bytes,
        port: int,
        scope: int = 0,
        source: bytes = b"",
        payload: bytes | None = None,
    ) -> int:
        """Add a destination; its index.

        What goes there leaves from the address `source`, which must be one of this machine
        (b"": the kernel chooses), and is `payload` (None: the transmitter's).
        """
        if len(packed) != self._length:
            raise ValueError(
                f"address of {len(packed)} bytes: this socket's family has {self._length}"
            )
        if source and len(source) != self._length:
            raise ValueError(
                f"source of {len(source)} bytes: this socket's family has {self._length}"
            )
        if not 1 <= port <= 65535:
            raise ValueError(f"port {port}: 1 to 65535 are allowed")
        self._check_idle()
        # Not _show_host: a mapped address stays IPv6 for an IPv6 socket.
        host = _socket.inet_ntop(self._sock.family, packed)
        index = len(self._names)
        self._names.append((host, port) if self._length == 4 else (host, port, 0, scope))
        if source and self._length == 4:
            info = struct.pack("=I4s4x", 0, source)
            self._sources[index] = [(_socket.IPPROTO_IP, _IP_PKTINFO, info)]
        elif source:
            info = struct.pack("=16sI", source, 0)
            self._sources[index] = [(_socket.IPPROTO_IPV6, _IPV6_PKTINFO, info)]
        if payload is not None:
            self._payloads[index] = payload
        return index

    def __len__(self) -> int:
        return len(self._names)

    def send(
        self,
        which: Iterable[int] | None = None,
        patience_ns: int = 20_000_000,
        told: bool = False,
    ) -> list[int]:
        """Send to those destinations (None: to all), in that order.

        Returns an errno for each, 0 = the kernel took it. A full send buffer is waited
        for, `patience_ns` nanoseconds in all; what then is left has EAGAIN. With `told`,
        `news` has each message once it leaves this machine, unless it has a source of its own.
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
            return self._send(chosen, patience_ns, told)
        finally:
            self._busy = False

    def _send(self, chosen: list[int], patience_ns: int, told: bool) -> list[int]:
        outcomes: list[int] = []
        until: int | None = None
        flags = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL
        tries = 0
        while len(outcomes) < len(chosen):
            try:
                index = chosen[len(outcomes)]
                payload = self._payloads.get(index, self._payload)
                source = self._sources.get(index, _TELL if told else None)
                if source is None:
                    self._sock.sendto(payload, flags, self._names[index])
                else:
                    self._sock.sendmsg((payload,), source, flags, self._names[index])
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

    def news(self, most: int = 1024) -> list[tuple[bytes, int, int, bytes | None]]:
        """What became known since of datagrams that the kernel had taken.

        The socket needs IP_RECVERR (IPV6_RECVERR). Returns at most `most` tuples
        (destination, its scope, errno, address of the host that said so by ICMP or None). An
        errno of 0 says that it left: its neighbour's hardware address is known, and the device
        has it (see `watch`).
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
            found = {(level, kind): value for level, kind, value in control}
            if self._length == 4:
                error = found.get((_socket.IPPROTO_IP, _IP_RECVERR))
                info = found.get((_socket.IPPROTO_IP, _IP_PKTINFO), b"")[8:], 0
            else:
                error = found.get((_socket.IPPROTO_IPV6, _IPV6_RECVERR))
                raw = found.get((_socket.IPPROTO_IPV6, _IPV6_PKTINFO), bytes(20))
                info = raw[:16], struct.unpack("=I", raw[16:])[0]
            if error is None:
                continue
            code, origin = struct.unpack_from("=IB", error)
            if origin == _ORIGIN_TIMESTAMPING:
                if len(info[0]) == self._length:
                    result.append((*info, 0, None))
            elif isinstance(address, tuple):
                packed = _socket.inet_pton(self._sock.family, address[0])
                scope = address[3] if len(address) == 4 else 0
                by = _unpack_sockaddr(error[16:]) if origin in _ORIGINS_ICMP else None
                result.append((packed, scope, code, by))
        return result

    @property
    def pending(self) -> int:
        """Bytes of memory of datagrams that were taken but have not left the machine.

        Those wait for a neighbour's hardware address, or in a device's queue.
        """
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


# ------------------------------------------------------ the schedule: schedule.pxi

#: Without a count, that many messages come EARLY_GAP_NS apart before the interval begins:
#: a lost datagram then costs the cluster a second, not ten.
EARLY_MESSAGES = 10
EARLY_GAP_NS = 1_000_000_000

#: What could not be sent is tried again after RETRY_NS, and when that has not helped for
#: RETRY_PATIENCE_NS, after RETRY_LATER_NS (the interval if it is shorter).
RETRY_NS = 100_000_000
RETRY_PATIENCE_NS = 60_000_000_000
RETRY_LATER_NS = 1_000_000_000

#: When the network changed, a message is due after so long. Not at once: an interface
#: that comes up loses in silence what is sent before all of it is up, and a question for a
#: neighbour's address is then repeated only after a second.
SETTLING_NS = 40_000_000

#: A neighbour that does not answer is given up by the kernel three seconds after it was first
#: asked for. A message that waits for one is given up a little later.
ASKING_NS = 3_200_000_000

#: Messages that may wait for neighbours at a time. The kernel's table has room for 1,024, and
#: the dump's own connection needs one, too. Those that failed to answer before may only have
#: some of that room: whoever may be there comes first, and a question is a broadcast to all.
MOST_ASKED = 960
MOST_ASKED_AGAIN = 256

#: With a count, as long as nobody at all was reached the network is held to be late, and
#: it is waited for at least so long: an agent's default wait.
LATE_NETWORK_NS = 60_000_000_000


class _Destination:
    __slots__ = (
        *("answers", "asked", "due", "failing", "last", "left", "nodes", "silent", "tried"),
        "trusted",
    )

    def __init__(self, node: int, now_ns: int) -> None:
        self.nodes = [node]
        self.due = now_ns
        self.failing: int | None = None
        self.last = now_ns
        self.left = 0
        #: Since when a message waits for its neighbour.
        self.asked: int | None = None
        self.answers = False  # the last message left
        self.silent = False  # the last one did not, for no neighbour answered
        self.tried = False  # a message left, failed, or was under way
        self.trusted = False


class Schedule:
    """The sender's decision: who is sent the next message when, and when it is enough.

    Without sockets or clock: it is told what left and what failed and at what time
    (nanoseconds of any monotonic clock), and answers what is due. Nodes are 0 to
    `nodes` - 1; destinations, the addresses of nodes, are numbered as they are added.
    `count` messages go to each (0: without end), `interval_ns` apart.

    A message counts when it left this machine, and not yet when the kernel took it (`taken`):
    it may wait there for its neighbour's hardware address. Where nobody answers it is `lost`.
    Whoever is dead must take nothing from the living. So there is never more than one message
    under way to a destination, those that answered come first and those that did not last, and
    only so many wait at a time.

    Numbers that were never given out raise IndexError.
    """

    def __init__(self, nodes: int, count: int, interval_ns: int, now_ns: int) -> None:
        if count < 0:
            raise ValueError(f"count {count}: 0 or more is allowed")
        if interval_ns <= 0:
            raise ValueError(f"interval of {interval_ns} ns: 1 or more is allowed")
        self._nodes = nodes
        self._count = count
        self._interval = interval_ns
        self._started = now_ns
        self._destinations: list[_Destination] = []
        self._open = set(range(nodes))
        self._under_way = 0
        #: Which of those that did not answer comes first.
        self._turn = 0

    def _destination(self, index: int) -> _Destination:
        if not 0 <= index < len(self._destinations):
            raise IndexError(f"destination {index}: 0 to {len(self._destinations) - 1} are allowed")
        return self._destinations[index]

    def _check_node(self, node: int) -> None:
        if not 0 <= node < self._nodes:
            raise IndexError(f"node {node}: 0 to {self._nodes - 1} are allowed")

    def give_up(self, node: int) -> None:
        """Do not wait for this node: it will never have an address."""
        self._check_node(node)
        self._open.discard(node)

    def add(self, node: int, now_ns: int) -> int:
        """A node has one more address; the number of the destination, due at once."""
        self._check_node(node)
        self._destinations.append(_Destination(node, now_ns))
        return len(self._destinations) - 1

    def share(self, index: int, node: int) -> None:
        """The address is that node's, too: two names may be one machine."""
        destination = self._destination(index)
        self._check_node(node)
        if node not in destination.nodes:
            destination.nodes.append(node)

    def __len__(self) -> int:
        return len(self._destinations)

    def _done(self, destination: _Destination) -> bool:
        return bool(self._count) and destination.left >= self._count

    def due(self, now_ns: int) -> list[int]:
        """Who is to be sent a message now, in this order."""
        kinds: tuple[list[int], ...] = ([], [], [], [])
        for index, destination in enumerate(self._destinations):
            if (
                destination.due <= now_ns
                and destination.asked is None
                and not self._done(destination)
            ):
                kinds[self._kind(destination)].append(index)
        trusted, answered, new, silent = kinds
        # Only so many may wait for their neighbours at a time.
        asked = (answered + new)[: max(0, MOST_ASKED - self._under_way)]
        silent = [i for i in silent if i >= self._turn] + [i for i in silent if i < self._turn]
        room = MOST_ASKED_AGAIN - self._under_way - len(asked)
        return trusted + asked + silent[: max(0, room)]

    def _kind(self, destination: _Destination) -> int:
        """0: trusted, 1: it answered, 2: it was never asked in vain, 3: it was."""
        if self._trusts(destination):
            return 0
        return 3 if destination.silent else 2 - destination.answers

    def _trusts(self, destination: _Destination) -> bool:
        return destination.trusted and not self._count

    def trusted(self, index: int) -> bool:
        """Whether a message to there will leave, as the last one did and nothing has changed."""
        return self._trusts(self._destination(index))

    def doubt(self) -> None:
        """Something that was trusted did not leave: trust nobody until the next message did."""
        for destination in self._destinations:
            destination.trusted = False

    def asked(self, index: int) -> int | None:
        """Since when a message for there is under way; None if there is none."""
        return self._destination(index).asked

    def overdue(self, now_ns: int) -> list[int]:
        """Whose message has been under way for so long that it must be `lost`."""
        return [
            i for i, one in enumerate(self._destinations)
            if one.asked is not None and now_ns - one.asked >= ASKING_NS
        ]  # fmt: skip

    def when(self, index: int) -> int:
        """When it is due, if it is not done."""
        return self._destination(index).due

    def sent(self, index: int) -> int:
        """How many messages left for there."""
        return self._destination(index).left

    def nodes(self, index: int) -> list[int]:
        """The nodes that have this address."""
        return list(self._destination(index).nodes)

    def taken(self, index: int, now_ns: int) -> None:
        """The kernel has a message for there, and may have to ask for the neighbour first."""
        destination = self._destination(index)
        self._ends(destination)
        destination.tried = True
        destination.asked = now_ns
        self._under_way += 1
        if destination.silent:
            self._turn = index + 1

    def _ends(self, destination: _Destination) -> None:
        self._under_way -= destination.asked is not None
        destination.asked = None

    def left(self, index: int, now_ns: int) -> None:
        """A message left for there."""
        destination = self._destination(index)
        self._ends(destination)
        destination.tried = True
        destination.left += 1
        destination.last = now_ns
        destination.failing = None
        destination.answers = destination.trusted = True
        destination.silent = False
        gap = self._interval
        if not self._count and destination.left <= EARLY_MESSAGES:
            gap = min(gap, EARLY_GAP_NS)
        # Counted from when it was due, so that the schedule does not drift; but what
        # could not be sent in time is not made up for.
        destination.due = max(destination.due + gap, now_ns + gap // 2)

    def failed(self, index: int, now_ns: int) -> None:
        """No message could leave for there."""
        destination = self._destination(index)
        self._ends(destination)
        destination.tried = True
        destination.trusted = False
        if destination.failing is None:
            destination.failing = now_ns
        gap = RETRY_NS
        if now_ns - destination.failing >= RETRY_PATIENCE_NS:
            gap = min(RETRY_LATER_NS, self._interval)
        destination.due = now_ns + gap

    def lost(self, index: int, now_ns: int) -> bool:
        """A message that was under way, or seemed to have left, did not leave; False if there
        was none.
        """
        destination = self._destination(index)
        later = now_ns + min(RETRY_LATER_NS, self._interval)
        if destination.asked is not None:
            self._ends(destination)
            destination.due = later
        elif destination.left:
            destination.left -= 1
            destination.due = min(destination.due, later)
        else:
            return False
        destination.answers = destination.trusted = False
        destination.silent = True
        if destination.failing is None:
            destination.failing = now_ns
        return True

    def hurry(self, now_ns: int, again: bool = True) -> None:
        """The network is not what it was: what failed may work in a moment, and what left
        may have left from an address that nobody knows, or to where nobody hears.

        With a count only what failed is sent again: as many as asked for, an interval apart.
        What is under way is sent once more only if `again`.
        """
        for destination in self._destinations:
            destination.trusted = destination.silent = False
            soonest = now_ns + SETTLING_NS
            if destination.asked is not None:
                if again:
                    self._ends(destination)
                    destination.due = soonest
                continue
            if destination.failing is None:
                if self._count:
                    continue  # as many as asked for, an interval apart
                if destination.left > EARLY_MESSAGES:
                    soonest = max(soonest, destination.last + EARLY_GAP_NS)
            destination.due = min(destination.due, soonest)

    @property
    def reached(self) -> set[int]:
        """The nodes that a message left for."""
        return {node for one in self._destinations if one.left for node in one.nodes}

    @property
    def _patience_ends(self) -> int:
        """When a node that was not reached is given up (only with a count)."""
        patience = self._count * self._interval
        return self._started + (patience if self.reached else max(patience, LATE_NETWORK_NS))

    def next_due(self, now_ns: int) -> int | None:
        """When something is to be done next; None: only when an address is added."""
        ready = self.due(now_ns)
        if ready:
            return min(self._destinations[i].due for i in ready)
        # Who is due and not ready has no room, until something that is under way ends.
        times = [one.asked + ASKING_NS for one in self._destinations if one.asked is not None]
        times += [
            one.due
            for one in self._destinations
            if one.asked is None and one.due > now_ns and not self._done(one)
        ]
        if self._count and self._patience_ends > now_ns:
            times.append(self._patience_ends)
        return min(times, default=None)

    def finished(self, now_ns: int) -> bool:
        """Whether every node has had its messages, or need not be waited for any more.

        With a count: a node that was ever reached is owed all its messages, at each
        address that was reached. One that never was is given up after `count` intervals;
        while none was, not before LATE_NETWORK_NS either; and no address is given up that
        was not tried, however long it takes to come to it. Without a count it ends only if
        there is nobody to be told.
        """
        if not self._open:
            return True
        if not self._count or any(
            not one.tried or 0 < one.left < self._count for one in self._destinations
        ):
            return False
        return now_ns >= self._patience_ends or self.reached >= self._open


# --------------------------------------------------- filters and routes: route.pxi


def attach_filter(sock: _socket.socket, code: bytes) -> None:
    """Put a classic BPF program on the socket, in the place of the one it has.

    `code` is an array of struct sock_filter (linux/filter.h), 8 bytes each, in the byte
    order of this machine. Raises OSError if the kernel does not take it.
    """
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


# linux/netlink.h, linux/rtnetlink.h
_RTM_NEWROUTE, _RTM_GETROUTE, _NLM_F_REQUEST, _NLMSG_ERROR = 24, 26, 1, 2
_RTN_LOCAL = 2
_SIOCGIFFLAGS, _IFF_RUNNING = 0x8913, 0x40
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_VIA = 1, 4, 5, 7, 18
#: Types of routes that lead nowhere: blackhole, unreachable, prohibit.
_NO_WAY = {6: errno.EINVAL, 7: errno.ENETUNREACH, 8: errno.EACCES}


def find_route(packed: bytes, scope: int = 0) -> tuple[int, bytes, bytes, bool, bool]:
    """Ask the kernel which way a datagram to there would go; nothing is sent to the network.

    Returns (index of the interface, source address, gateway, whether it is this machine
    itself, whether there is a carrier); an address that there is not is b"". Raises OSError
    with the errno that sending would come to. Source: rtnetlink(7), RTM_GETROUTE.
    """
    if len(packed) not in (4, 16):
        raise ValueError(f"address of {len(packed)} bytes: 4 or 16 are allowed")
    family = _socket.AF_INET if len(packed) == 4 else _socket.AF_INET6
    body = struct.pack("=8BI", family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
    body += struct.pack("=HH", 4 + len(packed), _RTA_DST) + packed
    if scope:
        body += struct.pack("=HHI", 8, _RTA_OIF, scope)
    request = struct.pack("=IHHII", 16 + len(body), _RTM_GETROUTE, _NLM_F_REQUEST, 0, 0) + body
    sock = _socket.socket(
        _socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _socket.NETLINK_ROUTE
    )
    try:
        sock.settimeout(1.0)
        sock.send(request)
        interface, source, gateway, local = _read_route(sock.recv(4096))
        return interface, source, gateway, local, local or _has_carrier(sock, interface)
    except _socket.timeout:  # TimeoutError from 3.10 on
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
    finally:
        sock.close()


def _has_carrier(sock: _socket.socket, interface: int) -> bool:
    """Whether an interface has a carrier; a route does not tell, and /sys need not be there."""
    try:
        name = _socket.if_indextoname(interface).encode()
        answer = fcntl.ioctl(sock.fileno(), _SIOCGIFFLAGS, struct.pack("=16s24x", name))
    except OSError:
        return True
    return bool(struct.unpack_from("=h", answer, 16)[0] & _IFF_RUNNING)


def _read_route(answer: bytes) -> tuple[int, bytes, bytes, bool]:
    length, kind = struct.unpack_from("=IH", answer)
    code = 0
    if kind == _NLMSG_ERROR:
        code = -struct.unpack_from("=i", answer, 16)[0] or errno.EPROTO
    elif kind != _RTM_NEWROUTE or length > len(answer):
        code = errno.EPROTO
    else:
        code = _NO_WAY.get(answer[23], 0)
    if code:
        raise OSError(code, os.strerror(code))
    found: dict[int, bytes] = {}
    at = 28
    while at + 4 <= length:
        size, attribute = struct.unpack_from("=HH", answer, at)
        if size < 4:
            break
        found[attribute] = answer[at + 4 : at + size]
        at += (size + 3) & ~3
    interface = struct.unpack("=I", found.get(_RTA_OIF, b"\0" * 4))[0]
    gateway = found.get(_RTA_GATEWAY, b"") or found.get(_RTA_VIA, b"")[2:]
    source = found.get(_RTA_PREFSRC, b"")
    return interface, source, gateway, answer[23] == _RTN_LOCAL

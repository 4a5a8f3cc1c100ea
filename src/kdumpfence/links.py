# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel tells of network interfaces (rtnetlink), and how netlink is asked anything.

Which are VRFs or lie in one, and that something has changed: an interface went, came back under
another index, or got another address. What may not be in this file: what that means for a wait.

Sources: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h, linux/sysctl's udp_l3mdev_accept
(Documentation/networking/vrf.rst).
"""

from __future__ import annotations

import _socket
import errno
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_AF_NETLINK = 16
_ROUTE = 0  # NETLINK_ROUTE
_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, _IPV4_IFADDR, _IPV6_IFADDR
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_REQUEST, DUMP = 0x1, 0x300
ERROR, _DONE = 2, 3
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12
_IFLA_LINKINFO, _INFO_KIND, _INFO_SLAVE_KIND = 18, 1, 4
_NO_STATISTICS = (29, 1 << 3)  # IFLA_EXT_MASK: RTEXT_FILTER_SKIP_STATS

#: A message of the kernel about one interface is some 2 KB.
_SIZE = 1 << 16

#: Seconds; the kernel answers before the question's system call returns.
_PATIENCE = 1.0


def _number(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each attribute of a netlink message: its type and what it holds."""
    while len(data) >= 4:
        length = _number(data[:2])
        if length < 4:
            return
        yield _number(data[2:4]) & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


def _attribute(kind: int, data: bytes) -> bytes:
    order = sys.byteorder
    head = (4 + len(data)).to_bytes(2, order) + kind.to_bytes(2, order)
    return head + data + bytes(-len(data) % 4)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each netlink message in what was read: its type and what is in it."""
    while len(data) >= 16:
        length = _number(data[:4])
        if length < 16:
            return
        yield _number(data[4:6]), data[16:length]
        data = data[(length + 3) & ~3 :]


def _read(sock: _socket.socket) -> bytes:
    """What the kernel says; b"" if it was somebody else."""
    data, sender = sock.recvfrom(_SIZE)
    return data if sender[0] == 0 else b""


def ask(
    request: int, flags: int, body: bytes, strict: bool = False, protocol: int = _ROUTE
) -> Iterator[tuple[int, bytes]]:
    """Each message of the kernel's answer, an error included: its type and what is in it.

    `strict`: a DUMP is of what `body` selects, if the kernel can (Linux 4.20). Raises OSError.
    """
    order = sys.byteorder
    head = (16 + len(body)).to_bytes(4, order) + request.to_bytes(2, order)
    head += (_REQUEST | flags).to_bytes(2, order) + (1).to_bytes(4, order) + bytes(4)
    sock = _socket.socket(_AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, protocol)
    try:
        if strict:
            try:
                sock.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
            except OSError:
                pass
        sock.settimeout(_PATIENCE)
        sock.sendto(head + body, (0, 0))
        while True:
            for message, answer in _messages(_read(sock)):
                if message == _DONE:
                    return
                yield message, answer
                if message == ERROR:
                    return
            if not flags:
                return
    finally:
        sock.close()


def _ask(flags: int, index: int, wanted: bytes) -> Iterator[tuple[int, bytes]]:
    """RTM_GETLINK: of one interface, or of all that have these attributes."""
    mask, value = _NO_STATISTICS
    wanted += _attribute(mask, value.to_bytes(4, sys.byteorder))
    header = bytes(4) + index.to_bytes(4, sys.byteorder) + bytes(8)
    return ask(_GETLINK, flags, header + wanted)


def _kinds(body: bytes) -> tuple[bytes, bytes]:
    """What kind of interface it is, and what kind the one above it is; b"" for a plain one."""
    found = {_INFO_KIND: b"", _INFO_SLAVE_KIND: b""}
    for kind, data in attributes(body):
        if kind == _IFLA_LINKINFO:
            found.update((inner, value.rstrip(b"\0")) for inner, value in attributes(data))
    return found[_INFO_KIND], found[_INFO_SLAVE_KIND]


def _read_switch(name: str) -> bool:
    """A setting of /proc/sys/net/ipv4; False if the kernel does not have it."""
    try:
        fd = posix.open(f"/proc/sys/net/ipv4/{name}", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return False
    try:
        return posix.read(fd, 16).strip() == b"1"
    finally:
        posix.close(fd)


def is_bound(sock: _socket.socket) -> bool:
    """Whether the socket hears one interface only: with `ip vrf exec` it is bound to a VRF."""
    return bool(sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_BINDTODEVICE, 16).strip(b"\0"))


def hears_vrfs(sock: _socket.socket) -> bool:
    """Whether this UDP socket hears what comes through a VRF."""
    return is_bound(sock) or _read_switch("udp_l3mdev_accept")


class Links:
    """The interfaces of this network namespace. Raises OSError if the kernel does not tell."""

    def __init__(self) -> None:
        #: Whether a UDP socket that is bound to no interface hears VRFs, and a raw one.
        self.udp_hears_vrfs = _read_switch("udp_l3mdev_accept")
        self.raw_hears_vrfs = _read_switch("raw_l3mdev_accept")
        #: The interface indexes of the VRFs.
        self.vrfs: set[int] = set()
        self._inside: set[int] = set()  # what lay in a VRF at some time
        self._news = False
        self._lost = False  # some news were
        self._events = _socket.socket(
            _AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK, _ROUTE
        )
        try:
            # First this, then the question: what happens in between is told twice, not never.
            self._events.bind((0, _GROUPS))
            self._ask_for_vrfs()
        except BaseException:
            self._events.close()
            raise

    @property
    def fd(self) -> int:
        """Can be read when something has changed: for poll."""
        return self._events.fileno()

    def changed(self) -> bool:
        """Whether something has changed since the last call."""
        self._take_news()
        news, self._news = self._news, False
        return news

    def _take_news(self) -> None:
        while True:
            try:
                data = _read(self._events)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._news = self._lost = True
                self._ask_for_vrfs()
                continue
            self._news = True
            for kind, body in _messages(data):
                self._learn(kind, body)

    def _learn(self, message: int, body: bytes) -> None:
        # struct ifinfomsg: 16 bytes, the index at 4.
        if message not in (_NEWLINK, _DELLINK) or len(body) < 16:
            return
        index = _number(body[4:8])
        own, above = _kinds(body[16:])
        if message == _NEWLINK and own == b"vrf":
            self.vrfs.add(index)
        elif body[0] == 0:  # not of a bridge's port, say, which says nothing of its kind
            self.vrfs.discard(index)
        if above == b"vrf":
            self._inside.add(index)

    def in_vrf(self, index: int) -> bool:
        """Whether what came through this interface may have come through a VRF.

        So it is also for one that has lain in one at some time since this object was made, and
        if the kernel does not tell.
        """
        try:
            self._take_news()
            if index in self.vrfs or index in self._inside:
                return True
            for message, body in _ask(0, index, b""):
                if message == _NEWLINK:
                    return b"vrf" in _kinds(body[16:])
        except OSError:
            return True
        return self._lost  # it is there no more; had it been in a VRF, that would have been told

    def _ask_for_vrfs(self) -> None:
        wanted = _attribute(_IFLA_LINKINFO, _attribute(_INFO_KIND, b"vrf\0"))
        self.vrfs.clear()
        for message, body in _ask(DUMP, 0, wanted):
            self._learn(message, body)  # a kernel before 4.6 tells of all interfaces
        if self.vrfs:
            for message, body in _ask(DUMP, 0, b""):
                self._learn(message, body)

    def close(self) -> None:
        """Hear no more of it."""
        self._events.close()

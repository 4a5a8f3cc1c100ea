# SPDX-License-Identifier: GPL-2.0-or-later
"""Who holds the UDP port, and whether what is sent to it still reaches our sockets.

A user without any right can take datagrams away from a socket that shares its port: bind it as
well (SO_REUSEADDR, SO_REUSEPORT), to an address of its own, to an interface, or later than we
did, and the kernel prefers that socket. So ours never share (`claim`). What can still happen
is looked for again and again (`deaf`): a socket that came before the claim, or that root put
there, and sockets that were passed by somebody who goes on changing them. Nobody can see from
a socket what a firewall, an XDP program or an sk_lookup program does to its datagrams.

What may not be in this file: reading messages, and what is done about a deaf socket.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

#: Seconds between two looks.
EVERY = 5.0

_SO_BINDTODEVICE = 25
_SO_LOCK_FILTER = 44
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST_DUMP = 0x301
_INET_DIAG_SKV6ONLY = 11
_TCP_ESTABLISHED = 1
_POLLRDHUP = 0x2000

#: Seconds that the kernel may take to answer.
_PATIENCE = 2.0

#: Others that one line names.
_NAMED = 3


class Holder(NamedTuple):
    """A UDP socket that is bound to the port, in this network namespace."""

    family: int
    #: As inet_ntop writes it.
    address: str
    #: Of the user who made it, and of the socket.
    uid: int
    inode: int
    #: Whether it takes no IPv4 either (of AF_INET6).
    v6only: bool
    #: Whether it hears one other address alone.
    connected: bool

    def __str__(self) -> str:
        return f"user {self.uid} at {self.address}"


def claim(sock: socket.socket) -> None:
    """From now on nobody else can bind what this socket is bound to.

    OSError if that cannot be had, or if its filter cannot be replaced by the Listener's.
    """
    _stop_sharing(sock)
    if sock.getsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER):
        raise OSError(errno.EPERM, "has a filter that cannot be taken off")


def _stop_sharing(sock: socket.socket) -> None:
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        if sock.getsockopt(socket.SOL_SOCKET, option):
            sock.setsockopt(socket.SOL_SOCKET, option, 0)


def lock(sock: socket.socket) -> int:
    """Be the only process that reads this socket, to its end; 0, or the process that is.

    A POSIX lock on the socket itself, so only those to whom it was passed can hold it.
    """
    try:
        fcntl.lockf(sock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EAGAIN:
            return 0  # a kernel or a policy without such locks
        form = "hhqqi0q"  # struct flock: type, whence, start, length, process
        asked = struct.pack(form, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        return int(struct.unpack(form, fcntl.fcntl(sock, fcntl.F_GETLK, asked))[4]) or 1
    return 0


def deaf(sockets: Iterable[socket.socket], port: int) -> str:
    """Why what is sent to the port may not reach these sockets; "" if nothing is known of it."""
    sockets = list(sockets)
    for sock in sockets:
        with contextlib.suppress(OSError):
            _stop_sharing(sock)  # whoever passed it may have set it otherwise since
    faults = [(sock, fault(sock, port)) for sock in sockets]
    reasons = [f"the socket of {_where(sock)} {what}" for sock, what in faults if what]
    with contextlib.suppress(OSError):
        others = rivals(sockets, port)
        if others:
            more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
            told = ", ".join(map(str, others[:_NAMED])) + more
            reasons.append(f"others hold it as well and may take messages away: {told}")
    return f"port {port}/udp: {'; '.join(reasons)}" if reasons else ""


def fault(sock: socket.socket, port: int) -> str:
    """Why this socket does not hear everybody, "" if it does: what follows its name."""
    try:
        where = sock.getsockname()
        if where[1] != port:
            return f"is bound to port {where[1]}" if where[1] else "is not bound any more"
        if _is_connected(sock, port):
            return "is connected, so it hears one address alone"
        poller = select.poll()
        poller.register(sock, _POLLRDHUP)
        if poller.poll(0):
            return "was shut down"
        try:
            sock.getsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, 16)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return "is bound to an interface that is gone"
        if not _is_here(sock.family, where):
            return f"is bound to {where[0]}, which is not an address of this machine any more"
    except OSError as error:
        return f"cannot be used: {error.strerror}"
    return ""


def rivals(sockets: Iterable[socket.socket], port: int) -> list[Holder]:
    """Other sockets that can get what is sent to these. OSError if the kernel does not tell."""
    sockets = list(sockets)
    own = {os.fstat(sock.fileno()).st_ino for sock in sockets}
    ours = [place for sock in sockets for place in _places(_itself(sock))]
    return [
        other
        for other in holders(port)
        if other.inode not in own and any(_meet(a, b) for a in ours for b in _places(other))
    ]


def holders(port: int) -> list[Holder]:
    """Every UDP socket that is bound to the port. OSError if the kernel does not tell."""
    return [
        holder for family in (socket.AF_INET, socket.AF_INET6) for holder in _dump(family, port)
    ]


def who(port: int) -> str:
    """Who holds the port, for an error message; "" if that cannot be found out."""
    try:
        found = holders(port)
    except OSError:
        return ""
    processes = _processes({one.inode for one in found})
    told = {f"{processes.get(one.inode, 'a process')} of user {one.uid}" for one in found}
    return ", ".join(sorted(told)[:_NAMED])


def _is_connected(sock: socket.socket, port: int) -> bool:
    try:
        sock.getpeername()
        return True
    except OSError:
        pass
    # One that is connected to port 0, which stands for all ports of its peer, says nothing then.
    with contextlib.suppress(OSError):
        inode = os.fstat(sock.fileno()).st_ino
        return any(one.connected for one in holders(port) if one.inode == inode)
    return False


def _where(sock: socket.socket) -> str:
    try:
        return str(sock.getsockname()[0])
    except OSError:
        return "which nothing is known"


def _is_here(family: int, where: Sequence[object]) -> bool:
    """Whether the address is one of this machine; with ip_nonlocal_bind that is not known."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((where[0], 0, *where[2:]))
        except OSError as error:
            return error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV)
    return True


def _itself(sock: socket.socket) -> Holder:
    v6only = sock.family == socket.AF_INET6 and bool(
        sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    )
    address = str(sock.getsockname()[0]).partition("%")[0]
    return Holder(sock.family, address, 0, 0, v6only, False)


def _places(one: Holder) -> list[tuple[int, str]]:
    """(version of IP, address or "" for all) of the datagrams that can come to a socket."""
    if one.family == socket.AF_INET:
        return [(4, "" if one.address == "0.0.0.0" else one.address)]
    if one.address == "::":
        return [(6, "")] if one.v6only else [(6, ""), (4, "")]
    if one.address.startswith("::ffff:") and "." in one.address:
        return [(4, one.address[7:].replace("0.0.0.0", ""))]
    return [(6, one.address)]


def _meet(one: tuple[int, str], other: tuple[int, str]) -> bool:
    return one[0] == other[0] and (one[1] == other[1] or "" in (one[1], other[1]))


def _dump(family: int, port: int) -> Iterator[Holder]:
    """What sock_diag(7) says of the UDP sockets of a family that have this local port."""
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
    ) as netlink:
        netlink.settimeout(_PATIENCE)
        wanted = struct.pack("=BBBxI", family, socket.IPPROTO_UDP, 0, 0xFFFFFFFF)
        wanted += struct.pack(">HH", port, 0) + bytes(36) + b"\xff" * 8  # any address, any cookie
        size = 16 + len(wanted)
        netlink.send(
            struct.pack("=IHHII", size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0) + wanted
        )
        while True:
            data = netlink.recv(1 << 16)
            at = 0
            while at + 16 <= len(data):
                size, kind = struct.unpack_from("=IH", data, at)
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    number = -struct.unpack_from("=i", data, at + 16)[0]
                    raise OSError(number, os.strerror(number))
                if kind == _SOCK_DIAG_BY_FAMILY:
                    yield _holder(data[at + 16 : at + size])
                at += (size + 3) & ~3


def _holder(data: bytes) -> Holder:
    """One inet_diag_msg."""
    family, state = data[0], data[1]
    packed = data[8:12] if family == socket.AF_INET else data[8:24]
    uid, inode = struct.unpack_from("=II", data, 64)
    v6only = False
    at = 72
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if kind == _INET_DIAG_SKV6ONLY:
            v6only = bool(data[at + 4])
        at += max(4, (size + 3) & ~3)
    address = socket.inet_ntop(family, packed)
    return Holder(family, address, uid, inode, v6only, state == _TCP_ESTABLISHED)


def _processes(inodes: set[int]) -> dict[int, str]:
    """Inode of a socket -> the process that has it open, of those that may be looked at."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, str] = {}
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{process}/fd"):
                inode = wanted.get(os.readlink(f"/proc/{process}/fd/{fd}"))
                if inode is not None:
                    with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
                        found.setdefault(inode, f"process {process} ({file.read().strip()})")
    return found

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who could take our messages away: whether what is sent to the UDP port still reaches our sockets.

A user without any right can take datagrams away from a socket that shares its port: bind it as
well (SO_REUSEADDR, SO_REUSEPORT), to an address of its own, to an interface, or later than we
did, and the kernel prefers that socket. So ours never share (`claim`). What can still happen
is looked for again and again (`why_deaf`): a socket that came before the claim, or that root put
there, and sockets that were passed by somebody who goes on changing them. Nobody can see from
a socket what a firewall, an XDP program or an sk_lookup program does to its datagrams.

What may not be in this file: reading messages, and what is done about a deaf socket.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence

from kdumpfence.listener import sock_diag
from kdumpfence.listener.sock_diag import NAMED, Holder
from kdumpfence.unpatched import original

#: Seconds between two looks.
EVERY = 5.0

_SO_BINDTODEVICE = 25
_SO_LOCK_FILTER = 44
_POLLRDHUP = 0x2000


def claim(sock: socket.socket) -> None:
    """From now on nobody else can bind what this socket is bound to.

    OSError if the kernel refuses that, or if the socket's filter cannot be replaced by ours.
    """
    _stop_sharing(sock)
    if sock.getsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER):
        raise OSError(errno.EPERM, "has a filter that cannot be removed")


def _stop_sharing(sock: socket.socket) -> None:
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        if sock.getsockopt(socket.SOL_SOCKET, option):
            sock.setsockopt(socket.SOL_SOCKET, option, 0)


def lock(sock: socket.socket) -> int:
    """Be the only process that reads this socket until it ends: 0, or the id of the one that is.

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


def why_deaf(sockets: list[socket.socket], port: int) -> str:
    """Why what is sent to the port may not reach these sockets, in a line; "" if it should."""
    for sock in sockets:
        with contextlib.suppress(OSError):
            _stop_sharing(sock)  # whoever passed it may have set it otherwise since
    faults = [(sock, fault(sock, port)) for sock in sockets]
    reasons = [f"the socket of {_where(sock)} {what}" for sock, what in faults if what]
    with contextlib.suppress(OSError):
        others = rivals(sockets, port)
        if others:
            more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
            named = ", ".join(map(str, others[:NAMED])) + more
            reasons.append(f"shared with {named}, which may take messages away")
    return f"port {port}/udp: {'; '.join(reasons)}" if reasons else ""


def fault(sock: socket.socket, port: int) -> str:
    """Why this socket does not hear everybody, as said after its name; "" if it does."""
    try:
        where = sock.getsockname()
        if where[1] != port:
            return f"is bound to port {where[1]}" if where[1] else "is no longer bound"
        if _is_connected(sock, port):
            return "is connected, so it hears only one address"
        poller = original("select", "poll")()
        poller.register(sock, _POLLRDHUP)
        if poller.poll(0):
            return "was shut down"
        try:
            sock.getsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, 16)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return "is bound to an interface that is gone"
        if not _is_here(sock.family, where):
            return f"is bound to {where[0]}, which is no longer an address of this machine"
    except OSError as error:
        return f"cannot be used: {error.strerror}"
    return ""


def rivals(sockets: list[socket.socket], port: int) -> list[Holder]:
    """Other sockets that can get what is sent to these. OSError if the kernel does not tell."""
    own = {os.fstat(sock.fileno()).st_ino for sock in sockets}
    ours = [place for sock in sockets for place in _places(_itself(sock))]
    return [
        other
        for other in sock_diag.holders(port)
        if other.inode not in own and any(_meet(a, b) for a in ours for b in _places(other))
    ]


def _is_connected(sock: socket.socket, port: int) -> bool:
    try:
        sock.getpeername()
        return True
    except OSError:
        pass
    # One that is connected to port 0, which stands for all ports of its peer, says nothing then.
    with contextlib.suppress(OSError):
        inode = os.fstat(sock.fileno()).st_ino
        return any(one.connected for one in sock_diag.holders(port) if one.inode == inode)
    return False


def _where(sock: socket.socket) -> str:
    try:
        return str(sock.getsockname()[0])
    except OSError:
        return "an unknown address"


def _is_here(family: int, where: Sequence[object]) -> bool:
    """Whether the address is one of this machine; with ip_nonlocal_bind that is not known."""
    with original("socket", "socket")(family, socket.SOCK_DGRAM) as probe:
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

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every socket here has to go through: the guard first, then a queue as deep as may be.

No socket is read that has not had the guard of `filters` from before it heard anything: without
it any user of this machine could be a node. What may not be in this file: which sockets a
program opens, and what a message means.
"""

from __future__ import annotations

import _socket
import sys

from kdumpfence import filters
from kdumpfence.links import hears_vrfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kdumpfence.addresses import Address

_SO_GET_FILTER = 26
_SO_RCVBUFFORCE = 33
_IP_PKTINFO = 8
_IPV6_RECVPKTINFO = 49
_IPV6_PKTINFO = 50


class FilterRefusedError(OSError):
    """The kernel does not take a filter without which a socket must not be read."""


def attach(sock: _socket.socket, instructions: list[filters.Instruction]) -> None:
    """Put a filter on a socket that must not be read without. Raises FilterRefusedError."""
    try:
        filters.attach(sock, instructions)
    except OSError as error:
        why = f"cannot attach a socket filter: {error.strerror}"
        raise FilterRefusedError(error.errno, why) from None


def udp_program(
    sock: _socket.socket, messages_only: bool = False, questions: bool = False
) -> list[filters.Instruction]:
    """The filter for this UDP socket: its guard, or, with `messages_only`, a fence as well, which
    with `questions` keeps these too.

    Behind the guard alone, what this machine sent itself becomes an empty datagram: dropped, it
    would count as lost.
    """
    refused = 0 if messages_only else filters.CUT
    return filters.program(
        "udp",
        0,
        messages_only=messages_only,
        and_questions=messages_only and questions,
        inside=hears_vrfs(sock),
        refused=refused,
    )


def prepare_udp(sock: _socket.socket, messages_only: bool = False) -> None:
    """Filter a new UDP socket, before it hears anything, and keep it to its family.

    Raises OSError.
    """
    attach(sock, udp_program(sock, messages_only))
    if sock.family == _socket.AF_INET6:
        sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)


def guard(sock: _socket.socket) -> None:
    """Keep what this machine sends itself from being a message; for a socket opened elsewhere.

    It may hold such messages already, and nobody can tell them from others: an IPv6 one is
    emptied, unless an earlier program of ours put the guard on it. (With another host's IPv4
    address nobody sends here without CAP_NET_RAW.) Raises FilterRefusedError.
    """
    kinds = ((False, False), (True, False), (True, True))
    own = [filters.packed(udp_program(sock, *kind)) for kind in kinds]
    if sock.family == _socket.AF_INET6 and _filter_of(sock) not in own:
        attach(sock, filters.NOTHING)
        empty(sock)
    attach(sock, udp_program(sock))


def _filter_of(sock: _socket.socket) -> bytes:
    """The filter of this socket; b"" if it has none."""
    import ctypes  # rarely needed; and `getsockopt` cannot ask, for the length counts instructions

    most = 4096
    buffer = ctypes.create_string_buffer(8 * most)
    length = ctypes.c_uint32(most)
    libc = ctypes.CDLL(None, use_errno=True)
    wanted = (sock.fileno(), _socket.SOL_SOCKET, _SO_GET_FILTER, buffer, ctypes.byref(length))
    return buffer.raw[: 8 * length.value] if libc.getsockopt(*wanted) == 0 else b""


def empty(sock: _socket.socket) -> None:
    """Throw away what lies in its queue; let nothing more in before."""
    while True:
        try:
            sock.recv(1, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            pass  # one that something was told of


def set_queue(sock: _socket.socket, size: int) -> None:
    """Give a new socket so many bytes of queue, or as many as the system allows."""
    if not _force_queue(sock, size):
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, size)


def deepen(sock: _socket.socket, size: int) -> None:
    """As `set_queue`, but one that is deeper already stays so.

    Whoever opened it may have had more rights.
    """
    has = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF) // 2  # it tells twice of that
    if has < size and not _force_queue(sock, size) and has < min(size, _most_queue()):
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, size)


def _force_queue(sock: _socket.socket, size: int) -> bool:
    """Whether this process has the right (CAP_NET_ADMIN) to any depth, which is set then."""
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except OSError:
        return False
    return True


def _most_queue() -> int:
    """Bytes that one may have without that right."""
    try:
        with open("/proc/sys/net/core/rmem_max", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 212992  # the default before Linux 6.18, and never more than that of now


def peer(address: Address, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """What connect(2) wants."""
    host = _socket.inet_ntop(address.family, address.packed)
    return (host, port) if len(address.packed) == 4 else (host, port, 0, address.scope)


def tell_destination(sock: _socket.socket) -> None:
    """Have the kernel tell where each datagram was sent to, and through which interface it came."""
    if sock.family == _socket.AF_INET6:
        sock.setsockopt(_socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(_socket.IPPROTO_IP, _IP_PKTINFO, 1)


def through(family: int, interface: int, source: bytes = b"") -> list[tuple[int, int, bytes]]:
    """The control data with which a datagram leaves through that interface, or a VRF; 0: any.

    `source` is the address of this machine that it is to come from, packed; none: the kernel's
    choice.
    """
    index = interface.to_bytes(4, sys.byteorder)
    if not interface and not source:
        return []
    if family == _socket.AF_INET:
        return [(_socket.IPPROTO_IP, _IP_PKTINFO, index + (source or bytes(4)) + bytes(4))]
    return [(_socket.IPPROTO_IPV6, _IPV6_PKTINFO, (source or bytes(16)) + index)]


def local_host(address: Address, port: int = 9) -> str:
    """The address of this machine that it would send from to there. OSError if there is no way."""
    sock = _socket.socket(address.family, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(peer(address, port))
        return str(sock.getsockname()[0])
    finally:
        sock.close()

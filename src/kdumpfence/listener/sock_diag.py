# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which sockets hold a UDP port in this network namespace, and whose they are.

The kernel says so (sock_diag(7), linux/inet_diag.h), and /proc which processes have them open.
What may not be in this file: what that means for our own sockets (`port_rivals`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from kdumpfence.links import DUMP, ERROR, ask, attributes

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_SKV6ONLY = 11  # INET_DIAG_SKV6ONLY
_TCP_ESTABLISHED = 1

#: Others that one line names.
NAMED = 3


class Holder(NamedTuple):
    """A UDP socket that is bound to the port."""

    family: int
    #: As inet_ntop writes it.
    address: str
    #: Of the user who made it, and of the socket.
    uid: int
    inode: int
    #: Whether it takes no IPv4 either (of AF_INET6).
    v6only: bool
    #: Whether it hears only one address.
    connected: bool

    def __str__(self) -> str:
        return f"user {self.uid} at {self.address}"


class Process(NamedTuple):
    """A process that has a socket open."""

    number: int
    #: For people.
    text: str
    #: What it was started by, its words separated by zeroes.
    command: bytes


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
    named = processes({one.inode for one in found})
    told = {
        f"{named[one.inode][0].text if one.inode in named else 'a process'} of user {one.uid}"
        for one in found
    }
    return ", ".join(sorted(told)[:NAMED])


def _dump(family: int, port: int) -> Iterator[Holder]:
    """What sock_diag(7) says of the UDP sockets of a family that have this local port."""
    wanted = struct.pack("=BBBxI", family, socket.IPPROTO_UDP, 0, 0xFFFFFFFF)
    wanted += struct.pack(">HH", port, 0) + bytes(36) + b"\xff" * 8  # any address, any cookie
    for kind, body in ask(_BY_FAMILY, DUMP, wanted, protocol=_SOCK_DIAG):
        if kind == ERROR:
            number = -struct.unpack_from("=i", body)[0]
            raise OSError(number, os.strerror(number))
        if kind == _BY_FAMILY:
            yield _holder(body)


def _holder(message: bytes) -> Holder:
    """One inet_diag_msg."""
    family, state = message[0], message[1]
    packed = message[8:12] if family == socket.AF_INET else message[8:24]
    uid, inode = struct.unpack_from("=II", message, 64)
    v6only = any(kind == _SKV6ONLY and value[0] for kind, value in attributes(message[72:]))
    address = socket.inet_ntop(family, packed)
    return Holder(family, address, uid, inode, v6only, state == _TCP_ESTABLISHED)


def processes(inodes: set[int]) -> dict[int, list[Process]]:
    """Inode of a socket -> the processes that have it open, of those that may be looked at."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, list[Process]] = {}
    for process in filter(str.isdigit, os.listdir("/proc") if inodes else ()):
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{process}/fd"):
                inode = wanted.get(os.readlink(f"/proc/{process}/fd/{fd}"))
                if inode is not None:
                    with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
                        text = f"process {process} ({file.read().strip()})"
                    with open(f"/proc/{process}/cmdline", "rb") as command:
                        its = Process(int(process), text, command.read(65536))
                    found.setdefault(inode, []).append(its)
    return found

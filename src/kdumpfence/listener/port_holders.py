# SPDX-License-Identifier: GPL-2.0-or-later
"""Which sockets hold a UDP port in this network namespace, and whose they are.

The kernel says so (sock_diag(7), linux/inet_diag.h), and /proc which processes have them open.
What may not be in this file: what that means for our own sockets (`deafness`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST_DUMP = 0x301
_INET_DIAG_SKV6ONLY = 11
_TCP_ESTABLISHED = 1

#: Seconds that the kernel may take to answer.
_PATIENCE = 2.0

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
    return ", ".join(sorted(told)[:NAMED])


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

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The UDP sockets that a `Listener` reads: opened on one port, or made by others and checked.

What every socket here has to go through is in `kdumpfence.sockets`. What may not be in this file:
reading.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence

from kdumpfence.addresses import FAMILIES, Address, LookUpError, cleaned, literal
from kdumpfence.listener import sock_diag
from kdumpfence.listener.nodes import AnyAddress, as_text
from kdumpfence.listener.port_rivals import claim
from kdumpfence.sockets import guard, peer, prepare_udp
from kdumpfence.unpatched import original

#: Ports that are tried where any will do.
PORTS_TRIED = 100


def parsed_host(given: AnyAddress, family: int) -> Address:
    """An address to listen on: one of this machine's, or 0.0.0.0 or "::" for all of a family.

    `family` is one of FAMILIES' values. ValueError if it can be none, or not of that family.
    """
    text = cleaned(as_text(given))
    try:
        for name, all_of_it in (("ipv4", "0.0.0.0"), ("ipv6", "::")):
            if text == all_of_it and family in (socket.AF_UNSPEC, FAMILIES[name]):
                return Address(socket.inet_pton(FAMILIES[name], text))
        found = literal(text, family)
    except LookUpError as error:
        raise ValueError(f"host {text!r}: {error}") from None
    if not found:
        raise ValueError(f"host {text!r}: not an IP address of this machine")
    return found[0]


def open_sockets(
    families: Iterable[int], port: int, hosts: Iterable[Address] = ()
) -> list[socket.socket]:
    """A socket for each of these families that the kernel has, on one port (0: any).

    With `hosts` a socket for each of these addresses instead. OSError with one line if the port, or
    an address, is not to be had.
    """
    places: list[tuple[int, Address | None]] = [(host.family, host) for host in hosts]
    places = places or [(family, None) for family in families]
    tries = 1 if port else PORTS_TRIED
    while True:
        tries -= 1
        try:
            return _open_on_one_port(places, port)
        except OSError as error:
            # What is free for one family may be taken for the other.
            if error.errno != errno.EADDRINUSE:
                raise
            if not tries:
                others = sock_diag.who(port)
                raise OSError(
                    error.errno,
                    f"{error.strerror} (another program holds it{others and ': ' + others})",
                ) from None


def _open_on_one_port(
    places: Sequence[tuple[int, Address | None]], port: int
) -> list[socket.socket]:
    opened: list[socket.socket] = []
    missing: OSError | None = None
    where = ""
    try:
        for family, host in places:
            where = f"{host} " if host is not None else ""
            try:
                opened.append(_open_socket(family, port, host))
            except OSError as error:
                absent = error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
                if host is not None or not absent:
                    raise
                missing = error  # this kernel has no IPv6, say
                continue
            port = port or opened[0].getsockname()[1]
        if not opened and missing is not None:
            raise missing
    except OSError as error:
        for sock in opened:
            sock.close()
        raise OSError(error.errno, f"{where}port {port}/udp: {error.strerror}") from None
    return opened


def _open_socket(family: int, port: int, host: Address | None) -> socket.socket:
    """A UDP socket bound to the port. OSError if another program holds it."""
    sock: socket.socket = original("socket", "socket")(family, socket.SOCK_DGRAM)
    try:
        prepare_udp(sock)
        # Never shared (SO_REUSEADDR): of two sockets the kernel gives all to one, and the other's
        # program never knows. Agents hear beside it, by raw sockets.
        sock.bind(("", port) if host is None else peer(host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def taken_over(given: Iterable[socket.socket]) -> list[socket.socket]:
    """Sockets that others made, ready to be read, and shared with nobody any more.

    ValueError for what is not a bound UDP socket, OSError if the kernel refuses what they need.
    """
    sockets = list(given)
    if not sockets:
        raise ValueError("sockets: at least one bound UDP socket is required")
    for sock in sockets:
        kind = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or kind != socket.SOCK_DGRAM:
            raise ValueError(f"socket {sock.fileno()}: not a UDP socket")
        if not sock.getsockname()[1]:
            raise ValueError(f"socket {sock.fileno()}: not bound to a port")
    for sock in sockets:
        claim(sock)
        guard(sock)
    return sockets

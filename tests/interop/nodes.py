# SPDX-License-Identifier: LGPL-2.1-or-later
"""The other side of the wire: plain sockets that play cluster nodes, on this host or on another.

Every address of 127.0.0.0/8 is ours to send from, so most nodes are sockets bound to one of
them. But what comes over loopback is only believed from such an address, and if it was given as
one. So nodes with an address of 10.7.0.0/24 or fd00::/64 are on another host, see `network`.
Nothing here knows the product.
"""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import time
from collections.abc import Iterator

from tests.conftest import cannot_run
from tests.support import netlab
from tests.support.messages import family, udp_datagram

AGENT_4, AGENT_6 = "127.0.0.1", "::1"  # where the agents of these tests are to be reached...
DISTANT_AGENT_4, DISTANT_AGENT_6 = "10.7.0.1", "fd00::1"  # ...from the other host
_DISTANT = (ipaddress.ip_network("10.7.0.0/24"), ipaddress.ip_network("fd00::/64"))

_elsewhere: netlab.Host | None = None


@contextlib.contextmanager
def network() -> Iterator[netlab.Host]:
    """Two hosts; gives the one on which tests and agents are to run, nodes are on the other."""
    global _elsewhere  # noqa: PLW0603
    with netlab.Lab() as lab:
        here, _elsewhere = lab.host("survivor"), lab.host("nodes")
        lab.link(
            _elsewhere,
            here,
            [f"{start}{number}{prefix}" for number in (2, 3, 9)
             for start, prefix in (("10.7.0.", "/24"), ("fd00::", "/64"))],
            [f"{DISTANT_AGENT_4}/24", f"{DISTANT_AGENT_6}/64"],
        )  # fmt: skip
        yield here
    _elsewhere = None


def _is_distant(address: str) -> bool:
    return any(ipaddress.ip_address(address) in network for network in _DISTANT)


def _open(address: str, kind: int, protocol: int = 0) -> socket.socket:
    """A socket where that address is."""
    if not _is_distant(address):
        return socket.socket(family(address), kind, protocol)
    if _elsewhere is None:
        cannot_run("network namespaces need root")
    return _elsewhere.open_socket(family(address), kind, protocol)


def agent_address(node: str) -> str:
    """Return the address at which a node with this address reaches the agents."""
    ipv6 = family(node) == socket.AF_INET6
    if _is_distant(node):
        return DISTANT_AGENT_6 if ipv6 else DISTANT_AGENT_4
    return AGENT_6 if ipv6 else AGENT_4


class UdpSocket:
    """A UDP socket of one family, bound to this address and port."""

    def __init__(self, address: str, port: int) -> None:
        self.address = address
        self.socket = _open(address, socket.SOCK_DGRAM)
        if self.socket.family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            self.socket.bind((address, port))
        except OSError:
            self.socket.close()
            raise

    def close(self) -> None:
        """Give the address and port back."""
        self.socket.close()


class Node(UdpSocket):
    """A node in its crash kernel: sends datagrams to the agents from its own address."""

    def __init__(self, address: str) -> None:
        super().__init__(address, 0)

    def says(self, datagram: bytes, port: int) -> None:
        """Send one datagram to the agents' host."""
        self.socket.sendto(datagram, (agent_address(self.address), port))


class Receiver(UdpSocket):
    """A plain UDP program that holds a port, without SO_REUSEADDR."""

    def hears(self, seconds: float) -> bytes | None:
        """Return the next datagram, or None if none comes within this many seconds."""
        ready, _, _ = select.select([self.socket], [], [], seconds)
        return self.socket.recv(2048) if ready else None

    def hears_for(self, seconds: float) -> list[bytes]:
        """Return all datagrams that arrive within this many seconds."""
        end, heard = time.monotonic() + seconds, []
        while (left := end - time.monotonic()) > 0:
            datagram = self.hears(left)
            if datagram is not None:
                heard.append(datagram)
        return heard


def send_raw(
    node: str,
    port: int,
    payload: bytes,
    *,
    length: int | None = None,
    sum_is: int | None = None,
    sum_xor: int = 0,
) -> None:
    """Send a UDP packet made by hand (see `udp_datagram`) from `node`; needs CAP_NET_RAW."""
    agent = agent_address(node)
    datagram = udp_datagram(
        node, agent, payload, port=port, length=length, sum_is=sum_is, sum_xor=sum_xor
    )
    with _open(node, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        raw.bind((node, 0))
        raw.sendto(datagram, (agent, 0))

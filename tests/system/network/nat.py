# SPDX-License-Identifier: LGPL-2.1-or-later
"""A router that hides the hosts behind it, as most do: what goes out has its own address and a port
of its choice, and in comes nothing but what answers that, from the very address and port.

For UDP over IPv4, without help of the kernel's packet filters, which not every kernel has.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading

from tests.support.messages import checksum, udp_in_frame
from tests.support.netlab import Host, joined

_EVERY_PROTOCOL = 3  # ETH_P_ALL
_UDP = 17


class Nat:
    """Translates what hosts behind `inner` send out of `router`, as long as the block lasts."""

    def __init__(self, router: Host, inner: str, outer_address: str) -> None:
        self._router = router
        self._outer_address = outer_address
        with joined(router.pid, "net"):
            self._frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self._frames.bind((inner, _EVERY_PROTOCOL))
        self._inside = router.open_socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        #: By (source, its port, target, its port): the socket that stands for it outside.
        self._flows: dict[tuple[str, int, str, int], socket.socket] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Nat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._frames.close()

    def ports(self) -> set[int]:
        """Those outside that stand for somebody."""
        return {sock.getsockname()[1] for sock in list(self._flows.values())}

    def _run(self) -> None:
        while not self._ended.is_set():
            flows = {sock: flow for flow, sock in self._flows.items()}
            for ready in select.select([self._frames, *flows], [], [], 0.02)[0]:
                with contextlib.suppress(OSError):  # what an ICMP error told of
                    if ready is self._frames:
                        self._out(self._frames.recv(2048))
                    else:
                        self._in(flows[ready], ready.recv(2048))

    def _out(self, frame: bytes) -> None:
        found = udp_in_frame(frame)
        if found is None:
            return
        source, target, port, payload = found
        if ":" in source or source == self._router_side(target):
            return
        header = 14 + frame[14] % 16 * 4
        flow = (source, struct.unpack_from("!H", frame, header)[0], target, port)
        if flow not in self._flows:
            sock = self._router.open_socket()
            sock.bind((self._outer_address, 0))
            sock.connect((target, port))
            self._flows[flow] = sock
        self._flows[flow].send(payload)

    def _router_side(self, target: str) -> str:
        """The source of frames that this router has sent inside itself."""
        return next((flow[2] for flow in self._flows if flow[0] == target), "")

    def _in(self, flow: tuple[str, int, str, int], payload: bytes) -> None:
        inner, inner_port, outer, outer_port = flow
        ends = socket.inet_aton(outer) + socket.inet_aton(inner)
        length = 8 + len(payload)
        ports = struct.pack("!3H", outer_port, inner_port, length)
        pseudo = ends + struct.pack("!HH", _UDP, length)
        field = checksum(pseudo + ports + b"\0\0" + payload) or 0xFFFF
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, _UDP, 0)
        datagram = head + ends + ports + struct.pack("!H", field) + payload
        self._inside.sendto(datagram, (inner, 0))

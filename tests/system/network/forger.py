# SPDX-License-Identifier: LGPL-2.1-or-later
"""What any user of a host can do: send a message from an address that the host does not have.

Run as `python forger.py SOURCE TARGET DEVICE PORT DATA` on the host, without rights. TARGET may
have an interface, as in fe80::2%eth0; DEVICE may be ""; DATA is hexadecimal. Exit status 0: the
message has left.
"""

from __future__ import annotations

import os
import socket
import sys

IP_FREEBIND = 15
IPV6_FREEBIND = 78


def main(source: str, target: str, device: str, port: str, data: str) -> None:
    (family, _, _, _, to), *_ = socket.getaddrinfo(
        target, int(port), type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
    )
    (*_, own), *_ = socket.getaddrinfo(
        source, 0, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
    )
    # Not before: what Python imports for that may be root's alone.
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind(own)
        sock.sendto(bytes.fromhex(data), to)


if __name__ == "__main__":
    main(*sys.argv[1:])

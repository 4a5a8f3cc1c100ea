#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# IPv6: a socket keeps sending from an address that has been removed from the node.
#
# A cluster moves a service address (IPaddr2): it is removed here and added on another node. One
# would expect that nothing leaves here from that address any more. IPv4 works like that: a socket
# bound to the address gets an error. Over IPv6 such a socket keeps sending, with success, from an
# address that is the other node's now. So does a socket that is only connected, if the kernel chose
# this address for it.
#
# So a receiver that knows nodes by address takes one node for the other. A program that runs while
# addresses move has to bind to the node's own address, or open a new socket.
#
# Linux 7.2.7 and 6.12.113 (user-mode-linux 7.2um1 of Debian sid, 6.12um1+b22 of Debian 13).
# Exit status: 0 it is still so, 1 it has changed, 2 it could not be run.

set -eu
# shellcheck source=/dev/null
. "$(dirname "$0")/common"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM

expected='IPv4, socket bound to 192.0.2.9:
  8 bytes sent; on the wire: from 192.0.2.9
  192.0.2.9 is removed
  Network is unreachable; on the wire: nothing
IPv4, socket connected:
  8 bytes sent; on the wire: from 192.0.2.1
  192.0.2.9 is removed
  8 bytes sent; on the wire: from 192.0.2.1
IPv6, socket bound to 2001:db8::9:
  8 bytes sent; on the wire: from 2001:db8::9
  2001:db8::9 is removed
  8 bytes sent; on the wire: from 2001:db8::9
IPv6, socket connected:
  8 bytes sent; on the wire: from 2001:db8::9
  2001:db8::9 is removed
  8 bytes sent; on the wire: from 2001:db8::9'

cat >"$work/test.py" <<'PYTHON'
import fcntl
import os
import select
import socket
import struct
import subprocess
import time

PORT = 7410
NETWORKS = {  # the node's own address, the service's, a neighbour, length of the prefix
    socket.AF_INET: ("192.0.2.1", "192.0.2.9", "192.0.2.2", 24),
    socket.AF_INET6: ("2001:db8::1", "2001:db8::9", "2001:db8::2", 64),
}


def ip(words):
    subprocess.run(["ip", *words.split()], check=True)


def on_the_wire():
    end = time.monotonic() + 1
    while (left := end - time.monotonic()) > 0 and select.select([cable], [], [], left)[0]:
        frame = os.read(cable, 2048)
        if frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_UDP:
            return "from " + socket.inet_ntop(socket.AF_INET, frame[26:30])
        if frame[12:14] == b"\x86\xdd" and frame[20] == socket.IPPROTO_UDP:
            return "from " + socket.inet_ntop(socket.AF_INET6, frame[22:38])
    return "nothing"


def send():
    try:
        if how == "connected":
            number = sock.send(b"12345678")
        else:
            number = sock.sendto(b"12345678", (there, PORT))
        result = f"{number} bytes sent"
    except OSError as error:
        result = error.strerror
    print(f"  {result}; on the wire: {on_the_wire()}")


# An Ethernet interface whose cable is this file.
cable = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(cable, 0x400454CA, struct.pack("16sH22x", b"eth0", 0x1002))  # TUNSETIFF: TAP, no PI
ip("link set lo up")
ip("link set eth0 up")
for family, (own, service, there, length) in NETWORKS.items():
    version, nodad = (4, "") if family == socket.AF_INET else (6, "nodad")
    ip(f"address add {own}/{length} dev eth0 {nodad}")
    ip(f"neighbour add {there} lladdr 02:00:00:00:00:02 dev eth0")
    for how in (f"bound to {service}", "connected"):
        print(f"IPv{version}, socket {how}:")
        ip(f"address add {service}/{length} dev eth0 {nodad}")
        sock = socket.socket(family, socket.SOCK_DGRAM)
        if how == "connected":
            sock.connect((there, PORT))
        else:
            sock.bind((service, 0))
        send()
        print(f"  {service} is removed")
        ip(f"address delete {service}/{length} dev eth0")
        send()
PYTHON

echo 'python3 /test.py' >"$work/test.sh"

each_linux "$work" "$expected" sid=7.2um1 trixie=6.12um1+b22
at_least_one

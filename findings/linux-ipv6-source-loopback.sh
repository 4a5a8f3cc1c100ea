#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# IPv6, an address that is still tentative: the kernel sends from ::1, and reports success.
#
# An interface comes up, and its address is tentative for a second or two (duplicate address
# detection, RFC 4862). A program that sends a datagram meanwhile would expect an error, and gets
# one while the loopback interface is down: "Cannot assign requested address". With the loopback
# interface up, as on every running system, it gets none: the kernel takes ::1 for the source, and
# sendto() says that all is sent. Nobody ever hears it. Where the neighbour has to be asked for
# first the datagram stays in the queue for that; where it is known the datagram leaves as it is,
# with ::1 as the source, which no node may send (RFC 4291, 2.5.3) and every receiver drops.
#
# So "sent" means little in a crash kernel whose network has just come up: what counts is from
# which address (connect() a UDP socket and ask getsockname()).
#
# Linux 7.2.7 and 6.12.113 (user-mode-linux 7.2um1 of Debian sid, 6.12um1+b22 of Debian 13).
# Exit status: 0 it is still so, 1 it has changed, 2 it could not be run.

set -eu
# shellcheck source=/dev/null
. "$(dirname "$0")/common"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM

expected='loopback down, address tentative:
  Cannot assign requested address
loopback up, address tentative:
  8 bytes sent, from ::1; on the wire: nothing
loopback up, address tentative, neighbour known:
  8 bytes sent, from ::1; on the wire: from ::1
loopback up, address usable, neighbour known:
  8 bytes sent, from 2001:db8::1; on the wire: from 2001:db8::1'

cat >"$work/test.py" <<'PYTHON'
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import time

HERE, THERE, PORT = "2001:db8::1", "2001:db8::2", 7410


def ip(words):
    subprocess.run(["ip", *words.split()], check=True)


# An Ethernet interface whose cable is this file.
cable = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(cable, 0x400454CA, struct.pack("16sH22x", b"eth0", 0x1002))  # TUNSETIFF: TAP, no PI
if "lo" in sys.argv:
    ip("link set lo up")
ip("link set eth0 up")
ip(f"address add {HERE}/64 dev eth0")
if "known" in sys.argv:
    ip(f"neighbour add {THERE} lladdr 02:00:00:00:00:02 dev eth0")
tentative = "tentative" in subprocess.run(
    ["ip", "address", "show", "dev", "eth0", "to", HERE], capture_output=True, text=True
).stdout
assert tentative, "the address is usable at once: nothing to see"
if "later" in sys.argv:
    time.sleep(4)

sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
try:
    number = sock.sendto(b"12345678", (THERE, PORT))
    sock.connect((THERE, PORT))
except OSError as error:
    sys.exit(print(f"  {error.strerror}"))

seen, end = "nothing", time.monotonic() + 1.5
while (left := end - time.monotonic()) > 0 and select.select([cable], [], [], left)[0]:
    frame = os.read(cable, 2048)
    if frame[12:14] == b"\x86\xdd" and frame[20] == socket.IPPROTO_UDP:
        seen = "from " + socket.inet_ntop(socket.AF_INET6, frame[22:38])
print(f"  {number} bytes sent, from {sock.getsockname()[0]}; on the wire: {seen}")
PYTHON

cat >"$work/test.sh" <<'SHELL'
try() {
    echo "$1:"
    shift
    unshare -n python3 /test.py "$@"
}
try "loopback down, address tentative"
try "loopback up, address tentative" lo
try "loopback up, address tentative, neighbour known" lo known
try "loopback up, address usable, neighbour known" lo known later
SHELL

each_linux "$work" "$expected" sid=7.2um1 trixie=6.12um1+b22
at_least_one

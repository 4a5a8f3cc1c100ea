#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The kernel's count of a socket's drops is no count of what was lost.
#
# SO_MEMINFO's SK_MEMINFO_DROPS, the "d" of `ss -m` and the last column of /proc/net/udp read like
# the datagrams for which a queue had no room. On a UDP socket they also count each datagram that
# the socket's own filter (SO_ATTACH_FILTER) turned away, on purpose; on a raw socket with the very
# same filter they do not. A program that looks at them to learn whether its queue is too short
# hears, on a UDP socket with a filter, mostly of the rubbish that the filter kept out. On a raw
# socket it hears of the queue alone.
#
# Linux 7.2.7 and 6.12.113 (user-mode-linux 7.2um1 of Debian sid, 6.12um1+b22 of Debian 13).
# Exit status: 0 it is still so, 1 it has changed, 2 it could not be run.

set -eu
# shellcheck source=/dev/null
. "$(dirname "$0")/common"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 2' HUP INT TERM

expected='10 datagrams that the filter turns away:
  UDP socket, IPv4: 10 drops, in /proc/net/udp 10
  raw socket, IPv4: 0 drops, in /proc/net/raw 0
  UDP socket, IPv6: 10 drops, in /proc/net/udp6 10
  raw socket, IPv6: 0 drops, in /proc/net/raw6 0
100 datagrams without a filter, room for a few:
  UDP socket, IPv4: drops, and all others were there
  raw socket, IPv4: drops, and all others were there
  UDP socket, IPv6: drops, and all others were there
  raw socket, IPv6: drops, and all others were there'

cat >"$work/test.py" <<'PYTHON'
import array
import socket
import struct

SO_MEMINFO, SK_MEMINFO_DROPS, PORT = 55, 8, 7410
NOTHING = array.array("B", struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0


def drops(sock):
    numbers = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * 9)
    return struct.unpack("9I", numbers)[SK_MEMINFO_DROPS]


def listed(sock):
    name = ("udp" if sock.type == socket.SOCK_DGRAM else "raw") + "6" * (sock.family == socket.AF_INET6)
    (line,) = open(f"/proc/net/{name}").read().splitlines()[1:]
    return f"in /proc/net/{name} {line.split()[-1]}"


def sockets():
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
            sock = socket.socket(family, kind, socket.IPPROTO_UDP)
            if kind == socket.SOCK_DGRAM:
                sock.bind((host, PORT))
            name = "UDP" if kind == socket.SOCK_DGRAM else "raw"
            yield sock, f"  {name} socket, IPv{4 if family == socket.AF_INET else 6}:"
            sock.close()


def send(sock, number):
    with socket.socket(sock.family, socket.SOCK_DGRAM) as sender:
        host = "127.0.0.1" if sock.family == socket.AF_INET else "::1"
        for _ in range(number):
            try:
                sender.sendto(b"12345678", (host, PORT))
            except ConnectionRefusedError:  # of the one before, where only a raw socket hears
                sender.sendto(b"12345678", (host, PORT))


print("10 datagrams that the filter turns away:")
for sock, name in sockets():
    program = struct.pack("HP", 1, NOTHING.buffer_info()[0])
    sock.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER
    send(sock, 10)
    print(name, f"{drops(sock)} drops,", listed(sock))

print("100 datagrams without a filter, room for a few:")
for sock, name in sockets():
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    send(sock, 100)
    sock.setblocking(False)
    read = 0
    try:
        while sock.recv(100):
            read += 1
    except BlockingIOError:
        pass
    lost = drops(sock)
    print(name, "drops, and all others were there" if lost and lost + read == 100 else (lost, read))
PYTHON

echo 'ip link set lo up; python3 /test.py' >"$work/test.sh"

each_linux "$work" "$expected" sid=7.2um1 trixie=6.12um1+b22
at_least_one

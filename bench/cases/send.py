# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sending one message to each of 10,000 nodes.

First the loop: `Transmitter.send` beside a bare C loop, from the same socket to the same
addresses, in turns. Both send in this thread, and a sample is messages by its processor time. On
loopback that time holds the kernel's receiving as well, which is the same for both: a socket with
a filter takes the messages and drops them, so that no reader is needed and nothing is answered.

Then the programs: one run each with as many descriptors as a process has by default, for more
nodes than that. A socket beside them counts the nodes that were told.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.paired import MEASURED_CPU, Figure, alternate, c_library, figure, pinned, say
from bench.programs import PORT, need_own_network
from kdumpfence import filters
from kdumpfence.install import native_sender
from kdumpfence.wire import OWN_MESSAGE, Transmitter
from tests.interop import stock

GROUP = "4 send"
NODES = 10_000
#: Messages of one system call; ours and the bare loop's, and the most that Linux takes.
BATCH = 1024
#: Descriptors that a process may have unless somebody allows it more.
DESCRIPTORS = 1024

#: A network of which every address is this machine's own, as 127/8 is.
IPV6 = "fd00::/64"

_SO_RCVBUFFORCE = 33
_IP_PKTINFO = 8


def destinations(count: int, family: int = socket.AF_INET) -> list[bytes]:
    """As many addresses: 127.1.0.1 and on, or fd00::1 and on."""
    if family == socket.AF_INET:
        return [(0x7F010001 + number).to_bytes(4, "big") for number in range(count)]
    return [b"\xfd" + bytes(11) + number.to_bytes(4, "big") for number in range(1, count + 1)]


@contextlib.contextmanager
def dropping(family: int) -> Iterator[int]:
    """A socket that the kernel delivers to and that drops everything; its port."""
    host = "0.0.0.0" if family == socket.AF_INET else "::"
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        filters.attach(sock, filters.NOTHING)
        sock.bind((host, 0))
        yield int(sock.getsockname()[1])


def bare(sock: socket.socket, packed: list[bytes], port: int) -> Callable[[], int]:
    """The bare C loop to these addresses: how many messages went out."""
    library = c_library("sendmmsg")
    library.bare_make.restype = ctypes.c_void_p
    library.bare_send.restype = ctypes.c_long
    joined, family = b"".join(packed), int(sock.family)
    made = library.bare_make(family, joined, len(packed), port, OWN_MESSAGE, len(OWN_MESSAGE))
    if not made:
        raise MemoryError
    return lambda: int(library.bare_send(ctypes.c_void_p(made), sock.fileno(), BATCH))


def ours(sock: socket.socket, packed: list[bytes], port: int) -> Callable[[], int]:
    """The same with the core's loop."""
    transmitter = Transmitter(sock, OWN_MESSAGE)
    for address in packed:
        transmitter.add(address, port)
    return lambda: transmitter.send().count(0)


def sampler(send: Callable[[], int], nodes: int, times: int) -> Callable[[], float]:
    """Send so many times: messages a second of processor time."""

    def sample() -> float:
        began, sent = time.thread_time_ns(), 0
        for _ in range(times):
            sent += send()
        took = time.thread_time_ns() - began
        if sent != times * nodes:
            raise RuntimeError(f"{sent} of {times * nodes} messages went out")
        return sent / took * 1e9

    return sample


def _loops(
    key: str, title: str, family: int, heard: bool, quick: bool, note: str = "", bound: float = 0.0
) -> Figure:
    """Both loops; `heard`: whether there is a socket that the messages arrive at."""
    packed = destinations(NODES, family)
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(dropping(family)) if heard else PORT
        sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        stack.enter_context(pinned())
        times, rounds = (1, 3) if quick else (4, 25)
        samples = alternate(
            rounds,
            ours=sampler(ours(sock, packed, port), NODES, times),
            peer=sampler(bare(sock, packed, port), NODES, times),
        )
    return figure(
        key, GROUP, title, "messages/s", samples["ours"], samples["peer"],
        f"bare C sendmmsg, {BATCH} a call", "at least" if bound else "", bound, note,
    )  # fmt: skip


# ----------------------------------------------------------------------- programs


def _limit(descriptors: int) -> Callable[[], None]:
    def set_limits() -> None:
        os.sched_setaffinity(0, {MEASURED_CPU})
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))

    return set_limits


def _argv(program: str) -> list[str]:
    names = [socket.inet_ntoa(packed) for packed in destinations(NODES)]
    return [program, "-c", "1", "-i", "1", "-p", str(PORT), *names]


def _told(program: str) -> tuple[int, int, str]:
    """Run a sender for all nodes: how many were told, its exit status, its last complaint."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4096 * NODES)
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.bind(("0.0.0.0", PORT))
        done = subprocess.run(
            [*_argv(program), "-v"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            preexec_fn=_limit(DESCRIPTORS),
        )
        told: set[bytes] = set()
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                _, control, _, _ = sock.recvmsg(64, 64)
                told.update(struct.unpack_from("=8x4s", data)[0] for _, _, data in control)
    errors = [line for line in done.stderr.splitlines() if line.startswith("[error]")]
    return len(told), done.returncode, errors[-1] if errors else ""


def _descriptors(key: str, form: str, program: str, stock_result: tuple[int, int, str]) -> Figure:
    told, _, said = _told(program)
    stock_told, status, complaint = stock_result
    return figure(
        key, GROUP, f"nodes told with {DESCRIPTORS:,} descriptors, of {NODES:,}; {form}", "nodes",
        (float(told),), (float(stock_told),), "stock fence_kdump_send", "at least", NODES,
        f'The stock sender\'s last word: "{complaint}"; exit status {status}.'
        + (f' Ours: "{said}".' if said else ""),
        of="ours",
    )  # fmt: skip


def _run_of(program: str) -> Callable[[], float]:
    """Processor time of one whole run that tells all nodes once, in milliseconds."""

    def run() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            _argv(program), capture_output=True, check=True, preexec_fn=_limit(NODES + 100)
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    return run


def figures(quick: bool) -> list[Figure]:
    """Sending to 10,000 destinations."""
    need_own_network()
    python, core = (
        str(Path(sys.executable).with_name("fence_kdump_send")),
        native_sender.find(False),
    )
    theirs = str(stock.get().sender)
    say(f"sending to {NODES:,} nodes")
    found = [
        _loops("send-10000", f"send to {NODES:,} nodes, one socket", socket.AF_INET, True, quick,
               "The nodes are 127.1.0.1 and on. A socket takes and drops all.", 0.95)
    ]  # fmt: skip
    say("sending where nobody listens")
    found.append(
        _loops("send-10000-refused", "the same, and each message is answered: port unreachable",
               socket.AF_INET, False, quick, "No socket at all is bound to the port.")
    )  # fmt: skip
    ip = ["ip", "-6", "route", "add", "local", IPV6, "dev", "lo"]
    if subprocess.run(ip, capture_output=True, check=False).returncode == 0:
        say("sending over IPv6")
        found.append(
            _loops("send-10000-ipv6", "the same over IPv6", socket.AF_INET6, True, quick,
                   f"The nodes are in {IPV6}, which a route makes local.", 0.95)
        )  # fmt: skip
    else:
        say("no IPv6 here: that line is left out")
    say(f"whole senders with {DESCRIPTORS:,} descriptors")
    limited = _told(theirs)
    found += [
        _descriptors("send-sockets-native", "native sender", core, limited),
        _descriptors("send-sockets-python", "sender in Python", python, limited),
    ]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= NODES + 100:
        say("whole senders with as many descriptors as nodes")
        samples = alternate(2 if quick else 5, ours=_run_of(core), peer=_run_of(theirs))
        found.append(
            figure("send-run", GROUP, f"the whole native sender, once to {NODES:,} nodes", "ms",
                   samples["ours"], samples["peer"], "stock fence_kdump_send",
                   note=f"Processor time. Stock was allowed {NODES + 100:,} descriptors.")
        )  # fmt: skip
    return found

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The port is the daemon's alone: nobody takes its messages, and one who could is noticed."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from kdumpfence import Listener, filters
from kdumpfence.listener import port_rivals, sock_diag
from tests.conftest import cannot_run, unused_port
from tests.daemon.running import NODE, Kdumpfenced, patched, until

DEVICE = 25  # SO_BINDTODEVICE

#: Tries to bind the port in every way, as the user nobody; prints those that worked and could get
#: what comes over one of the families that are given.
THIEF = """
import itertools, json, os, socket, sys
port, families = int(sys.argv[1]), set(json.loads(sys.argv[2]))
if os.geteuid() == 0 and sys.argv[3] != "root":
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
places = [(socket.AF_INET, host, 0) for host in ("", "127.0.0.1", "127.255.255.255", "10.0.0.1")]
places += [
    (socket.AF_INET6, host, v6only)
    for host in ("::", "::1", "::ffff:127.0.0.1", "::ffff:0.0.0.0")
    for v6only in (0, 1)
]
options = (socket.SO_REUSEADDR, socket.SO_REUSEPORT)
ways = [chosen for n in range(3) for chosen in itertools.combinations(options, n)]
kept, bound = [], []

def attempt():
    for (family, host, v6only), way, device in itertools.product(places, ways, (b"", b"lo")):
        if family == socket.AF_INET6 and 6 not in families and (v6only or host == "::1"):
            continue  # which gets no IPv4
        sock = socket.socket(family, socket.SOCK_DGRAM)
        for option in way:
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        if device:
            sock.setsockopt(socket.SOL_SOCKET, 25, device)
        try:
            sock.bind((host, port))
        except OSError:
            continue
        finally:
            if len(bound) > 3:
                sock.close()
        bound.append([family, host, v6only, way, device.decode()])
        kept.append(sock)

attempt()
# Where many sockets have the same hash, the kernel looks for conflicts in another way.
others = []
for other in range(port % 256 or 256, 65536, 256):
    for host in ("127.0.0.1", "127.0.0.2"):
        if other != port and other >= 1024 and len(others) < 900:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                sock.bind((host, other))
            except OSError:
                continue
            others.append(sock)
attempt()
print(json.dumps(bound), flush=True)
sys.stdin.read()
"""


def thief(port: int, families: tuple[int, ...] = (4, 6), user: str = "nobody") -> list[object]:
    """What a user without rights can bind beside it."""
    done = subprocess.run(
        [sys.executable, "-c", THIEF, str(port), json.dumps(families), user],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return list(json.loads(done.stdout))


@pytest.mark.parametrize("family", ["auto", "ipv4"])
@pytest.mark.parametrize("user", ["nobody", "root"])
@pytest.mark.slow
def test_nobody_can_bind_the_port_beside_the_daemon(
    daemon: Kdumpfenced, family: str, user: str
) -> None:
    daemon.configure(f'networks = ["127.0.0.0/8"]\nfamily = "{family}"')
    daemon.start()
    assert thief(daemon.port, (4, 6) if family == "auto" else (4,), user) == []
    daemon.hears(NODE)
    assert daemon.is_well()


def test_nobody_can_bind_the_port_beside_a_listener(counting: Literal["kernel", "user"]) -> None:
    port = unused_port()
    with Listener(networks=["127.0.0.0/8"], port=port, counting=counting) as listening:
        assert thief(listening.port) == []
        # Sockets of one user share a port by SO_REUSEPORT, if both say so.
        with pytest.raises(OSError, match="in use"):
            made(listening.port, "127.0.0.1", socket.SO_REUSEPORT)
        assert listening.snapshot().deaf == ""


# ------------------------------------------------------------------ passed sockets


PASS = """
import json, os, socket, sys
for at, number in enumerate(json.loads(sys.argv[1])):
    os.dup2(number, 3 + at, inheritable=True)
os.environ.update(LISTEN_FDS=str(at + 1), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="kdump")
os.execv(sys.argv[2], sys.argv[2:])
"""


def made(port: int, host: str = "0.0.0.0", *options: int, device: str = "") -> socket.socket:
    """A bound socket as a service manager makes it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    for option in options:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
    if device:
        sock.setsockopt(socket.SOL_SOCKET, DEVICE, device.encode())
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


class ServiceManager:
    """Starts a daemon with sockets that it holds."""

    def __init__(self, daemon: Kdumpfenced) -> None:
        self._daemon = daemon
        self._sockets: tuple[socket.socket, ...] = ()
        self._fds: list[int] = []

    def __call__(self, *sockets: socket.socket, wait: bool = True) -> None:
        """With these instead of those from before."""
        self.close()
        self._sockets = sockets
        # Somewhere where the dup2 of one does not close another.
        self._fds = [os.dup2(sock.fileno(), 60 + at) for at, sock in enumerate(sockets)]
        self.again(self._daemon, wait=wait)

    def again(self, daemon: Kdumpfenced, wait: bool = True) -> None:
        """Start this one with the same sockets."""
        wrapper = (sys.executable, "-c", PASS, json.dumps(self._fds))
        daemon.start(wrapper, pass_fds=self._fds, wait=wait)

    def close(self) -> None:
        """Let go of the sockets."""
        for fd in self._fds:
            os.close(fd)
        for sock in self._sockets:
            sock.close()
        self._sockets, self._fds = (), []


@pytest.fixture
def start(daemon: Kdumpfenced) -> Iterator[ServiceManager]:
    """The one that starts the daemon of this test."""
    made = ServiceManager(daemon)
    yield made
    made.close()


SHARING = [
    (socket.SO_REUSEADDR,),  # systemd sets this one on every socket
    (socket.SO_REUSEPORT,),
    (socket.SO_REUSEADDR, socket.SO_REUSEPORT),
]


@pytest.mark.parametrize("options", SHARING)
@pytest.mark.parametrize("user", ["nobody", "root"])
@pytest.mark.slow
def test_a_passed_socket_that_shared_its_port_does_not_any_more(
    daemon: Kdumpfenced, start: ServiceManager, options: tuple[int, ...], user: str
) -> None:
    four, six = made(daemon.port, "0.0.0.0", *options), made(daemon.port, "::", *options)
    start(four, six)
    assert thief(daemon.port, (4, 6), user) == []
    daemon.hears(NODE)
    assert daemon.end() == 0
    # And while it is restarted nobody can either.
    assert thief(daemon.port, (4, 6), user) == []


def test_a_socket_given_to_a_listener_does_not_share_its_port_any_more(
    counting: Literal["kernel", "user"],
) -> None:
    sock = made(0, "0.0.0.0", *SHARING[2])
    with Listener(networks=["127.0.0.0/8"], sockets=[sock], counting=counting) as listening:
        assert thief(listening.port, (4,)) == []


def rival(port: int, host: str, device: str = "", peer: str = "") -> socket.socket:
    sock = made(port, host, socket.SO_REUSEADDR, device=device)
    if peer:
        sock.connect((peer, 0))
    return sock


@pytest.mark.parametrize(
    "where",
    [("0.0.0.0",), ("127.0.0.1",), ("0.0.0.0", "lo"), ("0.0.0.0", "", NODE)],
    ids=["later", "more specific", "of an interface", "connected to the node"],
)
@pytest.mark.slow
def test_who_shared_the_port_before_the_daemon_came_is_noticed(
    daemon: Kdumpfenced, start: ServiceManager, where: tuple[str, ...]
) -> None:
    passed = made(daemon.port, "0.0.0.0", socket.SO_REUSEADDR)
    with rival(daemon.port, *where) as other:
        daemon.hear(NODE)
        # It is real: what the node says goes to the other one.
        assert select.select([other, passed], [], [], 10)[0] == [other]
        start(passed)
        daemon.says(f"messages may be missed: port {daemon.port}/udp: ")
        code, why = daemon.get("/health")
        assert code == 503
        assert f" user {os.geteuid()} at " in why
        assert daemon.status().troubles == (why.strip(),)
        page = daemon.get("/metrics")[1]
        assert "\nkdumpfence_deaf 1.0\n" in page
        assert "\nkdumpfence_healthy 0.0\n" in page
    daemon.says("messages are heard again")
    until(daemon.is_well)
    daemon.page_with("\nkdumpfence_deaf 0.0\n")
    daemon.hears(NODE)


@pytest.mark.slow
def test_root_who_makes_the_socket_share_again_is_noticed(
    daemon: Kdumpfenced, start: ServiceManager
) -> None:
    passed = made(daemon.port)
    start(passed)
    daemon.hears(NODE)
    passed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with rival(daemon.port, "127.0.0.1"):
        daemon.says("messages may be missed")
        # And it stopped that again: no third one can come.
        assert thief(daemon.port, (4,)) == []


def test_a_program_on_another_address_or_of_another_family_is_no_rival(
    daemon: Kdumpfenced, start: ServiceManager
) -> None:
    passed = made(daemon.port, "127.0.0.1", socket.SO_REUSEADDR)
    with made(daemon.port, "127.0.0.2"), made(daemon.port, "::"):
        assert port_rivals.rivals([passed], daemon.port) == []
        start(passed)
        assert daemon.is_well()
        assert len(sock_diag.holders(daemon.port)) == 3


def test_a_socket_that_takes_both_families_is_one_of_either() -> None:
    port = unused_port()
    both = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with made(port, "127.0.0.1", socket.SO_REUSEADDR) as ours, both as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("::ffff:127.0.0.1", port))
        assert [str(one) for one in port_rivals.rivals([ours], port)] == [
            f"user {os.geteuid()} at ::ffff:127.0.0.1"
        ]
        assert port_rivals.rivals([ours, other], port) == []


def shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RD)
    except OSError:  # that it is not connected; it is shut down all the same
        pass


def connect(port: int) -> Callable[[socket.socket], None]:
    return lambda sock: sock.connect(("127.0.0.9", port))


@pytest.mark.parametrize(
    ("do", "said"),
    [(connect(1), "is connected"), (connect(0), "is connected"), (shut, "was shut down")],
    ids=["connected", "connected to any port", "shut down"],
)
@pytest.mark.slow
def test_a_socket_that_hears_nobody_any_more_is_refused_and_noticed(
    daemon: Kdumpfenced, start: ServiceManager, do: Callable[[socket.socket], None], said: str
) -> None:
    passed = made(daemon.port)
    start(passed)
    assert daemon.get("/health")[0] == 200
    do(passed)
    address = passed.getsockname()[0]
    daemon.says(f"messages may be missed: port {daemon.port}/udp: the socket of {address} {said}")
    assert daemon.get("/health")[0] == 503
    daemon.end()
    start.close()
    passed = made(daemon.port)
    do(passed)
    start(passed, wait=False)
    assert daemon.ended() == 1
    assert f"kdumpfenced: passed socket 1 ('kdump'): {said}" in daemon.said().splitlines()[-1]


@pytest.mark.usefixtures("root")
def test_an_interface_or_an_address_that_is_gone_is_noticed() -> None:
    def ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            cannot_run(f"ip {' '.join(words)}: {done.stderr}")

    if shutil.which("ip") is None:
        cannot_run("ip is missing")
    name = f"kd{os.getpid()}"
    ip("link", "add", name, "type", "veth", "peer", "name", name + "p")
    try:
        ip("address", "add", "198.18.77.1/32", "dev", name)
        with made(0, "198.18.77.1") as on_address, made(0, "0.0.0.0", device=name) as on_interface:
            for sock in (on_address, on_interface):
                assert port_rivals.fault(sock, sock.getsockname()[1]) == ""
            ip("link", "delete", name)
            name = ""
            for sock, what in ((on_address, "198.18.77.1"), (on_interface, "an interface")):
                fault = port_rivals.fault(sock, sock.getsockname()[1])
                assert fault.startswith(f"is bound to {what}")
    finally:
        if name:
            ip("link", "delete", name)


def test_a_socket_that_lost_its_port_is_told_of() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert port_rivals.fault(sock, 7410)
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert port_rivals.fault(sock, port + 1) == f"is bound to port {port}"
        assert port_rivals.why_deaf([sock], port) == ""


def test_a_filter_on_a_passed_socket_is_taken_off_or_refused(
    daemon: Kdumpfenced, start: ServiceManager
) -> None:
    passed = made(daemon.port)
    filters.attach(passed, filters.program("raw6", 1))  # which lets nothing through here
    start(passed)
    daemon.hears(NODE)
    assert daemon.end() == 0
    passed.setsockopt(socket.SOL_SOCKET, 44, 1)  # SO_LOCK_FILTER
    start.again(daemon, wait=False)
    assert daemon.ended() == 1
    assert "passed socket 1 ('kdump'): has a filter" in daemon.said()


def test_two_daemons_with_one_passed_socket_are_refused(
    daemon: Kdumpfenced, start: ServiceManager, tmp_path: Path
) -> None:
    passed = made(daemon.port)
    start(passed)
    (tmp_path / "other").mkdir()
    other = Kdumpfenced(tmp_path / "other")
    other.port = daemon.port
    other.configure()
    start.again(other, wait=False)
    assert other.ended() == 1
    assert f"passed socket 1 ('kdump'): already read by process {daemon.pid}" in other.said()
    # The first one can be killed, and the next one takes over.
    daemon.end(signal.SIGKILL)
    start.again(other)
    assert other.end() == 0


@pytest.mark.slow
def test_with_a_passed_socket_nothing_is_lost_that_comes_meanwhile(
    daemon: Kdumpfenced, start: ServiceManager
) -> None:
    start(made(daemon.port))
    daemon.hears("127.0.0.2")
    daemon.end(signal.SIGKILL)
    daemon.hear(*(f"127.0.1.{host}" for host in range(1, 101)))
    start.again(daemon)
    until(lambda: daemon.status().dumping == 101)
    assert daemon.end() == 0
    # What comes now waits for the next one.
    daemon.hear("127.0.2.1")
    start.again(daemon)
    until(lambda: "127.0.2.1" in daemon.dumping())
    assert daemon.end() == 0


def test_a_family_that_nobody_passed_is_told_of(daemon: Kdumpfenced, start: ServiceManager) -> None:
    start(made(daemon.port))
    daemon.says("not listening over IPv6: systemd passed no socket for it")


STAND_STILL = """
from kdumpfence.listener import reader
reader.LATE = 1.0
turn = reader.Reader._turn
began = time.monotonic()
def stand_still(self):
    if time.monotonic() > began + 2:
        time.sleep(600)
    turn(self)
reader.Reader._turn = stand_still
"""


@pytest.mark.slow
def test_a_reading_thread_that_stands_still_is_noticed(daemon: Kdumpfenced) -> None:
    daemon.start(program=patched(STAND_STILL))
    daemon.says(f"messages may be missed: port {daemon.port}/udp: ")
    assert daemon.get("/health")[0] == 503


WITHOUT_SOCK_DIAG = """
import errno
from kdumpfence.listener import port_rivals, sock_diag
def refuse(port):
    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
sock_diag.holders = refuse
"""


def test_a_kernel_that_does_not_tell_who_holds_the_port_is_told_of(daemon: Kdumpfenced) -> None:
    daemon.start(program=patched(WITHOUT_SOCK_DIAG))
    daemon.says("cannot check who else holds the port: sock_diag: No such file or directory")
    assert daemon.is_well()
    daemon.hears(NODE)

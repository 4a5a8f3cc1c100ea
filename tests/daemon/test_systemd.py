# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the daemon and systemd say to each other, and the sockets that are passed."""

from __future__ import annotations

import re
import shutil
import socket
import sys
import time

import pytest

from tests.conftest import cannot_run
from tests.daemon.running import NODE, PROGRAM, Kdumpfenced, Manager, patched, until


@pytest.mark.slow
def test_it_tells_the_service_manager_how_it_is(daemon: Kdumpfenced, systemd: Manager) -> None:
    daemon.start(environment={"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "600000"})
    systemd.hears("READY=1")
    systemd.hears("STATUS=dumping: 0; nodes")
    assert not any(line.startswith("WATCHDOG") for line in systemd.heard[:1])
    daemon.hear(NODE)
    systemd.hears("STATUS=dumping: 1; nodes")
    systemd.heard.clear()
    daemon.reload()
    systemd.hears("READY=1")
    heard = systemd.heard
    at = heard.index("RELOADING=1")
    assert heard[at + 1].startswith("MONOTONIC_USEC=")
    assert int(heard[at + 1][15:]) <= time.monotonic_ns() // 1000
    assert at < heard.index("READY=1")
    systemd.heard.clear()
    time.sleep(2)
    pings = systemd.read().count("WATCHDOG=1")
    assert 4 <= pings <= 21  # of 0.6 s, three times as often
    daemon.end()
    systemd.hears("STOPPING=1")


# The history's file system hangs, say: the other threads are well, and answer.
HANG = """
def hang(self, events, *more):
    if list(events):
        time.sleep(600)
history.History.record = hang
health.STUCK_AFTER = 1.0
"""


@pytest.mark.slow
def test_a_main_loop_that_hangs_does_not_say_that_it_is_alive(
    daemon: Kdumpfenced, systemd: Manager
) -> None:
    environment = {"NOTIFY_SOCKET": systemd.path, "WATCHDOG_USEC": "300000"}
    daemon.start(program=patched(HANG), environment=environment)
    systemd.hears("WATCHDOG=1")
    until(daemon.is_well)
    daemon.hear(NODE)
    until(lambda: daemon.get("/health")[0] == 503)
    assert re.match(r"the main loop has been stuck for \d+ s\n", daemon.get("/health")[1])
    systemd.read()
    systemd.heard.clear()
    time.sleep(1)
    assert systemd.read() == []
    assert "kdumpfence_healthy 0.0" in daemon.get("/metrics")[1]


def test_a_manager_that_is_gone_or_talks_rubbish_does_not_disturb(
    daemon: Kdumpfenced, systemd: Manager
) -> None:
    systemd.close()
    daemon.start(
        environment={
            "NOTIFY_SOCKET": systemd.path,
            "WATCHDOG_USEC": "x",
            "LISTEN_FDS": "1",
            "LISTEN_PID": "1",  # meant for another process
        }
    )
    daemon.hears(NODE)


def test_passed_sockets_are_used_and_keep_what_comes_during_a_restart(daemon: Kdumpfenced) -> None:
    if shutil.which("systemd-socket-activate") is None:
        cannot_run("systemd-socket-activate is missing")
    # The real thing passes one UDP socket, and starts the program at the first datagram.
    activate = ["systemd-socket-activate", "--datagram", "-l", f"127.0.0.1:{daemon.port}"]
    activate += ["--fdname=kdump", "-E", "KDUMPFENCE_PURE"]
    daemon.start(activate, wait=False)
    until(lambda: "Listening on" in daemon.said())
    assert not daemon.control.exists()
    daemon.hear("127.0.0.2", "127.0.0.3")
    until(daemon.answers)
    until(lambda: daemon.dumping() == {"127.0.0.2", "127.0.0.3"})
    assert daemon.end() == 0


PASS = """
import os, socket, sys
sockets = []
for kind, family, host, port in {sockets!r}:
    sock = socket.socket(family, kind)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, {v6only})
    if port is not None:
        sock.bind((host, port))
    sockets.append(os.dup2(sock.fileno(), 50 + len(sockets)))
for at, fd in enumerate(sockets):
    os.dup2(fd, 3 + at, inheritable=True)
os.environ.update(LISTEN_FDS={count!r}, LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="kdump:more")
os.execv(sys.argv[1], sys.argv[1:])
"""
UDP, TCP = int(socket.SOCK_DGRAM), int(socket.SOCK_STREAM)
V4, V6 = int(socket.AF_INET), int(socket.AF_INET6)
# Ports: 0 stands for the right one, 1 for a wrong one, None for none.
BOTH = [(UDP, V4, "127.0.0.1", 0), (UDP, V6, "::1", 0)]


@pytest.mark.parametrize(
    ("sockets", "count", "said"),
    [
        ([(TCP, V4, "127.0.0.1", 0)], "", "passed socket 1 ('kdump'): not a UDP socket"),
        ([(UDP, V4, "127.0.0.1", 1)], "", "passed socket 1 ('kdump'): bound to port"),
        ([(UDP, V4, "127.0.0.1", None)], "", "passed socket 1 ('kdump'): not bound, but"),
        ([(UDP, V6, "::", 0)], "", "also receives IPv4: set BindIPv6Only=ipv6-only"),
        (
            [(UDP, V4, "127.0.0.1", 0), (UDP, V4, "127.0.0.2", 0)],
            "",
            "passed socket 2 ('more'): a second one of its family",
        ),
        (BOTH, "x", "LISTEN_FDS 'x': not a number"),
        (BOTH, "3", "passed socket 3 ('unknown')"),
    ],
)
def test_passed_sockets_that_are_rubbish_are_refused(
    daemon: Kdumpfenced,
    sockets: list[tuple[int, int, str, int | None]],
    count: str,
    said: str,
) -> None:
    ports = {0: daemon.port, 1: 0, None: None}
    real = [(kind, family, host, ports[port]) for kind, family, host, port in sockets]
    count = count or str(len(real))
    script = PASS.format(sockets=real, v6only=int(sockets is BOTH), count=count)
    done = daemon.run(program=[sys.executable, "-c", script, *PROGRAM])
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1

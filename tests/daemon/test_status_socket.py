# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon answers who asks, whatever others do to its socket; who asks is told what is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdumpfence.client import Client, Status, Unreachable
from kdumpfence.daemon.status import MOST, MOST_UNRESOLVED, ControlError
from kdumpfence.daemon.status_server import LIMITS, Server
from kdumpfence.listener.dumps import MOST_ADDRESSES, Dump

ROOT = Path(__file__).resolve().parents[2]
QUESTION = b'{"ask": "status", "most": 3}\n'


def status(dumping: int = 5, **changes: Any) -> Status:
    """A status with so many dumps, the newest first."""
    both = "2001:db8::1"
    dumps = [
        Dump(f"node{n}", 1.8e9 - n, 1.8e9 + 5.25, n, (f"192.0.2.{n % 250}", both), n + 5.25)
        for n in range(min(dumping, MOST))
    ]
    whole = Status("0.1.0", 60.5, 1.8e9 + 10, 100, ("node7",), dumping, dumps, {"accepted": 12})
    return whole._replace(**changes)


@pytest.fixture
def server(path: str) -> Iterator[Server]:
    with Server(path, limits=LIMITS._replace(unread=0.5)) as opened:
        opened.publish(status())
        yield opened


def connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(path)
    return sock


def asked(path: str | Path) -> Status:
    """What is answered to a client that just asks."""
    with Client(str(path)) as client:
        return client.status()


def everything_from(sock: socket.socket) -> bytes:
    """All that comes until the other end hangs up."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


# --- question and answer --------------------------------------------------------------------


def test_who_asks_gets_the_status_as_it_was_published(server: Server) -> None:
    found = asked(server.path)
    assert found.age < 20
    assert found._replace(age=0.0) == status()


def test_questions_that_come_together_are_all_answered(server: Server) -> None:
    with connect(server.path) as sock:
        sock.sendall(QUESTION * 40)
        sock.shutdown(socket.SHUT_WR)
        answers = [json.loads(line) for line in everything_from(sock).splitlines()]
    assert [len(answer["dumps"]) for answer in answers] == [3] * 40


def test_a_question_may_come_in_pieces(server: Server) -> None:
    with connect(server.path) as sock:
        for at in range(len(QUESTION)):
            sock.sendall(QUESTION[at : at + 1])
            time.sleep(0.001)
        assert json.loads(sock.makefile("rb").readline())["dumping"] == 5


def test_no_more_dumps_are_told_of_than_asked_for_but_all_are_counted(server: Server) -> None:
    server.publish(status(100_000))
    with Client(server.path) as client:
        for most in (0, 1, 200, MOST):
            found = client.status(most)
            assert (found.dumping, len(found.dumps)) == (100_000, most)
            assert [dump.node for dump in found.dumps[:1]] == ["node0"][:most]
        assert len(client.status(10**9).dumps) == MOST


def test_a_long_list_is_cut_before_it_is_sent(server: Server) -> None:
    dump = Dump("node1", 1.0, 2.0, 3, tuple(f"2001:db8::{n}" for n in range(500)))
    names = tuple(f"node{n}" for n in range(5000))
    server.publish(status(dumping=5000, dumps=[dump] * 5000, unresolved=names))
    found = asked(server.path)
    assert len(found.dumps) == MOST
    assert found.dumps[0].addresses == dump.addresses[:MOST_ADDRESSES]
    assert found.unresolved == names[:MOST_UNRESOLVED]


def test_the_age_tells_how_long_the_daemon_has_said_nothing_new(server: Server) -> None:
    with Client(server.path) as client:
        time.sleep(0.2)
        assert client.status().age >= 0.2
        before = time.monotonic()
        server.publish(status())
        age = client.status().age
        assert age <= time.monotonic() - before + 0.001  # it is rounded


def test_before_the_first_status_one_is_asked_to_come_again(path: str) -> None:
    with Server(path) as server, Client(path) as client:
        with pytest.raises(Unreachable, match="still starting: try again"):
            client.status()
        server.publish(status())
        assert client.status().dumping == 5


def test_any_name_comes_through(server: Server) -> None:
    names = ("\x1b[2J\n", "n\u00f6de", "\udcff", '"', "[red]")
    server.publish(status(unresolved=names, troubles=("no\nspace",)))
    found = asked(server.path)
    assert (found.unresolved, found.troubles) == (names, ("no\nspace",))


# --- rude clients ---------------------------------------------------------------------------


NO_QUESTIONS = [
    b"\n", b"status\n", b"\xff\xfe\n", b"[]\n", b"{}\n", b'{"ask": "stop"}\n',
    *(
        b'{"ask": "status", "most": %s}\n' % most
        for most in (b"-1", b'"all"', b"true", b"1e9", b"NaN")
    ),
    b'{"ask": "status", "most": ' + b"9" * 4000 + b"x}\n", b"[" * 4000 + b"\n",
    b"x" * LIMITS.question, b"x" * (1 << 20),
]  # fmt: skip


@pytest.mark.parametrize("question", NO_QUESTIONS)
def test_what_is_no_question_is_refused_in_one_line(server: Server, question: bytes) -> None:
    with connect(server.path) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(question)
        answer = everything_from(sock)
    # What it had not read when it hung up takes the answer along.
    if answer or len(question) <= LIMITS.question:
        assert list(json.loads(answer)) == ["error"]
        assert answer.count(b"\n") == 1
    assert asked(server.path).dumping == 5


def test_a_client_may_vanish_at_any_byte(server: Server) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for length in range(len(QUESTION) + 1):
        with connect(server.path) as sock:
            sock.sendall(QUESTION[:length])
    for length in (1, 100, 5000):
        with connect(server.path) as sock:
            sock.sendall(QUESTION * 10)
            sock.recv(length)
    assert asked(server.path).dumping == 5
    deadline = time.monotonic() + 20
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_client_that_does_not_read_is_dropped_and_holds_up_nobody(
    server: Server,
) -> None:
    server.publish(status(1000))
    question = b'{"ask": "status"}\n'
    with connect(server.path) as greedy:
        greedy.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                greedy.sendall(question * 100)
        assert asked(server.path).dumping == 1000
        # Who reads is served: so first it has to be dropped.
        poller = select.poll()
        poller.register(greedy, select.POLLRDHUP)
        assert poller.poll(60_000)
        greedy.settimeout(20)
        assert len(everything_from(greedy)) < 100 * 200_000  # it ended


def test_a_client_that_does_not_ask_is_dropped(path: str) -> None:
    with Server(path, limits=LIMITS._replace(quiet=0.3)), connect(path) as sock:
        with contextlib.suppress(ConnectionError):  # bytes alone keep nobody
            while True:
                sock.sendall(b"x")
                time.sleep(0.05)
        assert everything_from(sock) == b""


def test_of_too_many_clients_that_which_was_quiet_longest_has_to_go(server: Server) -> None:
    def ask(sock: socket.socket) -> None:
        sock.sendall(b'{"ask": "status", "most": 0}\n')
        assert sock.recv(65536).endswith(b"\n")

    clients = [connect(server.path) for _ in range(LIMITS.clients)]
    for sock in [*clients, clients[0]]:
        ask(sock)
    assert asked(server.path).dumping == 5
    assert everything_from(clients[1]) == b""
    for sock in [clients[0], *clients[2:]]:
        ask(sock)
        sock.close()
    clients[1].close()


def test_many_at_once_are_all_answered(server: Server) -> None:
    answers = []

    def ask() -> None:
        with Client(server.path, timeout=20) as client:
            answers.append(client.status().dumping)

    threads = [threading.Thread(target=ask) for _ in range(LIMITS.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [5] * LIMITS.clients


WITHOUT_DESCRIPTORS = """
import os, resource, socket, sys, time
from kdumpfence.client import Client
from kdumpfence.daemon.status_server import Server
from tests.daemon.test_status_socket import status
path = sys.argv[1]
server = Server(path)
server.publish(status())
others = [socket.socket(socket.AF_UNIX) for _ in range(3)]
client = socket.socket(socket.AF_UNIX)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, 4096))
for other in others:
    other.connect(path)
time.sleep(0.3)
before = time.process_time()
time.sleep(1)
print(time.process_time() - before < 0.5)
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
print(Client(path, timeout=20).status().dumping)
server.close()
"""


@pytest.mark.slow
def test_a_daemon_without_a_descriptor_left_waits_for_one(path: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS, path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\n5\n", "")


# --- the socket's place ---------------------------------------------------------------------


def test_everybody_may_ask_unless_it_is_said_otherwise(path: str) -> None:
    for more, mode in (((), 0o666), ((0o600,), 0o600)):
        with Server(path, *more):
            assert os.stat(path).st_mode & 0o777 == mode


def test_the_socket_goes_with_the_daemon(path: str) -> None:
    server = Server(path)
    with connect(path) as sock:
        server.close()
        server.close()
        assert everything_from(sock) == b""
    assert not os.path.exists(path)
    assert all(thread.name != "control" for thread in threading.enumerate())


def test_a_socket_that_a_killed_daemon_left_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    with Server(path) as server:
        server.publish(status())
        assert asked(path).dumping == 5


def test_a_living_daemon_keeps_its_socket(server: Server) -> None:
    with pytest.raises(ControlError, match="another kdumpfenced answers there"):
        Server(server.path)
    assert asked(server.path).dumping == 5


def test_what_somebody_else_put_there_since_is_left(path: str) -> None:
    server = Server(path)
    os.unlink(path)
    Path(path).write_text("mine")
    server.close()
    assert Path(path).read_text() == "mine"


def test_a_place_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    before = len(os.listdir("/proc/self/fd"))
    for place, reason in (
        ("file", "exists and is not a socket; left untouched"),
        ("link", "exists and is not a socket; left untouched"),
        ("missing/control", "No such file or directory"),
        ("x" * 120, "too long"),
    ):
        with pytest.raises(ControlError, match=reason) as caught:
            Server(str(tmp_path / place))
        assert str(caught.value).startswith(f"control socket {tmp_path / place}: ")
    assert (tmp_path / "file").read_text() == "mine"
    assert len(os.listdir("/proc/self/fd")) == before

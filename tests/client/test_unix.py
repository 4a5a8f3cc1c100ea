# SPDX-License-Identifier: LGPL-2.1-or-later
"""Over a Unix socket a client believes the daemon alone, and says what is wrong with others."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from kdumpfence.client import Client, ClientError, Unreachable, connection
from kdumpfence.daemon.status_server import Server
from tests.daemon.running import neighbour
from tests.daemon.test_status_socket import status


@contextlib.contextmanager
def listening(path: str, backlog: int = 8) -> Iterator[socket.socket]:
    """Somebody in the daemon's place."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen(backlog)
        yield sock


def test_without_a_daemon_it_is_said_so(path: str) -> None:
    for _ in range(2):
        with pytest.raises(Unreachable, match=f"^no daemon at {path}: is kdumpfenced running\\?$"):
            Client(path).status()
        if not os.path.exists(path):
            with socket.socket(socket.AF_UNIX) as killed:
                killed.bind(path)  # and left it


def test_a_place_that_is_no_socket_is_told_of(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / ("x" * 120)):
        with pytest.raises(ClientError) as caught:
            Client(str(place)).status()
        assert str(caught.value).startswith(f"{place}: ") or isinstance(caught.value, Unreachable)


NO_ANSWERS = {
    "closed the connection": [b"", b'{"version": '],
    "unexpected answer": [
        b"rubbish\n", b"[1]\n", b"{}\n", b'{"dumps": [{"node": 1}]}\n', b'{"dumps": 5}\n',
        b"\xff\xff\n",
    ],
    "the daemon says: no": [b'{"error": "no\\nway"}\n'],
}  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [(answer, complaint) for complaint in NO_ANSWERS for answer in NO_ANSWERS[complaint]],
)
def test_an_answer_that_makes_no_sense_is_told_of(path: str, answer: bytes, complaint: str) -> None:
    with listening(path) as listener, Client(path) as client:

        def respond() -> None:
            other, _ = listener.accept()
            with other:
                other.recv(4096)
                other.sendall(answer)

        responder = threading.Thread(target=respond)
        responder.start()
        with pytest.raises(ClientError, match=complaint):
            client.status()
        responder.join()


def test_a_daemon_that_does_not_answer_is_not_waited_for(path: str) -> None:
    reason = r"no answer within 0\.05 seconds"
    with (
        listening(path),
        Client(path, timeout=0.05) as client,
        pytest.raises(ClientError, match=reason),
    ):
        client.status()


def test_where_too_many_wait_already_one_waits_for_its_turn(path: str) -> None:
    with listening(path, 0) as listener, contextlib.ExitStack() as crowd:
        with contextlib.suppress(BlockingIOError):
            while True:
                one = crowd.enter_context(socket.socket(socket.AF_UNIX))
                one.setblocking(False)
                one.connect(path)
        begun = time.monotonic()
        with pytest.raises(ClientError, match=r"no answer within 0\.2 seconds"):
            Client(path, timeout=0.2).status()
        assert time.monotonic() - begun >= 0.2

        def make_room() -> None:
            listener.accept()[0].close()

        later = threading.Timer(0.2, make_room)
        later.start()
        Client(path, timeout=20)._connected().close()
        later.join()


def test_an_answer_without_an_end_is_given_up(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(listener: socket.socket) -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as sock:
            while True:
                sock.sendall(b"x" * 10_000)

    monkeypatch.setattr(connection, "MOST_ANSWER", 100_000)
    with listening(path) as listener, Client(path, timeout=20) as client:
        writer = threading.Thread(target=write, args=(listener,))
        writer.start()
        with pytest.raises(ClientError, match="unexpected answer"):
            client.status()
        writer.join()


# --- impostors ------------------------------------------------------------------------------

IMPOSTOR = """
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
sock.listen()
"""


def impostor(path: Path) -> AbstractContextManager[None]:
    """The user nobody listens there."""
    return neighbour(IMPOSTOR, str(path))


@pytest.fixture
def common(public: Path) -> Path:
    """A directory to which everybody can write, as /tmp."""
    public.chmod(0o1777)
    return public


def test_nobody_is_believed_who_only_came_first(common: Path, root: None) -> None:
    place = common / "control"
    with impostor(place), pytest.raises(ClientError, match="answered by user 65534"):
        Client(str(place)).status()
    place.unlink()
    # Nor by a way that leads there, or to a directory of theirs.
    (common / "theirs").mkdir()
    os.chown(common / "theirs", 65534, 65534)
    (common / "link").symlink_to(common / "theirs" / "control")
    with impostor(common / "theirs" / "control"):
        with pytest.raises(ClientError, match="answered by user 65534"):
            Client(str(common / "link")).status()
        # Whoever asks there means them.
        Client(str(common / "theirs" / "control"))._connected().close()


def test_who_only_came_first_keeps_no_daemon_from_its_place(common: Path, root: None) -> None:
    place = common / "control"
    with impostor(place), Server(str(place)) as server, Client(str(place)) as client:
        server.publish(status())
        assert client.status().dumping == 5


def test_the_user_whose_directory_it_is_is_believed(common: Path, root: None) -> None:
    # As with DynamicUser=: /run/kdumpfenced belongs to the daemon's user.
    folder = common / "run"
    folder.mkdir(0o755)
    os.chown(folder, 65534, 65534)
    with impostor(folder / "control"):
        Client(str(folder / "control"))._connected().close()
        folder.chmod(0o777)
        with pytest.raises(ClientError, match="answered by user 65534"):
            Client(str(folder / "control")).status()

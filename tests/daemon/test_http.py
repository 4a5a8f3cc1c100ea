# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pages over HTTP, whatever clients ask, and whatever they do instead of asking."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from kdumpfence.daemon import http
from kdumpfence.daemon.http import Reply
from kdumpfence.daemon.http_request import Request
from tests.conftest import unused_port


class Soon:
    """A reply that is there a moment later."""

    def __init__(self) -> None:
        self.due = time.monotonic() + 0.05

    def look(self) -> Reply | None:
        return Reply(200, "text/plain", b"later") if time.monotonic() >= self.due else None


class Faulty(Soon):
    """A reply that cannot be made after all."""

    def look(self) -> Reply | None:
        raise KeyError


def page(request: Request) -> Reply | Soon:
    """One that says its path."""
    if request.path == "/fault":
        raise KeyError
    if request.path == "/wrong":
        raise ValueError("wrong")
    if request.path == "/later-fault":
        return Faulty()
    if request.path == "/later":
        return Soon()
    return Reply(200, "text/plain", request.path.encode())


@contextlib.contextmanager
def pages(quiet: float) -> Iterator[int]:
    """The port of pages for which a client has so much time."""
    number = unused_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http, "LIMITS", http.LIMITS._replace(quiet=quiet))
        made = http.Pages("127.0.0.1", number, page, lambda *_: None)
    assert made.trouble == ""
    made.start()
    yield number
    made.close()


@pytest.fixture
def port() -> Iterator[int]:
    """For which nobody's time is up within a test."""
    with pages(600.0) as number:
        yield number


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def asked(port: int, request: bytes) -> bytes:
    """All that comes back."""
    with connect(port) as client, contextlib.suppress(ConnectionError):
        client.sendall(request)
        return client.makefile("rb").read()
    return b""


HOST = b"Host: x\r\n"
CLOSE = HOST + b"Connection: close\r\n"


@pytest.mark.parametrize(
    ("request_", "status", "end"),
    [
        (b"GET /some/page?x=y HTTP/1.1\r\n" + CLOSE + b"X: y\r\n\r\n", b"200 OK", b"/some/page"),
        (b"GET http://x:1/page?x HTTP/1.1\r\n" + CLOSE + b"\r\n", b"200 OK", b"\r\n\r\n/page"),
        (b"GET /plain HTTP/1.0\n\n", b"200 OK", b"\r\n\r\n/plain"),
        (b"HEAD /page HTTP/1.0\r\n\r\n", b"200 OK", b"Length: 5\r\nConnection: close\r\n\r\n"),
        (b"GET /fault HTTP/1.0\r\n\r\n", b"500 Internal Server Error", b"\r\n\r\nKeyError\n"),
        (b"GET /later-fault HTTP/1.0\r\n\r\n", b"500 Internal Server Error", b"\r\n\r\nKeyError\n"),
        (b"GET /wrong HTTP/1.0\r\n\r\n", b"400 Bad Request", b"\r\n\r\nwrong\n"),
        (b"GET / HTTP/1.1\r\n" + CLOSE + b"x: y\r\n" * 3000, b"431 Request H", b"8192 bytes\n"),
    ],
)  # fmt: skip
def test_a_request_is_answered_once(port: int, request_: bytes, status: bytes, end: bytes) -> None:
    for _ in range(2):  # nothing ends the thread
        answer = asked(port, request_)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert answer.endswith(end)
        assert b"\r\nCache-Control: no-store\r\n" in answer
        assert b"\r\nX-Content-Type-Options: nosniff\r\n" in answer
        assert b"access-control" not in answer.lower()


def test_one_connection_is_enough_for_many_requests(port: int) -> None:
    requests = [b"GET /page%d HTTP/1.1\r\n" % number + HOST + b"\r\n" for number in range(50)]
    with connect(port) as client:
        file = client.makefile("rb")
        for sent in (requests[:1], requests[1:]):  # one, and then many at once
            client.sendall(b"".join(sent))
            for request in sent:
                head = b"".join(iter(file.readline, b"\r\n"))
                path = request.split()[1]
                assert b"Content-Length: %d\r\n" % len(path) in head
                assert b"Connection" not in head
                assert file.read(len(path)) == path


def test_a_reply_may_come_later_and_what_was_asked_meanwhile_is_answered_then(port: int) -> None:
    with connect(port) as client:
        file = client.makefile("rb")
        client.sendall(b"GET /later HTTP/1.1\r\n" + HOST + b"\r\n")
        client.sendall(b"GET /page HTTP/1.1\r\n" + CLOSE + b"\r\n")
        client.shutdown(socket.SHUT_WR)
        answers = file.read()
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert answers.index(b"\r\n\r\nlater") < answers.index(b"\r\n\r\n/page")


def test_clients_that_are_slow_or_rude_do_not_hold_up_others(port: int) -> None:
    slow = [connect(port) for _ in range(http.LIMITS.clients + 10)]
    for number, client in enumerate(slow):
        with contextlib.suppress(ConnectionError):
            client.sendall((b"GET /met", b"\0\xff" * 100, b"GET / HTTP/1.1\r\nX: ")[number % 3])
    assert asked(port, b"GET /page HTTP/1.0\r\n\r\n").endswith(b"/page")
    # There is room for so many only: the first ones had to go.
    with contextlib.suppress(ConnectionError):
        assert slow[0].recv(1) == b""
    for client in slow:
        client.close()


def test_nobody_has_more_time_than_that_whatever_they_send() -> None:
    with pages(0.5) as port, connect(port) as client:
        end = time.monotonic() + 30
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < end:
                client.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() < end

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pages over HTTP, whatever clients ask, and whatever they do instead of asking."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from kdumpfence.daemon import http
from tests.conftest import unused_port


def page(path: str) -> tuple[str, str, bytes]:
    """One that says its path."""
    if path == "/fault":
        raise KeyError
    return "200 OK", "text/plain", path.encode()


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


@pytest.mark.parametrize(
    ("request_", "status", "end"),
    [
        (b"GET /some/page?x=y HTTP/1.1\r\nX: y\r\n\r\n", b"200 OK", b"\r\n\r\n/some/page"),
        (b"GET /plain HTTP/1.0\n\n", b"200 OK", b"\r\n\r\n/plain"),
        (b"HEAD /page HTTP/1.1\r\n\r\n", b"200 OK", b"Length: 5\r\nConnection: close\r\n\r\n"),
        (b"POST /page HTTP/1.1\r\n\r\n", b"405 Method Not Allowed", b"\r\n\r\nGET or HEAD\n"),
        (b"\0\xff\r\n\r\n", b"400 Bad Request", b"\r\n\r\nno request\n"),
        (b"GET /fault HTTP/1.1\r\n\r\n", b"500 Internal Server Error", b"\r\n\r\nKeyError\n"),
    ],
)  # fmt: skip
def test_a_request_is_answered_once(port: int, request_: bytes, status: bytes, end: bytes) -> None:
    for _ in range(2):  # nothing ends the thread
        answer = asked(port, request_)
        assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
        assert answer.endswith(end)


def test_a_request_that_is_too_long_is_dropped(port: int) -> None:
    assert asked(port, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 3000) == b""


def test_clients_that_are_slow_or_rude_do_not_hold_up_others(port: int) -> None:
    slow = [connect(port) for _ in range(http.LIMITS.clients + 10)]
    for number, client in enumerate(slow):
        with contextlib.suppress(ConnectionError):
            client.sendall((b"GET /met", b"\0\xff" * 100, b"GET / HTTP/1.1\r\nX: ")[number % 3])
    assert asked(port, b"GET /page HTTP/1.1\r\n\r\n").endswith(b"/page")
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

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bytes become requests, or a fault with its status: nothing is guessed."""

from __future__ import annotations

import pytest

from kdumpfence.daemon.http_request import (
    BadRequest,
    Incomplete,
    Parsed,
    Request,
    decoded,
    parameters,
    parse,
)

HEAD, BODY = 1000, 100


def parsed(asked: bytes) -> Parsed | Incomplete | None:
    return parse(asked, HEAD, BODY)


def test_a_request_is_complete_with_its_last_byte_and_what_follows_is_left() -> None:
    whole = b"POST /a%20b?x=y HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nA: 1\r\nA:2 \r\n\r\nbody"
    assert [parsed(whole[:length]) for length in range(len(whole))] == [None] * len(whole)
    headers = {"host": "h", "content-length": "4", "a": "1, 2"}
    request = Request("POST", "/a%20b", "x=y", headers, b"body")
    assert parsed(whole) == (request, b"", True)
    assert parsed(whole + b"GET ") == (request, b"GET ", True)


@pytest.mark.parametrize(
    ("version", "connection", "keep"),
    [
        ("1.1", "", True), ("1.1", "Connection: x, Close\r\n", False), ("1.0", "", False),
        ("1.0", "Connection: keep-alive\r\n", True), ("1.0", "Connection: x\r\n", False),
    ],
)  # fmt: skip
def test_whether_the_connection_goes_on(version: str, connection: str, keep: bool) -> None:
    found = parsed(f"GET / HTTP/{version}\r\nHost: h\r\n{connection}\r\n".encode())
    assert isinstance(found, Parsed)
    assert found.keep is keep


def test_who_waits_to_be_told_to_go_on_is_told() -> None:
    asked = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    found = parsed(asked)
    assert isinstance(found, Incomplete)
    assert found.asked == asked.replace(b"Expect: 100-continue\r\n", b"")
    assert parsed(found.asked) is None
    whole = parsed(found.asked + b"{}")
    assert isinstance(whole, Parsed)
    assert whole.request.body == b"{}"


H = b"Host: h\r\n"


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"\0\xff\r\n\r\n", 400), (b"GET /\r\n\r\n", 400), (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"G{T / HTTP/1.1\r\n" + H + b"\r\n", 400), (b"GET x HTTP/1.1\r\n" + H + b"\r\n", 400),
        (b"GET /\x7f HTTP/1.1\r\n" + H + b"\r\n", 400),
        (b"GET /\xe9 HTTP/1.1\r\n" + H + b"\r\n", 400),
        (b"GET / HTTP/2.0\r\n" + H + b"\r\n", 505), (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + H + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b" folded: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"x : y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"x: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"x: a\0b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: +1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 101\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: " + b"9" * 500 + b"\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n", 411),
        (b"x" * (HEAD + 1), 431),
        (b"GET / HTTP/1.1\r\n" + H + b"x: " + b"y" * HEAD + b"\r\n\r\n", 431),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused_with_its_status(asked: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        parsed(asked)
    assert caught.value.status == status
    assert str(caught.value).isprintable()


def test_parts_of_a_path_and_of_a_query_become_text() -> None:
    assert (decoded("a+b%2Fc%C3%B6"), decoded("a+b%2F", plus=True)) == ("a+b/c\u00f6", "a b/")
    assert parameters("") == []
    assert parameters("x=1&y=a%26b&x=") == [("x", "1"), ("y", "a&b"), ("x", "")]
    for wrong in ("x", "x=1&", "%ff=1", "x=%", "x=%2", "x=%zz", "x=%+1"):
        with pytest.raises(BadRequest):
            parameters(wrong)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests of HTTP/1.x: bytes in, one request or what is wrong with it out (RFC 9112).

A server that only tells needs little of it: no chunked requests, no upgrades. What it does not
take it refuses; it never guesses, since a proxy before it may guess otherwise. What may not be in
this file: sockets, and what a path means.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

#: Characters of a field's name, and of a method (RFC 9110, 5.6.2).
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

#: Fields that nobody can have twice, since they would say two things.
_SINGLE = ("host", "content-length", "transfer-encoding", "last-event-id")

#: What others take for the character itself, or refuse, or skip.
_BARE_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")

#: Bytes of the fields that are remembered: a client's are the same in each of its requests.
_SMALL = 2048


class Request(NamedTuple):
    """What is asked."""

    method: str
    #: Without the query, as it came: `decoded` makes text of its parts.
    path: str
    #: Behind the question mark, as it came; "" if there is none.
    query: str = ""
    #: By their names in lower case.
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Parsed(NamedTuple):
    """A request, and what came along with it."""

    request: Request
    #: What the client sent behind it.
    rest: bytes
    #: Whether the client wants to go on over this connection.
    keep: bool


class BadRequest(Exception):
    """Why it is not answered: an HTTP status, and one line."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Incomplete(NamedTuple):
    """The head is there, the body is not; the client waits to be told to send it."""

    #: What came, without that.
    asked: bytes


def parse(asked: bytes, most_head: int, most_body: int) -> Parsed | Incomplete | None:
    """The first request in what a client sent; None if it is not complete. Raises BadRequest."""
    head, end = _head(asked)
    if end < 0:
        if len(asked) > most_head:
            raise BadRequest(431, f"a request's head has at most {most_head} bytes")
        return None
    if end > most_head:
        raise BadRequest(431, f"a request's head has at most {most_head} bytes")
    line, _, block = head.partition(b"\n")
    method, target, version = _line(line)
    headers = _remembered(block) if len(block) <= _SMALL else _fields(block)
    if version == "1.1" and "host" not in headers:
        raise BadRequest(400, "Host: missing")
    size = _size(headers, most_body)
    if len(asked) < end + size:
        expected = headers.get("expect", "").lower() == "100-continue"
        return Incomplete(_without_expect(asked, end)) if expected else None
    path, query = _path(target)
    rest = asked[end + size :] if len(asked) > end + size else b""
    body = asked[end : end + size] if size else b""
    return Parsed(Request(method, path, query, headers, body), rest, _keeps(version, headers))


def decoded(text: str, plus: bool = False) -> str:
    """A part of a path, or (`plus`) of a query, as text. BadRequest if that cannot be told."""
    if "%" not in text and "+" not in text and text.isascii():
        return text
    if _BARE_PERCENT.search(text):
        raise BadRequest(400, "% without two hexadecimal digits; %25 is the character itself")
    try:
        return unquote_to_bytes(text.replace("+", " ") if plus else text).decode()
    except UnicodeDecodeError:
        raise BadRequest(400, "not UTF-8 behind the %") from None


def parameters(query: str) -> list[tuple[str, str]]:
    """The names and values of a query, in their order. Raises BadRequest."""
    pairs = []
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        if not equals:
            raise BadRequest(400, f"query: no = in {part[:40]!r}")
        pairs.append((decoded(name, plus=True), decoded(value, plus=True)))
    return pairs


def _head(asked: bytes) -> tuple[bytes, int]:
    """The head, and where what is behind it begins; -1 if the head has no end yet."""
    end, bare = asked.find(b"\r\n\r\n"), asked.find(b"\n\n")
    if end >= 0 and (bare < 0 or end < bare):
        return asked[:end], end + 4
    return (asked[:bare], bare + 2) if bare >= 0 else (b"", -1)


def _line(line: bytes) -> tuple[str, str, str]:
    words = line.rstrip(b"\r").decode("latin-1").split(" ")
    if len(words) != 3 or words[2][:5] != "HTTP/" or not _is_token(words[0]):
        raise BadRequest(400, "no request: METHOD TARGET HTTP/1.1 is one")
    method, target, version = words[0], words[1], words[2][5:]
    if version not in ("1.1", "1.0"):
        raise BadRequest(505, "HTTP/1.1 and HTTP/1.0 are spoken")
    # 0x21 to 0x7e: no blank, no control character, nothing that a proxy might see otherwise.
    if not target.isascii() or not target.isprintable() or not target:
        raise BadRequest(400, "target: not printable ASCII")
    return method, target, version


def _is_token(text: str) -> bool:
    return bool(text) and _TOKEN.issuperset(text)


def _path(target: str) -> tuple[str, str]:
    """The path and the query of a target, whose form a proxy may have chosen (RFC 9112, 3.2)."""
    if not target.startswith("/"):
        scheme, colon, rest = target.partition("://")
        if colon and scheme.lower() in ("http", "https"):
            target = "/" + rest.partition("/")[2]
        elif target != "*":
            raise BadRequest(400, "target: has to begin with /")
    path, _, query = target.partition("?")
    return path, query


def _fields(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in block.decode("latin-1").split("\n") if block else ():
        name, colon, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t\r")
        if not colon or not _is_token(name) or "\r" in value or "\0" in value:
            raise BadRequest(400, "a header that is none: NAME: VALUE is one, in one line")
        if name in headers:
            if name in _SINGLE:
                raise BadRequest(400, f"{name}: there twice")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers


_remembered = functools.lru_cache(maxsize=64)(_fields)


def _size(headers: Mapping[str, str], most: int) -> int:
    """Bytes of the body."""
    if "transfer-encoding" in headers:
        raise BadRequest(411, "Transfer-Encoding: not taken; send the body with Content-Length")
    given = headers.get("content-length")
    if given is None:
        return 0
    if not (given.isascii() and given.isdigit()):
        raise BadRequest(400, "Content-Length: not a number")
    if len(given) > 15 or int(given) > most:
        raise BadRequest(413, f"a body has at most {most} bytes")
    return int(given)


def _keeps(version: str, headers: Mapping[str, str]) -> bool:
    wanted = headers.get("connection")
    if wanted is None:
        return version == "1.1"
    words = {word.strip().lower() for word in wanted.split(",")}
    return "close" not in words and (version == "1.1" or "keep-alive" in words)


def _without_expect(asked: bytes, end: int) -> bytes:
    """What came, without the field that has been dealt with."""
    lines = asked[:end].split(b"\n")
    left = [line for line in lines if not line.lower().startswith(b"expect:")]
    return b"\n".join(left) + asked[end:]

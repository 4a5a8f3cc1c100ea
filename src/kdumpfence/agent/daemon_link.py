# SPDX-License-Identifier: LGPL-2.1-or-later
"""The way to a kdumpfenced that hears for this agent: a question out, a JSON object back.

    unix:/run/kdumpfenced/control   a line of JSON each way, over a connection that stays
    http://192.0.2.1:9742           POST /v1/heard, /v1/question: one request a connection

Whatever the other end does costs no more than the seconds and bytes that are allowed here. Only for
`listener`, since it imports more than the rest of the agent. What may not be in this file: what is
asked, and what an answer is worth.
"""

from __future__ import annotations

import _socket
import json
import os
import posix
import select
import time

from kdumpfence.addresses import FAMILIES, Address, LookUpError, Resolver, literal
from kdumpfence.sockets import peer
from kdumpfence.text import shown, whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: Bytes of an answer, its head included.
MOST_ANSWER = 1 << 16

_SO_PEERCRED = 17
_S_IWOTH = 0o002


class LinkError(Exception):
    """There is no answer; the text says why in one line."""


class _HungUpError(LinkError):
    """The other end closed the connection."""


def parsed(text: str) -> tuple[str, str, int]:
    """Where a listener is: ("unix", path, 0) or ("http", host, port). ValueError says why not."""
    kind, colon, rest = text.partition(":")
    if kind == "unix" and colon:
        if not rest.startswith("/") or "\0" in rest:
            raise ValueError("not an absolute path behind unix:")
        if len(rest.encode("utf-8", "surrogateescape")) > 107:
            raise ValueError("longer than the path of a socket can be (107 bytes)")
        return "unix", rest, 0
    if kind == "http" and rest.startswith("//"):
        host, separator, port = rest[2:].rstrip("/").rpartition(":")
        host = host[1:-1] if host[:1] == "[" and host[-1:] == "]" else host
        digits = port.isascii() and port.isdigit() and len(port) < 6
        if not separator or not host or not digits or not 0 < int(port) < 65536:
            raise ValueError("not http://HOST:PORT")
        try:
            literal(host, FAMILIES["auto"])
        except LookUpError as error:
            raise ValueError(f"host {shown(host)}: {error}") from None
        return "http", host, int(port)
    raise ValueError("not unix:/PATH or http://HOST:PORT")


class Link:
    """A kdumpfenced at this place, as `parsed` takes it. Connects when something is asked."""

    def __init__(self, text: str) -> None:
        self._kind, self._host, self._port = parsed(text)
        self._sock: _socket.socket | None = None
        self._found: list[Address] = []

    def ask(self, question: Mapping[str, object], until: float) -> dict[str, object]:
        """The answer. LinkError if there is none until then (time.monotonic), or it is no object.

        Then the connection is gone: what comes late is never the answer to a later question.
        """
        try:
            answer = json.loads(self._answer(question, until))
        except (ValueError, RecursionError):
            self.close()
            raise LinkError("its answer is no JSON: is it kdumpfenced?") from None
        except OSError as error:
            self.close()
            raise LinkError(_why(error)) from None
        except BaseException:
            self.close()
            raise
        if not isinstance(answer, dict):
            self.close()
            raise LinkError("its answer is no JSON object: is it kdumpfenced?")
        if "error" in answer:  # it has hung up
            self.close()
            raise LinkError(f"it says: {str(answer['error'])[:200]}")
        return answer

    def close(self) -> None:
        """Hang up; the next question connects again."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _answer(self, question: Mapping[str, object], until: float) -> bytes:
        if self._kind == "http":
            return self._ask_http(question, until)
        if self._sock is not None:
            try:
                return self._ask_unix(self._sock, question, until)
            except (ConnectionError, _HungUpError):  # it makes room for others, or was restarted
                self.close()
        self._sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self._connect(self._sock, until)
        return self._ask_unix(self._sock, question, until)

    # ------------------------------------------------------------------------------- unix

    def _connect(self, sock: _socket.socket, until: float) -> None:
        while True:
            _limit(sock, until)
            try:
                sock.connect(self._host)
                break
            except BlockingIOError:  # too many wait there already, which is over at once
                time.sleep(0.01)
        self._check_other_end(sock)

    def _ask_unix(
        self, sock: _socket.socket, question: Mapping[str, object], until: float
    ) -> bytes:
        _limit(sock, until)
        sock.sendall(json.dumps(question).encode() + b"\n")
        data = b""
        while not data.endswith(b"\n"):
            part = _read(sock, until, len(data))
            if not part:
                raise _HungUpError("it hung up")
            data += part
        return data

    def _check_other_end(self, sock: _socket.socket) -> None:
        """It has to be root's, one's own, or of the user who alone can put a socket there."""
        about = sock.getsockopt(_socket.SOL_SOCKET, _SO_PEERCRED, 12)
        user = memoryview(about).cast("i")[1]
        if user in (0, posix.geteuid()):
            return
        real = os.path.realpath(self._host)
        folders = [posix.stat(os.path.dirname(path)) for path in (self._host, real)]
        if user != folders[1].st_uid or any(one.st_mode & _S_IWOTH for one in folders):
            raise LinkError(f"answered by user {user}, who is not kdumpfenced's user")

    # ------------------------------------------------------------------------------- http

    def _ask_http(self, question: Mapping[str, object], until: float) -> bytes:
        why: OSError = TimeoutError()
        addresses = self._addresses(until)
        for number, address in enumerate(addresses):
            kind = _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC
            now = time.monotonic()
            try:
                self._sock = _socket.socket(address.family, kind)
                # One that says nothing leaves the others their share of the time.
                _limit(self._sock, now + (until - now) / (len(addresses) - number))
                self._sock.connect(peer(address, self._port))
            except OSError as error:  # another address of the host may answer
                self.close()
                why = error
                continue
            self._found = [address, *addresses[:number], *addresses[number + 1 :]]
            host = str(Address(address.packed))
            host = f"[{host}]" if ":" in host else host
            asked = {name: value for name, value in question.items() if name != "ask"}
            body = json.dumps(asked).encode()
            head = (
                f"POST /v1/{question['ask']} HTTP/1.1\r\nHost: {host}:{self._port}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                "Accept: application/json\r\nConnection: close\r\n\r\n"
            )
            _limit(self._sock, until)
            self._sock.sendall(head.encode() + body)
            answer = _read_http(self._sock, until)
            self.close()
            return answer
        self._found = []  # it may have moved
        raise why

    def _addresses(self, until: float) -> list[Address]:
        """Where the host is. LinkError if nobody knows until then."""
        self._found = self._found or literal(self._host, FAMILIES["auto"]) or []
        if self._found:
            return self._found
        resolver = Resolver([self._host], FAMILIES["auto"])
        poller = select.poll()
        poller.register(resolver.fd, select.POLLIN)
        why = "its name was not looked up in time"
        try:
            while time.monotonic() < until:
                for _, answer in resolver.step():
                    if not isinstance(answer, LookUpError):
                        self._found = answer
                        return answer
                    why = str(answer)
                    if answer.permanent:
                        raise LinkError(why)
                poller.poll(min(0.1, _left(until)) * 1000)
        finally:
            resolver.close()
        raise LinkError(why)


def _read_http(sock: _socket.socket, until: float) -> bytes:
    """The body of an answer over HTTP/1.1. LinkError if it is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = _read(sock, until, len(data))
        if not part:
            raise _HungUpError("it hung up")
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in _split(fields)}
    code = status.split(" ", 2)[1:2]
    size = whole_number(headers.get("content-length", ""), 0, MOST_ANSWER)
    if not status.startswith("HTTP/1.") or not code or size is None:
        raise LinkError("its answer is no HTTP with a Content-Length: is it kdumpfenced?")
    while len(body) < size:
        part = _read(sock, until, len(body))
        if not part:
            raise _HungUpError("it hung up in the middle of its answer")
        body += part
    # What is wrong with a question is JSON, too.
    if code != ["200"] and headers.get("content-type", "") != "application/json":
        raise LinkError(f"HTTP status {shown(code[0])}: is it kdumpfenced?")
    return body[:size]


def _split(fields: list[str]) -> list[tuple[str, str, str]]:
    return [field.partition(":") for field in fields]


def _left(until: float) -> float:
    return max(0.001, until - time.monotonic())


def _limit(sock: _socket.socket, until: float) -> None:
    """No call takes longer than that."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)


def _read(sock: _socket.socket, until: float, before: int) -> bytes:
    """More of an answer, of which so many bytes came before. b"" at its end."""
    _limit(sock, until)
    part = sock.recv(1 << 14)
    if before + len(part) > MOST_ANSWER:
        raise LinkError(f"its answer has more than {MOST_ANSWER} bytes: is it kdumpfenced?")
    return part


def _why(error: OSError) -> str:
    # _socket.timeout is another class than TimeoutError before Python 3.10.
    if isinstance(error, (TimeoutError, _socket.timeout)):
        return "no answer in time"
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return f"no kdumpfenced there: {error.strerror}"
    return error.strerror or str(error) or type(error).__name__

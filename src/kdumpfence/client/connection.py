# SPDX-License-Identifier: LGPL-2.1-or-later
"""One connection to kdumpfenced: a question as an object in, the answer as an object out.

Over a Unix socket a question is a line of JSON, over TCP it is a request of HTTP/1.1. Whoever is at
the other end can neither keep a client waiting longer than it wants nor fill its memory. What may
not be in this file: what is asked.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from kdumpfence.client.errors import ClientError, Refused, Unexpected, Unreachable
from kdumpfence.daemon.status import is_open_to_all
from kdumpfence.text import one_line, whole_number

if TYPE_CHECKING:
    import ssl

Question = Mapping[str, Any]

#: Questions that are in the body of a request.
_POSTED = ("nodes", "heard", "question")

#: Bytes of an answer.
MOST_ANSWER = 1 << 24

#: Bytes of the head of an answer over HTTP.
_MOST_HEAD = 1 << 16


class Place(NamedTuple):
    """Where a daemon is."""

    #: As it is told to people.
    name: str
    #: Of a Unix socket; "": it is asked over HTTP.
    path: str = ""
    host: str = ""
    port: int = 0
    tls: bool = False
    #: What comes before /v1/ where a proxy wants that.
    prefix: str = ""

    @property
    def authority(self) -> str:
        """Host and port as a request tells them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def parsed_place(where: str) -> Place:
    """What "unix:PATH", a path, or a URL of http or https says. ValueError if it is none."""
    if where.startswith(("unix:", "/")):
        path = where[len("unix:") :] if where.startswith("unix:") else where
        if not path or "\0" in path:
            raise ValueError(f"{where!r}: no path behind unix:")
        return Place(one_line(path), path)
    allowed = "unix:PATH, http://HOST:PORT and https://HOST are places of a daemon"
    try:
        parts = urlsplit(where)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{where!r}: {error}; {allowed}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{where!r}: {allowed}")
    plain = where.isascii() and where.isprintable() and " " not in where
    if parts.query or parts.fragment or parts.username is not None or not plain:
        raise ValueError(f"{where!r}: only a host, a port and a path can be in it")
    try:
        parts.hostname.encode("idna")  # as the look-up will have it
    except UnicodeError:
        raise ValueError(f"{where!r}: not the name of a host; {allowed}") from None
    tls = parts.scheme == "https"
    prefix = parts.path.rstrip("/")
    return Place(where, "", parts.hostname, port or (443 if tls else 80), tls, prefix)


class Connection:
    """An open connection. Raises ClientError if there can be none within `timeout` seconds.

    (The look-up of a name takes as long as the system's resolver may.)
    """

    def __init__(
        self,
        place: Place,
        timeout: float,
        headers: Mapping[str, str],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._place = place
        self._headers = headers
        self._timeout = self._timeout_now = timeout
        self._rest = b""
        #: Whether it was of use already: then it may have been closed since for being quiet.
        self.used = False
        deadline = time.monotonic() + timeout
        try:
            self._sock = _unix(place, timeout, deadline) if place.path else _tcp(place, deadline)
        except (FileNotFoundError, ConnectionRefusedError):
            raise Unreachable(f"no daemon at {place.name}: is kdumpfenced running?") from None
        except OSError as error:
            raise self._error(error) from None
        try:
            if place.path:
                _check_other_end(self._sock, place.path)
            elif place.tls:
                self._sock.settimeout(max(0.001, deadline - time.monotonic()))
                self._encrypt(tls)
        except ClientError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise self._error(error) from None

    def _encrypt(self, context: ssl.SSLContext | None) -> None:
        import ssl  # most do without

        context = context or ssl.create_default_context()
        self._sock = context.wrap_socket(self._sock, server_hostname=self._place.host)

    @property
    def closed(self) -> bool:
        """Whether it is of no use any more."""
        return self._sock.fileno() < 0

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def ask(self, question: Question, wait: float, deadline: float) -> dict[str, Any]:
        """Send a question and return the answer, which may come until then (time.monotonic).

        `wait`: for so many seconds the daemon may wait. After any ClientError but Refused the
        connection is of no use any more, and closed.
        """
        self._timeout_now = self._timeout + wait
        self._deadline = deadline
        try:
            if self._rest:
                raise self._unexpected()  # it is no answer to this question
            if self._place.path:
                status, answer = 200, self._ask_in_a_line(question)
            else:
                status, answer = self._ask_over_http(question)
        except ClientError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise self._error(error) from None
        self.used = True
        if isinstance(answer, dict) and isinstance(answer.get("error"), str):
            why = f"{self._place.name}: the daemon says: {one_line(answer['error'])}"
            if status >= 500 or answer.get("again") is True:
                raise Unreachable(why)
            raise Refused(why)
        if not isinstance(answer, dict) or status not in (200, 503):
            self.close()
            if status >= 500:
                raise Unreachable(f"{self._place.name}: HTTP status {status}")
            raise self._unexpected()
        return answer

    # --------------------------------------------------------------------- lines of JSON

    def _ask_in_a_line(self, question: Question) -> object:
        self._send(json.dumps(question).encode() + b"\n")
        return self._parsed(self._line())

    # ------------------------------------------------------------------------------ HTTP

    def _ask_over_http(self, question: Question) -> tuple[int, object]:
        method, path, body = as_request(question)
        lines = [f"{method} {self._place.prefix}{path} HTTP/1.1", f"Host: {self._place.authority}"]
        lines.append("Accept: application/json")
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in self._headers.items()]
        self._send("\r\n".join([*lines, "\r\n"]).encode("latin-1") + body)
        head = self._until(b"\r\n\r\n").decode("latin-1")
        status_line, *fields = head.rstrip("\r").split("\r\n")
        words = status_line.split(" ", 2)
        status = whole_number(words[1], 100, 599) if len(words) > 1 else None
        if status is None or not words[0].startswith("HTTP/1."):
            raise self._unexpected()
        split = (field.partition(":") for field in fields)
        headers = {name.lower(): value.strip().lower() for name, _, value in split}
        body = self._body(headers)
        if "close" in headers.get("connection", "") or words[0] == "HTTP/1.0":
            self.close()
        if "json" not in headers.get("content-type", ""):
            return status, None
        return status, self._parsed(body)

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            return self._chunks()
        length = headers.get("content-length")
        if length is None:
            return self._everything()
        size = whole_number(length, 0, MOST_ANSWER)
        if size is None:
            raise self._unexpected()
        return self._exactly(size)

    def _chunks(self) -> bytes:
        """A body that a proxy cut into pieces (RFC 9112, 7.1)."""
        pieces: list[bytes] = []
        size = 0
        while True:
            line = self._until(b"\r\n").partition(b";")[0].strip()
            try:
                length = int(line, 16)
            except ValueError:
                raise self._unexpected() from None
            size += length
            if length < 0 or size > MOST_ANSWER:
                raise self._unexpected()
            if not length:
                while self._until(b"\r\n"):
                    pass
                return b"".join(pieces)
            pieces.append(self._exactly(length))
            if self._exactly(2) != b"\r\n":
                raise self._unexpected()

    # ------------------------------------------------------------------------ the socket

    def _send(self, data: bytes) -> None:
        self._sock.settimeout(self._left())
        self._sock.sendall(data)

    def _receive(self) -> bytes:
        self._sock.settimeout(self._left())
        return self._sock.recv(1 << 16)

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _line(self) -> bytes:
        """What comes before the next newline: a whole answer."""
        pieces, size = [self._rest], len(self._rest)
        while b"\n" not in pieces[-1]:
            pieces.append(self._receive())
            if not pieces[-1]:
                raise ConnectionResetError
            size += len(pieces[-1])
            if size > MOST_ANSWER:
                raise self._unexpected()
        line, _, self._rest = b"".join(pieces).partition(b"\n")
        return line

    def _until(self, end: bytes) -> bytes:
        """What comes before that: something short."""
        while end not in self._rest:
            if len(self._rest) > _MOST_HEAD:
                raise self._unexpected()
            piece = self._receive()
            if not piece:
                raise ConnectionResetError
            self._rest += piece
        found, _, self._rest = self._rest.partition(end)
        return found

    def _exactly(self, number: int) -> bytes:
        pieces, size = [self._rest], len(self._rest)
        while size < number:
            piece = self._receive()
            if not piece:
                raise ConnectionResetError
            pieces.append(piece)
            size += len(piece)
        data = b"".join(pieces)
        self._rest = data[number:]
        return data[:number]

    def _everything(self) -> bytes:
        pieces, size = [self._rest], len(self._rest)
        while pieces[-1] or len(pieces) == 1:
            pieces.append(self._receive())
            size += len(pieces[-1])
            if size > MOST_ANSWER:
                raise self._unexpected()
        self.close()
        return b"".join(pieces)

    def _parsed(self, data: bytes) -> object:
        try:
            found: object = json.loads(data)
        except (ValueError, RecursionError):
            raise self._unexpected() from None
        return found

    def _unexpected(self) -> Unexpected:
        return Unexpected(f"{self._place.name}: unexpected answer; not kdumpfenced?")

    def _error(self, error: OSError) -> ClientError:
        # socket.timeout is another class than TimeoutError before Python 3.10.
        if isinstance(error, (TimeoutError, socket.timeout, BlockingIOError)):
            seconds = f"{self._timeout_now:g} seconds"
            return Unreachable(f"{self._place.name}: no answer within {seconds}")
        if isinstance(error, (ConnectionError, BrokenPipeError)):
            return Unreachable(f"the daemon at {self._place.name} closed the connection")
        return Unreachable(f"{self._place.name}: {error.strerror or error}")


def as_request(question: Question) -> tuple[str, str, bytes]:
    """The method, the path and the body that ask this over HTTP."""
    ask = question["ask"]
    if ask == "node":
        return "GET", f"/v1/nodes/{quote(question['node'], safe='', errors='surrogatepass')}", b""
    if ask in _POSTED:
        asked = {name: value for name, value in question.items() if name != "ask"}
        return "POST", f"/v1/{ask}", json.dumps(asked).encode()
    given = {name: value for name, value in question.items() if name != "ask" and value is not None}
    return "GET", f"/v1/{ask}" + (f"?{urlencode(given)}" if given else ""), b""


def _tcp(place: Place, deadline: float) -> socket.socket:
    """Connected to the first address of the host that answers; each has its share of the time."""
    why: OSError = TimeoutError()
    found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    for left, (family, kind, protocol, _, address) in zip(range(len(found), 0, -1), found):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max(0.001, (deadline - time.monotonic()) / left))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as error:
            sock.close()
            why = error
    raise why


def _unix(place: Place, timeout: float, deadline: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        while True:
            try:
                sock.connect(place.path)
                return sock
            except BlockingIOError:  # too many wait there already, which is over at once
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.01)
    except BaseException:
        sock.close()
        raise


def _check_other_end(sock: socket.socket, path: str) -> None:
    """It has to be root's, one's own, or of the user who alone can put a socket there."""
    size = struct.calcsize("3i")
    about = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, user, _ = struct.unpack("3i", about)
    if user in (0, os.geteuid()):
        return
    real = os.path.realpath(path)
    folder = os.stat(os.path.dirname(real))
    if user != folder.st_uid or is_open_to_all(path) or is_open_to_all(real):
        raise Unexpected(f"{path}: answered by user {user}, who is not kdumpfenced's user")

# SPDX-License-Identifier: LGPL-2.1-or-later
"""HTTP as the daemon speaks it: a handler is called with a request and returns a reply.

`http_request` reads requests, `bounded_server` keeps slow and many clients in bounds. Nothing can
be changed over it, so there is no login, no cookie and no form; what is told is told to whoever
can connect. What may not be in this file: what is on a page.
"""

from __future__ import annotations

import functools
import os
import socket
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol, Union

from kdumpfence.daemon.bounded_server import Answer, BoundedServer, Limits, More
from kdumpfence.daemon.http_request import BadRequest, Incomplete, Request, parse

#: For a request and its answer there are five seconds, and as many until the next one.
LIMITS = Limits(clients=32, question=8192, quiet=5.0)

#: Bytes of a request's head, if its body may be longer.
MOST_HEAD = 1 << 16

#: Seconds between two tries to have the port.
RETRY = 10.0

TEXT = "text/plain; charset=utf-8"

_PHRASES = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


class Reply(NamedTuple):
    """What a request is answered with."""

    status: int
    #: Its Content-Type.
    kind: str
    body: bytes = b""
    #: Others than those that every reply has.
    headers: tuple[tuple[str, str], ...] = ()
    #: What comes behind the body, until the connection ends: the reply has no length then.
    more: More | None = None


class Later(Protocol):
    """A reply that has to be waited for."""

    #: When to look at the latest, CLOCK_MONOTONIC; it may change with each look.
    due: float

    def look(self) -> Reply | None:
        """The reply; None if there is none yet."""


#: Answers a request; ValueError and BadRequest say what is wrong with it.
Handler = Callable[[Request], Union[Reply, Later]]
#: The reply that tells of a fault: an HTTP status, and one line.
Refuse = Callable[[int, str], Reply]


def as_text(status: int, why: str) -> Reply:
    """A fault as a line of text."""
    return Reply(status, TEXT, f"{why}\n".encode("utf-8", "replace"))


class Speaker:
    """What a client's bytes are answered with, by this handler."""

    def __init__(self, handler: Handler, refuse: Refuse = as_text, limits: Limits = LIMITS) -> None:
        self._handler = handler
        self._refuse = refuse
        self._most_head = min(MOST_HEAD, limits.question)
        self._most_body = max(0, limits.question - MOST_HEAD)

    def respond(self, asked: bytes) -> Answer | None:
        """As BoundedServer wants it."""
        try:
            parsed = parse(asked, self._most_head, self._most_body)
        except BadRequest as error:
            return Answer(rendered(self._refuse(error.status, str(error)), keep=False), last=True)
        if parsed is None:
            return None
        if isinstance(parsed, Incomplete):
            return Answer(b"HTTP/1.1 100 Continue\r\n\r\n", parsed.asked)
        request, rest, keep = parsed
        reply = self._reply(request)
        body = request.method != "HEAD"
        if not isinstance(reply, Reply):
            return Answer(b"", rest, not keep, _LaterAnswer(reply, self._refuse, keep, body))
        if reply.more is not None:
            return Answer(rendered(reply, False, body), b"", True, reply.more if body else None)
        return Answer(rendered(reply, keep, body), rest, not keep)

    def _reply(self, request: Request) -> Reply | Later:
        try:
            return self._handler(request)
        except BadRequest as error:
            return self._refuse(error.status, str(error))
        except ValueError as error:
            return self._refuse(400, str(error))
        except Exception as error:  # a fault of ours must not end the thread
            return self._refuse(500, type(error).__name__)


class _LaterAnswer:
    """One that is waited for, in bytes."""

    def __init__(self, later: Later, refuse: Refuse, keep: bool, body: bool) -> None:
        self._later: Later | None = later
        self._refuse = refuse
        self._keep, self._body = keep, body
        self.due = later.due

    def next(self) -> bytes | None:
        if self._later is None:
            return None
        try:
            reply = self._later.look()
        except Exception as error:  # as in `Speaker`
            reply = self._refuse(500, type(error).__name__)
        if reply is None:
            self.due = self._later.due
            return b""
        self._later = None
        return rendered(reply, self._keep, self._body)


@functools.lru_cache(maxsize=2)
def _date(second: int) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second))


def rendered(reply: Reply, keep: bool, body: bool = True) -> bytes:
    """A reply in bytes; `keep`: the connection goes on; not `body`: the head alone."""
    status, kind, content, headers, more = reply
    lines = [
        f"HTTP/1.1 {status} {_PHRASES.get(status, 'Status')}\r\nDate: {_date(int(time.time()))}",
        f"Content-Type: {kind}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff",
    ]
    if more is None:
        lines.append(f"Content-Length: {len(content)}")
    lines += [f"{name}: {value}" for name, value in headers]
    if not keep:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1") + (content if body else b"")


class Pages:
    """Answers on that address and port, from `start` on.

    Anybody may have that port, so it is no error if it cannot be had: `trouble` says why then, the
    log (by `say`) once, and it is tried again every RETRY seconds. `name` is that of the table
    among the settings, and of the thread.
    """

    def __init__(
        self,
        address: str,
        port: int,
        handler: Handler,
        say: Callable[[str, str], None],
        name: str = "metrics",
        refuse: Refuse = as_text,
        limits: Limits | None = None,
    ) -> None:
        self._where = (address, port)
        self._say = say
        self._name = name
        self._limits = limits or LIMITS
        self._speaker = Speaker(handler, refuse, self._limits)
        self._server: BoundedServer | None = None
        self._next_try = 0.0
        self.trouble = ""
        self._open()

    def start(self) -> None:
        """Answer from now on. RuntimeError if there can be no thread."""
        if self._server is not None:
            self._server.start()

    def look(self) -> None:
        """Try again if it is time for that."""
        if self._server is None and time.monotonic() >= self._next_try:
            self._open()
            self.start()

    def news(self) -> None:
        """See `BoundedServer.news`."""
        if self._server is not None:
            self._server.news()

    def close(self) -> None:
        """End at once; whoever is still being answered is cut off."""
        if self._server is not None:
            self._server.close()

    def _open(self) -> None:
        address, port = self._where
        self._next_try = time.monotonic() + RETRY
        try:
            listener = _listen(address, port, self._limits.clients)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            trouble = f"{self._name}: cannot listen on {address} port {port}: {why}"
            if not self.trouble:
                self._say("error", f"{trouble}; will try again")
            self.trouble = trouble
        else:
            self.trouble = ""
            self._server = BoundedServer(self._name, listener, self._limits, self._speaker.respond)


def _listen(address: str, port: int, queue: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # An answer leaves at once; what is accepted inherits it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((address, port))
        sock.listen(queue)
    except OSError:
        sock.close()
        raise
    return sock

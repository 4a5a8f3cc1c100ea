# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's pages over HTTP: GET and HEAD, one request a connection.

`bounded_server` keeps slow and many clients in bounds. What may not be in this file: what is on a
page.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from kdumpfence.daemon.bounded_server import Answer, BoundedServer, Limits

#: A request has to be sent and its answer read within five seconds.
LIMITS = Limits(clients=32, question=8192, quiet=5.0)

#: Seconds between two tries to have the port.
RETRY = 10.0

#: Status, type and content of the page with that path.
Page = Callable[[str], tuple[str, str, bytes]]


class Pages:
    """Answers on that address and port, from `start` on.

    Anybody may have that port, so it is no error if it cannot be had: `trouble` says why then, the
    log (by `say`) once, and it is tried again every RETRY seconds.
    """

    def __init__(
        self, address: str, port: int, page: Page, say: Callable[[str, str], None]
    ) -> None:
        self._where = (address, port)
        self._page = page
        self._say = say
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

    def close(self) -> None:
        """End at once; whoever is still being answered is cut off."""
        if self._server is not None:
            self._server.close()

    def _open(self) -> None:
        address, port = self._where
        self._next_try = time.monotonic() + RETRY
        try:
            listener = _listen(address, port)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            trouble = f"metrics: cannot listen on {address} port {port}: {why}"
            if not self.trouble:
                self._say("error", f"{trouble}; will try again")
            self.trouble = trouble
        else:
            self.trouble = ""
            self._server = BoundedServer("metrics", listener, LIMITS, self._respond)

    def _respond(self, asked: bytes) -> Answer | None:
        whole = b"\r\n\r\n" in asked or b"\n\n" in asked
        return Answer(self._reply(asked), last=True) if whole else None

    def _reply(self, asked: bytes) -> bytes:
        words = asked.split(b"\n", 1)[0].split()
        more = ""
        if len(words) != 3 or not words[2].startswith(b"HTTP/1"):
            status, kind, content = "400 Bad Request", "text/plain", b"no request\n"
        elif words[0] not in (b"GET", b"HEAD"):
            status, kind, content = "405 Method Not Allowed", "text/plain", b"GET or HEAD\n"
            more = "Allow: GET, HEAD\r\n"
        else:
            path = words[1].split(b"?", 1)[0].decode("latin-1")
            try:
                status, kind, content = self._page(path)
            except Exception as error:  # a fault of ours must not end the thread
                status, kind = "500 Internal Server Error", "text/plain"
                content = f"{type(error).__name__}\n".encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
            f"{more}Connection: close\r\n\r\n"
        )
        return head.encode() + (b"" if words[:1] == [b"HEAD"] else content)


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(LIMITS.clients)
    except OSError:
        sock.close()
        raise
    return sock

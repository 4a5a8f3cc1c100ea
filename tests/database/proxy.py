# SPDX-License-Identifier: LGPL-2.1-or-later
"""A network between daemons and a database that can be slow, cut, or swallow everything."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from types import TracebackType


class Proxy:
    """Listens on a port of the kernel's choice and passes on to that one, until it is closed."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        #: Seconds by which each piece is late.
        self.delay = 0.0
        #: While this is not set, nothing passes, and nobody is told.
        self.passes = threading.Event()
        self.passes.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, url: str) -> str:
        """The same database, through here."""
        return url.replace(f":{self._target}/", f":{self.port}/")

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                self.passes.wait()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                self._pairs.append((near, far))
                threading.Thread(target=self._pass, args=(near, far), daemon=True).start()

    def _pass(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), near, far:
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    data = ready.recv(65536)
                    time.sleep(self.delay)
                    self.passes.wait()
                    if not data or self._closed:
                        return
                    (far if ready is near else near).sendall(data)

    def cut(self) -> None:
        """End all connections that there are."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for sock in pair:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Nobody passes any more."""
        self._closed = True
        self.passes.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

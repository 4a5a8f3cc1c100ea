# SPDX-License-Identifier: LGPL-2.1-or-later
"""What sits where a kdumpfenced should be, and says what it likes, over JSON lines or HTTP."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: What it does with a connection on which that was asked; what it returns is sent.
Reply = Callable[[dict[str, Any]], Any]


class Liar:
    """A server on a Unix socket at `path`, or else on a TCP port of loopback; in a thread.

    `reply`: gets each question; its dict is sent as JSON, its bytes as they are, and after a list
    each of these with nothing in between. `hold`: keeps connections instead of answering.
    """

    def __init__(self, reply: Reply, path: Path | None = None, hold: bool = False) -> None:
        self.reply = reply
        self.hold = hold
        self.questions: list[dict[str, Any]] = []
        self.asked = threading.Event()
        if path is None:
            self._sock = socket.create_server(("127.0.0.1", 0))
            self.place = f"http://127.0.0.1:{self._sock.getsockname()[1]}"
        else:
            self._sock = socket.socket(socket.AF_UNIX)
            self._sock.bind(str(path))
            self._sock.listen(8)
            self.place = f"unix:{path}"
        self._http = path is None
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._run)]

    def __enter__(self) -> Liar:
        self._sock.settimeout(0.02)
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
        self._sock.close()

    def _run(self) -> None:
        while not self._ends.is_set():
            with contextlib.suppress(socket.timeout):
                client = self._sock.accept()[0]
                self._threads.append(threading.Thread(target=self._serve, args=(client,)))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(0.02)
        with client, contextlib.suppress(OSError):
            while not self._ends.is_set():
                question = self._read(client)
                if question is None:
                    return
                self.questions.append(question)
                self.asked.set()
                if self.hold:
                    self._ends.wait()
                    return
                told = self.reply(question)
                for piece in told if isinstance(told, list) else [told]:
                    self._send(client, piece)
                if self._http:
                    return

    def _send(self, client: socket.socket, piece: Any) -> None:
        if callable(piece):  # bytes without end
            while not self._ends.is_set():
                client.sendall(piece())
        elif isinstance(piece, bytes):
            client.sendall(piece)
        else:
            data = json.dumps(piece).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            client.sendall(head + data if self._http else data + b"\n")

    def _read(self, client: socket.socket) -> dict[str, Any] | None:
        data = b""
        while not self._ends.is_set():
            with contextlib.suppress(socket.timeout):
                part = client.recv(65536)
                if not part:
                    return None
                data += part
            if not self._http and data.endswith(b"\n"):
                question: dict[str, Any] = json.loads(data)
                return question
            head, end, body = data.partition(b"\r\n\r\n")
            if self._http and end and f"Content-Length: {len(body)}\r\n".encode() in head + b"\r\n":
                ask = head.split(b" ")[1].decode().rpartition("/")[2]
                return {"ask": ask, **json.loads(body)}
        return None

# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfenced's end of the control socket: lines of JSON, or HTTP.

A thread of its own answers, whatever the daemon is busy with. Which of the two a client speaks is
told by its first byte: no line of JSON that asks for anything begins as a method of HTTP does. What
may not be in this file: what an answer says.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from collections.abc import Callable
from typing import Any

from kdumpfence.daemon.api import Api, refused
from kdumpfence.daemon.bounded_server import Answer, BoundedServer, Limits
from kdumpfence.daemon.control import Answer as Told
from kdumpfence.daemon.http import Speaker
from kdumpfence.daemon.questions import NotReady, Questions
from kdumpfence.daemon.status import PATH, ControlError, Status, is_open_to_all

#: A question may hold five thousand names of nodes.
LIMITS = Limits(clients=64, question=1 << 19, quiet=60.0, unread=5.0)

#: What a method of HTTP begins with.
_LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Server:
    """The socket at `path`. Raises ControlError if it cannot be had.

    A socket that a killed daemon left behind is replaced, that of a living one is not. Without
    `questions` it only tells the status.
    """

    def __init__(
        self,
        path: str = PATH,
        mode: int = 0o666,
        limits: Limits = LIMITS,
        questions: Questions | None = None,
    ) -> None:
        self.path = path
        self.questions = questions or Questions()
        self._http = Speaker(Api(self.questions).handle, refused, limits)
        self._most = limits.question
        listener, self._inode = _listen(path, mode)
        self._server = BoundedServer("control", listener, limits, self._respond)
        self._server.start()

    def publish(self, status: Status | Callable[[], Status]) -> None:
        """See `Questions.publish`."""
        self.questions.publish(status)

    def news(self) -> None:
        """Something was told; from any thread."""
        self._server.news()

    def close(self) -> None:
        """Hang up on all clients and remove the socket; a second time does nothing."""
        self._server.close()
        with contextlib.suppress(OSError):
            if _inode(self.path) == self._inode:
                os.unlink(self.path)
        self._inode = (0, 0)  # the number may be somebody else's from now on

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _respond(self, asked: bytes) -> Answer | None:
        if asked and asked[0] in _LETTERS:
            return self._http.respond(asked)
        line, end, rest = asked.partition(b"\n")
        if not end and len(asked) < self._most:
            return None
        try:
            if not end:
                raise ValueError(f"a question has at most {self._most} bytes")
            found = self.questions.ask(_question(line))
        except ValueError as error:
            return Answer(_refusal(str(error)), last=True)
        except NotReady as error:
            return Answer(_refusal(str(error), again=True), rest)
        if isinstance(found, str):
            return Answer(found.encode() + b"\n", rest)
        return Answer(b"", rest, more=_LaterLine(found))


class _LaterLine:
    """An answer that is waited for."""

    def __init__(self, later: Told) -> None:
        assert not isinstance(later, str)
        self._later = later
        self.due = later.due
        self._done = False

    def next(self) -> bytes | None:
        if self._done:
            return None
        text = self._later.look()
        if text is None:
            self.due = self._later.due
            return b""
        self._done = True
        return text.encode() + b"\n"


def _refusal(why: str, again: bool = False) -> bytes:
    return json.dumps({"error": why, **({"again": True} if again else {})}).encode() + b"\n"


def _question(line: bytes) -> dict[str, Any]:
    """What is asked; ValueError tells what is wrong with the question."""
    try:
        question = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    return question if isinstance(question, dict) else {}


def _listen(path: str, mode: int) -> tuple[socket.socket, tuple[int, int]]:
    """A listening socket at that place, and which file it is."""
    sock = socket.socket(
        socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    )
    try:
        _clear(path)
        sock.bind(path)
        os.chmod(path, mode)
        inode = _inode(path)
        sock.listen(128)
    except OSError as error:
        sock.close()
        reason = error.strerror or str(error)  # too long a path has no errno
        raise ControlError(f"control socket {path}: {reason}") from None
    except BaseException:
        sock.close()
        raise
    return sock, inode


def _clear(path: str) -> None:
    """Remove what a killed daemon left there, and nothing else."""
    try:
        about = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(about.st_mode):
        raise ControlError(f"control socket {path}: exists and is not a socket; left untouched")
    if about.st_uid not in (0, os.geteuid()) and is_open_to_all(path):
        os.unlink(path)  # of somebody who only wants the place
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its queue is full: it lives
    raise ControlError(f"control socket {path}: another kdumpfenced answers there")


def _inode(path: str) -> tuple[int, int]:
    about = os.stat(path, follow_symlinks=False)
    return about.st_dev, about.st_ino

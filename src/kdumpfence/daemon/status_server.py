# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdumpfenced's end of the control socket: hands out its newest status.

The daemon publishes its status when it likes; a thread of its own hands it out, so a question
is answered whatever the daemon is busy with. What may not be in this file: what the status says.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import time
from collections.abc import Callable
from typing import Any

from kdumpfence.daemon.bounded_server import Answer, BoundedServer, Limits
from kdumpfence.daemon.control import QUESTIONS, Answers
from kdumpfence.daemon.status import MOST, PATH, ControlError, Status, as_object, is_open_to_all

LIMITS = Limits(clients=64, question=4096, quiet=60.0, unread=5.0)


class Server:
    """The socket at `path`. Raises ControlError if it cannot be had.

    A socket that a killed daemon left behind is replaced, that of a living one is not. Without
    `answers` it only tells the status.
    """

    def __init__(
        self,
        path: str = PATH,
        mode: int = 0o666,
        limits: Limits = LIMITS,
        answers: Answers | None = None,
    ) -> None:
        self.path = path
        #: Who answers all questions but that for the status; None: nobody yet.
        self.answers = answers
        self._published: tuple[Status | Callable[[], Status], float] | None = None
        #: The last answers: `most` -> bytes without the age and the end.
        self._statuses: dict[int, bytes] = {}
        self._statuses_of: object = None
        self._made: Status | None = None
        listener, self._inode = _listen(path, mode)
        self._server = BoundedServer("control", listener, limits, self._respond)
        self._server.start()

    def publish(self, status: Status | Callable[[], Status]) -> None:
        """From now on this is the answer, or what makes it when somebody asks: once, in the thread
        that answers. Costs next to nothing; from any thread.

        The Status must not be changed any more, nor the sequences in it.
        """
        self._published = (status, time.monotonic())

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
        line, end, rest = asked.partition(b"\n")
        if not end and len(asked) < LIMITS.question:
            return None
        try:
            if not end:
                raise ValueError(f"a question has at most {LIMITS.question} bytes")
            return Answer(self._answer(_question(line)), rest)
        except ValueError as error:
            return Answer(_refusal(str(error)), last=True)

    def _answer(self, question: dict[str, Any]) -> bytes:
        if question["ask"] == "status":
            most = question.get("most", MOST)
            if not isinstance(most, int) or isinstance(most, bool) or most < 0:
                raise ValueError('"most": not a whole number (0 or more)')
            return self._status(min(most, MOST))
        if self.answers is None:
            return _refusal("the daemon is still starting: try again")
        return json.dumps(self.answers.answer(question)).encode() + b"\n"

    def _status(self, most: int) -> bytes:
        published = self._published
        if published is None:
            return _refusal("the daemon is still starting: try again")
        status, when = published
        if status is not self._statuses_of or self._made is None:
            self._made = status if isinstance(status, Status) else status()
            self._statuses_of = status
            self._statuses.clear()
        if most not in self._statuses:
            if len(self._statuses) >= 4:  # of clients that ask for odd numbers
                self._statuses.clear()
            # Up to where the age comes.
            self._statuses[most] = json.dumps(as_object(self._made, most)).encode()[:-1]
        return self._statuses[most] + b', "age": %.3f}\n' % (time.monotonic() - when)


def _refusal(why: str) -> bytes:
    return json.dumps({"error": why}).encode() + b"\n"


def _question(line: bytes) -> dict[str, Any]:
    """What is asked; ValueError tells what is wrong with the question."""
    try:
        question = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(question, dict) or question.get("ask") not in QUESTIONS:
        raise ValueError(f'not {{"ask": ...}} with one of {", ".join(QUESTIONS)}')
    return question


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

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands' end of the control socket: asks kdumpfenced for its status."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kdumpfence.daemon.status import (
    MOST,
    PATH,
    ControlError,
    Status,
    as_object,
    from_object,
    is_open_to_all,
    read_dump,
    read_event,
)
from kdumpfence.listener.events import Dump, Event

__all__ = ["MOST", "PATH", "Client", "ControlError", "NoDaemon", "Refused", "Status", "as_object"]

#: Seconds that a command waits for its answer.
TIMEOUT = 2.0

#: Bytes of an answer.
MOST_ANSWER = 1 << 24


class Followed(NamedTuple):
    """What began and ended since a number."""

    #: Of which life of a daemon the numbers are.
    life: str
    events: list[Event]
    #: How many there were that the daemon does not have any more.
    missed: int
    #: From which number to go on.
    last: int


class NoDaemon(ControlError):
    """Nobody listens there."""


class Refused(ControlError):
    """The daemon does not take this question, and hung up."""


class Client:
    """A command's end. Raises NoDaemon if nobody listens at `path`, else ControlError."""

    def __init__(self, path: str = PATH, timeout: float = TIMEOUT) -> None:
        self.path = path
        self.timeout = timeout
        self._rest = b""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connect(time.monotonic() + timeout)
            self._check_other_end()
        except ControlError:
            self._sock.close()
            raise
        except (FileNotFoundError, ConnectionRefusedError):
            self._sock.close()
            raise NoDaemon(f"no daemon at {path}: is kdumpfenced running?") from None
        except OSError as error:
            self._sock.close()
            raise self._error(error) from None

    def _connect(self, deadline: float) -> None:
        self._sock.settimeout(self.timeout)
        while True:
            try:
                self._sock.connect(self.path)
                return
            except BlockingIOError:  # too many wait there already, which is over at once
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.01)

    def _check_other_end(self) -> None:
        """It has to be root's, one's own, or of the user who alone can put a socket there."""
        size = struct.calcsize("3i")
        about = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        _, user, _ = struct.unpack("3i", about)
        if user in (0, os.geteuid()):
            return
        real = os.path.realpath(self.path)
        folder = os.stat(os.path.dirname(real))
        if user != folder.st_uid or is_open_to_all(self.path) or is_open_to_all(real):
            raise ControlError(
                f"{self.path}: answered by user {user}, who is not kdumpfenced's user"
            )

    def status(self, most: int = MOST) -> Status:
        """Ask for the status, with `most` dumps; one that breaks off ends the connection."""
        answer = self.ask({"ask": "status", "most": most})
        try:
            return from_object(answer)
        except ValueError:
            raise self._unexpected() from None

    def dumps(self) -> Iterator[list[Dump]]:
        """All dumps under way, as they began, in pages; none that goes on meanwhile is left out.

        ControlError also if the daemon is of a version that does not know the question.
        """
        after: object = 0
        while after is not None:
            answer = self.ask({"ask": "dumps", "after": after, "most": MOST})
            try:
                page = [read_dump(one) for one in answer["dumps"]]
                after = answer["next"]
            except (KeyError, TypeError, ValueError, OverflowError):
                raise self._unexpected() from None
            yield page

    def follow(self, after: int | None = None) -> Followed:
        """What began and ended after that number; without one only where to go on from.

        Not everything at once: again from `last`, until there is nothing more. ControlError as
        `dumps`.
        """
        answer = self.ask({"ask": "events", "after": after, "most": MOST})
        try:
            return Followed(
                str(answer["life"]),
                [read_event(one, one["kind"], one["at"]) for one in answer["events"]],
                int(answer["missed"]),
                int(answer["last"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._unexpected() from None

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Send one question and return the answer."""
        deadline = time.monotonic() + self.timeout
        try:
            self._sock.settimeout(self.timeout)
            self._sock.sendall(json.dumps(question).encode() + b"\n")
            line = self._line(deadline)
            answer = json.loads(line)
        except OSError as error:
            self.close()
            raise self._error(error) from None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            self.close()
            raise self._unexpected()
        if "error" in answer:
            why = answer["error"]
            raise Refused(f"{self.path}: the daemon says: {why}")
        return answer

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self, deadline: float) -> bytes:
        pieces = [self._rest]
        size = len(self._rest)
        while b"\n" not in pieces[-1]:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(left)
            pieces.append(self._sock.recv(1 << 16))
            if not pieces[-1]:
                raise ConnectionResetError
            size += len(pieces[-1])
            if size > MOST_ANSWER:
                raise ValueError
        line, _, self._rest = b"".join(pieces).partition(b"\n")
        return line

    def _unexpected(self) -> ControlError:
        return ControlError(f"{self.path}: unexpected answer; not kdumpfenced?")

    def _error(self, error: OSError) -> ControlError:
        # socket.timeout is another class than TimeoutError before Python 3.10.
        if isinstance(error, (TimeoutError, socket.timeout, BlockingIOError)):
            return ControlError(f"{self.path}: no answer within {self.timeout:g} seconds")
        if isinstance(error, (ConnectionError, BrokenPipeError)):
            return NoDaemon(f"the daemon at {self.path} closed the connection")
        return ControlError(f"{self.path}: {error.strerror or error}")

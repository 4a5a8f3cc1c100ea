# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket: what kdumpfenced and the commands say to each other.

A Unix stream socket. The client sends one line of JSON, the daemon answers with one:

    {"ask": "status", "most": 200}
    {"version": ..., "up": ..., "nodes": ..., "dumping": ..., "dumps": [...], ...}

and so on over the same connection. It only answers: nothing can be changed by it. Both ends
must live here, in this file, and nothing that decides or draws.

The daemon publishes its status when it likes; a thread of its own hands it out, so a question
is answered whatever the daemon is busy with, and a client that is slow, gone or rude costs the
daemon nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import stat
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kdumpfence.listener.dumps import Dump, length

#: Where kdumpfenced listens.
PATH = "/run/kdumpfenced/control"

#: Dumps that one answer holds at most; of all others only the number is told.
MOST = 1000

#: Names of unresolved nodes that an answer holds at most.
MOST_UNRESOLVED = 100

#: Addresses of one dump that an answer holds at most.
MOST_ADDRESSES = 16

#: Bytes of a question.
_QUESTION = 4096

#: Bytes of an answer, for the client.
_ANSWER = 1 << 24

#: Clients at a time; for one more, the one that was quiet longest has to go.
_CLIENTS = 64

#: Seconds: for a client that says nothing, and for one that does not read its answer.
_QUIET = 60.0
_UNREAD = 5.0

#: Seconds until the next try when the process has no descriptor left for a client.
_PAUSE = 0.5

#: Seconds that a command waits for its answer.
TIMEOUT = 2.0


class ControlError(Exception):
    """The socket cannot be used; the text is one line for people."""


class NoDaemon(ControlError):
    """Nobody listens there."""


class Status(NamedTuple):
    """What the daemon says of itself. Times of dumps are Unix time in seconds."""

    version: str
    up: float  # seconds since the daemon was started
    when: float  # Unix time at which this was so
    nodes: int  # nodes that it knows
    unresolved: Sequence[str]  # nodes with a name that has no address; the first MOST_UNRESOLVED
    dumping: int  # nodes that are dumping
    dumps: Sequence[Dump]  # those that began last, newest first; MOST at most
    counts: Mapping[str, int]  # datagrams: "accepted", by reason, "unread"
    troubles: Sequence[str] = ()  # what does not work at the moment, a line each
    age: float = 0.0  # seconds since it was published; filled in for the client
    unresolved_nodes: int = 0  # how many `unresolved` would be if it had all


class Server:
    """The daemon's end at `path`. Raises ControlError if it cannot be had.

    A socket that a killed daemon left behind is replaced, that of a living one is not.
    """

    def __init__(self, path: str = PATH, mode: int = 0o666) -> None:
        self.path = path
        self._published: tuple[Status, float] | None = None
        #: The last answers: `most` -> bytes without the age and the end.
        self._answers: dict[int, bytes] = {}
        self._answers_of: Status | None = None
        self._listener, self._inode = _listen(path, mode)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._clients: dict[int, _Client] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._closing = False
        self._accept_at = 0.0  # CLOCK_MONOTONIC; 0: at any time
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()

    def publish(self, status: Status) -> None:
        """From now on this is the answer. Costs next to nothing; from any thread.

        The Status must not be changed any more, nor the sequences in it.
        """
        self._published = (status, time.monotonic())

    def close(self) -> None:
        """Say good-bye to all clients and remove the socket; a second time does nothing."""
        if self._closing:
            return
        self._closing = True
        os.write(self._wake_write, b"x")
        self._thread.join()
        os.close(self._wake_write)
        os.close(self._wake_read)
        with contextlib.suppress(OSError):
            if _inode(self.path) == self._inode:
                os.unlink(self.path)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        finally:
            for client in list(self._clients.values()):
                self._drop(client)
            self._selector.close()
            self._listener.close()

    def _turn(self) -> None:
        """One round: answer who asked, take in who came, drop who is overdue."""
        for key, _ in self._selector.select(self._wait()):
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.data, _Client):
                self._serve(key.data)
        now = time.monotonic()
        for client in [one for one in self._clients.values() if one.overdue <= now]:
            self._drop(client)
        if self._accept_at and self._accept_at <= now:
            self._accept_at = 0.0
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _wait(self) -> float | None:
        times = [client.overdue for client in self._clients.values()]
        if self._accept_at:
            times.append(self._accept_at)
        return max(0.0, min(times) - time.monotonic()) if times else None

    # Each system call lets another thread have the interpreter, and to get it back can take 5 ms
    # when that one is busy. So as few of them as can be stand between a question and its answer.

    def _accept(self) -> None:
        # One a turn: who was taken in is served before the next one comes.
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return
        except OSError:
            # No descriptor left: the next select would come back at once, for ever.
            self._selector.unregister(self._listener)
            self._accept_at = time.monotonic() + _PAUSE
            return
        if len(self._clients) >= _CLIENTS:
            self._drop(min(self._clients.values(), key=lambda one: one.active))
        client = _Client(sock)
        self._clients[sock.fileno()] = client
        self._serve(client)  # most have asked by now

    def _serve(self, client: _Client) -> None:
        """Go on with the client as far as it goes without waiting."""
        if client.gone:  # to make room, in this very round
            return
        try:
            with contextlib.suppress(BlockingIOError):
                if not client.unsent:
                    self._read(client)
                if client.unsent:
                    self._send(client)
            if not client.gone:
                self._await(client)
        except OSError:
            self._drop(client)

    def _await(self, client: _Client) -> None:
        """Come back when it has room for the answer, or else when it says something."""
        event = selectors.EVENT_WRITE if client.unsent else selectors.EVENT_READ
        if client.awaited == 0:
            self._selector.register(client.sock, event, client)
        elif client.awaited != event:
            self._selector.modify(client.sock, event, client)
        client.awaited = event

    def _read(self, client: _Client) -> None:
        data = client.sock.recv(_QUESTION, socket.MSG_DONTWAIT)
        if not data:
            self._drop(client)
            return
        client.heard(data)
        if not self._next(client) and len(client.unread) >= _QUESTION:
            client.last = True
            client.tell(_refusal(f"a question has at most {_QUESTION} bytes"))

    def _next(self, client: _Client) -> bool:
        """Answer the first question that is there; whether there was one."""
        line, end, rest = client.unread.partition(b"\n")
        if end:
            client.unread = rest
            self._answer(client, line)
        return bool(end)

    def _answer(self, client: _Client, line: bytes) -> None:
        try:
            most = _question(line)
        except ValueError as error:
            client.last = True
            client.tell(_refusal(str(error)))
            return
        client.tell(self._status(most))

    def _status(self, most: int) -> bytes:
        published = self._published
        if published is None:
            return _refusal("the daemon has only just been started: ask again")
        status, when = published
        if status is not self._answers_of:
            self._answers_of = status
            self._answers.clear()
        if most not in self._answers:
            if len(self._answers) >= 4:  # of clients that ask for odd numbers
                self._answers.clear()
            self._answers[most] = _encode(status, most)
        return self._answers[most] + b', "age": %.3f}\n' % (time.monotonic() - when)

    def _send(self, client: _Client) -> None:
        while client.unsent:
            sent = client.sock.send(client.unsent, socket.MSG_DONTWAIT)
            client.unsent = client.unsent[sent:]
        if client.last:
            self._drop(client)
            return
        client.answered()
        self._next(client)  # it may have come along with this one; its answer leaves next turn

    def _drop(self, client: _Client) -> None:
        client.gone = True
        del self._clients[client.sock.fileno()]
        if client.awaited:
            self._selector.unregister(client.sock)
        with contextlib.suppress(OSError):
            client.sock.close()


class _Client:
    """One connection, in the server."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.gone = False
        self.awaited = 0  # the event for which it is registered
        self.unread = b""
        self.unsent = memoryview(b"")
        self.last = False  # to be closed after this answer
        self.active = time.monotonic()
        self.overdue = self.active + _QUIET

    def heard(self, data: bytes) -> None:
        self.unread += data
        self.active = time.monotonic()

    def tell(self, answer: bytes) -> None:
        self.unsent = memoryview(answer)
        self.overdue = time.monotonic() + _UNREAD

    def answered(self) -> None:
        self.active = time.monotonic()
        self.overdue = self.active + _QUIET


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
                f"{self.path}: user {user} answers there, who is not known to be kdumpfenced's"
            )

    def status(self, most: int = MOST) -> Status:
        """Ask for the status, with `most` dumps; one that breaks off ends the connection."""
        return _status(self.path, self.ask({"ask": "status", "most": most}))

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
            raise ControlError(f"{self.path}: not an answer of kdumpfenced")
        if "error" in answer:
            why = answer["error"]
            raise ControlError(f"{self.path}: the daemon says: {why}")
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
            if size > _ANSWER:
                raise ValueError
        line, _, self._rest = b"".join(pieces).partition(b"\n")
        return line

    def _error(self, error: OSError) -> ControlError:
        # socket.timeout is another class than TimeoutError before Python 3.10.
        if isinstance(error, (TimeoutError, socket.timeout, BlockingIOError)):
            return ControlError(f"{self.path}: no answer within {self.timeout:g} seconds")
        if isinstance(error, (ConnectionError, BrokenPipeError)):
            return NoDaemon(f"the daemon at {self.path} has hung up")
        return ControlError(f"{self.path}: {error.strerror or error}")


def as_object(status: Status, most: int = MOST) -> dict[str, Any]:
    """The status as it is written in JSON, without its age."""
    return {
        "version": status.version,
        "up": round(status.up, 3),
        "when": round(status.when, 3),
        "nodes": status.nodes,
        "unresolved": list(status.unresolved[:MOST_UNRESOLVED]),
        "unresolved_nodes": status.unresolved_nodes,
        "dumping": status.dumping,
        "dumps": [
            {
                "node": dump.node,
                "since": dump.since,
                "last": dump.last,
                "messages": dump.messages,
                "addresses": list(dump.addresses[:MOST_ADDRESSES]),
                "took": round(length(dump), 3),
            }
            for dump in status.dumps[: min(most, MOST)]
        ],
        "counts": dict(status.counts),
        "troubles": list(status.troubles),
    }


def _encode(status: Status, most: int) -> bytes:
    """The answer up to where the age comes."""
    return json.dumps(as_object(status, most)).encode()[:-1]


def _refusal(why: str) -> bytes:
    return json.dumps({"error": why}).encode() + b"\n"


def _question(line: bytes) -> int:
    """How many dumps are asked for; ValueError tells what is wrong with the question."""
    try:
        question = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(question, dict) or question.get("ask") != "status":
        raise ValueError('the only question is {"ask": "status", "most": NUMBER}')
    most = question.get("most", MOST)
    if not isinstance(most, int) or isinstance(most, bool) or most < 0:
        raise ValueError('"most": not a whole number (0 or more)')
    return min(most, MOST)


def _status(path: str, answer: dict[str, Any]) -> Status:
    """Check an answer, which may come from a daemon of another version, or from no daemon."""
    try:
        dumps = [
            Dump(
                str(one["node"]),
                float(one["since"]),
                float(one["last"]),
                int(one["messages"]),
                tuple(str(address) for address in one["addresses"]),
                float(one.get("took", 0.0)),
            )
            for one in answer["dumps"]
        ]
        return Status(
            str(answer["version"]),
            float(answer["up"]),
            float(answer["when"]),
            int(answer["nodes"]),
            tuple(str(name) for name in answer["unresolved"]),
            int(answer["dumping"]),
            dumps,
            {str(name): int(number) for name, number in answer["counts"].items()},
            tuple(str(line) for line in answer.get("troubles", ())),
            float(answer.get("age", 0.0)),
            int(answer.get("unresolved_nodes", 0)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise ControlError(f"{path}: not a status of kdumpfenced") from None


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


def is_open_to_all(path: str) -> bool:
    """Whether everybody can put something at that place. OSError if it has no directory."""
    return bool(os.stat(os.path.dirname(os.path.abspath(path))).st_mode & stat.S_IWOTH)


def _clear(path: str) -> None:
    """Remove what a killed daemon left there, and nothing else."""
    try:
        about = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(about.st_mode):
        raise ControlError(f"control socket {path}: something else is there; it is left alone")
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

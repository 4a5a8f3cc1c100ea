# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the programs say: ``[debug]: ...`` on stdout, ``[error]: ...`` on stderr, and both
to syslog (facility daemon) under the program's name, as the stock programs do.

Saying something must never hold up a fencing: a pipe that nobody reads, a full disk or
a syslog daemon that hangs costs the line, not the time. Hence no print, no syslog(3).
"""

from __future__ import annotations

import _socket
import posix
import select
import time

from kdumpfence.text import one_line

_SYSLOG = "/dev/log"
_DAEMON_INFO = 30
_DAEMON_WARNING = 28
_DAEMON_ERROR = 27

#: Bytes; a pipe that can be written to at all takes as much without blocking.
_MOST = 4096


def _is_kmsg(about: posix.stat_result) -> bool:
    """Whether it is /dev/kmsg, which takes all that is written but never says so to poll."""
    return about.st_rdev == posix.makedev(1, 11) and about.st_mode & 0o170000 == 0o020000


def _reopened(fd: int, about: posix.stat_result) -> int:
    """The same pipe or terminal once more, to be written to without waiting; -1 if there is none.

    poll(2) alone is no help: a terminal with room for a byte lets a line wait, and whoever writes
    to the same pipe may be quicker. The descriptor itself is shared with others, and has to
    stay as it is. Not the master's side of a terminal: that would be a new one.
    """
    if about.st_mode & 0o170000 != 0o010000 and (
        not posix.isatty(fd) or about.st_rdev == posix.makedev(5, 2)
    ):
        return -1
    flags = posix.O_WRONLY | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC
    try:
        return posix.open(f"/proc/self/fd/{fd}", flags)
    except OSError:  # no /proc, or not the right to
        return -1


def write(fd: int, data: bytes) -> None:
    """Write to a descriptor that may be closed or full; then it is lost. Never waits."""
    own = -1
    try:
        about = posix.fstat(fd)
        if about.st_mode & 0o170000 == 0o140000:
            _send(fd, data)
            return
        own = _reopened(fd, about)
        poller = select.poll()
        poller.register(fd, select.POLLOUT)
        for start in range(0, len(data), _MOST):
            if own < 0 and not poller.poll(0) and not _is_kmsg(about):
                return
            posix.write(fd if own < 0 else own, data[start : start + _MOST])
    except (OSError, ValueError):
        pass
    finally:
        if own >= 0:
            posix.close(own)


def _send(fd: int, data: bytes) -> None:
    sock = _socket.socket(fileno=posix.dup(fd))
    try:
        sock.send(data, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
    finally:
        sock.close()


class Report:
    """Where the lines of one program go; `verbose` is its -v level."""

    def __init__(self, program: str, verbose: int = 0) -> None:
        self.program = program
        self.verbose = verbose

    def debug(self, text: str, level: int = 0) -> None:
        """Progress, told from this -v level on."""
        if self.verbose >= level:
            self._say(1, "debug", text, _DAEMON_INFO)

    def warning(self, text: str) -> None:
        """What is suspicious but keeps nothing from being done."""
        self._say(2, "warning", text, _DAEMON_WARNING)

    def error(self, text: str) -> None:
        """What went wrong."""
        self._say(2, "error", text, _DAEMON_ERROR)

    def _say(self, fd: int, kind: str, text: str, priority: int) -> None:
        line = one_line(text).encode("utf-8", "backslashreplace")[: _MOST - 128]
        line = line.decode("utf-8", "ignore").encode()  # no half a character at the end
        write(fd, b"[%s]: %s\n" % (kind.encode(), line))
        stamp = time.strftime("%b %e %H:%M:%S")
        record = f"<{priority}>{stamp} {self.program}[{posix.getpid()}]: ".encode() + line + b"\n"
        try:
            sock = _socket.socket(
                _socket.AF_UNIX,
                _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK,
            )
        except OSError:
            return
        try:
            sock.connect(_SYSLOG)
            sock.send(record)
        except OSError:
            pass
        finally:
            sock.close()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""One daemon a history: a lock on the file that is held as long as the daemon lives.

It is the file that is locked and not its name, so a second name leads to the same lock. The
kernel gives it back however the daemon ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

#: A byte of the file that SQLite never locks: it is the daemon's.
_OURS = 1 << 62


class InUse(Exception):
    """Another daemon holds the file."""


def hold(path: str, mode: int) -> int:
    """Open the file, made with `mode` (as of chmod) if there is none, and lock it.

    The descriptor that holds the lock. Raises InUse, or OSError if it cannot be opened.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
        os.fchmod(fd, mode)  # whatever the umask
    except FileExistsError:
        fd = os.open(path, flags)
    try:
        about = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, _OURS, 1, 0)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, about)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            os.close(fd)
            raise InUse from None
        # A file system without such locks.
    return fd

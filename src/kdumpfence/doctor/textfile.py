# SPDX-License-Identifier: LGPL-2.1-or-later
"""A file for node_exporter's textfile collector, which is there whole or not at all.

The collector reads each file of its directory whose name ends in .prom, whenever it is asked; so
the new one is made under another name, and takes the place of the old one when it is complete. The
directory may belong to a user who is not to be trusted, as its parent does on Debian, and this
program is root: no symbolic link of another user is followed, and what is at the file's own name is
replaced, whatever it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from kdumpfence.text import shown

_SUFFIX = ".prom"
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40  # as many as Linux follows


class TextfileError(Exception):
    """The file cannot be written; one line says why."""


class Textfile:
    """The file that is to be written, in its directory, which is held from the beginning.

    Raises TextfileError, as its methods do.
    """

    def __init__(self, path: str) -> None:
        if not path.endswith(_SUFFIX):
            raise TextfileError(
                f"{shown(path)}: node_exporter reads only files whose names end in {_SUFFIX}"
            )
        self._folder, self._name = os.path.split(os.path.abspath(path))
        try:
            self._fd = _opened(self._folder)
        except OSError as error:
            hint = ""
            if error.errno == errno.ENOENT:
                hint = "; name a file in node_exporter's --collector.textfile.directory"
            raise self._error(self._folder, error, hint) from None

    def __enter__(self) -> Textfile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def write(self, content: bytes) -> None:
        """Put this there, for everyone to read."""
        new = f".{self._name}.{os.urandom(8).hex()}"
        try:
            descriptor = os.open(new, _MAKE, 0o600, dir_fd=self._fd)
            try:
                with open(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fchmod(descriptor, 0o644)
                    os.fsync(descriptor)  # else a power cut may leave an empty file
                os.rename(new, self._name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(new, dir_fd=self._fd)
                raise
        except OSError as error:
            raise self._error(os.path.join(self._folder, self._name), error) from None

    def _error(self, path: str, error: OSError, hint: str = "") -> TextfileError:
        if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
            hint = " (needs root)"
        return TextfileError(f"{path}: {error.strerror}{hint}")


def _opened(folder: str) -> int:
    """A descriptor of this directory, reached over no symbolic link of another user."""
    here = os.open("/", _LOOK)
    waiting = folder.split("/")[::-1]
    links = 0
    try:
        while waiting:
            part = waiting.pop()
            if part in ("", "."):
                continue
            there = os.open(part, _LOOK, dir_fd=here)
            about = os.fstat(there)
            if stat.S_ISDIR(about.st_mode):
                here = _instead(here, there)
                continue
            try:
                if not stat.S_ISLNK(about.st_mode):
                    raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                if about.st_uid not in (0, os.geteuid()):
                    raise OSError(errno.ELOOP, f"{part} is a symbolic link of user {about.st_uid}")
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink("", dir_fd=there)
            finally:
                os.close(there)
            if target.startswith("/"):
                here = _instead(here, os.open("/", _LOOK))
            waiting += target.split("/")[::-1]
    except BaseException:
        os.close(here)
        raise
    return here


def _instead(old: int, new: int) -> int:
    os.close(old)
    return new

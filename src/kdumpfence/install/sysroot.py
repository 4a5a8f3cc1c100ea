# SPDX-License-Identifier: LGPL-2.1-or-later
"""A directory that is taken for a system's root, and nothing outside of it.

Paths are absolute and looked up as if the process had changed its root to that directory: a
symbolic link to /usr/lib means DIR/usr/lib, and `..` does not lead out. Each step goes by a
descriptor of the directory and without following links, so that no link that is put there
meanwhile leads out either. What is written is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_MOST_LINKS = 40  # as many as Linux follows
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = ".{}.kdumpfence-new"


@dataclass(frozen=True)
class Found:
    """What is at a path; two of the same content are equal."""

    kind: int  #: as stat.S_IFMT tells it
    mode: int  #: permission bits; 0 for a symbolic link, whose own mean nothing
    content: str  #: a digest, or the target of a symbolic link; "" for other kinds

    @property
    def digest(self) -> str:
        """What it is known by in records."""
        return f"link:{self.content}" if self.kind == stat.S_IFLNK else self.content


def file(content: bytes, mode: int) -> Found:
    """How a regular file will be found."""
    return Found(stat.S_IFREG, mode, hashlib.sha256(content).hexdigest())


def link(target: str) -> Found:
    """How a symbolic link will be found."""
    return Found(stat.S_IFLNK, 0, target)


class Sysroot:
    """All that is below one directory. Its methods raise OSError with the full path."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Sysroot:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def outside(self, path: str) -> str:
        """The path as the rest of the system knows it."""
        return path if self.root == "/" else self.root.rstrip("/") + path

    @contextlib.contextmanager
    def _naming(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                error.errno, error.strerror, self.outside(path.removesuffix("/."))
            ) from None

    @contextlib.contextmanager
    def _parent(self, path: str, create: bool = False) -> Iterator[tuple[int, str, str]]:
        """The directory of `path`, its own path without links, and the last name."""
        with self._naming(path), contextlib.ExitStack() as opened:
            *parts, name = path.split("/")
            here: list[tuple[int, str]] = []
            waiting = parts[::-1]
            links = 0
            while waiting:
                part = waiting.pop()
                above = here[-1][0] if here else self._fd
                if part in ("", "."):
                    continue
                if part == "..":
                    del here[-1:]
                    continue
                try:
                    mode = os.stat(part, dir_fd=above, follow_symlinks=False).st_mode
                except FileNotFoundError:
                    if not create:
                        raise
                    os.mkdir(part, 0o755, dir_fd=above)
                    mode = stat.S_IFDIR
                if stat.S_ISLNK(mode):
                    links += 1
                    if links > _MOST_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    target = os.readlink(part, dir_fd=above)
                    if target.startswith("/"):
                        here.clear()
                    waiting += target.split("/")[::-1]
                    continue
                descriptor = os.open(part, _DIRECTORY, dir_fd=above)
                opened.callback(os.close, descriptor)
                here.append((descriptor, part))
            yield (here[-1][0] if here else self._fd), "".join(f"/{part}" for _, part in here), name

    # ------------------------------------------------------------- looking

    def find(self, path: str) -> Found | None:
        """What is at the path itself, a link not followed; None if there is nothing."""
        try:
            with self._parent(path) as (folder, _, name):
                mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                if stat.S_ISLNK(mode):
                    return link(os.readlink(name, dir_fd=folder))
                if stat.S_ISREG(mode):
                    return file(_read(folder, name), stat.S_IMODE(mode))
                return Found(stat.S_IFMT(mode), stat.S_IMODE(mode), "")
        except FileNotFoundError:
            return None

    def real_path(self, path: str) -> str | None:
        """The path without links, its last name included; None if it leads to nothing."""
        try:
            for _ in range(_MOST_LINKS):
                with self._parent(path) as (folder, above, name):
                    if not stat.S_ISLNK(
                        os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                    ):
                        return f"{above}/{name}"
                    target = os.readlink(name, dir_fd=folder)
                    path = target if target.startswith("/") else f"{above}/{target}"
        except FileNotFoundError:
            return None
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self.outside(path))

    def read(self, path: str) -> bytes | None:
        """The content of a regular file, links followed; None if there is none."""
        real = self.real_path(path)
        if real is None:
            return None
        with self._parent(real) as (folder, _, name):
            kind = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            return _read(folder, name) if stat.S_ISREG(kind) else None

    def has_directory(self, path: str) -> bool:
        """Whether there is such a directory, links followed."""
        try:
            with self._parent(f"{path}/."):
                return True
        except FileNotFoundError:
            return False

    def names(self, path: str) -> list[str]:
        """What is in a directory, links followed; nothing if there is none."""
        try:
            with self._parent(f"{path}/.") as (folder, _, _):
                opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
                try:
                    return sorted(os.listdir(opened))
                finally:
                    os.close(opened)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def missing_directories(self, path: str) -> list[str]:
        """The directories above the path that are not there, the outermost first."""
        parts = path.split("/")[1:-1]
        above = ["/" + "/".join(parts[: count + 1]) for count in range(len(parts))]
        return [folder for folder in above if not self.has_directory(folder)]

    # ------------------------------------------------------------- changing

    def _replace(self, path: str, make: Callable[[int, str, str], None]) -> None:
        """Put what `make(folder, its name for now, its name)` makes in place of what is there."""
        with self._parent(path, create=True) as (folder, _, name):
            new = _NEW.format(name)
            _unlink(folder, new)
            make(folder, new, name)
            os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
            _unlink(folder, new)  # a rename to another name of the same file does nothing
            _sync(folder)

    def write(self, path: str, content: bytes, mode: int) -> None:
        """Put a file there, in place of what there is, with directories as needed."""

        def make(folder: int, new: str, name: str) -> None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(new, flags, 0o600, dir_fd=folder)
            try:
                left = memoryview(content)
                while left:
                    left = left[os.write(descriptor, left) :]
                os.fchmod(descriptor, mode)
                _label(folder, name, descriptor)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

        self._replace(path, make)

    def symlink(self, path: str, target: str) -> None:
        """Put a symbolic link there, in place of what there is."""
        self._replace(path, lambda folder, new, _: os.symlink(target, new, dir_fd=folder))

    def keep(self, path: str, kept: str) -> None:
        """Give what is at `path` the name `kept` as well, in the same directory."""
        old = os.path.basename(path)
        self._replace(
            kept,
            lambda folder, new, _: os.link(
                old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False
            ),
        )

    def bring_back(self, kept: str, path: str) -> None:
        """Give what was kept its name back, in place of what is there."""
        with self._parent(path) as (folder, _, name):
            os.rename(os.path.basename(kept), name, src_dir_fd=folder, dst_dir_fd=folder)
            _sync(folder)

    def remove(self, path: str) -> None:
        """Remove a file or link, if it is there."""
        with contextlib.suppress(FileNotFoundError), self._parent(path) as (folder, _, name):
            os.unlink(name, dir_fd=folder)
            _sync(folder)

    def sweep(self, path: str) -> None:
        """Remove what a killed run left of a new file for this path."""
        folder, name = os.path.split(path)
        if self.find(f"{folder}/{_NEW.format(name)}") is not None:
            self.remove(f"{folder}/{_NEW.format(name)}")

    def remove_directory(self, path: str) -> None:
        """Remove a directory if it is empty."""
        try:
            with self._parent(path) as (folder, _, name):
                os.rmdir(name, dir_fd=folder)
                _sync(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
                raise

    @contextlib.contextmanager
    def locked(self, path: str) -> Iterator[None]:
        """Hold the directory `path`, so that no two runs change the same things."""
        with self._parent(f"{path}/.", create=True) as (folder, _, _name):
            descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
        try:
            with self._naming(path):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _read(folder: int, name: str) -> bytes:
    with os.fdopen(os.open(name, _READ, dir_fd=folder), "rb") as opened:
        return opened.read()


def _unlink(folder: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _label(folder: int, name: str, new: int) -> None:
    """Give the new file the SELinux label of the old one, as far as there is one."""
    with contextlib.suppress(OSError):
        old = os.open(name, _READ, dir_fd=folder)
        try:
            os.setxattr(new, "security.selinux", os.getxattr(old, "security.selinux"))
        finally:
            os.close(old)


def _sync(folder: int) -> None:
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

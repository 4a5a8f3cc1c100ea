# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is in the image of a crash kernel: cpio archives as the kernel unpacks them.

Uncompressed ones come first (microcode), and the last may be compressed (Linux,
Documentation/driver-api/early-userspace/buffer-format.rst). gzip, xz and bzip2 are read by
Python's own modules, zstd and lz4 by their programs. Of an image that is broken, or made to take
all memory, no more is read than the limits here allow.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import posixpath
import stat
import subprocess
import tempfile
import zlib
from collections.abc import Callable

from kdumpfence.doctor import squash
from kdumpfence.doctor.archive import Archive
from kdumpfence.doctor.finding import Unknown
from kdumpfence.doctor.squash import Entry

_MOST_BYTES = 4 << 30  #: unpacked
_MOST_FILES = 300_000
_MOST_NAME = 4096
#: Of one file whose content is kept; the static sender has one megabyte.
_MOST_KEPT = 8 << 20
_PART = 1 << 18

_HEAD = 110
_CPIO = (b"070701", b"070702")
#: Files that hold all others, where dracut's modules squash... were asked for.
_SQUASHFS = ("/squash-root.img", "/squashfs-root.img")
_EROFS = "/erofs-root.img"
_MOST_NESTED = 1 << 30


class Broken(Exception):
    """No kernel would make a root file system of this; the text says why."""


def read(file: io.FileIO, keep: Callable[[str], bool]) -> Archive:
    """What is in the image, with the content of the files that are to be kept.

    Raises Broken, Unknown, OSError.
    """
    entries: dict[str, Entry] = {}
    source = _Source(lambda: file.read(_PART))
    _unpack(source, entries, keep)
    start = source.look(6)
    if start:
        at = file.tell() - len(source)
        with _decompressed(file, at, start) as unpacked:
            _unpack(unpacked, entries, keep)
            if unpacked.look(1):
                raise Broken("what is compressed in it is no cpio archive")
    if not entries:
        raise Broken("it is empty")
    if _EROFS in entries:
        raise Unknown(f"its files are in {_EROFS[1:]}: look with lsinitrd")
    return Archive(entries)


class _Source:
    """Bytes that come in parts."""

    def __init__(self, more: Callable[[], bytes], close: Callable[[], None] | None = None) -> None:
        self._more = more
        self._close = close
        self._waiting = b""
        self._seen = 0

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *_: object) -> None:
        if self._close is not None:
            self._close()

    def __len__(self) -> int:
        return len(self._waiting)

    def _fill(self) -> bool:
        part = self._more()
        self._seen += len(part)
        if self._seen > _MOST_BYTES:
            raise Unknown(f"more than {_MOST_BYTES >> 30} GiB when unpacked")
        self._waiting += part
        return bool(part)

    def look(self, size: int) -> bytes:
        """The next bytes, which stay; fewer at the end. NULs before them are passed over."""
        while True:
            self._waiting = self._waiting.lstrip(b"\0")
            if len(self._waiting) >= size or not self._fill():
                return self._waiting[:size]

    def take(self, size: int) -> bytes:
        """The next bytes. Raises Broken if there are fewer."""
        parts, left = [], size
        while True:
            part, self._waiting = self._waiting[:left], self._waiting[left:]
            parts.append(part)
            left -= len(part)
            if not left:
                return b"".join(parts)
            if not self._fill():
                raise Broken("it is cut short")

    def skip(self, size: int) -> None:
        """Leave the next bytes out."""
        while size > 0:
            size -= len(self.take(min(size, _PART)))


def _unpack(source: _Source, entries: dict[str, Entry], keep: Callable[[str], bool]) -> None:
    """Take in the archives that are next, up to what is none."""
    links: dict[bytes, list[str]] = {}  # names of one file, whose last one has the content
    while source.look(6) in _CPIO:
        head = source.take(_HEAD)
        try:
            mode, count, size, length = (
                int(head[at : at + 8], 16) for at in (14, 38, 54, 94)
            )  # fmt: skip
        except ValueError:
            raise Broken("a damaged cpio header") from None
        if length > _MOST_NAME:
            raise Broken("a damaged cpio header")
        name = source.take(length).rstrip(b"\0")
        source.skip(-(_HEAD + length) % 4)
        if name == b"TRAILER!!!":
            links.clear()
            continue
        path = posixpath.normpath("/" + os.fsdecode(name).lstrip("/"))
        names = [path]
        if stat.S_ISREG(mode) and count > 1:
            names = links.setdefault(head[6:14] + head[62:78], [])
            names.append(path)
        kept = stat.S_ISLNK(mode) or any(map(keep, names))
        content = None
        if path in _SQUASHFS and stat.S_ISREG(mode) and size <= _MOST_NESTED:
            entries.update(_nested(source, size, keep))
        elif kept and size <= (_MOST_NAME if stat.S_ISLNK(mode) else _MOST_KEPT):
            content = source.take(size)
        else:
            source.skip(size)
        source.skip(-size % 4)
        if len(entries) + len(names) > _MOST_FILES:
            raise Unknown(f"more than {_MOST_FILES} files")
        if not size and count > 1:
            names = [path]  # as long as the others' content is to come
        entries.update(dict.fromkeys(names, Entry(mode, content)))


def _nested(source: _Source, size: int, keep: Callable[[str], bool]) -> dict[str, Entry]:
    with tempfile.NamedTemporaryFile(prefix="kdumpfence-") as file:
        while size:
            part = source.take(min(size, _PART))
            size -= len(part)
            file.write(part)
        file.flush()
        return squash.files(file.name, keep, _MOST_KEPT)


def _decompressed(file: io.FileIO, at: int, start: bytes) -> _Source:
    """What is compressed in the file from there on."""
    file.seek(at)
    if start.startswith(b"\x1f\x8b"):
        unzip = zlib.decompressobj(31)
        return _Source(lambda: _more(file, unzip.decompress, lambda: unzip.eof))
    if start.startswith((b"\xfd7zXZ", b"]\0\0")):
        unxz = lzma.LZMADecompressor()
        return _Source(lambda: _more(file, unxz.decompress, lambda: unxz.eof))
    if start.startswith(b"BZh"):
        unbz = bz2.BZ2Decompressor()
        return _Source(lambda: _more(file, unbz.decompress, lambda: unbz.eof))
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        return _by_program("zstd", file, at)
    if start.startswith((b"\x02\x21\x4c\x18", b"\x04\x22\x4d\x18")):
        return _by_program("lz4", file, at)
    raise Broken("neither a cpio archive nor compressed as the kernel knows it")


def _more(file: io.FileIO, unpack: Callable[[bytes], bytes], ended: Callable[[], bool]) -> bytes:
    while not ended():
        packed = file.read(_PART)
        if not packed:
            raise Broken("it is cut short")
        try:
            part = unpack(packed)
        except (zlib.error, lzma.LZMAError, OSError, ValueError):
            raise Broken("it is damaged") from None
        if part:
            return part
    return b""


def _by_program(program: str, file: io.FileIO, at: int) -> _Source:
    """The same by a program of this machine, which reads the file itself."""
    os.lseek(file.fileno(), at, os.SEEK_SET)
    try:
        running = subprocess.Popen(
            [program, "-dcq"],
            stdin=file.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise Unknown(f"it is compressed by {program}: {program}: {error.strerror}") from None
    stdout = running.stdout
    assert stdout is not None

    def more() -> bytes:
        part = stdout.read(_PART)
        if not part and running.wait():
            raise Broken("it is damaged")
        return part

    def close() -> None:
        stdout.close()
        running.kill()
        running.wait()

    return _Source(more, close)

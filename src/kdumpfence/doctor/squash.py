# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is in a squashfs: dracut's modules squash and squash-squashfs put the image's files in one.

unsquashfs lists them, and unpacks those few whose content is looked at.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Callable
from typing import NamedTuple

from kdumpfence.doctor.finding import Unknown

_PATIENCE = 60
_LINE = re.compile(
    r"([-dlbcps])([-rwxsStT]{9}) [0-9]+/[0-9]+ +([0-9]+)(?:, *[0-9]+)? [-0-9]+ [:0-9]+ (/.*)"
)
_KINDS = {"-": stat.S_IFREG, "d": stat.S_IFDIR, "l": stat.S_IFLNK}
#: What unsquashfs takes for more than one name.
_PATTERN = re.compile(r"[][*?\\\n]")
_MOST_FILES = 1000


class Entry(NamedTuple):
    """One file of it."""

    mode: int  #: with its type
    content: bytes | None  #: None if it was not kept; of a symbolic link its target


def files(image: str, keep: Callable[[str], bool], most: int) -> dict[str, Entry]:
    """The files by their paths from "/" on; content of no more than `most` bytes is kept.

    Raises Unknown.
    """
    found, wanted = {}, []
    for line in _unsquashfs("-lln", "-d", "", image).splitlines():
        parts = _LINE.fullmatch(line)
        if parts is None:
            continue
        kind, rights, size, path = parts.groups()
        path, _, target = path.partition(" -> ") if kind == "l" else (path, "", "")
        mode = _KINDS.get(kind, stat.S_IFCHR) | _mode(rights)
        found[path] = Entry(mode, os.fsencode(target) if kind == "l" else None)
        if kind == "-" and int(size) <= most and keep(path) and not _PATTERN.search(path):
            wanted.append(path)
    if not found:
        raise Unknown("unsquashfs finds nothing in it")
    if wanted:
        with tempfile.TemporaryDirectory(prefix="kdumpfence-") as folder:
            names = [path[1:] for path in wanted[:_MOST_FILES]]
            _unsquashfs("-n", "-no-xattrs", "-d", f"{folder}/root", image, *names)
            for name in names:
                found[f"/{name}"] = Entry(
                    found[f"/{name}"].mode, _content(f"{folder}/root/{name}", most)
                )
    return found


def _unsquashfs(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["unsquashfs", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise Unknown(f"unsquashfs did not end within {_PATIENCE} s") from None
    except OSError as error:
        raise Unknown(f"it holds a squashfs: unsquashfs: {error.strerror}") from None
    return done.stdout


def _content(path: str, most: int) -> bytes | None:
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(opened, "rb") as file:
        return file.read(most)


def _mode(rights: str) -> int:
    """As in rwsr-xr-x: three times read, write, execute; s and t have execute in them."""
    mode = 0
    for at, letter in enumerate(rights):
        if letter not in "-ST":
            mode |= 1 << (8 - at)
    return mode

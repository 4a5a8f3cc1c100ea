# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files of a crash kernel's image, looked up as in a root directory."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterator

from kdumpfence.doctor.squash import Entry

_MOST_LINKS = 40  # as many as Linux follows
_MODULE = re.compile(r".*/([^/]+)\.ko(?:\.(?:gz|xz|zst|bz2|lz4))?")


class Archive:
    """The files of an image, by their paths from "/" on."""

    def __init__(self, entries: dict[str, Entry]) -> None:
        self._entries = entries

    def real_path(self, path: str) -> str | None:
        """The path without links; None if it leads to nothing."""
        waiting, here = path.split("/")[::-1], ""
        links = 0
        while waiting:
            part = waiting.pop()
            if part in ("", "."):
                continue
            if part == "..":
                here = posixpath.dirname(here).rstrip("/")
                continue
            entry = self._entries.get(f"{here}/{part}")
            if entry is None:
                return None
            if stat.S_ISLNK(entry.mode):
                links += 1
                if links > _MOST_LINKS:
                    return None
                target = os.fsdecode(entry.content or b"")
                here = "" if target.startswith("/") else here
                waiting += target.split("/")[::-1]
            else:
                here = f"{here}/{part}"
        return here or "/"

    def mode(self, path: str) -> int | None:
        """Type and rights, links followed; None if there is nothing."""
        real = self.real_path(path)
        return None if real is None or real == "/" else self._entries[real].mode

    def read(self, path: str) -> bytes | None:
        """The content of a regular file, links followed; None if there is none or none was kept."""
        real = self.real_path(path)
        if real is None or real == "/" or not stat.S_ISREG(self._entries[real].mode):
            return None
        return self._entries[real].content

    def has_library(self, name: str) -> bool:
        """Whether a shared library of that name is anywhere in it."""
        return any(
            path.endswith(f"/{name}") and self.mode(path) is not None for path in self._entries
        )

    def modules(self) -> set[str]:
        """The kernel modules in it, and those that its kernel has built in, by their names."""
        found = set(map(_MODULE.fullmatch, self._entries))
        for path in self._entries:
            if path.endswith("/modules.builtin"):
                lines = (self.read(path) or b"").decode(errors="replace").splitlines()
                found.update(map(_MODULE.fullmatch, lines))
        return {match[1].replace("-", "_") for match in found if match}

    def paths(self) -> Iterator[str]:
        """All paths."""
        return iter(self._entries)

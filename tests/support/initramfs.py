# SPDX-License-Identifier: LGPL-2.1-or-later
"""A file system for a guest's kernel to unpack: this machine's files at their paths, and others.

A cpio archive in the "newc" format, which is the one the kernel unpacks (Linux,
Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Below the standard library: its larger parts that nobody needs here, and what is not part of it.
_LEFT_OUT = ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo")
_OTHERS = ("dist-packages", "site-packages")


class Initramfs:
    """Files to be: add what is needed, then save."""

    def __init__(self) -> None:
        self._entries: dict[Path, tuple[int, int, bytes]] = {}  # mode, time, content
        self._linked: list[str] = []

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Add a file that the machine has not."""
        self._put(path, text.encode(), mode)

    def put(self, path: str, file: Path, mode: int = 0o644) -> None:
        """Add a file of the machine at another path."""
        content = file.read_bytes()
        self._put(path, content, mode)
        if content.startswith(b"\x7fELF"):
            self._linked.append(str(file))

    def _put(self, path: str, content: bytes, mode: int) -> None:
        target = Path(path)
        self.add_directory(target.parent)
        target = target.parent.resolve() / target.name
        self._entries[target] = (stat.S_IFREG | mode, 0, content)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link that the machine has not."""
        self.add_directory(Path(path).parent)
        where = Path(path).parent.resolve() / Path(path).name
        self._entries[where] = (stat.S_IFLNK | 0o777, 0, target.encode())

    def add_directory(self, path: Path) -> None:
        """Add a directory, which need not be on the machine, and the way there."""
        if path.is_symlink():
            self.add(path)
        elif path not in self._entries and path != path.parent:
            self.add_directory(path.parent)
            real = path.resolve()
            if real == path:
                self._entries[path] = (stat.S_IFDIR | 0o755, 0, b"")
            else:  # behind a link
                self.add_directory(real)

    def add(self, path: Path) -> None:
        """Add a file or link of the machine, what the link leads to, and the way there."""
        real = path.parent.resolve() / path.name
        if real in self._entries:
            return
        self.add_directory(path.parent)
        about = real.lstat()
        if stat.S_ISLNK(about.st_mode):
            # Straight to the end of a chain of links: what lies between is not needed.
            self._entries[real] = (about.st_mode, 0, bytes(real.resolve()))
            self.add(real.resolve())
        elif stat.S_ISDIR(about.st_mode):
            self.add_directory(real)
        else:
            content = real.read_bytes()
            self._entries[real] = (about.st_mode, int(about.st_mtime), content)
            if content.startswith(b"\x7fELF"):
                self._linked.append(str(real))

    def add_package(self, root: Path, leave_out: Sequence[str] = ()) -> None:
        """Add Python modules: source, bytecode of this very Python, and what was compiled."""
        suffixes = (".py", f".{sys.implementation.cache_tag}.pyc", ".so")
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if name not in leave_out]
            for name in files:
                if name.endswith(suffixes):
                    self.add(Path(folder, name))

    def add_tools(self, names: Iterable[str]) -> None:
        """Add programs by their names. Raises FileNotFoundError."""
        for name in names:
            found = shutil.which(name, path=PATH)
            if found is None:
                raise FileNotFoundError(name)
            self.add(Path(found))

    def add_python(self, distributions: Iterable[str]) -> None:
        """Add the Python that runs this, with those installed packages and what they require."""
        executable = Path(sys.executable)
        for name in executable.parent.glob("python*"):
            if name.samefile(executable):
                self.add(name)
        if sys.prefix != sys.base_prefix:
            self.add(Path(sys.prefix, "pyvenv.cfg"))
        self.add_package(Path(sysconfig.get_path("stdlib")), (*_LEFT_OUT, *_OTHERS))
        for distribution in _closure(distributions):
            for file in distribution.files or ():
                path = Path(os.path.normpath(str(file.locate())))
                if path.is_file():
                    self.add(path)

    def add_libraries(self, folders: Sequence[Path] = ()) -> None:
        """Add the shared libraries of all that was added so far, and their loader.

        They are the machine's, each at its path. Those that are found in `folders`, which are
        searched first, come to /usr/lib.
        """
        # A status other than 0 may mean a static program, or a library that is missing here too.
        done = subprocess.run(
            ["ldd", *self._linked],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, folders))},
        )
        for found in re.finditer(r"^\t(?:.* => )?(/.*) \(0x", done.stdout, re.MULTILINE):
            library = Path(found[1])
            if library.parent in folders:
                self.put(f"/usr/lib/{library.name}", library)
            else:
                self.add(library)

    def save(self, file: Path) -> None:
        """Write the archive; a directory comes before what is in it."""
        with file.open("wb") as out:
            for serial, (path, entry) in enumerate(sorted(self._entries.items()), start=1):
                out.write(_record(serial, str(path).lstrip("/"), *entry))
            out.write(_record(0, "TRAILER!!!", 0, 0, b""))


def _record(serial: int, name: str, mode: int, time: int, content: bytes) -> bytes:
    # After the magic: inode, mode, uid, gid, links, time, size, two devices of two numbers each,
    # length of the name with its NUL, checksum (unused); name and content end on multiples of 4.
    raw = os.fsencode(name) + b"\0"
    numbers = (serial, mode, 0, 0, 1, time, len(content), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + raw
    return b"".join(part + bytes(-len(part) % 4) for part in (head, content))


def _closure(names: Iterable[str]) -> Iterator[importlib.metadata.Distribution]:
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        distribution = importlib.metadata.distribution(name)
        yield distribution
        for requirement in map(Requirement, distribution.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)

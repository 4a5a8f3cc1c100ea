# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Python that a system has as /usr/bin/python3: the one that is there at three in the morning.

The agent runs under it, whatever environment this package itself lives in. That of this
machine is asked; that of another root directory, which may be for another processor, is only
looked at.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from kdumpfence.install import InstallError
from kdumpfence.install.sysroot import Sysroot

PROGRAM = "/usr/bin/python3"
OLDEST = (3, 9)

_ASK = """
import _imp, sys
print(*sys.version_info[:2], sys.implementation.cache_tag, _imp.extension_suffixes()[0])
"""
_COMPILE = """
import py_compile, sys
for source, path, to in zip(*[iter(sys.argv[1:])] * 3):
    py_compile.compile(source, to, path, True, -1, py_compile.PycInvalidationMode.CHECKED_HASH)
"""
_ALONE = ("-I", "-S", "-B")


class NoPython(InstallError):
    """The system has no Python for the agent; the text says what it has."""


@dataclass(frozen=True)
class SystemPython:
    """What is known of a system's Python."""

    version: tuple[int, int]
    tag: str  #: in the names of its bytecode: "cpython-311"
    extensions: str  #: how the names of its compiled modules begin behind the module's own
    looked_at: bytes | None  #: the program itself, if it could not be asked
    runs: str | None  #: a Python of that version which can be run here, to make bytecode

    def fits(self, name: str, content: bytes) -> bool:
        """Whether it can import this compiled module."""
        if not name.partition(".")[2].startswith(self.extensions[1:]):
            return False
        if self.looked_at is None:
            return True
        # The same class, byte order and machine in both ELF headers, and the same libc.
        kind = (self.looked_at[:6], self.looked_at[18:20])
        musl = (b"/ld-musl-" in self.looked_at, "musl" in name)
        return (content[:6], content[18:20]) == kind and musl[0] == musl[1]

    def bytecode(self, sources: dict[str, bytes]) -> dict[str, bytes]:
        """What it would compile these files to, by their paths; nothing if it cannot be run."""
        if self.runs is None:
            return {}
        with tempfile.TemporaryDirectory() as scratch:
            arguments = []
            for number, (path, content) in enumerate(sources.items()):
                source = os.path.join(scratch, f"{number}.py")
                with open(source, "wb") as file:
                    file.write(content)
                arguments += [source, path, f"{source}c"]
            _run(self.runs, _COMPILE, *arguments)
            made = {}
            for _, path, to in zip(*[iter(arguments)] * 3):
                folder, name = os.path.split(path)
                with open(to, "rb") as file:
                    made[f"{folder}/__pycache__/{name[:-3]}.{self.tag}.pyc"] = file.read()
        return made


def of(root: Sysroot) -> SystemPython:
    """The Python below that root. Raises NoPython."""
    if root.find(PROGRAM) is None:
        raise NoPython(f"{root.outside(PROGRAM)} is missing: the agent needs it")
    found = _ask() if root.root == "/" else _look(root)
    if found.version < OLDEST:
        raise NoPython(
            f"{root.outside(PROGRAM)} is Python {found.version[0]}.{found.version[1]}; "
            f"the agent needs {OLDEST[0]}.{OLDEST[1]} or newer"
        )
    return found


def _ask() -> SystemPython:
    major, minor, tag, extensions = _run(PROGRAM, _ASK).split()
    return SystemPython((int(major), int(minor)), tag, extensions, None, PROGRAM)


def _look(root: Sysroot) -> SystemPython:
    """By its real name, as python3 is a link to it, and by its header."""
    path = root.real_path(PROGRAM) or ""
    match = re.fullmatch(r"python(3)\.(\d+)", os.path.basename(path))
    program = root.read(path) if match else None
    if match is None or program is None:
        raise NoPython(
            f"cannot tell the version of {root.outside(PROGRAM)}: it does not point to python3.N"
        )
    version = (int(match[1]), int(match[2]))
    tag = f"cpython-{version[0]}{version[1]}"
    same = (sys.implementation.cache_tag, bool(sys.executable)) == (tag, True)
    return SystemPython(version, tag, f".{tag}-", program, sys.executable if same else None)


def _run(python: str, script: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [python, *_ALONE, "-c", script, *arguments],
            input="",  # not DEVNULL: a bare root has no /dev
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise NoPython(f"{python} does not run: {error.strerror}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise NoPython(f"{python} does not run: {said[0]}")
    return done.stdout

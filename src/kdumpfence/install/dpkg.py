# SPDX-License-Identifier: GPL-2.0-or-later
"""dpkg's database below a root directory: whose file is it, and where is it diverted to.

A file of a package that is replaced without a diversion comes back with the package's next
update, or is removed with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from kdumpfence.install.root_directory import Tree

_DATABASE = "/var/lib/dpkg"


class DpkgError(Exception):
    """dpkg-divert could not do it; the text says why."""


def owner(tree: Tree, path: str) -> str | None:
    """The package that has this file, by the path without links too; None if no one has."""
    names = {path, tree.resolved(path) or path}
    for name in list(names):  # packages of before the merger of /usr list /lib/...
        if name.startswith(("/usr/bin/", "/usr/sbin/", "/usr/lib")):
            names.add(name[len("/usr") :])
    lines = {name.encode() for name in names}
    for entry in tree.names(f"{_DATABASE}/info"):
        if entry.endswith(".list"):
            content = tree.read(f"{_DATABASE}/info/{entry}") or b""
            if any(line in content for line in lines) and lines & set(content.split(b"\n")):
                return entry[: -len(".list")]
    return None


def diverted_to(tree: Tree, path: str) -> str | None:
    """Where the packages' file of this name goes instead; None if it is not diverted."""
    lines = (tree.read(f"{_DATABASE}/diversions") or b"").decode(errors="replace").split("\n")
    for contested, other in zip(lines[0::3], lines[1::3]):
        if contested == path:
            return other
    return None


def divert(tree: Tree, path: str, kept: str) -> None:
    """Enter a diversion. Files stay where they are: the caller moves them, and atomically.

    Raises DpkgError.
    """
    _dpkg_divert(tree, "--divert", kept, "--add", path)


def undivert(tree: Tree, path: str) -> None:
    """Take the diversion out again. Raises DpkgError."""
    _dpkg_divert(tree, "--remove", path)


def _dpkg_divert(tree: Tree, *arguments: str) -> None:
    program = shutil.which("dpkg-divert", path="/usr/bin:/bin")
    if program is None:
        raise DpkgError("dpkg-divert is missing")
    root = []
    if tree.root != "/":
        # dpkg-divert follows links as the kernel does, out of the root directory too.
        seen = os.path.realpath(tree.outside(_DATABASE))
        if seen != os.path.realpath(tree.root).rstrip("/") + (tree.resolved(_DATABASE) or ""):
            raise DpkgError(f"{tree.outside(_DATABASE)} leads out of {tree.root}")
        root = ["--root", os.path.realpath(tree.root)]
    done = subprocess.run(
        [program, "--local", "--no-rename", "--quiet", *root, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise DpkgError(said)

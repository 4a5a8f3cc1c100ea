# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files of Debian's packages, without installing them.

A package is downloaded with apt and unpacked below build/debian, once for all tests and however
many of them ask at the same time. Nothing is configured and nothing leaves build/.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tests.conftest import cannot_run

T = TypeVar("T")

FOLDER = Path(__file__).resolve().parents[2] / "build" / "debian"
_TOOLS = ("apt-cache", "apt-get", "dpkg-deb", "dpkg-query")


class NotAvailable(Exception):
    """A package, or what a test needs of it, cannot be had here; the text says what is missing."""


def unpacked(package: str, folder: Path = FOLDER) -> Path:
    """Return the folder in which that package lies unpacked, as it would lie below "/".

    Raises NotAvailable.
    """
    return all_unpacked([package], folder)[0]


def all_unpacked(packages: Sequence[str], folder: Path = FOLDER) -> list[Path]:
    """Do the same for several packages, with one download. Raises NotAvailable."""
    targets = [folder / package for package in packages]
    if not all(target.is_dir() for target in targets):
        with _locked(folder):
            # Another process may have been quicker.
            _fetch([target for target in targets if not target.is_dir()], folder)
    return targets


def needed_by(package: str, prefix: str) -> list[str]:
    """Name the packages of that prefix that this one depends on, near or far.

    Raises NotAvailable.
    """
    with _locked(FOLDER):
        said = _ask("depends", "--recurse", "--important", package)
    # A line that begins with a letter is a package; ":" is before another architecture.
    return sorted(line for line in said.splitlines() if line.startswith(prefix) and ":" not in line)


def known(prefix: str) -> set[str]:
    """Name the packages of that prefix that apt knows; none if there are none.

    Raises NotAvailable.
    """
    with _locked(FOLDER):
        names = set(_ask("pkgnames", prefix).split())
        if not names and os.geteuid() == 0:  # no list is no failure to apt
            attempt("apt-get", "update")
            names = set(_ask("pkgnames", prefix).split())
    return names


def newest(package: str, prefix: str) -> str:
    """Name the package of that prefix that an empty package depends on: the newest kernel's.

    Raises NotAvailable.
    """
    with _locked(FOLDER):
        for word in _ask("depends", "--important", package).split()[1:]:
            if word.startswith(prefix):
                return word
    raise NotAvailable(f"{package} depends on no {prefix}*")


def first_there_is(*packages: str) -> str:
    """Name the first of these packages that apt can download. Raises NotAvailable."""
    with _locked(FOLDER):
        # Of those that apt does not know, apt-cache says so and goes on.
        shown = _ask("show", "--no-all-versions", *packages).splitlines()
    return next(package for package in packages if f"Package: {package}" in shown)


def or_skip(get: Callable[[], T]) -> T:
    """What this returns; without it a test cannot run."""
    try:
        return get()
    except NotAvailable as reason:
        cannot_run(str(reason))


def _ask(*question: str) -> str:
    """Ask apt-cache, renewing apt's lists once if they do not know the answer."""
    said = attempt("apt-cache", *question)
    if said.returncode != 0 and os.geteuid() == 0:
        attempt("apt-get", "update")
        said = attempt("apt-cache", *question)
    if said.returncode != 0:
        raise NotAvailable(
            f"`apt-cache {' '.join(question)}` failed (is this Debian?): {said.stdout}"
        )
    return said.stdout


def _fetch(targets: Sequence[Path], folder: Path) -> None:
    """Download packages and unpack each into its target, which is there whole or not at all."""
    if not targets:
        return
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        download = ("apt-get", "download", *(target.name for target in targets))
        done = attempt(*download, cwd=scratch)
        if done.returncode != 0 and os.geteuid() == 0:
            attempt("apt-get", "update")
            done = attempt(*download, cwd=scratch)
        if done.returncode != 0:
            raise NotAvailable(
                f"`{' '.join(download)}` failed; run `apt-get update` as root; it said:\n"
                f"{done.stdout}"
            )
        for target in targets:
            (file,) = scratch.glob(f"{target.name}_*.deb")
            content = scratch / target.name
            done = attempt("dpkg-deb", "--extract", str(file), str(content))
            if done.returncode != 0:
                raise NotAvailable(f"{file.name} cannot be unpacked: {done.stdout}")
            content.replace(target)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise NotAvailable(f"not on this machine, which is no Debian: {', '.join(missing)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise NotAvailable(f"nowhere to put Debian's packages: {error}") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def attempt(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of Debian's tools, as nobody is there to be asked; its output is one text."""
    return subprocess.run(
        command,
        cwd=cwd,
        check=False,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
        env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
    )

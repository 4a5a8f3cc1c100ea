# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernel for virtual machines, with the two modules that an impaired link is made of.

It is downloaded, not installed, and kept in build/kernel. Run as a program this file does just
that and prints the folder.
"""

from __future__ import annotations

import dataclasses
import lzma
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "linux-image-cloud-amd64"  # depends on the package of the newest kernel, and is empty
FOLDER = Path(__file__).resolve().parents[2] / "build" / "kernel"

# In the order in which they are to be loaded; neither needs a module beside it. The kernel's TAP
# devices are a module too, and not among them: so a link is impaired by netem or not at all.
MODULES = ("veth", "sch_netem")


class NotAvailable(Exception):
    """No guest can be had here; the text says what is missing and how to get it."""


@dataclasses.dataclass(frozen=True)
class Kernel:
    image: Path
    modules: tuple[Path, ...]

    def complete(self) -> bool:
        return all(file.is_file() for file in (self.image, *self.modules))


def get(folder: Path = FOLDER) -> Kernel:
    """Return the kernel in `folder`, downloaded into it if need be. Raises NotAvailable."""
    kernel = Kernel(folder / "vmlinuz", tuple(folder / f"{name}.ko" for name in MODULES))
    if not kernel.complete():
        if platform.machine() != "x86_64":
            raise NotAvailable(f"this is no x86_64 machine but {platform.machine()}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            fresh = Path(scratch) / folder.name
            fresh.mkdir()
            _unpack(_download(Path(scratch)), fresh)
            folder.mkdir(exist_ok=True)
            for file in fresh.iterdir():
                file.replace(folder / file.name)
    return kernel


def _download(folder: Path) -> Path:
    """Download the newest kernel's package, renewing apt's lists once if they do not know it."""
    for tool in ("apt-cache", "apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise NotAvailable(f"{tool} is not on this machine, so Debian's kernel cannot be had")
    for attempt in (1, 2):
        depends = _run(folder, "apt-cache", "depends", "--important", PACKAGE)
        newest = [word for word in depends.stdout.split() if word.startswith("linux-image-")][1:]
        said = depends.stdout
        if newest:
            said = _run(folder, "apt-get", "download", newest[0]).stdout
        packages = list(folder.glob("*.deb"))
        if packages:
            return packages[0]
        if attempt == 1 and os.geteuid() == 0:
            _run(folder, "apt-get", "update")
    raise NotAvailable(
        f"apt has no {PACKAGE} (Debian has), or cannot download it; it said:\n{said}"
    )


def _unpack(package: Path, folder: Path) -> None:
    """Take out of the package what is needed: one tenth of its hundred megabytes."""
    wanted = re.compile(rf".*/(vmlinuz)-[^/]*|.*/({'|'.join(MODULES)})(\.ko)(\.xz)?")
    dpkg = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE)
    with dpkg, tarfile.open(fileobj=dpkg.stdout, mode="r|") as archive:
        for member in archive:
            found = wanted.fullmatch(member.name)
            content = archive.extractfile(member) if found else None
            if found and content:
                image, module, suffix, packed = found.groups(default="")
                data = lzma.decompress(content.read()) if packed else content.read()
                (folder / (image + module + suffix)).write_bytes(data)
    missing = {"vmlinuz", *(f"{name}.ko" for name in MODULES)} - set(os.listdir(folder))
    if missing:
        raise NotAvailable(f"{package.name} has no {', '.join(sorted(missing))}")


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        check=False,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
        env={**os.environ, "LC_ALL": "C"},
    )


if __name__ == "__main__":
    try:
        print(get().image.parent)
    except NotAvailable as error:
        sys.exit(str(error))

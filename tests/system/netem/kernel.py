# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernel for virtual machines, with the modules that a guest needs.

It is downloaded and not installed; modules are kept in build/kernel as the system call takes them,
not compressed. `python -m tests.system.netem.kernel` does just that and prints the kernel's image.
"""

from __future__ import annotations

import dataclasses
import functools
import lzma
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support import debian
from tests.support.debian import NotAvailable

PACKAGE = "linux-image-cloud-amd64"  # depends on the package of the newest kernel, and is empty
FOLDER = Path(__file__).resolve().parents[3] / "build" / "kernel"

# In the order in which they are to be loaded; neither needs a module beside it. The kernel's TAP
# devices are a module too, and not among them: so a link is impaired by netem or not at all.
MODULES = ("veth", "sch_netem")

__all__ = ["Kernel", "NotAvailable", "get", "package"]


@dataclasses.dataclass(frozen=True)
class Kernel:
    image: Path
    modules: tuple[Path, ...]


@functools.cache
def package() -> Path:
    """Return the folder with all of the kernel's package. Raises NotAvailable."""
    if platform.machine() != "x86_64":
        raise NotAvailable(f"this is no x86_64 machine but {platform.machine()}")
    kept = sorted(debian.FOLDER.glob("linux-image-*-cloud-amd64"))
    return kept[-1] if kept else debian.unpacked(debian.newest(PACKAGE, "linux-image-"))


def get(modules: Sequence[str] = MODULES) -> Kernel:
    """Return the kernel with these modules, downloaded if need be. Raises NotAvailable."""
    root = package()
    images = list(root.glob("boot/vmlinuz-*"))
    if len(images) != 1:
        raise NotAvailable(f"{root.name} has no boot/vmlinuz-*")
    return Kernel(images[0], tuple(_module(root, name) for name in modules))


def _module(root: Path, name: str) -> Path:
    packed = [*root.glob(f"**/{name}.ko"), *root.glob(f"**/{name}.ko.xz")]
    if not packed:
        raise NotAvailable(f"{root.name} has no module {name}")
    if packed[0].suffix == ".ko":
        return packed[0]
    target = FOLDER / root.name / f"{name}.ko"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(lzma.decompress(packed[0].read_bytes()))
    return target


if __name__ == "__main__":
    try:
        print(get().image)
    except NotAvailable as error:
        sys.exit(str(error))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests in QEMU: Debian's kernel for virtual machines, its modules, and the command that boots it.

QEMU emulates (TCG), which is ten to twenty times slower than the machine, but works wherever QEMU
does and needs no rights. The kernel is downloaded and not installed; modules are kept in
build/kernel as the system call takes them, not compressed.
"""

from __future__ import annotations

import functools
import lzma
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.support import debian
from tests.support.debian import NotAvailable

PACKAGE = "linux-image-cloud-amd64"  # depends on the package of the newest kernel, and is empty
FOLDER = Path(__file__).resolve().parents[2] / "build" / "kernel"
QEMU = "qemu-system-x86_64"


def command(
    image: Path,
    initramfs: Path,
    arguments: str,
    *more: str,
    memory: int = 512,
    processors: int = 1,
) -> list[str]:
    """What boots a guest with that much memory (MB), its console on stdout; `more` is QEMU's.

    It has no network device and no disk. Raises NotAvailable.
    """
    if shutil.which(QEMU) is None:
        raise NotAvailable(f"{QEMU} is not on this machine; on Debian it is in qemu-system-x86")
    return [
        *(QEMU, "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"),
        *("-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max"),
        *("-smp", str(processors), "-m", f"{memory}M", "-serial", "stdio"),
        *("-kernel", str(image), "-initrd", str(initramfs), "-append", arguments, *more),
    ]


@functools.cache
def package() -> Path:
    """Return the folder with all of the kernel's package. Raises NotAvailable."""
    if platform.machine() != "x86_64":
        raise NotAvailable(f"this is no x86_64 machine but {platform.machine()}")
    kept = sorted(debian.FOLDER.glob("linux-image-*-cloud-amd64"))
    return kept[-1] if kept else debian.unpacked(debian.newest(PACKAGE, "linux-image-"))


def version() -> str:
    """The kernel's version, as in the names of its files. Raises NotAvailable."""
    return package().name[len("linux-image-") :]


def kernel() -> Path:
    """Return the kernel's image, downloaded if need be. Raises NotAvailable."""
    image = package() / "boot" / f"vmlinuz-{version()}"
    if not image.is_file():
        raise NotAvailable(f"{image} is missing in the package")
    return image


def modules(names: Sequence[str]) -> list[Path]:
    """Return these modules of the kernel. Raises NotAvailable."""
    return [_module(package(), name) for name in names]


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

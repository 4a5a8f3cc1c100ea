# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests in QEMU: Debian's kernel for virtual machines, its modules, and the command that boots it.

QEMU emulates (TCG), which is ten to twenty times slower than the machine, but works wherever QEMU
does and needs no rights. The kernel is downloaded and not installed; modules are kept in
build/kernel as the system call takes them, not compressed.

Up to Linux 6.x all of it is in one package; from 7.2 on that one is empty and depends on others.
"""

from __future__ import annotations

import functools
import lzma
import platform
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support import debian
from tests.support.debian import NotAvailable

PACKAGE = "linux-image-cloud-amd64"  # depends on the package of the newest kernel, and is empty
FOLDER = Path(__file__).resolve().parents[2] / "build" / "kernel"
QEMU = "qemu-system-x86_64"

#: For every kernel: it ends the guest when it panics, closes no holes, and does not give up a timer
#: which an emulator on a busy machine does not make tick in time.
ARGUMENTS = "console=ttyS0 panic=-1 nokaslr mitigations=off no_timer_check"


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
def packages() -> tuple[Path, ...]:
    """Return the folders with all of the kernel's packages. Raises NotAvailable."""
    if platform.machine() != "x86_64":
        raise NotAvailable(f"this is no x86_64 machine but {platform.machine()}")
    kept = sorted(debian.FOLDER.glob("linux-image-*-cloud-amd64"))
    image = kept[-1] if kept else debian.unpacked(debian.newest(PACKAGE, "linux-image-"))
    if (image / "boot").is_dir():
        return (image,)
    version = image.name[len("linux-image-") :]
    parts = (f"linux-{part}-{version}" for part in ("binary", "modules", "base"))
    return (image, *debian.all_unpacked(list(parts)))


def version() -> str:
    """The kernel's version, as in the names of its files. Raises NotAvailable."""
    return packages()[0].name[len("linux-image-") :]


def kernel() -> Path:
    """Return the kernel's image, downloaded if need be. Raises NotAvailable."""
    names = (f"boot/vmlinuz-{version()}", f"usr/lib/modules/{version()}/vmlinuz")
    for image in (package / name for package in packages() for name in names):
        if image.is_file():
            return image
    raise NotAvailable(f"{names[0]} is missing in the package")


def module_folders() -> list[Path]:
    """Return the folders that are /usr/lib/modules/VERSION together. Raises NotAvailable."""
    places = (f"lib/modules/{version()}", f"usr/lib/modules/{version()}")
    folders = (package / place for package in packages() for place in places)
    return [folder for folder in folders if folder.is_dir()]


def modules(names: Sequence[str]) -> list[Path]:
    """Return these modules and those that they need, in an order in which they can be loaded.

    What is built into the kernel is left out. Raises NotAvailable.
    """
    order: dict[str, Path] = {}
    for name in names:
        _add_module(name, order)
    return list(order.values())


def _add_module(name: str, order: dict[str, Path]) -> None:
    if name in order or name in _built_in():
        return
    file = _module_files().get(name)
    if file is None:
        raise NotAvailable(f"Linux {version()} has no module {name}")
    if file.suffix == ".xz":
        file = _unpacked(file)
    needed = re.search(rb"\0depends=([^\0]*)\0", file.read_bytes())
    for other in needed[1].decode().split(",") if needed and needed[1] else ():
        _add_module(other, order)
    order[name] = file


def _unpacked(packed: Path) -> Path:
    file = FOLDER / version() / packed.stem
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as new:
            new.write(lzma.decompress(packed.read_bytes()))
        Path(new.name).replace(file)
    return file


@functools.cache
def _module_files() -> dict[str, Path]:
    """All modules by their names, in which the kernel writes _ for -."""
    files = (file for folder in module_folders() for file in folder.glob("kernel/**/*.ko*"))
    return {file.name.partition(".")[0].replace("-", "_"): file for file in files}


@functools.cache
def _built_in() -> set[str]:
    lists = (folder / "modules.builtin" for folder in module_folders())
    lines = (line for file in lists if file.is_file() for line in file.read_text().split())
    return {Path(line).stem.replace("-", "_") for line in lines}

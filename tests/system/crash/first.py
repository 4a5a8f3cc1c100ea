# SPDX-License-Identifier: GPL-2.0-or-later
"""The initramfs of the kernel that panics: it loads the crash kernel, and panics."""

from __future__ import annotations

import functools
from pathlib import Path

from tests.support import debian
from tests.support.initramfs import Initramfs

INIT = Path(__file__).with_name("first.sh")
_APPLETS = ("echo", "mount", "sh", "sleep")


@functools.cache
def busybox() -> Path:
    """Return a busybox that needs no libraries. Raises NotAvailable."""
    return _the(debian.unpacked("busybox-static") / "bin/busybox")


@functools.cache
def kexec() -> tuple[Path, tuple[Path, ...]]:
    """Return kexec and the folders of the libraries that it needs. Raises NotAvailable."""
    # Debian's kexec knows Xen, whose libraries few machines have.
    libraries = debian.needed_by("kexec-tools", prefix="libxen")
    root, *others = debian.all_unpacked(["kexec-tools", *libraries])
    folders = {file.parent for other in others for file in other.glob("usr/lib/*/lib*.so.*")}
    programs = [place for place in ("sbin/kexec", "usr/sbin/kexec") if (root / place).is_file()]
    return _the(root / (programs or ["sbin/kexec"])[0]), tuple(sorted(folders))


def add_busybox(files: Initramfs, *applets: str) -> None:
    """Add busybox and the names under which it is started."""
    files.put("/usr/bin/busybox", busybox(), 0o755)
    for name in applets:
        files.link(f"/usr/bin/{name}", "busybox")


def save(file: Path, *, kernel: Path, initramfs: Path, arguments: str, panics: bool) -> None:
    """Write that initramfs, with what kexec is to load. Raises NotAvailable."""
    files = Initramfs()
    for name in ("/dev", "/proc", "/sys"):
        files.add_directory(Path(name))
    add_busybox(files, *_APPLETS)
    program, folders = kexec()
    files.put("/usr/bin/kexec", program, 0o755)
    files.add_libraries(folders)
    files.put("/init", INIT, 0o755)
    files.put("/crash/kernel", kernel)
    files.put("/crash/initramfs", initramfs)
    files.write("/crash/arguments", arguments + "\n")
    if panics:
        files.write("/crash/panics", "")
    files.save(file)


def _the(file: Path) -> Path:
    if not file.is_file():
        raise debian.NotAvailable(f"{file} is missing in the package")
    return file

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The two initramfs that need no distribution: busybox, a script as init, and little else.

One is that of the kernel that panics: it loads the crash kernel, and panics (panicking_init.sh).
The other is the smallest crash initramfs that does the job: virtio's modules, senders, and a plan,
a shell script made of the words that crash_init.sh has: `start`, `last_step`, `usable`, `memory`,
`stop`, and of busybox' own. What is saved here may raise tests.support.debian.NotAvailable.
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Mapping
from pathlib import Path

from tests.support import debian, guest
from tests.support.initramfs import Initramfs

#: For a crash kernel that is to say little and to end the guest when its init ends.
ARGUMENTS = f"{guest.ARGUMENTS} quiet loglevel=3 nr_cpus=1 irqpoll reset_devices"

# What a NIC of QEMU needs.
MODULES = ("virtio_pci", "virtio_net")


def save_crash(
    file: Path,
    plan: str,
    programs: Mapping[str, Path],
    texts: Mapping[str, str] | None = None,
    *,
    packed: bool = False,
) -> None:
    """Write a crash initramfs with these programs in /usr/bin, and with their libraries.

    They are found in /usr/lib/kdumpfence as well. `texts` are further files, which only their owner
    may read. It is packed with gzip if asked for, as crash kernels' are; that costs an emulated
    processor some time.
    """
    applets = ("echo", "grep", "insmod", "ip", "kill", "mount", "nc", "sh", "sleep", "true")
    files = _with_busybox("crash_init.sh", *applets)
    for name, program in programs.items():
        files.put(f"/usr/bin/{name}", program, 0o755)
    files.add_libraries()
    files.link("/usr/lib/kdumpfence", "../bin")
    for path, text in (texts or {}).items():
        files.write(path, text, 0o600)
    for number, module in enumerate(guest.modules(MODULES)):
        files.put(f"/modules/{number}-{module.name}", module)
    files.write("/etc/nsswitch.conf", "hosts: files\n")
    files.write("/etc/hosts", "127.0.0.1 localhost\n")
    files.write("/plan", plan)
    files.save(file)
    if packed:
        file.write_bytes(gzip.compress(file.read_bytes(), mtime=0))


def save_panicking(
    file: Path, *, kernel: Path, initramfs: Path, arguments: str, panics: bool
) -> None:
    """Write the first kernel's initramfs, with what kexec is to load."""
    files = _with_busybox("panicking_init.sh", "echo", "mount", "sh", "sleep")
    program, folders = _kexec()
    files.put("/usr/bin/kexec", program, 0o755)
    files.add_libraries(folders)
    files.put("/crash/kernel", kernel)
    files.put("/crash/initramfs", initramfs)
    files.write("/crash/arguments", arguments + "\n")
    if panics:
        files.write("/crash/panics", "")
    files.save(file)


def _with_busybox(init: str, *applets: str) -> Initramfs:
    """Begin with an init of this folder and these names of a busybox that needs no libraries."""
    files = Initramfs()
    for name in ("/dev", "/proc", "/sys"):
        files.add_directory(Path(name))
    package = debian.unpacked("busybox-static")
    busybox = _existing(package / "bin/busybox", package / "usr/bin/busybox")
    files.put("/usr/bin/busybox", busybox, 0o755)
    for name in applets:
        files.link(f"/usr/bin/{name}", "busybox")
    files.put("/init", Path(__file__).with_name(init), 0o755)
    return files


@functools.cache
def _kexec() -> tuple[Path, tuple[Path, ...]]:
    """Return kexec and the folders of the libraries that it needs."""
    # Debian's kexec knows Xen, whose libraries few machines have.
    libraries = debian.needed_by("kexec-tools", prefix="libxen")
    root, *others = debian.all_unpacked(["kexec-tools", *libraries])
    folders = {file.parent for other in others for file in other.glob("usr/lib/*/lib*.so.*")}
    programs = [root / place for place in ("sbin/kexec", "usr/sbin/kexec")]
    return _existing(*programs), tuple(sorted(folders))


def _existing(*files: Path) -> Path:
    for file in files:
        if file.is_file():
            return file
    raise debian.NotAvailable(f"{files[0]} is missing in the package")

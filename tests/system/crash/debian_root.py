# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's root file system, of real packages, as far as the makers of crash images need it.

dracut-core and initramfs-tools-core get along with each other, so one root serves both. The kernel
is that of all guests, tests/support/guest.py.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.support import debroot, guest

# The makers, and then what they take programs from when they make an image; kdump-tools at the end,
# for a crash kernel that boots all this.
PACKAGES = (
    *("initramfs-tools-core", "dracut-core", "dracut-network"),
    *("base-files", "base-passwd", "bash", "busybox", "coreutils", "cpio", "dash", "dbus"),
    *("debianutils", "dpkg", "findutils", "grep", "gzip", "iproute2", "kmod", "libc-bin", "login"),
    *("mawk", "mount", "procps", "sed", "systemd", "systemd-sysv", "tar", "udev", "util-linux"),
    *("zstd", "init-system-helpers", "kdump-tools", "makedumpfile", "sysvinit-utils"),
)


@dataclasses.dataclass(frozen=True)
class Root:
    """A root file system that nobody may write to: put a layer over it."""

    folder: Path
    version: str  # of the kernel whose modules are in it


def get() -> Root:
    """Return the root, made if need be. Raises tests.support.debian.NotAvailable."""
    version, modules = guest.version(), guest.module_folders()

    def furnish(folder: Path, _: Sequence[Path]) -> None:
        root = folder / "root"
        defaults = root / "usr/share/kdump-tools/kdump-tools.conf"
        shutil.copy(defaults, root / "etc/default/kdump-tools")
        debroot.run("chroot", str(root), "systemd-sysusers")
        target = root / "usr" / "lib" / "modules" / version
        for part in modules:
            shutil.copytree(part, target, copy_function=os.link, dirs_exist_ok=True)
        for config in (package / "boot" / f"config-{version}" for package in guest.packages()):
            if config.is_file():
                shutil.copy(config, root / "boot")
        debroot.run("chroot", str(root), "depmod", version)

    recipe = Path(__file__).read_bytes() + version.encode()
    folder = debroot.made("root", PACKAGES, furnish, recipe)
    return Root(folder / "root", version)

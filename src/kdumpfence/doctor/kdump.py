# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which kdump this machine has, and what its crash kernel boots: an image, or its own root."""

from __future__ import annotations

import functools
import os
import re
import stat
from dataclasses import dataclass

from kdumpfence.doctor import cpio
from kdumpfence.doctor.archive import Archive
from kdumpfence.doctor.finding import Unknown
from kdumpfence.doctor.machine import Machine
from kdumpfence.doctor.settings import variables
from kdumpfence.install import InstallError, layouts
from kdumpfence.install.layouts import LAYOUTS
from kdumpfence.install.record import Record

#: Files whose content is looked at.
_KEPT = re.compile(
    r"/etc/(kdumpfence/|kdump\.conf|sysconfig/kdump|hosts$|cmdline)|.*/fence_kdump_send$"
    r"|/usr/lib/kdumpfence/|/scripts/init-top/|/conf/|.*/modules\.builtin$"
    r"|.*/hooks/cmdline/00-kdumpfence"
)

#: Services that load the crash kernel.
SERVICES = {
    "rhel": "kdump.service",
    "suse": "kdump.service",
    "debian": "kdump-tools.service",
}

#: What makes the crash kernel have what was changed.
REBUILD = {
    "rhel": "kdumpctl rebuild && kdumpctl reload",
    "suse": "mkdumprd -f && systemctl restart kdump",
    "debian": "kdumpfence install-sender",
    "initramfs-tools": "rebuild the image with mkinitramfs, and load it",
    "dracut": "rebuild the image with dracut --add kdumpfence, and load it",
}


class NoImage(Exception):
    """The crash kernel has nothing that it could boot; the text says why."""


@dataclass(frozen=True)
class Kdump:
    """What is known of it."""

    layout: str  #: one of install.layouts
    installed: bool  #: by install-sender

    @property
    def rebuild(self) -> str:
        """What makes the crash kernel have what was changed."""
        return REBUILD[self.layout]

    @property
    def service(self) -> str:
        """The unit that loads the crash kernel; "" if that is the administrator's business."""
        return SERVICES.get(self.layout, "")


class Root:
    """The machine's own root, which kdump-tools boots, seen as an image is."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def real_path(self, path: str) -> str | None:
        """The path without links; None if it leads to nothing."""
        return self._machine.root.real_path(path)

    def mode(self, path: str) -> int | None:
        """Type and rights, links followed; None if there is nothing."""
        real = self.real_path(path)
        return None if real is None else os.stat(self._machine.root.outside(real)).st_mode

    def read(self, path: str) -> bytes | None:
        """The content of a regular file, links followed; None if there is none."""
        return self._machine.bytes_of(path)

    def has_library(self, name: str) -> bool:
        """Whether a shared library of that name is where the loader looks for it."""
        folders = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"]
        folders += [
            f"/usr/lib/{one}" for one in self._machine.names("/usr/lib") if "-linux-" in one
        ]
        return any(self._machine.exists(f"{folder}/{name}") for folder in folders)


def of(machine: Machine) -> Kdump:
    """Which one it is: that which install-sender was run for, or the distribution's.

    Raises Unknown.
    """
    try:
        known = Record.load(machine.root).layouts
    except InstallError as error:
        raise Unknown(str(error)) from None
    for name in LAYOUTS:  # the distributions' come first
        if name in known:
            return Kdump(name, installed=True)
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        content = machine.bytes_of(path)
        layout = content and layouts.recognise(content)
        if layout:
            return Kdump(layout.name, installed=False)
    raise Unknown("the distribution is not known, and kdumpfence install-sender was not run")


def layout_of(machine: Machine) -> str:
    """Which layout that is; "" if it is not known."""
    try:
        return of(machine).layout
    except Unknown:
        return ""


def image_path(machine: Machine, kdump: Kdump) -> str:
    """Where its image is. Raises Unknown, NoImage."""
    if machine.image:
        return machine.image
    if kdump.layout not in ("rhel", "suse"):
        raise Unknown("which image the crash kernel has is not known: give --image PATH")
    if (machine.read("/sys/kernel/fadump/enabled") or "").strip() == "1":
        raise Unknown("a firmware-assisted dump boots the normal image: give --image PATH")
    if kdump.layout == "rhel":
        names = re.compile(r"initramfs-(.*)kdump\.img")
        folders = ["/boot", "/var/lib/kdump"]
    else:
        if machine.exists("/var/lib/kdump/initrd"):  # kdump 1.9 and newer
            return "/var/lib/kdump/initrd"
        names = re.compile(r"initrd-(.*)-kdump")
        folders = ["/boot"]
    found = {
        f"{folder}/{name}": match[1]
        for folder in folders
        for name in machine.names(folder)
        for match in [names.fullmatch(name)]
        if match
    }
    release = variables(machine.read("/etc/sysconfig/kdump")).get("KDUMP_KERNELVER", "")
    if machine.runs:
        release = release or os.uname().release.partition("+debug")[0]
    if release:
        found = {path: version for path, version in found.items() if version == release}
    if found:
        return max(found, key=lambda path: machine.changed(path) or 0)
    where = " or ".join(map(machine.root.outside, folders))
    raise NoImage(f"no image {f'for the kernel {release} ' if release else ''}in {where}")


@functools.lru_cache(maxsize=4)
def _read(path: str, size: int, changed: int) -> Archive:
    with open(path, "rb", buffering=0, opener=_open) as file:
        return cpio.read(file, lambda name: _KEPT.match(name) is not None)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def contents(machine: Machine, kdump: Kdump) -> Root | Archive:
    """What its crash kernel boots. Raises Unknown, NoImage."""
    if kdump.layout == "debian" and not machine.image:
        return Root(machine)
    return read_image(machine, image_path(machine, kdump))


def read_image(machine: Machine, path: str) -> Archive:
    """What is in this image. Raises Unknown, NoImage."""
    try:
        real = machine.root.real_path(path)
        if real is None:
            raise NoImage(f"{machine.root.outside(path)} is missing")
        outside = machine.root.outside(real)
        about = os.stat(outside)
        if not stat.S_ISREG(about.st_mode):
            raise NoImage(f"{machine.root.outside(path)} is no file")
        return _read(outside, about.st_size, about.st_mtime_ns)
    except cpio.Broken as error:
        raise NoImage(f"{machine.root.outside(path)}: {error}") from None
    except Unknown as error:
        raise Unknown(f"{machine.root.outside(path)}: {error}") from None
    except OSError as error:
        needs = " (needs root)" if isinstance(error, PermissionError) else ""
        raise Unknown(f"{machine.root.outside(path)}: {error.strerror}{needs}") from None

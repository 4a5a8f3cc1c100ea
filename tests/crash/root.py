# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's root file system, of real packages, as far as the makers of crash images need it.

apt is asked what the packages need on a machine that has nothing yet. They are unpacked below
build/debian, once for all tests, and not configured: what their scripts would do, as far as it
matters here, is done in `_configure`. dracut-core and initramfs-tools-core get along with each
other, so one root serves both. The kernel is the one that tests/debian.py has for everybody.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import debian
from tests.debian import NotAvailable

KERNEL = "linux-image-cloud-amd64"  # empty: it depends on the package of the newest kernel

# The makers, and then what they take programs from when they make an image; kdump-tools at the end,
# for a crash kernel that boots all this.
PACKAGES = (
    *("initramfs-tools-core", "dracut-core", "dracut-network"),
    *("base-files", "base-passwd", "bash", "busybox", "coreutils", "cpio", "dash", "dbus"),
    *("debianutils", "dpkg", "findutils", "grep", "gzip", "iproute2", "kmod", "libc-bin", "login"),
    *("mawk", "mount", "procps", "sed", "systemd", "systemd-sysv", "tar", "udev", "util-linux"),
    *("zstd", "init-system-helpers", "kdump-tools", "makedumpfile", "sysvinit-utils"),
)

_TOOLS = ("apt-get", "chroot", "dpkg-deb", "tar")

# Links in Debian since usrmerge; the packages bring files for both sides of them.
_MERGED = ("bin", "lib", "lib64", "sbin")
_LEFT_OUT = ("doc", "info", "locale", "man")  # of /usr/share


@dataclasses.dataclass(frozen=True)
class Root:
    """A root file system that nobody may write to: put a layer over it."""

    folder: Path
    version: str  # of the kernel whose modules are in it
    kernel: Path


def get(folder: Path = debian.FOLDER) -> Root:
    """Return the root, made if need be. Raises tests.debian.NotAvailable."""
    if os.geteuid() != 0:
        raise NotAvailable("only root can unpack a root file system and work in it")
    package = debian.newest(KERNEL, "linux-image-")
    version = package[len("linux-image-") :]
    image = debian.unpacked(package, folder)
    # Another list of packages, another way to put them together or another kernel: another root.
    recipe = hashlib.sha256(Path(__file__).read_bytes() + version.encode())
    target = folder / f"root-{recipe.hexdigest()[:12]}"
    with (folder / "root.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            for older in folder.glob("root-*"):
                shutil.rmtree(older)
            _make(target, image, version)
    return Root(target, version, image / "boot" / f"vmlinuz-{version}")


def _make(target: Path, kernel: Path, version: str) -> None:
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise NotAvailable(f"not on this machine: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        packages = _download(Path(scratch))
        fresh = Path(scratch, "root")
        for name in _MERGED:
            (fresh / "usr" / name).mkdir(parents=True)
            (fresh / name).symlink_to(f"usr/{name}")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda package: _unpack(package, fresh), packages))
        _configure(fresh)
        modules = fresh / "lib" / "modules" / version
        shutil.copytree(kernel / "lib" / "modules" / version, modules, copy_function=os.link)
        shutil.copy(kernel / "boot" / f"config-{version}", fresh / "boot")
        _run("chroot", str(fresh), "depmod", version)
        fresh.replace(target)


def _download(scratch: Path) -> list[Path]:
    """Let apt, which sees a machine with no package at all, download what it would install."""
    nothing = scratch / "status"
    nothing.touch()
    archives = scratch / "archives"
    (archives / "partial").mkdir(parents=True)
    options = {
        "Dir::State::status": nothing,
        "Dir::Cache": scratch,
        "Dir::Cache::archives": archives,
        "Debug::NoLocking": 1,  # nothing of the machine is written
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": 0,
    }
    settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    download = ("apt-get", *settings, "--yes", "--download-only", "install", *PACKAGES)
    try:
        _run(*download)
    except NotAvailable:
        _run("apt-get", "update")
        _run(*download)
    return sorted(archives.glob("*.deb"))


def _unpack(package: Path, root: Path) -> None:
    out = ["--extract", "--keep-directory-symlink", "--directory", str(root)]
    out += [f"--exclude=./usr/share/{name}" for name in _LEFT_OUT]
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
    ) as content:
        tar = subprocess.run(["tar", *out], stdin=content.stdout, check=False, timeout=120)
    if content.returncode or tar.returncode:
        raise NotAvailable(f"{package.name} cannot be unpacked")


def _configure(root: Path) -> None:
    """Do what the packages' own scripts would, and a look-up of names in /etc/hosts alone."""
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    (root / "usr/bin/awk").symlink_to("mawk")
    (root / "usr/bin/which").symlink_to("which.debianutils")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
    shutil.copy(root / "usr/share/kdump-tools/kdump-tools.conf", root / "etc/default/kdump-tools")
    _run("chroot", str(root), "systemd-sysusers")
    _run("chroot", str(root), "ldconfig")


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        check=False,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
        env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode != 0:
        raise NotAvailable(f"`{' '.join(command)}` failed:\n{done.stdout}")


if __name__ == "__main__":
    print(get().folder)

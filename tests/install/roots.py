# SPDX-License-Identifier: LGPL-2.1-or-later
"""Root directories of distributions, as far as the installation of the sender looks at them."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import cannot_run
from tests.support import debian

#: What /etc/os-release says, and whose kdump it then is.
OS_RELEASES = {
    "rhel9": ('NAME="Red Hat Enterprise Linux"\nID="rhel"\nID_LIKE="fedora"\n', "rhel"),
    "fedora": ("NAME='Fedora Linux'\nID=fedora\nVERSION_ID=41\n", "rhel"),
    "centos": ('ID="centos"\nID_LIKE="rhel fedora"\n', "rhel"),
    "rocky": ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "rhel"),
    "alma": ('ID="almalinux"\nID_LIKE="rhel centos fedora"\n', "rhel"),
    "oracle": ('ID="ol"\nID_LIKE="fedora"\n', "rhel"),
    "a stranger that is like rhel": ('ID="somelinux"\nID_LIKE="other rhel"\n', "rhel"),
    "sles": ('NAME="SLES"\nID="sles"\nID_LIKE="suse"\n', "suse"),
    "leap": ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "suse"),
    "tumbleweed": ('# a comment\nID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', "suse"),
    "debian": ("ID=debian\nVERSION_CODENAME=bookworm\n", "debian"),
    "ubuntu": ("ID=ubuntu\nID_LIKE=debian\n", "debian"),
}

PLACES = {
    "rhel": "/usr/libexec/fence_kdump_send",
    "suse": "/usr/lib/fence_kdump_send",
    "debian": "/usr/lib/kdumpfence/fence_kdump_send",
}
STOCK = b"\x7fELF the stock sender\n"
AGENT = "/usr/sbin/fence_kdump"
STOCK_AGENT = b"\x7fELF the stock agent\n"


@dataclass(frozen=True)
class Seen:
    """One file of a root. Equal: not touched at all."""

    kind: int
    mode: int
    owner: tuple[int, int]
    content: bytes | str
    inode: int
    written: int  # nanoseconds

    @property
    def what(self) -> tuple[object, ...]:
        """All but which file it is and when it was written."""
        return (self.kind, self.mode, self.owner, self.content)


def snapshot(root: Path) -> dict[str, Seen]:
    """Everything below a root, by its path there."""
    found = {}
    for path in sorted(root.rglob("*")):
        there = path.lstat()
        content: bytes | str = b""
        if path.is_symlink():
            content = os.readlink(path)
        elif stat.S_ISREG(there.st_mode):
            content = path.read_bytes()
        found["/" + str(path.relative_to(root))] = Seen(
            stat.S_IFMT(there.st_mode),
            stat.S_IMODE(there.st_mode),
            (there.st_uid, there.st_gid),
            content,
            there.st_ino,
            0 if path.is_dir() else there.st_mtime_ns,
        )
    return found


def whats(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a root, but not which files they are and when they were written."""
    return {path: seen.what for path, seen in snapshot(root).items()}


def put(root: Path, path: str, content: bytes | str = b"", mode: int = 0o644) -> Path:
    """Make a file below a root."""
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content if isinstance(content, bytes) else content.encode())
    target.chmod(mode)
    return target


def make(root: Path, name: str) -> Path:
    """A root of that distribution, one of OS_RELEASES, with the stock sender and kdump."""
    text, layout = OS_RELEASES[name]
    put(root, "/usr/lib/os-release", text)
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    if layout == "debian":
        put(root, "/usr/libexec/fence-agents/fence_kdump_send", STOCK, 0o755)
        put(root, "/usr/sbin/kdump-config", "#!/bin/sh\n", 0o755)
    else:
        put(root, PLACES[layout], STOCK, 0o755)
        put(root, "/usr/bin/kdumpctl" if layout == "rhel" else "/etc/sysconfig/kdump", "")
    return root


def debian_package(name: str) -> Path:
    """One of Debian's packages, unpacked; nothing may be written there."""
    try:
        return debian.unpacked(name)
    except debian.NotAvailable as error:
        cannot_run(str(error))
        raise


def with_package(root: Path, package: str) -> None:
    """Unpack a real package over a root."""
    shutil.copytree(debian_package(package), root, symlinks=True, dirs_exist_ok=True)


#: The Python that runs the tests, by the name that a system has it under.
PYTHON = "python{}.{}".format(*sys.version_info)


def with_python(root: Path, name: str = PYTHON, program: bytes | None = None) -> Path:
    """Give a root a Python of that name, by default the program that runs this."""
    if program is None:
        with open(sys.executable, "rb") as file:
            program = file.read(64) + b"/lib64/ld-linux-x86-64.so.2\0"
    put(root, f"/usr/bin/{name}", program, 0o755)
    (root / "usr/bin/python3").unlink(missing_ok=True)
    (root / "usr/bin/python3").symlink_to(name)
    return root

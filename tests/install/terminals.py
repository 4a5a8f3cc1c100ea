# SPDX-License-Identifier: LGPL-2.1-or-later
"""Terminals on a host of the lab, as its consoles."""

from __future__ import annotations

import fcntl
import os
import platform
import struct

from tests.support.netlab import Host

# asm/ioctls.h; the direction bits of an ioctl number differ on these machines.
_TIOCSPTLCK, _TIOCGPTN = (
    (0x80045431, 0x40045430)
    if platform.machine().startswith(("ppc", "mips"))
    else (0x40045431, 0x80045430)
)


def terminal(host: Host) -> tuple[int, int, str]:
    """A terminal of that host, which has a /dev of its own: both ends, and its name there."""
    mount = "mkdir /dev/pts && mount -t devpts -o newinstance devpts /dev/pts"
    host.run(["sh", "-c", f"test -e /dev/pts || {{ {mount}; }}"], check=True)
    folder = host.root / "dev/pts"
    master = os.open(folder / "ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    number = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))[0]
    return master, os.open(folder / str(number), os.O_RDWR | os.O_NOCTTY), f"/dev/pts/{number}"

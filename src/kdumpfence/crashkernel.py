# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether this machine could save a dump if it crashed now, as far as it can be seen here.

The kernel tells it in /sys: memory reserved for a crash kernel, and a crash kernel
loaded into it (Documentation/ABI/testing/sysfs-kernel-kexec-kdump), or, on POWER, a
firmware-assisted dump registered (Documentation/arch/powerpc/firmware-assisted-dump).

crashkernel=SIZE,cma (Linux 6.17) lends the crash kernel memory beside the ordinary
reservation. It counts in no size, and for its sake a kernel that panics waits 10 seconds.
"""

from __future__ import annotations

import os


class CrashKernel:
    """What the kernel says. `ready` if a crash would be dumped; `lines` say why (not)."""

    def __init__(self, root: str = "/") -> None:
        self.lines: list[str] = []
        self.ready = self._look(root.rstrip("/"))

    def _look(self, root: str) -> bool:
        size = _read_kexec(root, "size")
        loaded = _read_kexec(root, "loaded")
        if self._firmware_assisted(root):
            return True
        if size is None and loaded is None:
            self.lines.append("this kernel cannot load a crash kernel (no /sys/kernel/kexec*)")
            return False
        asked = _asked_for(root)
        with_cma = any(word.endswith(",cma") for word in asked)
        if not size and not loaded:
            although = " although crashkernel= asks for some" if asked else ""
            remedy = "see crashkernel= on the kernel command line"
            if with_cma:
                remedy = (
                    "crashkernel=SIZE,cma also needs a plain crashkernel=SIZE, and Linux 6.17 or "
                    "newer; older kernels then reserve nothing at all"
                )
            self.lines.append(f"no memory is reserved for a crash kernel{although}: {remedy}")
            return False
        if size:
            self.lines.append(f"{size >> 20} MiB of memory are reserved for a crash kernel")
        borrowed = _read_ranges(root + "/sys/kernel/kexec/crash_cma_ranges")
        if borrowed:
            self.lines.append(f"{borrowed >> 20} MiB more come from crashkernel=...,cma")
        # Linux 6.17 and 6.18 do not say whether they could reserve it.
        if borrowed or (borrowed is None and with_cma):
            self.lines.append(
                "with ,cma the kernel waits 10 seconds between a panic and its crash kernel: "
                "add 10 seconds to the time-outs"
            )
        if not loaded:
            self.lines.append("no crash kernel is loaded: start the kdump service")
            return False
        self.lines.append("a crash kernel is loaded")
        return True

    def _firmware_assisted(self, root: str) -> bool:
        for folder in ("/sys/kernel/fadump/", "/sys/kernel/fadump_"):
            if not _read_number(root + folder + "enabled"):
                continue
            registered = bool(_read_number(root + folder + "registered"))
            state = "is" if registered else "is enabled but not"
            self.lines.append(f"firmware-assisted dump {state} registered")
            return registered
        return False


def _open(path: str, flags: int) -> int:
    """Not blocked by a FIFO: `kdumpfence doctor` looks into roots of others."""
    return os.open(path, flags | os.O_NONBLOCK)


def _read_number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii", opener=_open) as file:
            return int(file.read(64).split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _read_kexec(root: str, name: str) -> int | None:
    """The files have moved in Linux 6.19; the older ones are to go."""
    number = _read_number(f"{root}/sys/kernel/kexec/crash_{name}")
    return _read_number(f"{root}/sys/kernel/kexec_crash_{name}") if number is None else number


def _read_ranges(path: str) -> int | None:
    """The bytes in lines of "FIRST-LAST", two hexadecimal addresses; None if there is no file."""
    try:
        with open(path, encoding="ascii", opener=_open) as file:
            ends = [line.split("-") for line in file.read(4096).split()]
        return sum(int(last, 16) - int(first, 16) + 1 for first, last in ends)
    except (OSError, ValueError):
        return None


def _asked_for(root: str) -> list[str]:
    """Every crashkernel= on the kernel's command line."""
    try:
        with open(root + "/proc/cmdline", encoding="utf-8", errors="replace", opener=_open) as file:
            return [word for word in file.read().split() if word.startswith("crashkernel=")]
    except OSError:
        return []

# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether this machine could save a dump if it crashed now, as far as it can be seen here.

The kernel tells it in /sys: memory reserved for a crash kernel, and a crash kernel
loaded into it (Documentation/ABI/testing/sysfs-kernel-*), or, on POWER, a
firmware-assisted dump registered (Documentation/arch/powerpc/firmware-assisted-dump).
"""

from __future__ import annotations


class CrashKernel:
    """What the kernel says. `ready` if a crash would be dumped; `lines` say why (not)."""

    def __init__(self, root: str = "/") -> None:
        self.lines: list[str] = []
        self.ready = self._look(root.rstrip("/"))

    def _look(self, root: str) -> bool:
        size = _read_number(root + "/sys/kernel/kexec_crash_size")
        loaded = _read_number(root + "/sys/kernel/kexec_crash_loaded")
        if self._firmware_assisted(root):
            return True
        if size is None and loaded is None:
            self.lines.append("this kernel cannot load a crash kernel (no /sys/kernel/kexec_*)")
            return False
        if not size and not loaded:
            asked = " although it asks for some" if _asked_for(root) else ""
            self.lines.append(
                f"no memory is reserved for a crash kernel{asked}: "
                "see crashkernel= on the kernel command line"
            )
            return False
        if size:
            self.lines.append(f"{size >> 20} MiB of memory are reserved for a crash kernel")
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


def _read_number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read(64).split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _asked_for(root: str) -> bool:
    try:
        with open(root + "/proc/cmdline", encoding="utf-8", errors="replace") as file:
            return any(word.startswith("crashkernel=") for word in file.read().split())
    except OSError:
        return False

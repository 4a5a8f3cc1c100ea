# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a panic would lead to a crash kernel, and whether that is left alone while it dumps."""

from __future__ import annotations

from collections.abc import Iterator

from kdumpfence.crashkernel import CrashKernel
from kdumpfence.doctor.finding import Finding, fails, ok
from kdumpfence.doctor.machine import Machine


def crash_kernel_loaded(machine: Machine) -> Iterator[Finding]:
    """Memory is reserved, and a crash kernel in it: as the agent's monitor sees it."""
    seen = CrashKernel(machine.root.root)
    text = "; ".join(seen.lines)
    if seen.ready:
        yield ok("crash kernel loaded", text)
    else:
        yield fails("crash kernel loaded", text, "systemctl restart kdump (Debian: kdump-tools)")


CHECKS = (crash_kernel_loaded,)

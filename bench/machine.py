# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine that figures are measured on, as far as a reader needs it to judge them."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import time
from pathlib import Path

from bench.paired import CPUS, MEASURED_CPU, ROOT, compiler
from kdumpfence import wire
from kdumpfence._version import __version__

_CACHE = ("level", "type", "size")


def machine() -> dict[str, str]:
    """What a reader must know of this machine to judge the figures."""
    said = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=False)
    memory = _field("/proc/meminfo", "MemTotal")
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "its caches": _caches(MEASURED_CPU),
        "processors used": f"{len(CPUS)} of {os.cpu_count()}",
        "memory": f"{int(memory.split()[0]) / 1024**2:.1f} GiB" if memory else "unknown",
        "virtual machine": "yes" if "hypervisor" in _field("/proc/cpuinfo", "flags") else "no",
        "kernel": f"{platform.release()} {platform.machine()}",
        "system": _field("/etc/os-release", "PRETTY_NAME", "=").strip('"') or "unknown",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": said.stdout.splitlines()[0] if said.stdout else "none",
        "kdumpfence": _revision(),
        "load when it began": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def in_a_line(told: dict[str, str]) -> str:
    """The same in short, from what `machine` told."""
    virtual = ", virtual" if told["virtual machine"] == "yes" else ""
    return (
        f"{told['date'].split()[0]}: {told['processors used'].split()[-1]} processors "
        f"({told['processor']}{virtual}), {told['memory']}, Linux {told['kernel'].split()[0]}, "
        f"{told['python']}; load before {told['load when it began'].split()[0]}"
    )


def stolen() -> tuple[float, float]:
    """Processor seconds since boot, of all: (taken by the host for others, all in all)."""
    with open("/proc/stat") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    second = os.sysconf("SC_CLK_TCK")
    return ticks[7] / second, sum(ticks) / second


def _field(path: str, name: str, separator: str = ":") -> str:
    with contextlib.suppress(OSError), open(path) as file:
        for line in file:
            if line.startswith(name):
                return line.partition(separator)[2].strip()
    return ""


def _caches(cpu: int) -> str:
    """Size and level of each that holds data, as that processor sees them."""
    found = []
    for folder in sorted(Path(f"/sys/devices/system/cpu/cpu{cpu}/cache").glob("index*")):
        with contextlib.suppress(OSError):
            level, kind, size = ((folder / name).read_text().strip() for name in _CACHE)
            if kind != "Instruction":
                found.append(f"{size} level {level}")
    return ", ".join(found) or "unknown"


def _revision() -> str:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return f"{__version__}, {wire.IMPLEMENTATION} core" + (f", {commit}" if commit else "")

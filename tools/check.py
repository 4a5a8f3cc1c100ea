#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs the quick tests of everything, or those that guard the folders you name.

    .venv/bin/python tools/check.py [FOLDER...]       which is: make check [FOR="FOLDER..."]

Without a folder: all tests but those marked `slow`, `in_kernel`, `alone`, `guest` or `cluster`.
With folders: all tests of the first folder in the row below, the slow ones included, and the quick
ones of the others; what wants the machine for itself is named at the end. tests/building holds the
table complete.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: What one works on (a folder of src/kdumpfence, or what the comment says) and the folders of
#: tests/ that guard it, its own first.
GUARDS = {
    "core": (  # src/_kdumpwire.pyx, src/kdumpwire/, src/kdumpfence/_purewire.py, wire.py
        *("core", "property", "listener", "storm", "interop", "bench"),
        *("system/flood", "system/network", "system/scale"),
    ),
    "native": (  # src/native/
        *("sender", "shared", "property", "building", "install", "interop"),
        *("system/network", "system/guest", "system/crash"),
    ),
    "shared": (  # the modules right below src/kdumpfence/
        *("shared", "property", "agent", "sender", "listener", "storm", "interop"),
        *("system/network", "system/guest"),
    ),
    "agent": (
        *("agent", "shared", "property", "interop", "install", "daemon"),
        *("system/network", "system/flood", "system/guest", "system/crash", "system/cluster"),
    ),
    "sender": (
        *("sender", "shared", "property", "interop"),
        *("system/network", "system/guest", "system/crash"),
    ),
    "listener": ("listener", "daemon", "system/scale", "system/guest"),
    "daemon": ("daemon", "database", "client", "cli", "docs", "system/scale"),
    "database": ("database", "daemon", "cli", "docs"),
    "client": ("client", "daemon", "cli", "docs"),
    "cli": ("cli", "daemon", "database", "install", "docs"),
    "doctor": ("doctor", "cli", "docs", "system/cluster"),
    "storm": ("storm", "property", "docs", "system/scale"),
    "install": ("install", "docs", "packages", "system/crash"),
    "packaging": ("packages", "building", "daemon", "database", "doctor", "docs", "system/cluster"),
    "docs": ("docs", "daemon", "install"),
    "bench": ("bench", "docs"),
}

FULL = "not alone and not guest and not cluster"
QUICK = f"not slow and not in_kernel and {FULL}"
PYTEST = (sys.executable, "-m", "pytest", "-q", "-n", "6", "--dist", "loadfile", "-m")


def run(marks: str, folders: list[str]) -> bool:
    """Run these tests; whether none failed."""
    paths = [f"tests/{folder}" for folder in folders]
    print(f"{' '.join(paths)}: {marks}", flush=True)
    status = subprocess.run([*PYTEST, marks, *paths], cwd=ROOT, check=False).returncode
    return status in (0, 5)  # 5: none of them is quick


def main(names: list[str]) -> int:
    """Run what guards these folders; the exit status."""
    unknown = sorted(set(names) - set(GUARDS))
    if unknown:
        print(f"{' '.join(unknown)}: not one of {', '.join(GUARDS)}", file=sys.stderr)
        return 2
    if not names:
        return 0 if run(QUICK, [""]) else 1
    own = list(dict.fromkeys(GUARDS[name][0] for name in names))
    others = {folder for name in names for folder in GUARDS[name]} - set(own)
    near = sorted(folder for folder in others if not folder.startswith("system/"))
    good = run(FULL, own)
    good = (not near or run(QUICK, near)) and good
    far = sorted(others - set(near))
    if far:
        print(f"Not run, for they take minutes: {' '.join(f'tests/{one}' for one in far)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

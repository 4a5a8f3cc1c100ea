# SPDX-License-Identifier: GPL-2.0-or-later
"""What monitor sees, in a /sys and /proc made for the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdumpfence.crashkernel import CrashKernel


def look(root: Path, **files: str) -> CrashKernel:
    paths = {
        "size": "sys/kernel/kexec_crash_size",
        "loaded": "sys/kernel/kexec_crash_loaded",
        "cmdline": "proc/cmdline",
        "fadump": "sys/kernel/fadump/enabled",
        "fadump_registered": "sys/kernel/fadump/registered",
        "old_fadump": "sys/kernel/fadump_enabled",
        "old_fadump_registered": "sys/kernel/fadump_registered",
    }
    for name, text in files.items():
        path = root / paths[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return CrashKernel(str(root))


def test_ready_when_memory_is_reserved_and_a_kernel_loaded(tmp_path: Path) -> None:
    state = look(tmp_path, size=str(256 << 20), loaded="1")
    assert state.ready
    assert state.lines == [
        "256 MiB of memory are reserved for a crash kernel",
        "a crash kernel is loaded",
    ]


def test_not_ready_when_no_kernel_is_loaded(tmp_path: Path) -> None:
    state = look(tmp_path, size=str(256 << 20), loaded="0")
    assert not state.ready
    assert state.lines[-1] == "no crash kernel is loaded: start the kdump service"


@pytest.mark.parametrize(
    ("cmdline", "hint"), [("root=/dev/sda", False), ("quiet crashkernel=256M", True)]
)
def test_not_ready_without_memory(tmp_path: Path, cmdline: str, hint: bool) -> None:
    state = look(tmp_path, size="0", loaded="0", cmdline=cmdline)
    assert not state.ready
    assert "no memory is reserved" in state.lines[0]
    assert ("although it asks for some" in state.lines[0]) == hint


def test_not_ready_on_a_kernel_that_cannot(tmp_path: Path) -> None:
    state = look(tmp_path, cmdline="crashkernel=256M")
    assert not state.ready
    assert "cannot load a crash kernel" in state.lines[0]


def test_rubbish_in_sys_is_no_yes(tmp_path: Path) -> None:
    assert not look(tmp_path, size="", loaded="x").ready


@pytest.mark.parametrize("prefix", ["fadump", "old_fadump"])
@pytest.mark.parametrize("registered", [True, False])
def test_a_firmware_assisted_dump_counts_when_registered(
    tmp_path: Path, prefix: str, registered: bool
) -> None:
    files = {prefix: "1", f"{prefix}_registered": str(int(registered))}
    assert look(tmp_path, size="0", loaded="0", **files).ready == registered

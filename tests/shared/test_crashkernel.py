# SPDX-License-Identifier: LGPL-2.1-or-later
"""What monitor sees, in a /sys and /proc made for the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdumpfence.crashkernel import CrashKernel


def look(root: Path, **files: str) -> CrashKernel:
    paths = {
        "size": "sys/kernel/kexec_crash_size",
        "loaded": "sys/kernel/kexec_crash_loaded",
        "new_size": "sys/kernel/kexec/crash_size",
        "new_loaded": "sys/kernel/kexec/crash_loaded",
        "cma": "sys/kernel/kexec/crash_cma_ranges",
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
    assert ("although crashkernel= asks for some" in state.lines[0]) == hint


WAITS = (
    "with ,cma the kernel waits 10 seconds between a panic and its crash kernel: "
    "add 10 seconds to the time-outs"
)


@pytest.mark.parametrize(
    "cmdline", ["crashkernel=512M,cma", "crashkernel=256M quiet crashkernel=1G,cma"]
)
def test_a_kernel_that_reserved_nothing_because_of_cma_is_recognised(
    tmp_path: Path, cmdline: str
) -> None:
    state = look(tmp_path, size="0", loaded="0", cmdline=cmdline)
    assert not state.ready
    (line,) = state.lines
    assert "no memory is reserved for a crash kernel although crashkernel= asks for some" in line
    assert "older kernels then reserve nothing at all" in line
    assert "6.17" in line


def test_memory_lent_by_cma_is_added_up_and_its_wait_is_told(tmp_path: Path) -> None:
    state = look(
        tmp_path,
        new_size=str(256 << 20),
        new_loaded="1",
        cma="100000000-10fffffff\n120000000-123ffffff",
        cmdline="crashkernel=256M crashkernel=320M,cma",
    )
    assert state.ready
    assert state.lines == [
        "256 MiB of memory are reserved for a crash kernel",
        "320 MiB more come from crashkernel=...,cma",
        WAITS,
        "a crash kernel is loaded",
    ]


def test_cma_alone_is_no_place_for_a_crash_kernel(tmp_path: Path) -> None:
    state = look(
        tmp_path, new_size="0", new_loaded="0", cma="100000000-10fffffff",
        cmdline="crashkernel=256M,cma",
    )  # fmt: skip
    assert not state.ready
    assert "crashkernel=SIZE,cma also needs a plain crashkernel=SIZE" in state.lines[0]


def test_a_kernel_that_keeps_silent_about_cma_is_taken_to_wait(tmp_path: Path) -> None:
    files = {"size": str(256 << 20), "loaded": "1", "cmdline": "crashkernel=256M,high"}
    assert WAITS not in look(tmp_path, **files).lines
    assert WAITS in look(tmp_path, **files | {"cmdline": "crashkernel=1G,cma"}).lines
    assert WAITS not in look(tmp_path, cma="").lines  # it could reserve none


@pytest.mark.parametrize("loaded", [True, False])
def test_the_old_files_may_be_gone_and_the_new_ones_count(tmp_path: Path, loaded: bool) -> None:
    new = {"new_size": str(64 << 20), "new_loaded": str(int(loaded))}
    assert look(tmp_path / "alone", **new).ready == loaded
    assert look(tmp_path / "both", **new, size="0", loaded=str(int(not loaded))).ready == loaded


def test_rubbish_among_the_ranges_spoils_nothing(tmp_path: Path) -> None:
    for text in ("x-y", "1", "1-2-3", "\xff-\xff"):
        assert look(tmp_path, size="1048576", loaded="1", cma=text).ready


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

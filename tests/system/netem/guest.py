# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest with this machine's Python, tools and tests, under Debian's kernel, in QEMU.

It has every file at the path where the machine has it, no network device and no disk. QEMU
emulates (TCG), which is ten to twenty times slower than the machine, but works wherever QEMU does
and needs no rights.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.initramfs import PATH, Initramfs
from tests.system.netem.kernel import Kernel, NotAvailable

ROOT = Path(__file__).resolve().parents[3]
INIT = Path(__file__).with_name("init.py")
QEMU = "qemu-system-x86_64"

# What init.py, tests/support/netlab.py and the tests run.
_TOOLS = (
    *("cat", "cp", "ip", "ln", "mkdir", "mount", "nsenter", "rm", "setpriv", "sh", "tc"),
    *("unshare",),
)

_MACHINE = (
    *("-no-user-config", "-nodefaults", "-nic", "none", "-display", "none", "-no-reboot"),
    *("-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2G"),
)
# After a panic the guest ends at once.
_KERNEL_ARGUMENTS = "console=ttyS0 quiet loglevel=4 panic=-1"


@dataclasses.dataclass(frozen=True)
class Run:
    """What one run of pytest came to: its exit status, and its tests by name."""

    status: int
    passed: set[str]
    skipped: set[str]
    failed: dict[str, str]  # with what pytest says about it


def boot(
    kernel: Kernel,
    runs: Mapping[str, Sequence[str]],
    environment: Mapping[str, str],
    seconds: float,
) -> dict[str, Run]:
    """Run pytest in a guest, once with each list of arguments; its console goes to stdout.

    Raises NotAvailable if a program is missing, RuntimeError if there are no results in time.
    """
    for tool, package in ((QEMU, "qemu-system-x86"), ("setpriv", "util-linux")):
        if shutil.which(tool) is None:
            raise NotAvailable(f"{tool} is not on this machine; on Debian it is in {package}")
    with tempfile.TemporaryDirectory() as scratch:
        initramfs, results = Path(scratch, "initramfs"), Path(scratch, "results")
        _furnish(kernel, runs, environment).save(initramfs)
        command = [
            *("setpriv", "--pdeathsig", "KILL", QEMU, *_MACHINE),
            *("-kernel", str(kernel.image), "-initrd", str(initramfs)),
            *("-append", _KERNEL_ARGUMENTS, "-serial", "stdio", "-serial", f"file:{results}"),
        ]
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, check=True, timeout=seconds)
            said = json.loads(results.read_text())
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            raise RuntimeError(f"no results of the guest, see its console: {error}") from None
    return {name: _read(result["status"], result["junit"]) for name, result in said.items()}


def _furnish(
    kernel: Kernel, runs: Mapping[str, Sequence[str]], environment: Mapping[str, str]
) -> Initramfs:
    files = Initramfs()
    for name in ("/dev", "/proc", "/run", "/scratch", "/tmp"):
        files.add_directory(Path(name))
    files.write("/etc/passwd", "root:x:0:0:root:/:/bin/sh\n")
    files.write("/etc/group", "root:x:0:\n")
    for module in kernel.modules:
        files.add(module)
    files.add(Path("/bin/sh"))
    try:
        files.add_tools(_TOOLS)
    except FileNotFoundError as error:
        raise NotAvailable(f"{error} is not on this machine (in {PATH})") from None
    files.add_python(("kdumpfence", "pytest", "pytest-timeout"))
    files.add(ROOT / "pyproject.toml")
    for folder in ("src", "tests"):
        files.add_package(ROOT / folder)
    for program in (ROOT / "src" / "kdumpfence" / "_native").glob("*"):
        files.add(program)
    files.add_libraries()
    orders = {
        "modules": [str(module) for module in kernel.modules],
        "environment": {"PATH": PATH, **environment},
        "runs": dict(runs),
    }
    files.write("/orders.json", json.dumps(orders))
    root, init = shlex.quote(str(ROOT)), shlex.join([sys.executable, str(INIT)])
    files.write("/init", f"#!/bin/sh\ncd {root}\nexec {init}\n", mode=0o755)
    return files


def _read(status: int, junit: str) -> Run:
    run = Run(status, set(), set(), {})
    for case in ET.fromstring(junit).iter("testcase"):
        name = str(case.get("name"))
        said = {child.tag: child.text or "" for child in case}
        if "failure" in said or "error" in said:
            run.failed[name] = said.get("failure", "") + said.get("error", "")
        elif "skipped" in said:
            run.skipped.add(name)
        else:
            run.passed.add(name)
    return run

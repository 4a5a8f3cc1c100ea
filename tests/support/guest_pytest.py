# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run pytest in a guest with this machine's Python, tools and tests, under Debian's kernel.

The guest has every file at the path where the machine has it. guest_init.py is its process 1.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import guest
from tests.support.debian import NotAvailable
from tests.support.initramfs import PATH, Initramfs

ROOT = Path(__file__).resolve().parents[2]
INIT = Path(__file__).with_name("guest_init.py")

# What guest_init.py, tests/support/netlab.py and the tests run.
_TOOLS = (
    *("cat", "cp", "ip", "ln", "mkdir", "mount", "nsenter", "rm", "setpriv", "sh", "tc"),
    *("unshare",),
)

_KERNEL_ARGUMENTS = f"{guest.ARGUMENTS} quiet loglevel=4"


@dataclasses.dataclass(frozen=True)
class Run:
    """What one run of pytest came to: its exit status, and its tests by name."""

    status: int
    passed: set[str]
    skipped: set[str]
    failed: dict[str, str]  # with what pytest says about it


def boot(
    modules: Sequence[str],
    runs: Mapping[str, Sequence[str]],
    seconds: float,
) -> dict[str, Run]:
    """Run pytest in a guest, once with each list of arguments; its console goes to stdout.

    The kernel gets these modules and those that they need. Raises NotAvailable if a program is
    missing, RuntimeError if there are no results in time.
    """
    with tempfile.TemporaryDirectory() as scratch:
        initramfs, results = Path(scratch, "initramfs"), Path(scratch, "results")
        _furnish(guest.modules(modules), runs).save(initramfs)
        command = [
            *("setpriv", "--pdeathsig", "KILL"),
            *guest.command(
                *(guest.kernel(), initramfs, _KERNEL_ARGUMENTS, "-serial", f"file:{results}"),
                memory=2048,
                processors=2,
            ),
        ]
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, check=True, timeout=seconds)
            said = json.loads(results.read_text())
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            raise RuntimeError(f"no results of the guest, see its console: {error}") from None
    return {name: _read(result["status"], result["junit"]) for name, result in said.items()}


def _furnish(modules: Sequence[Path], runs: Mapping[str, Sequence[str]]) -> Initramfs:
    files = Initramfs()
    for name in ("/dev", "/proc", "/run", "/scratch", "/tmp"):
        files.add_directory(Path(name))
    files.write("/etc/passwd", "root:x:0:0:root:/:/bin/sh\n")
    files.write("/etc/group", "root:x:0:\n")
    for module in modules:
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
        "modules": [str(module) for module in modules],
        "environment": {"PATH": PATH, "CI": os.environ.get("CI", "")},
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

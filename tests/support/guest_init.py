# SPDX-License-Identifier: LGPL-2.1-or-later
"""Process 1 of a guest: load the modules, run pytest, hand the results out, switch off.

/orders.json says what: {"modules": [file], "environment": {name: value}, "runs": {name:
[argument of pytest]}}. Some runs go on at the same time, and what they say goes to the console.
Results leave by the second serial port, where nothing else writes: {name: {"status": exit status,
"junit": XML}}.

It runs in the guest only, and has the standard library only. If it dies, the kernel panics and the
guest ends without results.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

RESULTS = "/dev/ttyS1"
RB_POWER_OFF = 0x4321FEDC  # sys/reboot.h
LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    orders = json.loads(Path("/orders.json").read_text())
    os.environ.update(orders["environment"])
    for kind, where in (("proc", "/proc"), ("devtmpfs", "/dev")):
        subprocess.run(["mount", "-t", kind, kind, where], check=True)
    for module in orders["modules"]:
        load(Path(module))
    # One more than there are processors, for these tests wait more often than not.
    with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
        runs: dict[str, list[str]] = orders["runs"]
        results = dict(zip(runs, pool.map(run, runs, runs.values())))
    with open(RESULTS, "w") as port:
        print(json.dumps(results), file=port)


def load(module: Path) -> None:
    image = module.read_bytes()
    if LIBC.init_module(image, ctypes.c_ulong(len(image)), b"") != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(module))


def run(name: str, arguments: list[str]) -> dict[str, Any]:
    scratch = f"/scratch/{name}"
    options = ["-v", "--durations=5", "--basetemp", scratch, "--junitxml", f"{scratch}.xml"]
    options += ["--timeout", "1000"]  # the processor is emulated, and shares a core
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as pytest:
        assert pytest.stdout is not None
        for line in pytest.stdout:
            print(f"{name}: {line}", end="", flush=True)
    return {"status": pytest.returncode, "junit": Path(f"{scratch}.xml").read_text()}


if __name__ == "__main__":
    main()
    print(f"guest: switches off after {time.monotonic():.0f} s", flush=True)
    LIBC.reboot(RB_POWER_OFF)

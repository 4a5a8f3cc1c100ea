# SPDX-License-Identifier: LGPL-2.1-or-later
"""The first try of the daemon under EXAMPLES in kdumpfenced(8) does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import unused_port
from tests.daemon.running import until
from tests.docs import manpage


def test_the_first_try_on_loopback(tmp_path: Path) -> None:
    first_terminal, second_terminal = manpage.read("kdumpfenced")["EXAMPLES"].examples
    here = {"/tmp/": f"{tmp_path}/", "7411": str(unused_port())}
    for name, own in here.items():
        first_terminal = first_terminal.replace(name, own)
        second_terminal = second_terminal.replace(name, own)
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"}
    settings, check, start = re.findall(r"(?:.*\\\n)*.*\n", first_terminal)
    checked = subprocess.run(
        ["sh", "-euc", settings + check],
        capture_output=True, text=True, timeout=60, check=False, env=path,
    )  # fmt: skip
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "networks: 127.0.0.0/8" in checked.stdout
    with (tmp_path / "log").open("w") as log:
        daemon = subprocess.Popen(["sh", "-euc", f"exec {start}"], stdout=log, stderr=log, env=path)
    try:
        until(lambda: "listens on port" in (tmp_path / "log").read_text())
        subprocess.run(["sh", "-euc", second_terminal], timeout=60, check=True, env=path)
        until(lambda: "node '127.0.0.1' began to dump" in (tmp_path / "log").read_text())
    finally:
        daemon.terminate()
        assert daemon.wait(60) == 0

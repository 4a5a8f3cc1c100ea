# SPDX-License-Identifier: GPL-2.0-or-later
"""The README's commands for a first try of the daemon do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import unused_port
from tests.daemon.running import until

ROOT = Path(__file__).resolve().parents[2]


def test_the_first_try_on_loopback(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## Listening for a whole cloud") :].split("\n## ")[0]
    blocks = re.findall(r"(?m)(?:^    .*\n)+", section)
    here = {"/tmp/": f"{tmp_path}/", "7411": str(unused_port())}
    here[".venv/bin/"] = f"{Path(sys.executable).parent}/"
    for name, own in here.items():
        blocks = [block.replace(name, own) for block in blocks]
    # The daemon in its terminal, and the sender in the other.
    settings, check, start = re.findall(r"(?:.*\\\n)*.*\n", blocks[0])
    first = subprocess.run(
        ["sh", "-euc", settings + check], capture_output=True, text=True, timeout=60, check=False
    )
    assert (first.returncode, first.stderr) == (0, "")
    assert "networks: 127.0.0.0/8" in first.stdout
    with (tmp_path / "log").open("w") as log:
        daemon = subprocess.Popen(["sh", "-euc", f"exec {start}"], stdout=log, stderr=log)
    try:
        until(lambda: "listens on port" in (tmp_path / "log").read_text())
        subprocess.run(
            ["sh", "-euc", blocks[1]], capture_output=True, text=True, timeout=60, check=True
        )
        until(lambda: "node '127.0.0.1' began to dump" in (tmp_path / "log").read_text())
    finally:
        daemon.terminate()
        assert daemon.wait(60) == 0

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The systemd units that packages install, and what systemd-analyze says of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.conftest import cannot_run

UNITS = Path(__file__).resolve().parents[2] / "packaging" / "systemd"


def runnable(folder: Path) -> Path:
    """That folder with the units, whose programs exist."""
    if shutil.which("systemd-analyze") is None:
        cannot_run("systemd-analyze is missing")
    for unit in UNITS.iterdir():
        text = re.sub(r"/usr/sbin/kdumpfenced?\b", shutil.which("true") or "", unit.read_text())
        (folder / unit.name).write_text(re.sub("(?m)^Documentation=.*$", "", text))
    return folder


def analyze(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze on the units of this folder."""
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        cwd=folder,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_UNIT_PATH": f"{folder}:"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )


def exposure(service: str, folder: Path) -> float:
    """What systemd thinks of the service: 0 is safe, 10 is not."""
    done = analyze("security", "--offline=true", f"./{service}", folder=folder)
    return float(re.findall(r"Overall exposure level.*?: ([\d.]+) ", done.stdout)[0])


def confined(service: str) -> str:
    """What begins a command that is to have the capabilities of this service, and no other."""
    listed = re.findall("(?m)^CapabilityBoundingSet=(.*)$", (UNITS / service).read_text())
    names = "".join(f",+{name[4:].lower()}" for line in listed for name in line.split())
    return f"setpriv --no-new-privs --inh-caps=-all --bounding-set=-all{names}"

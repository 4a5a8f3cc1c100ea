# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machines themselves: a crash takes everything at once, and nothing outlives a test."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import cannot_run
from tests.support.debian import or_skip
from tests.system.cluster import debian_root, machine
from tests.system.cluster.machine import Machine, Site

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

HERE = Path(__file__).resolve().parents[3]
BOOT = "hostname $1; sleep 86399.{number} & exec sleep 86399.{number}\n"


@pytest.fixture
def base() -> Path:
    why = machine.why_not()
    if why is not None:
        cannot_run(why)
    return or_skip(debian_root.get)


def _sleepers(number: int) -> int:
    """How many processes of this computer sleep for that long."""
    wanted = f"sleep\0{86399}.{number}\0".encode()
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found += (folder / "cmdline").read_bytes() == wanted
        except OSError:
            continue
    return found


def _wait_sleepers(number: int, count: int) -> None:
    end = time.monotonic() + 20
    while _sleepers(number) != count:
        assert time.monotonic() < end, f"{_sleepers(number)} processes, not {count}"
        time.sleep(0.05)


def test_a_crash_takes_all_processes_and_leaves_network_and_disk(base: Path) -> None:
    with Site(base) as site:
        node, other = Machine(site, "node1", 1), Machine(site, "node2", 2)
        for one in (node, other):
            one.write_file("/etc/boot", BOOT.format(number=11))
            one.boot()
        _wait_sleepers(11, 4)
        node.run("echo kept > /root/file")
        node.crash()
        assert _sleepers(11) == 2
        assert not node.runs
        node.plug(0)
        node.boot()
        assert node.run("cat /root/file; hostname").stdout.split() == ["kept", "node1"]
        assert "10.0.0.1/24" in node.run("ip -4 address show ring0").stdout
    _wait_sleepers(11, 0)


def test_nothing_survives_the_death_of_the_test(base: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.system.cluster.machine import Machine, Site\n"
        "site = Site(Path(sys.argv[1]))\n"
        "node = Machine(site, 'node1', 1)\n"
        "node.write_file('/etc/boot', sys.argv[2])\n"
        "node.boot()\n"
        "program = node.program(['sleep', '86399.12'])\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(base), BOOT.format(number=12)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE,
    ) as test:
        assert test.stdout is not None
        assert test.stdout.readline() == "ready\n"
        _wait_sleepers(12, 3)
        test.kill()
    _wait_sleepers(12, 0)

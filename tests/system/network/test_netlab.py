# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lab does what it says: without this, the other tests of this folder would prove nothing."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.netlab import Host, Impairment, Lab

ROOT = Path(__file__).resolve().parents[3]

# A separate process builds a lab with everything in it, says so, and waits to be killed.
BUILD_AND_WAIT = """
import sys, time
from tests.support.netlab import Lab
lab = Lab()
a, b = lab.host("a"), lab.host("b")
lab.link(a, b, ["10.0.0.1/24"], ["10.0.0.2/24"])
a.popen(["sh", "-c", 'sleep 987 & sleep 987'])
print("built", flush=True)
time.sleep(60)
"""


def test_reordering_without_delay_is_refused() -> None:
    with pytest.raises(ValueError, match="without a delay"):
        Impairment(reorder=0.5)


def test_a_look_up_that_hangs_asks_the_dead_nameserver(lab: Lab, node: Host) -> None:
    nameserver = node.hang_name_service()
    asker = node.popen(["getent", "hosts", "nobody"])
    assert select.select([nameserver], [], [], 30)[0]
    with pytest.raises(subprocess.TimeoutExpired):
        asker.wait(1)


def test_a_host_has_its_own_syslog(lab: Lab, node: Host) -> None:
    log = node.syslog()
    log.settimeout(5)
    node.run([sys.executable, "-c", "import syslog; syslog.syslog('seen')"], check=True)
    assert log.recv(1000).endswith(b"seen")


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_leaving_a_lab_leaves_nothing_behind(obstacle: str | None, lab: Lab) -> None:
    before = descriptors()
    with Lab() as other:
        a, b = other.host("a"), other.host("b")
        other.link(a, b, ["10.0.0.1/24"], ["10.0.0.2/24"])
        asleep = a.popen(["sleep", "987"], stdout=subprocess.PIPE)
        namespaces = {os.readlink(f"/proc/{host.pid}/ns/net") for host in (a, b)}
        assert namespaces <= all_namespaces()
    assert asleep.returncode == -signal.SIGKILL
    assert not namespaces & all_namespaces()
    assert descriptors() == before


@pytest.mark.slow
def test_killing_the_tester_leaves_nothing_behind(lab: Lab) -> None:
    tester = subprocess.Popen(
        [sys.executable, "-c", BUILD_AND_WAIT],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with tester:
        assert tester.stdout is not None
        built = tester.stdout.readline()
        try:
            # Two hosts of two processes each, the shell and what it started.
            wait_for(lambda: len(descendants(tester.pid)) == 7, "seven descendants")
            family = descendants(tester.pid)
        finally:
            tester.kill()
    assert built == "built\n"
    wait_for(lambda: not any(map(runs, family)), "the programs of a dead lab to end")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"waited 30 s for {what}"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    # What has ended has no command line any more, however late the machine's init reaps it.
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def all_namespaces() -> set[str]:
    """List the network namespaces that processes of this machine are in."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it is gone, or a zombie
            found.add(os.readlink(process / "ns/net"))
    return found


def descendants(pid: int) -> list[int]:
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return children + [grandchild for child in children for grandchild in descendants(child)]

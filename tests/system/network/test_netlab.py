"""The lab does what it says: without this, the other tests of this folder would prove nothing."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.netlab import BLACKHOLE, Host, Impairment, Lab

ROOT = Path(__file__).resolve().parents[3]

# A separate process builds a lab with everything in it, says so, and waits to be killed.
BUILD_AND_WAIT = """
import sys, time
from tests.support.netlab import Impairment, Lab
lab = Lab(netem=False)
a, b = lab.host("a"), lab.host("b")
lab.link(a, b, ["10.0.0.1/24"], ["10.0.0.2/24"], Impairment())
a.popen(["sh", "-c", 'sleep 987 & sleep 987'])
print("built", flush=True)
time.sleep(60)
"""


def pair(
    lab: Lab, node: Host, survivor: Host, impairment: Impairment
) -> tuple[socket.socket, socket.socket]:
    """Open a socket on each side of an impaired link; the neighbours know each other already."""
    link = lab.link(node, survivor, ["10.0.0.1/24"], ["10.0.0.2/24"], Impairment())
    sender, receiver = node.open_socket(), survivor.open_socket()
    receiver.bind(("", 7410))
    receiver.settimeout(5)
    sender.connect(("10.0.0.2", 7410))
    sender.send(b"hello")
    receiver.recv(100)
    link.impair(impairment)
    time.sleep(0.05)  # the forwarder reads its orders
    return sender, receiver


def passed(sender: socket.socket, receiver: socket.socket, number: int, quiet: float) -> list[int]:
    """Tell which numbers arrive, in their order, when 0, 1, 2... are sent."""
    for serial in range(number):
        sender.send(serial.to_bytes(2, "big"))
        time.sleep(0.001)
    receiver.settimeout(quiet)
    numbers: list[int] = []
    while True:
        try:
            numbers.append(int.from_bytes(receiver.recv(100), "big"))
        except socket.timeout:
            return numbers


def test_an_unimpaired_link_passes_everything_in_order(
    lab: Lab, node: Host, survivor: Host
) -> None:
    ends = pair(lab, node, survivor, Impairment())
    assert passed(*ends, 200, quiet=1) == list(range(200))


def test_loss_takes_its_share(lab: Lab, node: Host, survivor: Host) -> None:
    ends = pair(lab, node, survivor, Impairment(loss=0.5))
    assert 60 < len(passed(*ends, 200, quiet=1)) < 140


def test_a_blackhole_passes_nothing(lab: Lab, node: Host, survivor: Host) -> None:
    ends = pair(lab, node, survivor, BLACKHOLE)
    assert passed(*ends, 50, quiet=1) == []


def test_duplication_doubles(lab: Lab, node: Host, survivor: Host) -> None:
    ends = pair(lab, node, survivor, Impairment(duplicate=1))
    assert sorted(passed(*ends, 50, quiet=1)) == sorted(2 * list(range(50)))


def test_reordering_and_jitter_lose_nothing_but_the_order(
    lab: Lab, node: Host, survivor: Host
) -> None:
    for impairment in (Impairment(delay=0.1, reorder=0.3), Impairment(delay=0.1, jitter=0.05)):
        numbers = passed(*pair(lab, lab.host("a"), lab.host("b"), impairment), 100, quiet=1.5)
        assert numbers != sorted(numbers)
        assert sorted(numbers) == list(range(100))


def test_delay_delays(lab: Lab, node: Host, survivor: Host) -> None:
    sender, receiver = pair(lab, node, survivor, Impairment(delay=0.3))
    began = time.monotonic()
    sender.send(b"late")
    receiver.recv(100)
    assert time.monotonic() - began >= 0.3


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
    with Lab(netem=False) as other:
        a, b = other.host("a"), other.host("b")
        other.link(a, b, ["10.0.0.1/24"], ["10.0.0.2/24"], Impairment())
        asleep = a.popen(["sleep", "987"], stdout=subprocess.PIPE)
        namespaces = {os.readlink(f"/proc/{host.pid}/ns/net") for host in (a, b)}
        assert namespaces <= all_namespaces()
    assert asleep.returncode == -signal.SIGKILL
    assert not namespaces & all_namespaces()
    assert descriptors() == before


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
            # Two hosts of two processes each, the forwarder, the shell and what it started.
            wait_for(lambda: len(descendants(tester.pid)) == 8, "eight descendants")
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

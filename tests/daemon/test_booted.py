# SPDX-License-Identifier: GPL-2.0-or-later
"""The units under a real systemd, in namespaces: what the daemon gets there, and when it starts.

Nothing of the machine can be reached from there: all is laid over its root, and in memory.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence import keys
from kdumpfence.wire import Packet, encode_packet, packet_fits
from tests.conftest import cannot_run
from tests.daemon.running import until
from tests.install.machine import OVERLAY
from tests.install.test_debian import SYSTEMD, own_cgroup
from tests.support.netlab import Host, Lab

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = bytes(range(32))

#: The service cannot see a Python in a home directory.
PYTHON = sys.executable
if os.path.realpath(PYTHON).startswith(("/root", "/home")):
    PYTHON = "/usr/bin/python3"

# What needs more than namespaces on a machine like CI's.
LEFT_OUT = ("PrivateDevices=yes\n", "PrivateUsers=yes\n")

_BOOT = (
    OVERLAY
    + """
    test "$(stat -f -c %T .)" = overlayfs
    rm -rf etc/systemd etc/fstab etc/kdumpfence usr/lib/systemd/system-generators
    mkdir -p units talk etc/kdumpfence etc/systemd/system
    mount --bind "$ROOT/talk" talk
    cp -a /lib/systemd/system/. units/
    cp -a "$ROOT/etc/." etc/
    mount -t proc proc proc
    for folder in run tmp dev var/lib var/log var/tmp; do
        mount -t tmpfs tmpfs "$folder"
    done
    mount -t sysfs -o ro sysfs sys
    hierarchy=
    if test -e "$GROUP/cgroup.controllers"; then
        mount -t cgroup2 cgroup2 sys/fs/cgroup
    else
        hierarchy='systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1'
        mount -t tmpfs tmpfs sys/fs/cgroup
        mkdir sys/fs/cgroup/systemd
        mount -t cgroup -o none,name=systemd,xattr cgroup sys/fs/cgroup/systemd
    fi
    cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom dev/
    ln -s /proc/self/fd dev/fd
    mkdir dev/shm
    mount --make-rshared .
    exec chroot . env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
        SYSTEMD_UNIT_PATH=/etc/systemd/system:/units SYSTEMD_PROC_CMDLINE="$hierarchy" \\
        /lib/systemd/systemd --system --unit=booted.service --log-target=null --show-status=no
"""
)

_BOOTED = """[Unit]
Wants=kdumpfenced.socket kdumpfenced.service
After=kdumpfenced.socket kdumpfenced.service
[Service]
Type=oneshot
ExecStart=-/bin/sh -c 'systemctl --no-pager status kdumpfenced.service >/talk/status'
ExecStart=-/bin/sh -c 'systemctl is-active kdumpfenced.socket kdumpfenced.service >/talk/new'
ExecStart=/bin/mv /talk/new /talk/booted
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What is laid over /etc: the units, and settings."""
    for needed in (SYSTEMD, PYTHON):
        if not Path(needed).exists():
            cannot_run(f"{needed} is missing")
    (tmp_path / "talk").mkdir()
    (tmp_path / "talk").chmod(0o755)
    settings, units = tmp_path / "etc/kdumpfence", tmp_path / "etc/systemd/system"
    settings.mkdir(parents=True)
    units.mkdir(parents=True)
    (settings / "kdumpfenced.toml").write_text('networks = ["127.0.0.0/8"]\nnode = "node1"\n')
    for unit in (ROOT / "packaging/systemd").iterdir():
        text = unit.read_text().replace("!/proc/vmcore", "!/etc/vmcore")
        text = text.replace(
            "ExecStart=/usr/sbin/kdumpfenced",
            f"ExecStart={PYTHON} -B -m kdumpfence.daemon\nEnvironment=PYTHONPATH={ROOT / 'src'}\n"
            "StandardError=append:/talk/log",
        )
        for line in LEFT_OUT:
            text = text.replace(line, "")
        (units / unit.name).write_text(text)
    (units / "booted.service").write_text(_BOOTED)
    return tmp_path


@contextlib.contextmanager
def booted(host: Host, root: Path) -> Iterator[list[str]]:
    """Boot that; yields the states of socket and service."""
    with own_cgroup() as group:
        program = host.popen(
            [
                *("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"),
                *("unshare", "--mount", "--pid", "--ipc", "--uts", "--cgroup"),
                *("--fork", "--kill-child=KILL", "sh", "-c", _BOOT),
            ],
            env={"GROUP": str(group), "ROOT": str(root)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            states = root / "talk/booted"
            until(lambda: states.exists() or program.poll() is not None)
            if not states.exists():
                assert program.stderr is not None
                cannot_run(f"systemd does not boot here: {program.stderr.read()}")
            yield states.read_text().split()
        finally:
            program.kill()
            program.wait()


def answer(host: Host, seconds: float = 20.0) -> bytes:
    """What is answered to a question; b"" if nothing is."""
    with host.open_socket() as sock:
        sock.bind(("127.0.0.9", 0))
        nonce = os.urandom(16)
        sock.sendto(encode_packet(Packet("question", "node1", nonce=nonce)), ("127.0.0.1", 7410))
        return sock.recv(4096) if select.select([sock], [], [], seconds)[0] else b""


@pytest.mark.parametrize("key", [False, True])
def test_the_daemon_answers_out_of_the_box_and_signs_if_there_is_a_key(
    lab: Lab, root: Path, key: bool
) -> None:
    if key:
        file = root / "etc/kdumpfence/key"
        file.touch(0o600)
        file.write_text(keys.Keys((keys.key_id(CLUSTER), CLUSTER)).text())
    host = lab.host("node1")
    with booted(host, root) as states:
        assert states == ["active", "active"], (root / "talk/status").read_text()
        data = answer(host)
        assert packet_fits(data, keys.node_key(CLUSTER, "node1")) == key
        assert data[:8] == b"KDFALIVE"
        how = f"signed with key {keys.key_id(CLUSTER):08x}" if key else "not signed: no key file"
        assert how in (root / "talk/log").read_text()


def test_in_a_crash_kernel_neither_the_daemon_nor_its_socket_is_there(lab: Lab, root: Path) -> None:
    (root / "etc/vmcore").touch()
    host = lab.host("node1")
    with booted(host, root) as states:
        assert states == ["inactive", "inactive"]
        with host.open_socket() as sock:
            sock.bind(("0.0.0.0", 7410))  # the sender can have it


def test_the_units_look_for_what_a_crash_kernel_has() -> None:
    for unit in (ROOT / "packaging/systemd").iterdir():
        assert "\nConditionPathExists=!/proc/vmcore\n" in unit.read_text(), unit.name

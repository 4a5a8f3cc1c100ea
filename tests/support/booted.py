# SPDX-License-Identifier: LGPL-2.1-or-later
"""The units of packages under a real systemd, in namespaces.

Nothing of the machine can be reached from there: all is laid over its root, and in memory. A unit
booted.service begins, and writes to /talk what it finds; it is to leave /talk/booted last.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import cannot_run
from tests.daemon.running import until
from tests.install.machine import OVERLAY
from tests.install.test_debian import SYSTEMD, own_cgroup
from tests.support.netlab import Host
from tests.support.units import UNITS

_SOURCE = Path(__file__).resolve().parents[2] / "src"

#: The service cannot see a Python in a home directory.
_PYTHON = sys.executable
if os.path.realpath(_PYTHON).startswith(("/root", "/home")):
    _PYTHON = "/usr/bin/python3"

# What needs more than namespaces on a machine like CI's.
_LEFT_OUT = ("PrivateDevices=yes\n",)

_MODULES = {"kdumpfence": "kdumpfence.cli", "kdumpfenced": "kdumpfence.daemon"}

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


def command(program: str) -> str:
    """How that program is started there, with PYTHONPATH as our units have it."""
    return f"{_PYTHON} -B -m {_MODULES[program]}"


def lay(root: Path, booted: str) -> Path:
    """Put into root/etc, which is laid over /etc, our units, and that one as booted.service."""
    for needed in (SYSTEMD, _PYTHON):
        if not Path(needed).exists():
            cannot_run(f"{needed} is missing")
    (root / "talk").mkdir()
    (root / "talk").chmod(0o755)
    units = root / "etc/systemd/system"
    units.mkdir(parents=True)
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("!/proc/vmcore", "!/etc/vmcore")
        text = re.sub(
            r"(?m)^ExecStart=/usr/sbin/(kdumpfenced?)\b",
            lambda found: (
                f"Environment=PYTHONPATH={_SOURCE}\nStandardError=append:/talk/log\n"
                f"ExecStart={command(found[1])}"
            ),
            text,
        )
        for line in _LEFT_OUT:
            text = text.replace(line, "")
        (units / unit.name).write_text(text)
    (units / "booted.service").write_text(booted)
    return root


@contextlib.contextmanager
def booted(host: Host, root: Path) -> Iterator[list[str]]:
    """Boot that; yields the words of /talk/booted."""
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
            told = root / "talk/booted"
            until(lambda: told.exists() or program.poll() is not None)
            if not told.exists():
                assert program.stderr is not None
                cannot_run(f"systemd does not boot here: {program.stderr.read()}")
            yield told.read_text().split()
        finally:
            program.kill()
            program.wait()

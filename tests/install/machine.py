# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine on which scripts run as they do there, with a root file system of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kdumpfence.install import layouts
from tests.conftest import cannot_run
from tests.support.netlab import Host

#: This project, which may lie in /tmp.
ROOT = str(Path(__file__).resolve().parents[2])


#: Lays a root file system of a host's own over the machine's, and goes there.
OVERLAY = """
    set -e
    mkdir -p /run/over/upper /run/over/work /run/over/root
    mount -t overlay overlay \
        -o lowerdir=/,upperdir=/run/over/upper,workdir=/run/over/work /run/over/root
    cd /run/over/root
"""


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for it to be true, or for so long."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)


def running(host: Host) -> dict[int, list[str]]:
    """The command lines of what runs on this host, by pid."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.path.samefile(entry / "ns/net", f"/proc/{host.pid}/ns/net"):
                found[int(entry.name)] = (entry / "cmdline").read_text().split("\0")[:-1]
    return found


def senders(host: Host) -> dict[int, list[str]]:
    """The same of the senders alone."""
    return {
        pid: words
        for pid, words in running(host).items()
        if words and words[0].endswith("fence_kdump_send")
    }


class Machine:
    """A root file system of its own, laid over the machine's, on a host of the lab."""

    _LAY = f"""{OVERLAY}
        mount --rbind /etc etc
        mount --rbind /dev dev
        mount -t tmpfs tmpfs proc
        mount -t tmpfs tmpfs run
        mkdir run/machine-etc
        mount --bind /run/machine-etc run/machine-etc
        mount -t tmpfs tmpfs tmp
        mkdir -p ".$0"
        mount --bind "$0" ".$0"
        rm -rf usr/lib/kdumpfence
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        done = host.run(["sh", "-c", self._LAY, ROOT])
        if done.returncode:
            cannot_run(f"no overlay: {done.stderr}")
        self.root = host.root / "run/over/root"

    def chroot(self, *argv: str, env: dict[str, str] | None = None) -> str:
        """Run a program in it; its output."""
        done = self.host.run(["chroot", "/run/over/root", *argv], env=env)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout + done.stderr

    def install(self, layout: str, *options: str) -> None:
        """Put the real sender into it."""
        done = subprocess.run(
            [sys.executable, "-m", "kdumpfence.cli", "install-sender"]
            + ["--root", str(self.root), "--distribution", layout, *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")

    def end_senders(self) -> list[list[str]]:
        """The command lines of the senders that run on this host, and end them."""
        found = senders(self.host)
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        return list(found.values())


def resolve(
    host: Host,
    nodes: str,
    args: str = "",
    env: dict[str, str] | None = None,
    through: Sequence[str] = (),
) -> tuple[dict[str, str], list[str]]:
    """What resolve-nodes makes of a list of nodes, and its remarks; run `through` a command."""
    host.write_file("/etc/nodes", f'# nodes\nNODES="{nodes}"\nARGS="{args}"\n')
    done = host.run(
        [*through, "/bin/sh", layouts.data_path("common/resolve-nodes"), "/etc/nodes"], env=env
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    found = {name: value.strip('"') for name, value in (line.split("=", 1) for line in lines)}
    assert set(found) == {"NODES", "ADDRESSES", "ARGS"}
    return found, done.stderr.splitlines()

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's ufw and firewalld, as they run on a host of a Lab.

Their programs are Debian's, in a root of its own; the rules that they make are those of the host's
network. The host's PATH gets a script for each program that runs it in that root, so the doctor
and its remedies find them as on any machine.
"""

from __future__ import annotations

import functools
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import debroot
from tests.support.netlab import Host

_PACKAGES = (
    *("ufw", "firewalld", "dbus", "iptables", "nftables"),
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "findutils"),
    *("gawk", "grep", "kmod", "libc-bin", "mawk", "procps", "python3", "sed", "util-linux"),
)
_ROOT, _PROGRAMS = "/run/debian", "/run/programs"
_ENV = {"PATH": f"{_PROGRAMS}:/usr/sbin:/usr/bin:/sbin:/bin"}

# The root is everybody's, so what these programs write goes to memory.
_ENTER = f"""
mkdir {_ROOT} {_PROGRAMS}
mount --bind "$0" {_ROOT}
for folder in etc run tmp var; do
    mkdir -p /run/own/$folder
    cp -a {_ROOT}/$folder/. /run/own/$folder/
    mount --bind /run/own/$folder {_ROOT}/$folder
done
mount -t proc proc {_ROOT}/proc
mount --bind /sys {_ROOT}/sys
mount --bind /dev {_ROOT}/dev
for program in "$@"; do
    echo "#!/bin/sh
exec chroot {_ROOT} $program \\"\\$@\\"" >{_PROGRAMS}/$program
    chmod +x {_PROGRAMS}/$program
done
"""


@functools.cache
def get() -> Path:
    """Return the root, made if need be. Raises tests.support.debian.NotAvailable."""
    return debroot.made("firewalls", _PACKAGES, _furnish, Path(__file__).read_bytes()) / "root"


def _furnish(folder: Path, _: Sequence[Path]) -> None:
    """Do what the packages' own scripts would."""
    root = folder / "root"
    debroot.add_user(root, "messagebus", "messagebus", 901, "/nonexistent")
    for name in ("dev", "proc", "run/dbus", "sys", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for which in ("iptables", "ip6tables"):
        for what in ("", "-restore", "-save"):
            (root / f"usr/sbin/{which}{what}").symlink_to(f"{which}-nft{what}")
    made = """
        cd /etc/ufw
        cp /usr/share/ufw/iptables/*.rules /usr/share/ufw/*.init /usr/share/ufw/ufw.conf .
        chmod 640 *.rules *.init
        dbus-uuidgen --ensure
        # Without polkit, firewalld asks who the caller is.
        rm /usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service
    """
    debroot.run("chroot", str(root), "sh", "-ec", made)


def start_ufw(host: Host, *commands: str) -> Mapping[str, str]:
    """Let ufw be in force on a host, after these commands; the environment to find it with."""
    host.run(["sh", "-ec", _ENTER, get(), "ufw"], check=True)
    for command in ("--force enable", *commands):
        host.run(["ufw", *command.split()], env=_ENV, check=True)
    return _ENV


def start_firewalld(host: Host, *commands: str) -> Mapping[str, str]:
    """The same with firewalld, which runs until the host is gone; the commands are permanent."""
    programs = ("dbus-daemon", "firewalld", "firewall-cmd")
    host.run(["sh", "-ec", _ENTER, get(), *programs], check=True)
    host.run(["dbus-daemon", "--system", "--fork", "--nopidfile"], env=_ENV, check=True)
    daemon = host.popen(
        ["firewalld", "--nofork", "--nopid"],
        env=_ENV,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while host.run(["firewall-cmd", "--state"], env=_ENV).stdout.strip() != "running":
        if daemon.poll() is not None or time.monotonic() > end:
            raise RuntimeError("firewalld does not start")
    for command in (*(f"--permanent {one}" for one in commands), "--reload"):
        host.run(["firewall-cmd", *command.split()], env=_ENV, check=True)
    return _ENV

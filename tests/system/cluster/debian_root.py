# SPDX-License-Identifier: LGPL-2.1-or-later
"""The nodes' root file system: Debian with corosync, pacemaker, pcs and crmsh, of real packages.

dpkg's database has them all, so that a package can be installed on top, with its dependencies
looked at. The stock agent's package is unpacked too, but not what it depends on: of the agents
that are in it only fence_kdump, which needs nothing of that, is ever called.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from tests.support import debian, debroot

PACKAGES = (
    *("corosync", "pacemaker", "pacemaker-cli-utils", "pacemaker-resource-agents"),
    *("pcs", "crmsh"),
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils"),
    *("dpkg", "findutils", "gawk", "grep", "gzip", "hostname", "iproute2", "libc-bin", "login"),
    *("mawk", "mount", "passwd", "procps", "python3", "sed", "tar", "util-linux"),
)
# The stock agent's package, and what it is part of before 4.16.
STOCK = ("fence-agents-kdump", "fence-agents")


@functools.cache
def get() -> Path:
    """Return the root, made if need be. Nobody may write to it: put a layer over it.

    It is asked for in the midst of a crash, so apt is asked once only.

    Raises tests.support.debian.NotAvailable.
    """
    recipe = Path(__file__).read_bytes()
    alone = [debian.first_there_is(*STOCK)]
    return debroot.made("cluster", PACKAGES, _furnish, recipe, alone=alone) / "root"


def stock_sender() -> Path:
    """Return the stock sender, of the same package as the stock agent. Raises as `get`."""
    return get() / "usr/libexec/fence-agents/fence_kdump_send"


def _furnish(folder: Path, packages: Sequence[Path]) -> None:
    """Do what the packages' own scripts would."""
    root = folder / "root"
    debroot.enter(root, packages)
    debroot.add_user(root, "hacluster", "haclient", 900, "/var/lib/pacemaker")
    for name in ("", "/blackbox", "/cib", "/cores", "/pengine"):
        _own(root / f"var/lib/pacemaker{name}", 900, 900)
    _own(root / "var/log/pacemaker", 900, 900)
    _own(root / "etc/pacemaker", 0, 900)
    for name in ("var/log/corosync", "var/log/crmsh", "var/lib/corosync"):
        _own(root / name, 0, 0)
    # As the packages' scripts do: without, each call of pcs would compile itself anew.
    modules = "/usr/lib/python3/dist-packages"
    debroot.run("chroot", str(root), "python3", "-m", "compileall", "-q", modules)


def _own(folder: Path, user: int, group: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, user, group)
    folder.chmod(0o750)

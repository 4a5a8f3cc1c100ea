# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests do with dpkg on a machine: install ours and the stock agent, look what is there."""

from __future__ import annotations

from pathlib import Path

from tests.packages import bare
from tests.packages.conftest import library_of

AGENT = "/usr/sbin/fence_kdump"
KEPT = "/usr/sbin/.fence_kdump.stock"
PAGES = ("fence_kdump", "fence_kdump_send")


def stock(machine: bare.Machine, debian: bare.Debian) -> str:
    """Install Debian's package of the stock agent; what dpkg said."""
    return machine.dpkg("--force-depends", "-i", machine.put(debian.fence_agents))


def ours(machine: bare.Machine, deb: Path) -> str:
    """Install the library and the package, in two steps as apt does it; what dpkg said."""
    return library(machine, deb) + machine.dpkg("-i", machine.put(deb))


def library(machine: bare.Machine, deb: Path) -> str:
    """Install the library alone; what dpkg said."""
    return machine.dpkg("-i", machine.put(library_of(deb)))


def ours_gone(machine: bare.Machine) -> str:
    """Purge both; what dpkg said."""
    return machine.dpkg("-P", "kdumpfence", "python3-kdumpfence")


def version(machine: bare.Machine) -> str:
    """Whose agent it is that the cluster would start."""
    return machine.run("fence_kdump", "-V")


def is_stock(machine: bare.Machine, path: str = AGENT) -> bool:
    """Whether that is the stock agent, a program in C, and one that runs."""
    return (machine.root / path[1:]).read_bytes()[:4] == b"\x7fELF" and "0.1" in machine.run(
        path, "-V"
    )


def agents(machine: bare.Machine) -> list[str]:
    """The agents that Pacemaker would list."""
    return sorted(path.name for path in (machine.root / "usr/sbin").glob("fence_kdump*"))


def state(machine: bare.Machine) -> tuple[list[str], set[str], str]:
    """What dpkg knows: packages that are not gone, diversions, and what is in disorder.

    Not what it was last asked for: that stays "install" after an installation that failed.
    """
    listed = machine.run(
        "dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Eflag} ${db:Status-Status}\\n"
    )
    packages = [line for line in listed.splitlines() if not line.endswith(" not-installed")]
    diversions = set(machine.run("dpkg-divert", "--list").splitlines())
    # The root was made without checksums; that is all that may be wrong with it.
    audit = machine.run("dpkg", "--audit").strip().split("\n\n")
    return (
        packages,
        diversions,
        "\n".join(about for about in audit if "are missing the md5sums control file" not in about),
    )


def everything(machine: bare.Machine) -> object:
    """The same and all files: what an installation that came to nothing has to leave alone."""
    return state(machine), machine.files()

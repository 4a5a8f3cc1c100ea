# SPDX-License-Identifier: GPL-2.0-or-later
"""Get the stock fence_kdump, its sender and the metadata schema, without installing them.

They are taken from the machine if it has the stock programs installed, else from Debian's
fence-agents package, which is downloaded and unpacked into a folder of the work tree
(installing it would bring in half of Python's cloud libraries and claim /usr/sbin/fence_kdump).
The schema is what `lib/metadata.rng` of the source package installs; the binary package has it.

Run as a program it does just that and prints the three paths:

    python tests/interop/stock.py [FOLDER]
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "fence-agents"
FOLDER = Path(__file__).resolve().parents[2] / "build" / "stock"

# Where distributions put the three files, below "/" or below an unpacked package.
AGENT = ("usr/sbin/fence_kdump",)
SENDER = (
    "usr/libexec/fence-agents/fence_kdump_send",  # Debian
    "usr/libexec/fence_kdump_send",  # RHEL, Fedora
    "usr/lib/fence_kdump_send",  # SUSE
)
SCHEMA = ("usr/share/cluster/relaxng/metadata.rng",)


class NotAvailable(Exception):
    """The stock programs cannot be had here; the text says what is missing and how to get it."""


@dataclass(frozen=True)
class Stock:
    """Paths of the three stock files."""

    agent: Path
    sender: Path
    schema: Path


def _first(root: Path, places: tuple[str, ...]) -> Path | None:
    return next((root / place for place in places if (root / place).is_file()), None)


def _is_elf(path: Path) -> bool:
    """Tell the stock programs (C) from drop-ins of the same name (scripts)."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _below(root: Path) -> Stock | None:
    agent, sender, schema = _first(root, AGENT), _first(root, SENDER), _first(root, SCHEMA)
    if agent is None or sender is None or schema is None:
        return None
    return Stock(agent, sender, schema) if _is_elf(agent) and _is_elf(sender) else None


def _run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        check=False,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
    )


def _download(folder: Path) -> Path:
    """Download the package into `folder`, renewing apt's lists once if they do not know it."""
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise NotAvailable(
                f"{tool} is not on this machine, so Debian's {PACKAGE} cannot be unpacked; "
                f"install your distribution's fence-agents (its fence_kdump at /{AGENT[0]}), "
                f"or unpack Debian's {PACKAGE} package into {FOLDER} by hand"
            )
    download = ("apt-get", "download", PACKAGE)
    done = _run(*download, cwd=folder)
    if done.returncode != 0 and os.geteuid() == 0:
        _run("apt-get", "update", cwd=folder)
        done = _run(*download, cwd=folder)
    packages = list(folder.glob("*.deb"))
    if done.returncode != 0 or len(packages) != 1:
        raise NotAvailable(
            f"`{' '.join(download)}` failed; run `apt-get update` as root, or install "
            f"{PACKAGE}; apt-get said:\n{done.stdout}"
        )
    return packages[0]


def get(folder: Path = FOLDER) -> Stock:
    """Return the stock files: installed ones, those in `folder`, else downloaded into it.

    Raises NotAvailable.
    """
    found = _below(Path("/")) or _below(folder)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NotAvailable(f"nowhere to put {PACKAGE}: {error}") from None
    with (folder / "lock").open("w") as lock, tempfile.TemporaryDirectory(dir=folder) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = _below(folder)  # another process may have been quicker
        if found is None:
            package = _download(Path(scratch))
            done = _run("dpkg", "-x", package.name, str(folder), cwd=package.parent)
            found = _below(folder)
            if found is None:
                raise NotAvailable(
                    f"{package.name} has no {AGENT[0]}, {SENDER[0]} and {SCHEMA[0]}; look in "
                    f"{folder}, and add this version's places to {__file__}\n{done.stdout}"
                )
        return found


def main() -> int:
    """Print the paths of the stock files, one a line."""
    try:
        found = get(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
    except NotAvailable as error:
        print(error, file=sys.stderr)
        return 1
    print(found.agent, found.sender, found.schema, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

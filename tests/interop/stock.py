# SPDX-License-Identifier: GPL-2.0-or-later
"""Get the stock fence_kdump, its sender and the metadata schema, without installing them.

They are taken from the machine if it has the stock programs installed, else from Debian's
fence-agents package, which is downloaded and unpacked (installing it would bring in half of
Python's cloud libraries and claim /usr/sbin/fence_kdump). The schema is what `lib/metadata.rng`
of the source package installs; the binary package has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support import debian
from tests.support.debian import NotAvailable

PACKAGE = "fence-agents"

# Where distributions put the three files, below "/" or below an unpacked package.
AGENT = ("usr/sbin/fence_kdump",)
SENDER = (
    "usr/libexec/fence-agents/fence_kdump_send",  # Debian
    "usr/libexec/fence_kdump_send",  # RHEL, Fedora
    "usr/lib/fence_kdump_send",  # SUSE
)
SCHEMA = ("usr/share/cluster/relaxng/metadata.rng",)


__all__ = ["NotAvailable", "Stock", "get"]


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


def get() -> Stock:
    """Return the stock files: installed ones, else those of Debian's package.

    Raises NotAvailable.
    """
    found = _below(Path("/"))
    if found is not None:
        return found
    try:
        folder = debian.unpacked(PACKAGE)
    except NotAvailable as reason:
        raise NotAvailable(
            f"{reason}\ninstall your distribution's fence-agents, with its fence_kdump at "
            f"/{AGENT[0]}, or unpack Debian's into {debian.FOLDER / PACKAGE} by hand"
        ) from None
    found = _below(folder)
    if found is None:
        raise NotAvailable(
            f"{folder} has no {AGENT[0]}, {SENDER[0]} and {SCHEMA[0]}; look there, and add this "
            f"version's places to {__file__}"
        )
    return found

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Get the stock fence_kdump, its sender and the metadata schema, without installing them.

They are taken from the machine if it has the stock programs installed, else from Debian's
packages, which are downloaded and unpacked (installing them would claim /usr/sbin/fence_kdump, and
bring in half of Python's cloud libraries). The schema is what `lib/metadata.rng` of the source
package installs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support import debian, stock_packages
from tests.support.debian import NotAvailable

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


def _below(root: Path, schema_root: Path) -> Stock | None:
    agent, sender = _first(root, AGENT), _first(root, SENDER)
    schema = _first(schema_root, SCHEMA)
    if agent is None or sender is None or schema is None:
        return None
    return Stock(agent, sender, schema) if _is_elf(agent) and _is_elf(sender) else None


def get() -> Stock:
    """Return the stock files: installed ones, else those of Debian's packages.

    Raises NotAvailable.
    """
    found = _below(Path("/"), Path("/"))
    if found is not None:
        return found
    try:
        folders = debian.all_unpacked(stock_packages.named())
    except NotAvailable as reason:
        raise NotAvailable(
            f"{reason}\ninstall your distribution's fence_kdump, with the agent at /{AGENT[0]} "
            f"and the schema at /{SCHEMA[0]} (Debian: {stock_packages.WHERE})"
        ) from None
    found = _below(folders[0], folders[-1])
    if found is None:
        raise NotAvailable(
            f"{' and '.join(map(str, folders))} have no {AGENT[0]}, {SENDER[0]} and {SCHEMA[0]}; "
            f"look there, and add this version's places to {__file__}"
        )
    return found

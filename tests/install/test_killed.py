# SPDX-License-Identifier: GPL-2.0-or-later
"""A run that is killed anywhere leaves the old file or the new one, and can be repeated."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kdumpfence.install import installer, layouts
from tests.install import roots
from tests.install.killing import ends, silent

OURS = b"\x7fELF our sender, version 1\n" * 100
NEWER = b"\x7fELF our sender, version 2\n" * 100


def run(root: Path, layout: str, content: bytes | None, dies_at: int = 0) -> bool:
    """Install that sender, or remove; whether it came to its end."""
    what = layouts.LAYOUTS[layout]
    if content is None:
        return ends(root, lambda opened: installer.remove(opened, what, False, silent), dies_at)
    sender = content
    return ends(
        root, lambda opened: installer.install(opened, what, sender, False, silent), dies_at
    )


def rhel(root: Path) -> None:
    roots.make(root, "rocky")


def suse_without_a_stock_sender(root: Path) -> None:
    roots.make(root, "sles")
    (root / "usr/lib/fence_kdump_send").unlink()


def debian(root: Path) -> None:
    roots.make(root, "debian")
    roots.put(root, layouts.NODES, "NODES=192.0.2.7\n")


FRESH, UPGRADE, REMOVAL = (None, OURS), (OURS, NEWER), (NEWER, None)


@pytest.mark.parametrize(
    ("make", "layout", "stages"),
    [
        (rhel, "rhel", (FRESH, UPGRADE, REMOVAL)),
        (suse_without_a_stock_sender, "suse", (FRESH, REMOVAL)),
        (debian, "debian", (FRESH, REMOVAL)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.slow
def test_whenever_it_is_killed(
    make: Callable[[Path], None],
    layout: str,
    stages: tuple[tuple[bytes | None, bytes | None], ...],
    tmp_path: Path,
) -> None:
    place = roots.PLACES[layout]
    for before, after in stages:
        for number in range(1, 200):
            root = tmp_path / "root"
            root.mkdir()
            make(root)
            untouched = roots.whats(root)
            stock = untouched[place][3] if place in untouched else None
            if before is not None:
                assert run(root, layout, before)
            ended = run(root, layout, after, number)

            now = roots.whats(root).get(place)
            assert (None if now is None else now[3]) in (before, after, stock)
            assert now is None or now[1] == 0o755

            # It can be repeated, as if nothing had happened, or taken back at once.
            if after is not None and number % 2:
                assert run(root, layout, after)
                assert roots.whats(root)[place][3] == after
                assert not [path for path in roots.whats(root) if "kdumpfence-new" in path]
            assert run(root, layout, None)
            assert roots.whats(root) == untouched
            shutil.rmtree(root)
            if ended:
                break
        else:
            pytest.fail("it never came to its end")
        assert number > 5, "nothing was counted: are other calls used now?"

# SPDX-License-Identifier: GPL-2.0-or-later
"""A run that is killed anywhere leaves the old file or the new one, and can be repeated.

The run is done in a child, which leaves for good before its first, second, third... call that
changes anything; a write is done by half before.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdumpfence.install import dpkg, installer, layouts, root_directory
from tests.conftest import cannot_run
from tests.install import roots

OURS = b"\x7fELF our sender, version 1\n" * 100
NEWER = b"\x7fELF our sender, version 2\n" * 100
KILLED = 9
_CHANGING = ("write", "rename", "link", "symlink", "unlink", "mkdir", "rmdir", "fchmod")


def run(
    root: Path, layout: str, content: bytes | None, dies_at: int, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Install that sender, or remove; whether it came to its end."""
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, KILLED)
        return status == 0
    try:
        die_at(dies_at, monkeypatch)
        opened = root_directory.Tree(str(root))
        if content is None:
            installer.remove(opened, layouts.LAYOUTS[layout], False, lambda _: None)
        else:
            installer.install(opened, layouts.LAYOUTS[layout], content, False, lambda _: None)
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)


def die_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [number]

    def counted(real: Callable[..., Any], halves: bool) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                if halves:
                    real(args[0], args[1][: len(args[1]) // 2])
                os._exit(KILLED)
            return real(*args, **named)

        return call

    for name in _CHANGING:
        monkeypatch.setattr(os, name, counted(getattr(os, name), name == "write"))
    monkeypatch.setattr(os, "fsync", lambda _: None)  # it is a process that dies, not a machine
    monkeypatch.setattr(dpkg, "divert", counted(dpkg.divert, False))
    monkeypatch.setattr(dpkg, "undivert", counted(dpkg.undivert, False))


def rhel(root: Path) -> None:
    roots.make(root, "rocky")


def suse_without_a_stock_sender(root: Path) -> None:
    roots.make(root, "sles")
    (root / "usr/lib/fence_kdump_send").unlink()


def debian(root: Path) -> None:
    roots.make(root, "debian")
    roots.put(root, layouts.NODES, "NODES=192.0.2.7\n")


def diverted(root: Path) -> None:
    """A package of dpkg has the file, so there is a diversion as well."""
    if shutil.which("dpkg-divert") is None:
        cannot_run("dpkg-divert is missing")
    roots.make(root, "rocky")
    roots.with_dpkg(root, "kdump-utils", roots.PLACES["rhel"])


FRESH, UPGRADE, REMOVAL = (None, OURS), (OURS, NEWER), (NEWER, None)


@pytest.mark.parametrize(
    ("make", "layout", "stages"),
    [
        (rhel, "rhel", (FRESH, UPGRADE, REMOVAL)),
        (suse_without_a_stock_sender, "suse", (FRESH, REMOVAL)),
        (debian, "debian", (FRESH, REMOVAL)),
        (diverted, "rhel", (FRESH, UPGRADE, REMOVAL)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.slow
def test_whenever_it_is_killed(
    make: Callable[[Path], None],
    layout: str,
    stages: tuple[tuple[bytes | None, bytes | None], ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
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
                assert run(root, layout, before, 0, monkeypatch)
            ended = run(root, layout, after, number, monkeypatch)

            now = roots.whats(root).get(place)
            assert (None if now is None else now[3]) in (before, after, stock)
            assert now is None or now[1] == 0o755

            # It can be repeated, as if nothing had happened, or taken back at once.
            if after is not None and number % 2:
                assert run(root, layout, after, 0, monkeypatch)
                assert roots.whats(root)[place][3] == after
                assert not [path for path in roots.whats(root) if "kdumpfence-new" in path]
            assert run(root, layout, None, 0, monkeypatch)
            assert _but_for_dpkg(roots.whats(root)) == _but_for_dpkg(untouched)
            shutil.rmtree(root)
            if ended:
                break
        else:
            pytest.fail("it never came to its end")
        assert number > 5, "nothing was counted: are other calls used now?"


def _but_for_dpkg(found: dict[str, Any]) -> dict[str, Any]:
    """dpkg-divert leaves diversions, diversions-old and a lock behind; no diversion is in them."""
    for path in ("/var/lib/dpkg/diversions", "/var/lib/dpkg/diversions-new"):
        assert found.get(path, (0, 0, 0, b""))[3] == b""
    return {path: what for path, what in found.items() if not path.startswith("/var/lib/dpkg/")}

# SPDX-License-Identifier: LGPL-2.1-or-later
"""A run that is killed anywhere leaves the old file or the new one, and can be repeated.

The run is done in a child, which leaves for good before its first, second, third... call that
changes anything; a write is done by half before.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdumpfence.install import agent_files, installer, layouts, record, system_python
from kdumpfence.install.layouts import Layout
from kdumpfence.install.sysroot import Sysroot
from tests.install import roots

KILLED = 9
#: From a process of its own, which has no threads: pytest's may.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload([__name__])
_CHANGING = ("write", "rename", "link", "symlink", "unlink", "mkdir", "rmdir", "fchmod")

#: What is put: a layout, and the sender for it.
Version = tuple[Layout, bytes]
SENDERS = tuple(b"\x7fELF our sender, version %d\n" % number * 100 for number in (1, 2))


def run(root: Path, version: Version, remove: bool, dies_at: int = 0) -> bool:
    """Install that, or remove it; whether it came to its end."""
    child = FORKED.Process(target=_run, args=(root, version, remove, dies_at))
    child.start()
    child.join()
    assert child.exitcode in (0, KILLED)
    return child.exitcode == 0


def _run(root: Path, version: Version, remove: bool, dies_at: int) -> None:
    with pytest.MonkeyPatch.context() as patched, Sysroot(str(root)) as opened:
        die_at(dies_at, patched)
        if remove:
            installer.remove(opened, version[0], False, lambda _: None)
        else:
            installer.install(opened, *version, False, lambda _: None)


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


def rhel(root: Path) -> tuple[Version, ...]:
    roots.make(root, "rocky")
    return tuple((layouts.LAYOUTS["rhel"], sender) for sender in SENDERS)


def suse_without_a_stock_sender(root: Path) -> tuple[Version, ...]:
    roots.make(root, "sles")
    (root / "usr/lib/fence_kdump_send").unlink()
    return tuple((layouts.LAYOUTS["suse"], sender) for sender in SENDERS)


def debian(root: Path) -> tuple[Version, ...]:
    roots.make(root, "debian")
    roots.put(root, layouts.NODES, "NODES=192.0.2.7\n")
    return tuple((layouts.LAYOUTS["debian"], sender) for sender in SENDERS)


def agent(root: Path) -> tuple[Version, ...]:
    roots.put(root, roots.AGENT, roots.STOCK_AGENT, 0o755)
    (root / "usr/lib").mkdir()
    python = system_python.SystemPython((3, 9), "cpython-39", ".cpython-39-", b"", None)
    versions = []
    with pytest.MonkeyPatch.context() as patched:
        for modules in (("__init__", "_version"), ("__init__", "_version", "agent/main")):
            patched.setattr(agent_files, "MODULES", modules)
            versions.append((agent_files.layout(python), b""))
    return tuple(versions)


def program(version: Version) -> layouts.Item:
    """What others run of it: all else is for that."""
    return next(item for item in reversed(version[0].items) if item.mode == 0o755)


def is_whole(root: Path, version: Version) -> bool:
    """Whether all that the agent of this version needs is there."""
    return all(
        (root / item.path[1:]).exists() and (root / item.path[1:]).read_bytes() == item.content
        for item in version[0].items
        if not item.source
    )


def but_for_the_record(root: Path) -> dict[str, Any]:
    return {path: what for path, what in roots.whats(root).items() if path != record.PATH}


@pytest.mark.parametrize("make", [rhel, suse_without_a_stock_sender, debian, agent])
@pytest.mark.parametrize("stage", ["fresh", "upgrade", "removal"])
@pytest.mark.slow
def test_whenever_it_is_killed(
    make: Callable[[Path], tuple[Version, ...]], stage: str, tmp_path: Path
) -> None:
    root, clean = tmp_path / "root", tmp_path / "clean"
    clean.mkdir()
    first, second = make(clean)
    after = second if stage == "upgrade" else first
    place = program(first).path
    content = [program(one).filled(one[1]).content for one in (first, second)]
    stock = roots.whats(clean).get(place, (0, 0, 0, None))[3]
    assert run(clean, after, False)
    for number in range(1, 400):
        root.mkdir()
        make(root)
        untouched = roots.whats(root)
        if stage != "fresh":
            assert run(root, first, False)
        ended = run(root, after, stage == "removal", number)

        now = roots.whats(root).get(place)
        assert (None if now is None else now[3]) in (stock, *content)
        assert now is None or now[1] == 0o755
        if make == agent and now is not None and now[3] != stock:
            assert is_whole(root, (first, second)[content.index(now[3])])  # type: ignore[arg-type]

        # It can be repeated, as if nothing had happened, or taken back at once.
        if number % 3 == 0 and stage == "fresh":
            assert run(root, second, False)  # instead of what was not finished
        if number % 3 and stage != "removal":
            assert run(root, after, False)
            assert but_for_the_record(root) == but_for_the_record(clean)
        assert run(root, after, True)
        assert roots.whats(root) == untouched
        shutil.rmtree(root)
        if ended:
            break
    else:
        pytest.fail("it never came to its end")
    assert number > 5, "nothing was counted: are other calls used now?"

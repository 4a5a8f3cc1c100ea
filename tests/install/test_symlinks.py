# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nothing outside of --root is ever touched, whatever links lead there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdumpfence.install import layouts
from tests.install import roots
from tests.install.conftest import OURS, Command

PLACE = "usr/libexec/fence_kdump_send"
KEPT = "usr/libexec/.fence_kdump_send.stock"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory that would be written to if a link were followed as the kernel does."""
    folder = tmp_path / "outside"
    roots.put(folder, "fence_kdump_send", roots.STOCK, 0o755)
    before = roots.snapshot(folder)
    yield folder
    assert roots.snapshot(folder) == before


def linked(root: Path, target: str | Path) -> Path:
    """A root whose directory for the sender is a link."""
    roots.make(root, "rocky")
    (root / PLACE).unlink()
    (root / "usr/libexec").rmdir()
    (root / "usr/libexec").symlink_to(target)
    return root


@pytest.mark.parametrize("dangling", [False, True])
def test_an_absolute_link_is_understood_inside(
    command: Command, root_directory: Path, outside: Path, dangling: bool
) -> None:
    root = linked(root_directory, outside)
    inside = root / str(outside).lstrip("/")
    if not dangling:
        roots.put(inside, "fence_kdump_send", roots.STOCK)
    before = roots.snapshot(root)
    command.ok(root)
    assert (inside / "fence_kdump_send").read_bytes() == OURS
    command.ok(root, "--remove")
    assert dangling or roots.snapshot(root) == before


@pytest.mark.parametrize("ups", [1, 5, 40])
def test_dots_do_not_lead_out(
    command: Command, root_directory: Path, outside: Path, ups: int
) -> None:
    root = linked(root_directory, "../" * ups + "outside")
    command.ok(root)
    assert (root / "outside/fence_kdump_send").read_bytes() == OURS


def test_os_release_and_nodes_are_read_inside(
    command: Command, root_directory: Path, tmp_path: Path
) -> None:
    roots.put(tmp_path, "os-release", "ID=rocky\n")
    roots.put(tmp_path, "nodes", "NODES=192.0.2.66\n")
    root = roots.make(root_directory, "debian")
    roots.put(root, str(tmp_path / "os-release"), "ID=debian\n")
    roots.put(root, str(tmp_path / "nodes"), "NODES=192.0.2.7\n")
    (root / "etc/os-release").unlink()
    (root / "etc/os-release").symlink_to(tmp_path / "os-release")
    (root / "etc/kdumpfence").mkdir()
    (root / "etc/kdumpfence/nodes").symlink_to(tmp_path / "nodes")
    command.ok(root)
    assert not (root / PLACE).exists()
    assert 'ADDRESSES="192.0.2.7"' in (root / layouts.RESOLVED[1:]).read_text()
    assert (root / "etc/kdumpfence/nodes").is_symlink()


def test_a_link_in_the_place_of_the_sender_is_kept_as_a_link(
    command: Command, root_directory: Path, outside: Path
) -> None:
    root = roots.make(root_directory, "rocky")
    (root / PLACE).unlink()
    (root / PLACE).symlink_to(outside / "fence_kdump_send")
    before = roots.snapshot(root)
    command.ok(root)
    assert not (root / PLACE).is_symlink()
    assert (root / PLACE).read_bytes() == OURS
    assert os.readlink(root / KEPT) == str(outside / "fence_kdump_send")
    command.ok(root, "--remove")
    assert roots.snapshot(root) == before


@pytest.mark.parametrize("name", [".fence_kdump_send.kdumpfence-new", ".fence_kdump_send.stock"])
def test_a_link_laid_where_something_is_about_to_be_written_is_not_followed(
    command: Command, root_directory: Path, outside: Path, name: str
) -> None:
    root = roots.make(root_directory, "rocky")
    (root / "usr/libexec" / name).symlink_to(outside / "fence_kdump_send")
    command.ok(root)
    assert (root / PLACE).read_bytes() == OURS
    assert (root / KEPT).read_bytes() == roots.STOCK


def test_links_in_a_circle_are_refused(command: Command, root_directory: Path) -> None:
    root = linked(root_directory, "/usr/libexec")
    before = roots.snapshot(root)
    said = command.refused("--root", str(root))
    assert "Too many levels of symbolic links" in said
    assert {**roots.snapshot(root), **before} == roots.snapshot(root)


def test_the_root_itself_may_be_a_link_and_a_relative_path(
    command: Command, root_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots.make(root_directory, "rocky")
    (root_directory.parent / "link").symlink_to(root_directory)
    monkeypatch.chdir(root_directory.parent)
    command.ok(Path("link"))
    assert (root_directory / PLACE).read_bytes() == OURS
    command.ok(Path("root"), "--remove")
    assert (root_directory / PLACE).read_bytes() == roots.STOCK

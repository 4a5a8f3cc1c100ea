# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing outside of --root is ever touched, whatever links lead there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kdumpfence.install import layouts
from tests.install import roots
from tests.install.conftest import OURS, Command

PLACE = "usr/libexec/fence_kdump_send"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that would be written to if a link were followed as the kernel does."""
    folder = tmp_path / "outside"
    roots.put(folder, "fence_kdump_send", roots.STOCK, 0o755)
    return folder


def test_an_absolute_link_is_understood_inside(
    command: Command, root_directory: Path, outside: Path
) -> None:
    root = roots.make(root_directory, "rocky")
    (root / PLACE).unlink()
    (root / "usr/libexec").rmdir()
    (root / "usr/libexec").symlink_to(outside)
    inside = root / str(outside).lstrip("/")
    inside.mkdir(parents=True)
    (inside / "fence_kdump_send").write_bytes(roots.STOCK)
    before, before_outside = roots.snapshot(root), roots.snapshot(outside)
    command.ok(root)
    assert (inside / "fence_kdump_send").read_bytes() == OURS
    assert roots.snapshot(outside) == before_outside
    command.ok(root, "--remove")
    assert (roots.snapshot(root), roots.snapshot(outside)) == (before, before_outside)


def test_a_dangling_link_gets_its_directories_inside(
    command: Command, root_directory: Path, outside: Path
) -> None:
    root = roots.make(root_directory, "rocky")
    (root / PLACE).unlink()
    (root / "usr/libexec").rmdir()
    (root / "usr/libexec").symlink_to(outside)
    before = roots.snapshot(outside)
    command.ok(root)
    assert roots.snapshot(outside) == before
    assert (root / str(outside)[1:] / "fence_kdump_send").read_bytes() == OURS


@pytest.mark.parametrize("ups", [1, 5, 40])
def test_dots_do_not_lead_out(
    command: Command, root_directory: Path, outside: Path, ups: int
) -> None:
    root = roots.make(root_directory, "rocky")
    (root / PLACE).unlink()
    (root / "usr/libexec").rmdir()
    (root / "usr/libexec").symlink_to("../" * ups + "outside")
    before = roots.snapshot(outside)
    command.ok(root)
    assert roots.snapshot(outside) == before
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
    before, before_outside = roots.snapshot(root), roots.snapshot(outside)
    command.ok(root)
    assert not (root / PLACE).is_symlink()
    assert (root / PLACE).read_bytes() == OURS
    assert os.readlink(root / "usr/libexec/.fence_kdump_send.stock") == str(
        outside / "fence_kdump_send"
    )
    command.ok(root, "--remove")
    assert (roots.snapshot(root), roots.snapshot(outside)) == (before, before_outside)


@pytest.mark.parametrize("name", [".fence_kdump_send.kdumpfence-new", ".fence_kdump_send.stock"])
def test_a_link_laid_where_something_is_about_to_be_written_is_not_followed(
    command: Command, root_directory: Path, outside: Path, name: str
) -> None:
    root = roots.make(root_directory, "rocky")
    (root / "usr/libexec" / name).symlink_to(outside / "fence_kdump_send")
    before = roots.snapshot(outside)
    command.ok(root)
    assert roots.snapshot(outside) == before
    assert (root / PLACE).read_bytes() == OURS
    assert (root / "usr/libexec/.fence_kdump_send.stock").read_bytes() == roots.STOCK


def test_links_in_a_circle_are_refused(command: Command, root_directory: Path) -> None:
    root = roots.make(root_directory, "rocky")
    (root / PLACE).unlink()
    (root / "usr/libexec").rmdir()
    (root / "usr/libexec").symlink_to("/usr/libexec")
    before = roots.snapshot(root)
    said = command.refused("--root", str(root))
    assert "Too many levels of symbolic links" in said
    assert {**roots.snapshot(root), **before} == roots.snapshot(root)


def test_the_root_itself_may_be_a_link(
    command: Command, root_directory: Path, tmp_path: Path
) -> None:
    roots.make(root_directory, "rocky")
    (tmp_path / "link").symlink_to(root_directory)
    command.ok(tmp_path / "link")
    assert (root_directory / PLACE).read_bytes() == OURS


def test_the_root_may_be_given_as_a_relative_path(
    command: Command, root_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots.make(root_directory, "rocky")
    monkeypatch.chdir(root_directory.parent)
    command.ok(Path("root"))
    assert (root_directory / PLACE).read_bytes() == OURS

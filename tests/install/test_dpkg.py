# SPDX-License-Identifier: GPL-2.0-or-later
"""A file of a Debian package is diverted, with the real dpkg, in a root that has its database."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import cannot_run
from tests.install import roots
from tests.install.conftest import OURS, Command

PLACE = "/usr/libexec/fence_kdump_send"
_FORCED = ("--force-not-root", "--force-bad-path", "--log=/dev/null")
KEPT = "/usr/libexec/.fence_kdump_send.stock"


def dpkg(root: Path, program: str, *arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        [program, f"--root={root}", *arguments], capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def package(folder: Path, version: str) -> Path:
    """A package with the stock sender."""
    content = folder / f"content-{version}"
    roots.put(content, PLACE, f"stock sender {version}\n", 0o755)
    roots.put(
        content,
        "/DEBIAN/control",
        f"Package: kdump-utils\nVersion: {version}\nArchitecture: all\n"
        "Maintainer: nobody <nobody@example.org>\nDescription: made up\n",
    )
    deb = folder / f"{version}.deb"
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", str(content), str(deb)],
        check=True,
        capture_output=True,
    )
    return deb


@pytest.fixture
def root(root_directory: Path, tmp_path: Path) -> Path:
    """A root into which dpkg has installed version 1 of the package."""
    if not all(shutil.which(one) for one in ("dpkg", "dpkg-deb", "dpkg-divert", "dpkg-query")):
        cannot_run("there is no dpkg")
    roots.make(root_directory, "rocky")
    (root_directory / PLACE[1:]).unlink()
    for folder in ("info", "updates"):
        (root_directory / "var/lib/dpkg" / folder).mkdir(parents=True)
    roots.put(root_directory, "/var/lib/dpkg/status")
    install(root_directory, package(tmp_path, "1"))
    return root_directory


def install(root: Path, deb: Path) -> None:
    dpkg(root, "dpkg", *_FORCED, "-i", str(deb))


def diversions(root: Path) -> str:
    return dpkg(root, "dpkg-divert", "--list")


@pytest.mark.slow
def test_a_file_of_a_package_is_diverted(command: Command, root: Path) -> None:
    said = command.ok(root)
    assert f"divert {PLACE} of the package kdump-utils to {KEPT}" in said
    assert diversions(root) == f"local diversion of {PLACE} to {KEPT}\n"
    assert (root / PLACE[1:]).read_bytes() == OURS
    assert (root / KEPT[1:]).read_text() == "stock sender 1\n"


def test_an_upgrade_of_the_package_leaves_ours_in_its_place(
    command: Command, root: Path, tmp_path: Path
) -> None:
    command.ok(root)
    install(root, package(tmp_path, "2"))
    assert (root / PLACE[1:]).read_bytes() == OURS
    assert (root / KEPT[1:]).read_text() == "stock sender 2\n"
    assert "nothing to do" in command.ok(root)
    command.ok(root, "--remove")
    assert (root / PLACE[1:]).read_text() == "stock sender 2\n"
    assert not (root / KEPT[1:]).exists()
    assert diversions(root) == ""
    assert dpkg(root, "dpkg", "--verify", "kdump-utils") == ""


def test_the_package_can_be_removed_and_comes_back_beside_ours(
    command: Command, root: Path, tmp_path: Path
) -> None:
    command.ok(root)
    dpkg(root, "dpkg", *_FORCED, "-P", "kdump-utils")
    assert (root / PLACE[1:]).read_bytes() == OURS
    assert not (root / KEPT[1:]).exists()
    install(root, package(tmp_path, "2"))
    assert (root / PLACE[1:]).read_bytes() == OURS
    command.ok(root, "--remove")
    assert (root / PLACE[1:]).read_text() == "stock sender 2\n"
    assert diversions(root) == ""


def test_an_upgrade_of_ours_leaves_the_diversion_alone(command: Command, root: Path) -> None:
    command.ok(root)
    before = diversions(root)
    command.build(OURS + b"2")
    assert "divert" not in command.ok(root)
    assert (root / PLACE[1:]).read_bytes() == OURS + b"2"
    assert (diversions(root), (root / KEPT[1:]).read_text()) == (before, "stock sender 1\n")


def test_a_file_of_nobody_beside_the_packages_is_not_thrown_away(
    command: Command, root: Path
) -> None:
    command.ok(root)
    roots.put(root, PLACE, "a third sender", 0o755)
    before = roots.snapshot(root)
    assert "neither ours nor a package's" in command.refused("--root", str(root))
    assert f"left: {PLACE}, which is not ours" in command.ok(root, "--remove")
    after = roots.snapshot(root)
    assert {path: after.get(path) for path in (PLACE, KEPT)} == {
        path: before[path] for path in (PLACE, KEPT)
    }


def test_what_the_administrator_diverted_elsewhere_is_kept_as_if_there_were_no_dpkg(
    command: Command, root: Path
) -> None:
    dpkg(root, "dpkg-divert", "--local", "--rename", "--divert", PLACE + ".his", "--add", PLACE)
    roots.put(root, PLACE, "his own", 0o755)
    before, diverted = roots.snapshot(root), diversions(root)
    command.ok(root)
    assert (root / PLACE[1:]).read_bytes() == OURS
    assert diversions(root) == diverted
    command.ok(root, "--remove")
    assert roots.snapshot(root) == before


def test_a_database_that_leads_out_of_the_root_is_refused(
    command: Command, root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (root / "var/lib/dpkg").rename(outside)
    (root / "var/lib/dpkg").symlink_to(outside)
    (root / str(outside)[1:]).parent.mkdir(parents=True)
    shutil.copytree(outside, root / str(outside)[1:])  # so that dpkg knows the file
    before = roots.snapshot(outside)
    said = command.refused("--root", str(root))
    assert "leads out of" in said
    assert roots.snapshot(outside) == before
    assert (root / PLACE[1:]).read_text() == "stock sender 1\n"


def test_a_root_whose_usr_is_merged(command: Command, root_directory: Path) -> None:
    """The package says /lib, the file is in /usr/lib."""
    if shutil.which("dpkg-divert") is None:
        cannot_run("dpkg-divert is missing")
    root = root_directory
    roots.put(root, "/usr/lib/os-release", 'ID="sles"\n')
    (root / "lib").symlink_to("usr/lib")
    roots.put(root, "/usr/lib/fence_kdump_send", roots.STOCK, 0o755)
    roots.with_dpkg(root, "old", "/lib/fence_kdump_send")
    assert "of the package old" in command.ok(root)
    command.ok(root, "--remove")
    assert (root / "usr/lib/fence_kdump_send").read_bytes() == roots.STOCK

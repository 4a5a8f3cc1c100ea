# SPDX-License-Identifier: GPL-2.0-or-later
"""Each distribution's kdump finds the sender where it looks for it, and the way back is exact."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kdumpfence.install import layouts
from tests.conftest import cannot_run
from tests.install import roots
from tests.install.conftest import OURS, Command

NAMES = list(layouts.LAYOUTS)
ONE_OF_EACH = ("rocky", "sles", "debian")


@pytest.mark.parametrize("name", roots.OS_RELEASES)
def test_a_distribution_is_recognised_and_gets_the_sender(
    command: Command, root_directory: Path, name: str
) -> None:
    root = roots.make(root_directory, name)
    command.ok(root)
    sender = root / roots.PLACES[roots.OS_RELEASES[name][1]].lstrip("/")
    assert sender.read_bytes() == OURS
    assert sender.stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("name", ["rocky", "sles"])
def test_what_is_replaced_is_kept_beside_it(
    command: Command, root_directory: Path, name: str
) -> None:
    root = roots.make(root_directory, name)
    place = root / roots.PLACES[roots.OS_RELEASES[name][1]].lstrip("/")
    old = place.stat()
    command.ok(root)
    kept = place.with_name(".fence_kdump_send.stock")
    assert kept.read_bytes() == roots.STOCK
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (old.st_ino, old.st_mtime_ns)


@pytest.mark.usefixtures("root")
def test_the_new_sender_has_the_selinux_label_of_the_old_one(
    command: Command, root_directory: Path
) -> None:
    place = roots.make(root_directory, "rocky") / roots.PLACES["rhel"][1:]
    try:
        os.setxattr(place, "security.selinux", b"system_u:object_r:bin_t:s0")
    except OSError as error:
        cannot_run(f"no label can be set here: {error}")
    command.ok(root_directory)
    assert place.read_bytes() == OURS
    assert os.getxattr(place, "security.selinux") == b"system_u:object_r:bin_t:s0"


def test_debians_own_sender_is_left_alone(command: Command, root_directory: Path) -> None:
    root = roots.make(root_directory, "debian")
    before = roots.snapshot(root)
    command.ok(root)
    after = roots.snapshot(root)
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_removing_brings_exactly_back_what_was_there(
    command: Command, root_directory: Path, name: str
) -> None:
    root = roots.make(root_directory, name)
    before = roots.snapshot(root)
    command.ok(root)
    assert roots.snapshot(root) != before
    command.ok(root, "--remove")
    assert roots.snapshot(root) == before


@pytest.mark.parametrize("layout", NAMES)
def test_removing_leaves_nothing_where_nothing_was(
    command: Command, root_directory: Path, layout: str
) -> None:
    command.ok(root_directory, "--distribution", layout)
    assert roots.snapshot(root_directory)
    command.ok(root_directory, "--distribution", layout, "--remove")
    left = roots.snapshot(root_directory)
    assert left == {}


@pytest.mark.parametrize("layout", NAMES)
def test_a_second_run_changes_nothing_and_says_so(
    command: Command, root_directory: Path, layout: str
) -> None:
    command.ok(root_directory, "--distribution", layout)
    before = roots.snapshot(root_directory)
    said = command.ok(root_directory, "--distribution", layout)
    assert "nothing to do" in said
    assert roots.snapshot(root_directory) == before
    command.ok(root_directory, "--distribution", layout, "--remove")
    said = command.ok(root_directory, "--distribution", layout, "--remove")
    assert "nothing to do" in said
    assert roots.snapshot(root_directory) == {}


@pytest.mark.parametrize("arguments", [(), ("--remove",)], ids=["install", "remove"])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_dry_run_says_what_a_real_one_does_and_does_nothing(
    command: Command, root_directory: Path, name: str, arguments: tuple[str, ...]
) -> None:
    root = roots.make(root_directory, name)
    if arguments:
        command.ok(root)
    before = roots.snapshot(root)
    first, *rest = command.ok(root, "--dry-run", *arguments).splitlines(keepends=True)
    assert first == "dry run, nothing is changed; this would be done:\n"
    assert roots.snapshot(root) == before
    assert command.ok(root, *arguments) == "".join(rest)
    assert roots.snapshot(root) != before


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_file_that_is_put_anywhere_is_named(
    command: Command, root_directory: Path, name: str
) -> None:
    root = roots.make(root_directory, name)
    before = roots.snapshot(root)
    said = command.ok(root)
    new = set(roots.snapshot(root)) - set(before)
    files = {path for path in new if not stat.S_ISDIR((root / path[1:]).lstat().st_mode)}
    assert files - {"/usr/lib/kdumpfence/installed"} == {path for path in files if path in said}


@pytest.mark.parametrize(
    ("name", "order"),
    [("fedora", "kdumpctl rebuild"), ("leap", "/etc/sysconfig/kdump"), ("ubuntu", layouts.NODES)],
)
def test_what_is_left_to_be_done_is_said(
    command: Command, root_directory: Path, name: str, order: str
) -> None:
    assert order in command.ok(roots.make(root_directory, name)).splitlines()[-1]


def test_a_machine_without_kdump_is_told_so(command: Command, root_directory: Path) -> None:
    root = roots.make(root_directory, "rocky")
    assert "kdump seems not to be installed" not in command.ok(root)
    (root / "usr/bin/kdumpctl").unlink()
    assert "kdump seems not to be installed" in command.ok(root)


def test_the_distribution_that_is_given_counts(command: Command, root_directory: Path) -> None:
    root = roots.make(root_directory, "debian")
    command.ok(root, "--distribution", "suse")
    assert (root / "usr/lib/fence_kdump_send").read_bytes() == OURS
    assert not (root / "etc/systemd").exists()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ID=gentoo\n", "gentoo"),
        ("ID=arch\nID_LIKE=archlinux\n", "arch, archlinux"),
        ("NAME=Nobody\n", "without an ID"),
        ('ID="debian\n', "without an ID"),
        ("\0\xff" * 100, "without an ID"),
    ],
)
def test_an_unknown_distribution_is_told_what_there_is(
    command: Command, root_directory: Path, text: str, named: str
) -> None:
    roots.put(root_directory, "/etc/os-release", text)
    said = command.refused("--root", str(root_directory))
    assert named in said
    for name in NAMES:
        assert f"{name}: " in said
    assert "--distribution" in said
    assert set(roots.snapshot(root_directory)) == {"/etc", "/etc/os-release"}


def test_a_root_without_os_release_is_told_what_there_is(
    command: Command, root_directory: Path
) -> None:
    said = command.refused("--root", str(root_directory))
    assert f"no {root_directory}/etc/os-release" in said
    assert "rhel: " in said


def test_the_static_sender_takes_the_place_of_the_other(
    command: Command, root_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    static = tmp_path / "static"
    static.write_bytes(b"static")
    monkeypatch.setattr(
        "kdumpfence.install.native_sender.find",
        lambda static_=False: str(static if static_ else command.sender),
    )
    root = roots.make(root_directory, "rocky")
    before = roots.snapshot(root)
    place = root / "usr/libexec/fence_kdump_send"
    for option, content in ((), OURS), (("--static",), b"static"), ((), OURS):
        command.ok(root, *option)
        assert place.read_bytes() == content
    command.ok(root, "--remove")
    assert roots.snapshot(root) == before


def test_the_umask_of_the_caller_does_not_matter(command: Command, root_directory: Path) -> None:
    old = os.umask(0o077)
    try:
        command.ok(root_directory, "--distribution", "initramfs-tools")
    finally:
        os.umask(old)
    modes = {path: seen.mode for path, seen in roots.snapshot(root_directory).items()}
    assert modes["/usr/lib/kdumpfence/fence_kdump_send"] == 0o755
    assert modes["/usr/lib/kdumpfence/start-sender"] == 0o755
    assert modes["/etc/kdumpfence/nodes"] == 0o644
    assert modes["/etc/initramfs-tools/hooks/kdumpfence"] == 0o755

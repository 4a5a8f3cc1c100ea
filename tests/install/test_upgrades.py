# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was kept survives upgrades of this program, of the stock package, and edited files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdumpfence.install import layouts
from kdumpfence.install.sysroot import Sysroot
from tests.install import roots
from tests.install.conftest import OURS, Command

NEWER = b"\x7fELF our sender, version 2\n"
NEWER_STOCK = b"\x7fELF the stock sender of the next package\n"
PLACE = "usr/libexec/fence_kdump_send"
KEPT = "usr/libexec/.fence_kdump_send.stock"


@pytest.fixture
def root(root_directory: Path) -> Path:
    return roots.make(root_directory, "rocky")


def update_by_rpm(root: Path) -> None:
    """As rpm does it: a new file in place of whatever is there."""
    new = roots.put(root, PLACE + ";new", NEWER_STOCK, 0o755)
    new.rename(root / PLACE)


def put_by_an_older_version(root: Path, path: str) -> None:
    """A file that is in the record, but that this version does not know."""
    record = root / "usr/lib/kdumpfence/installed"
    known = json.loads(record.read_text())
    known["layouts"]["rhel"].append(path)
    known["ours"][path] = known["ours"]["/" + PLACE]
    record.write_text(json.dumps(known))
    roots.put(root, path, OURS, 0o755)


def test_an_upgrade_replaces_our_older_one_and_keeps_the_stock_one(
    command: Command, root: Path
) -> None:
    before = roots.snapshot(root)
    command.ok(root)
    command.build(NEWER)
    said = command.ok(root)
    assert f"update /{PLACE}" in said
    assert (root / PLACE).read_bytes() == NEWER
    assert (root / KEPT).read_bytes() == roots.STOCK
    command.ok(root, "--remove")
    assert roots.snapshot(root) == before


def test_an_update_of_the_stock_package_is_kept_instead_of_the_older_one(
    command: Command, root: Path
) -> None:
    command.ok(root)
    update_by_rpm(root)
    command.ok(root)
    assert (root / PLACE).read_bytes() == OURS
    assert (root / KEPT).read_bytes() == NEWER_STOCK
    command.ok(root, "--remove")
    assert (root / PLACE).read_bytes() == NEWER_STOCK
    assert not (root / KEPT).exists()


def test_removing_after_an_update_of_the_stock_package_leaves_the_newer_one(
    command: Command, root: Path
) -> None:
    before = roots.snapshot(root)
    command.ok(root)
    update_by_rpm(root)
    newer = roots.snapshot(root)["/" + PLACE]
    assert f"left: /{PLACE}" in command.ok(root, "--remove")
    assert roots.snapshot(root) == {**before, "/" + PLACE: newer}


def test_the_stock_package_may_be_removed_meanwhile(command: Command, root: Path) -> None:
    before = roots.snapshot(root)
    command.ok(root)
    (root / PLACE).unlink()
    command.ok(root)
    assert (root / PLACE).read_bytes() == OURS
    command.ok(root, "--remove")
    assert roots.snapshot(root) == before


def test_nodes_are_the_administrators(command: Command, root_directory: Path) -> None:
    root = roots.make(root_directory, "debian")
    command.ok(root)
    nodes = roots.put(root, layouts.NODES, 'NODES="192.0.2.7 192.0.2.8"\n', 0o640)
    before = roots.snapshot(root)[layouts.NODES]
    command.build(NEWER)
    said = command.ok(root)
    assert f"update {layouts.RESOLVED}" in said
    assert 'ADDRESSES="192.0.2.7 192.0.2.8"' in (root / layouts.RESOLVED[1:]).read_text()
    assert roots.snapshot(root)[layouts.NODES] == before
    assert f"left: {layouts.NODES}" in command.ok(root, "--remove")
    assert nodes.read_text() == 'NODES="192.0.2.7 192.0.2.8"\n'
    assert not (root / layouts.RESOLVED[1:]).exists()
    command.ok(root)
    assert roots.snapshot(root)[layouts.NODES] == before
    assert 'ADDRESSES="192.0.2.7 192.0.2.8"' in (root / layouts.RESOLVED[1:]).read_text()


def test_an_older_list_that_nobody_filled_in_is_ours_to_remove(
    command: Command, root_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = roots.make(root_directory, "debian")
    before = roots.snapshot(root)
    real = layouts.data
    with monkeypatch.context() as patched:
        patched.setattr(layouts, "data", lambda source: real(source) + b"# older\n")
        command.ok(root)
    older = roots.snapshot(root)[layouts.NODES]
    command.ok(root)
    assert roots.snapshot(root)[layouts.NODES] == older
    command.ok(root, "--remove")
    assert roots.snapshot(root) == before


def test_a_unit_that_was_edited_is_kept(command: Command, root_directory: Path) -> None:
    root = roots.make(root_directory, "debian")
    command.ok(root)
    unit = root / "etc/systemd/system/kdumpfence-send.service"
    edited = unit.read_text() + "# edited\n"
    unit.write_text(edited)
    command.ok(root)
    assert "# edited" not in unit.read_text()
    assert unit.with_name(".kdumpfence-send.service.stock").read_text() == edited
    command.ok(root, "--remove")
    assert unit.read_text() == edited


def test_two_layouts_share_what_both_need(command: Command, root_directory: Path) -> None:
    root = roots.make(root_directory, "debian")
    before = roots.snapshot(root)
    command.ok(root)
    command.ok(root, "--distribution", "dracut")
    command.ok(root, "--distribution", "initramfs-tools")
    said = command.ok(root, "--remove")
    assert "which is needed for dracut and initramfs-tools" in said
    assert (root / "usr/lib/kdumpfence/fence_kdump_send").read_bytes() == OURS
    assert not (root / "etc/systemd").exists()
    command.ok(root, "--remove", "--distribution", "dracut")
    assert (root / "usr/lib/kdumpfence/resolve-nodes").exists()
    command.ok(root, "--remove", "--distribution", "initramfs-tools")
    assert roots.snapshot(root) == before


def test_what_an_older_version_put_elsewhere_is_taken_away(command: Command, root: Path) -> None:
    before = roots.snapshot(root)
    command.ok(root)
    put_by_an_older_version(root, "/usr/lib/older")
    assert "remove /usr/lib/older" in command.ok(root)
    assert not (root / "usr/lib/older").exists()
    assert "nothing to do" in command.ok(root)
    command.ok(root, "--remove")
    assert roots.snapshot(root) == before


def test_what_an_older_version_put_elsewhere_is_not_forgotten_by_a_run_that_fails(
    command: Command, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.ok(root)
    put_by_an_older_version(root, "/usr/lib/older")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Sysroot, "remove", fail)
        command.refused("--root", str(root))
    assert (root / "usr/lib/older").exists()
    command.ok(root)
    assert not (root / "usr/lib/older").exists()


def test_a_lost_record_loses_nothing(command: Command, root: Path) -> None:
    before = roots.whats(root)
    command.ok(root)
    (root / "usr/lib/kdumpfence/installed").unlink()
    command.ok(root)
    assert (root / KEPT).read_bytes() == roots.STOCK
    command.ok(root, "--remove")
    after = roots.whats(root)
    # Whose the directories above were is not known any more.
    dracut = ("/usr/lib/dracut/modules.d", "/usr/lib/dracut")
    for path in (*dracut, "/etc/kdump/post.d", "/etc/kdump/emergency.d", "/etc/kdump"):
        assert not any(other.startswith(f"{path}/") for other in after)
        del after[path]
    assert after == before


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"layouts": 1}', '{"layouts": {}, "ours": {}, "directories": [1]}'],
)
def test_a_record_that_makes_no_sense_is_not_guessed_at(
    command: Command, root: Path, text: str
) -> None:
    command.ok(root)
    roots.put(root, "usr/lib/kdumpfence/installed", text)
    before = roots.snapshot(root)
    for option in ((), ("--remove",)):
        said = command.refused("--root", str(root), *option)
        assert f"{root}/usr/lib/kdumpfence/installed" in said
    assert roots.snapshot(root) == before


def test_what_was_installed_before_is_renewed_and_removed_by_one_command(
    command: Command, root_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As packages do it: for each distribution, static or not as it was then."""
    kinds = {static: tmp_path / f"static-{static}" for static in (False, True)}
    where = "kdumpfence.install.native_sender.find"
    monkeypatch.setattr(where, lambda static=False: str(kinds[static]))

    def build(version: str) -> None:
        kinds[False].write_text(f"needs /lib64/ld-linux-x86-64.so.2, version {version}")
        kinds[True].write_text(f"needs nothing, version {version}")

    build("1")
    root = roots.make(root_directory, "rocky")
    before = roots.snapshot(root)
    renew = ("--distribution", "installed")
    assert "nothing to do" in command.ok(root, *renew)
    assert roots.snapshot(root) == before
    command.ok(root)
    command.ok(root, "--distribution", "suse", "--static")
    build("2")
    said = command.ok(root, *renew, "--dry-run")
    command.ok(root, *renew)
    # That of the image is one for both: of the kind that was put there last.
    assert said.count("update /") == 4
    assert (root / PLACE).read_bytes() == kinds[False].read_bytes()
    for place in (roots.PLACES["suse"][1:], "usr/lib/kdumpfence/fence_kdump_send"):
        assert (root / place).read_bytes() == kinds[True].read_bytes()
    command.ok(root, *renew, "--remove")
    assert roots.snapshot(root) == before

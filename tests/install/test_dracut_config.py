# SPDX-License-Identifier: LGPL-2.1-or-later
"""The dracut module stays while somebody asks dracut for it, who would get no image without."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdumpfence.install import dracut_config, layouts
from tests.install import roots
from tests.install.conftest import Command

MODULE = layouts.DRACUT_MODULE


@pytest.mark.parametrize(
    ("arguments", "adds"),
    [
        ("--add kdumpfence", True),
        ("-a kdumpfence", True),
        ("--add=kdumpfence", True),
        ("--force-add kdumpfence", True),
        ('--mount "/dev/vda /x ext4" --add "nfs kdumpfence" --gzip', True),
        ("--add nfs --add kdumpfence", True),
        ("--add 'kdumpfence", True),  # as good as it gets
        ("--add kdumpfence2", False),
        ("--omit kdumpfence", False),
        ("--add nfs kdumpfence", False),
        ("kdumpfence", False),
        ("", False),
    ],
)
def test_arguments_that_add_it(arguments: str, adds: bool) -> None:
    assert dracut_config.adds(arguments) == adds


@pytest.mark.parametrize(
    ("path", "text", "asks"),
    [
        ("/etc/kdump.conf", "path /\n  dracut_args --add kdumpfence # x\n", "line 2: dracut_args"),
        ("/etc/kdump.conf", "#dracut_args --add kdumpfence\n", ""),
        ("/etc/kdump.conf", "dracut_args # --add kdumpfence\n", ""),
        ("/etc/dracut.conf", 'add_dracutmodules+=" kdumpfence "\n', "line 1"),
        ("/etc/dracut.conf.d/x.conf", "#\nadd_dracutmodules+=' nfs kdumpfence '\n", "line 2"),
        ("/etc/dracut.conf.d/x.conf", 'force_add_dracutmodules="kdumpfence"\n', "line 1"),
        ("/usr/lib/kdump/dracut.conf.d/x.conf", "add_dracutmodules+=kdumpfence\n", "line 1"),
        ("/etc/dracut.conf.d/x.conf", '#add_dracutmodules+=" kdumpfence "\n', ""),
        ("/etc/dracut.conf.d/x.conf", 'omit_dracutmodules+=" kdumpfence "\n', ""),
        ("/etc/dracut.conf.d/x.conf.old", 'add_dracutmodules+=" kdumpfence "\n', ""),
    ],
)
@pytest.mark.parametrize("layout", ["rhel", "dracut"])
def test_the_module_is_not_removed_from_under_who_asks_for_it(
    command: Command, root_directory: Path, layout: str, path: str, text: str, asks: str
) -> None:
    options = ("--distribution", layout)
    roots.put(root_directory, path, text)
    command.ok(root_directory, *options)
    before = roots.snapshot(root_directory)
    if not asks:
        command.ok(root_directory, *options, "--remove")
        assert not (root_directory / MODULE[1:]).exists()
        return
    said = command.refused("--root", str(root_directory), *options, "--remove")
    assert said.startswith(f"{root_directory}{path}: {asks} asks for the module kdumpfence, ")
    assert said.endswith(": remove it there first\n")
    assert roots.snapshot(root_directory) == before
    (root_directory / path[1:]).unlink()
    command.ok(root_directory, *options, "--remove")
    assert not (root_directory / MODULE[1:]).exists()


def test_it_may_go_with_one_of_two_that_brought_it(command: Command, root_directory: Path) -> None:
    roots.put(root_directory, "/etc/kdump.conf", "dracut_args --add kdumpfence\n")
    for layout in ("rhel", "dracut"):
        command.ok(root_directory, "--distribution", layout)
    command.ok(root_directory, "--distribution", "dracut", "--remove")
    assert (root_directory / MODULE[1:]).exists()
    command.refused("--root", str(root_directory), "--distribution", "rhel", "--remove")

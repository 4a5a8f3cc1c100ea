# SPDX-License-Identifier: LGPL-2.1-or-later
"""The image of SUSE's kdump, as its mkdumprd orders it from dracut: the sender is in it unasked.

That is what mkdumprd 1.0.3 to 2.1.9 does: `dracut --hostonly --add kdump`, and the module kdump
writes the network into the image's command line. Debian has no such module; a small one plays it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kdumpfence.install import layouts, native_sender
from tests.conftest import cannot_run
from tests.support import debian_layer
from tests.support.debian import NotAvailable
from tests.system.crash import debian_root, images

HOME = "usr/lib/kdumpfence"
_KDUMP = "usr/lib/dracut/modules.d/99kdump/module-setup.sh"
_FILES = {
    **images.CLUSTER,
    "etc/sysconfig/kdump": "KDUMP_NETCONFIG='auto:force'\n",
    _KDUMP: (
        "check() {\n"
        '    [[ " $dracutmodules $add_dracutmodules $force_add_dracutmodules" == *\\ $_mod\\ * ]]\n'
        "}\n"
        "install() { echo rd.neednet=1 > $initdir/etc/cmdline.d/99kdump-net.conf; }\n"
    ),
}
_SCRIPT = f"""
{sys.executable} -m kdumpfence.cli install-sender --distribution suse --root "$root"
cd "$root"
mkdir kept
eval "$1"
chroot . dracut --no-kernel --force --keep --tmpdir /kept --no-compress --hostonly \
    --hostonly-cmdline --no-hostonly-default-device $2 --omit "plymouth resume usrmount" /image
cp -a kept/dracut.*/initramfs "$OLDPWD/content"
test -s image
"""


def made(folder: Path, options: str, trouble: str = ":") -> tuple[Path, str]:
    """Make an image: what is in it, and what was said."""
    try:
        native_sender.find()
        said = debian_layer.run(debian_root.get().folder, folder, _FILES, _SCRIPT, trouble, options)
    except (native_sender.NotBuilt, NotAvailable) as error:
        cannot_run(str(error))
    return folder / "content", said


@pytest.mark.slow
def test_the_image_of_suses_kdump_has_the_sender_and_the_network(tmp_path: Path) -> None:
    content, said = made(tmp_path, "--add kdump")
    assert "kdumpfence: " not in said
    assert "warning: " not in said
    assert images.SURVIVOR in (content / layouts.RESOLVED[1:]).read_text()
    for path in (f"{HOME}/fence_kdump_send", f"{HOME}/start-sender", "usr/bin/setsid"):
        assert (content / path).stat().st_mode & 0o111
    assert (content / "etc/cmdline.d/99kdump-net.conf").exists()
    assert (content / "usr/sbin/netroot").exists()
    assert list(content.glob("**/hooks/cmdline/00-kdumpfence.sh"))
    # The other sender is for scripts, and kdump takes it when one of them names it.
    assert not (content / layouts.LAYOUTS["suse"].items[0].path[1:]).exists()


@pytest.mark.slow
def test_the_image_from_which_the_system_boots_does_not_have_it(tmp_path: Path) -> None:
    content, _ = made(tmp_path, "")
    assert (content / "init").exists()
    assert not (content / HOME).exists()


@pytest.mark.slow
def test_without_nodes_there_is_an_image_and_a_loud_word(tmp_path: Path) -> None:
    content, said = made(tmp_path, "--add kdump", f"echo 'NODES=' > {layouts.NODES[1:]}")
    assert f"kdumpfence: {layouts.NODES}: names no other node, so nobody is told" in said
    assert (content / "etc/cmdline.d/99kdump-net.conf").exists()

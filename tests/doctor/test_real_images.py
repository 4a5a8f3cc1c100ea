# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images that dracut and initramfs-tools of Debian have made: nothing is wrong with them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kdumpfence.install import native_sender
from tests.conftest import cannot_run
from tests.support import debian_layer
from tests.support.debian import NotAvailable
from tests.system.crash import debian_root, images

_CLI = f"{sys.executable} -m kdumpfence.cli"
_SCRIPT = f"""
{_CLI} key create --file "$root/etc/kdumpfence/key" >/dev/null
{_CLI} install-sender --distribution "$1" --node node1 --root "$root" >/dev/null
umask 077
eval "chroot $root $2" >said 2>&1 || {{ cat said; exit 1; }}
eval "$3"
{_CLI} doctor image --root "$root" --image /image --json >found || test $? -le 2
"""
_MAKERS = {
    "dracut": (
        "dracut --no-kernel --force --no-hostonly --modules 'base systemd' --add kdumpfence "
        "--omit ifcfg {} /image"
    ),
    "initramfs-tools": "mkinitramfs {} -o /image",
}
_FILES = {
    **images.CLUSTER,
    "etc/initramfs-tools/conf.d/kdumpfence": "MODULES=list\nUMASK=0077\n",
}


def findings(
    folder: Path, maker: str, options: str, trouble: str = ":"
) -> dict[str, dict[str, str]]:
    """What is found of an image that was made with these options, by its check."""
    try:
        native_sender.find()
        root = debian_root.get()
        command = _MAKERS[maker].format(options)
        command += f" {root.version}" if maker == "initramfs-tools" else ""
        debian_layer.run(root.folder, folder, _FILES, _SCRIPT, maker, command, trouble)
    except (native_sender.NotBuilt, NotAvailable) as error:
        cannot_run(str(error))
    found = json.loads((folder / "found").read_text())["findings"]
    return {one["check"]: one for one in found if one["state"] != "ok"} or {
        one["check"]: {} for one in found
    }


@pytest.mark.parametrize(
    ("maker", "options"),
    [
        ("dracut", "--compress 'gzip -1'"),
        ("dracut", "--compress 'zstd -1'"),
        ("initramfs-tools", "-c zstd"),
    ],
)
@pytest.mark.slow
def test_an_image_that_was_just_made_has_nothing_wrong(
    tmp_path: Path, maker: str, options: str
) -> None:
    found = findings(tmp_path, maker, options)
    assert not any(found.values()), found
    assert {"sender inside", "sender started", "nodes inside", "key inside"} <= set(found)


@pytest.mark.slow
def test_after_a_rotation_of_the_key_it_has_the_older_one(tmp_path: Path) -> None:
    rotate = f"{_CLI} key rotate --file $root/etc/kdumpfence/key >/dev/null"
    switch = rotate.replace("rotate", "rotate --switch")
    found = findings(tmp_path, "dracut", "--compress 'gzip -1'", f"{rotate}; {switch}")
    assert "key rotate --drop" in found["key inside"]["text"]

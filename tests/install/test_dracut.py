# SPDX-License-Identifier: LGPL-2.1-or-later
"""The dracut module, taken in by the real dracut: whatever is missing, there is an image.

Images that boot are made in tests/system/crash; these have no kernel modules.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from kdumpfence import keys
from kdumpfence.install import layouts, native_sender
from tests.conftest import cannot_run
from tests.support import debian_layer
from tests.support.debian import NotAvailable
from tests.system.crash import debian_root, images

HOME = "usr/lib/kdumpfence"
NODES = layouts.NODES[1:]
MODULES = "usr/lib/dracut/modules.d"
CONFIG = "etc/dracut.conf.d/network.conf"
_INSTALL = f"{sys.executable} -m kdumpfence.cli install-sender --distribution dracut --root"
_DRACUT = "dracut --no-kernel --force --keep --tmpdir /kept --no-compress --omit ifcfg"
_SCRIPT = f"""
{_INSTALL} "$root" >/dev/null
cd "$root"
mkdir kept
eval "$1"
chroot . {_DRACUT} $2 /image
cp -a kept/dracut.*/initramfs "$OLDPWD/content"
test -s image
"""
_NO_NETWORK = "if nothing else brings the network up, nobody is told"


def made(
    folder: Path,
    trouble: str = ":",
    options: str = "--no-hostonly",
    files: Mapping[str, str] | None = None,
    asked: str = "--modules base --add kdumpfence",
) -> tuple[Path, str]:
    """Make an image after this has been done to the root: what is in it, and what dracut said."""
    try:
        native_sender.find()
        layer = {**images.CLUSTER, **(files or {})}
        said = debian_layer.run(
            debian_root.get().folder, folder, layer, _SCRIPT, trouble, f"{asked} {options}"
        )
    except (native_sender.NotBuilt, NotAvailable) as error:
        cannot_run(str(error))
    ours = [line for line in said.splitlines() if "kdumpfence: " in line]
    return folder / "content", "\n".join(ours)


@pytest.mark.parametrize("options", ["--hostonly", "--no-hostonly --modules systemd"])
@pytest.mark.slow
def test_the_module_brings_the_sender_and_the_network(tmp_path: Path, options: str) -> None:
    # Asked for few modules, dracut 106 chooses none that could replace what wants dhclient.
    trouble = (
        f"[ -e usr/sbin/dhclient ] || echo 'add_dracutmodules+=\" systemd-networkd \"' >{CONFIG}"
    )
    content, said = made(tmp_path, trouble, options)
    assert said == ""
    assert images.SURVIVOR in (content / layouts.RESOLVED[1:]).read_text()
    for program in ("fence_kdump_send", "start-sender"):
        assert (content / HOME / program).stat().st_mode & 0o111
    assert (content / "usr/bin/setsid").exists()
    assert (content / "usr/sbin/netroot").exists()


@pytest.mark.parametrize(
    ("trouble", "options", "why"),
    [
        (f"rm -r {MODULES}/*network*", "--hostonly", "no module network (Debian: install"),
        (f"rm -r {MODULES}/*kernel-network-modules", "--hostonly", "it needs NetworkManager"),
        ("rm -f usr/lib/systemd/systemd-networkd usr/sbin/dhclient", "", "it needs NetworkManager"),
        ("rm -f usr/sbin/dhclient", "--omit systemd", "it needs NetworkManager"),
        ("rm usr/bin/ip usr/sbin/ip", "", "it needs NetworkManager"),
        (":", "--omit network", "it needs NetworkManager"),
    ],
    ids=["no package", "no drivers", "no programs", "no systemd", "no ip", "left out"],
)
@pytest.mark.slow
def test_without_dracuts_network_there_is_an_image_and_a_loud_word(
    tmp_path: Path, trouble: str, options: str, why: str
) -> None:
    content, said = made(tmp_path, trouble, options)
    assert (content / HOME / "fence_kdump_send").exists()
    assert why in said
    assert _NO_NETWORK in said


@pytest.mark.parametrize(
    ("trouble", "has_sender"),
    [
        (f"rm {NODES}", False),
        (f"echo 'NODES=node2 node3' >{NODES}", False),
        (f"rm {HOME}/fence_kdump_send", False),
        (f"rm {HOME}/resolve-nodes", False),
        (f"rm {HOME}/start-sender", False),
        (f"rm {MODULES}/99kdumpfence/kdumpfence.sh", False),
        ("rm usr/bin/getent", True),  # the names alone
        ("rm usr/bin/timeout", True),
    ],
    ids=[
        *("no nodes", "no sense", "no sender", "no script", "no starter", "no hook"),
        *("no getent", "no timeout"),
    ],
)
@pytest.mark.slow
def test_whatever_else_is_missing_there_is_an_image_and_a_loud_word(
    tmp_path: Path, trouble: str, has_sender: bool
) -> None:
    content, said = made(tmp_path, trouble)
    assert "kdumpfence: " in said
    assert (content / HOME / "fence_kdump_send").exists() == has_sender
    assert (content / layouts.RESOLVED[1:]).exists() == has_sender
    if has_sender:
        assert 'NODES="survivor.cluster"' in (content / layouts.RESOLVED[1:]).read_text()


@pytest.mark.slow
def test_options_that_make_no_sense_are_told_when_the_image_is_made(tmp_path: Path) -> None:
    content, said = made(tmp_path, f"echo 'ARGS=\"-i 10x -f ipv6\"' >>{NODES}")
    assert "ARGS: interval '10x'" in said
    assert "127.0.0.1" not in said
    assert 'ARGS="-i 10x -f ipv6"' in (content / layouts.RESOLVED[1:]).read_text()


# ------------------------------------------------------------------ this node's key

CLUSTER_KEY = os.urandom(32)
_CLUSTER = keys.Keys((keys.key_id(CLUSTER_KEY), CLUSTER_KEY))
_WITH_KEY = (
    f"umask 077; echo '{_CLUSTER.text().strip()}' >{keys.DEFAULT_PATH[1:]}; umask 022; "
    f'{_INSTALL} "$root" --node node7 >/dev/null'
)


def check_key(content: Path) -> None:
    """That this node's key is there, for root alone, and the cluster's is nowhere."""
    node_key = content / layouts.NODE_KEY[1:]
    assert node_key.stat().st_mode & 0o7777 == 0o600
    assert node_key.stat().st_uid == 0
    derived = _CLUSTER.of("node7")
    assert derived is not None
    assert (keys.read(str(node_key)).node, keys.read(str(node_key)).signs) == (
        "node7",
        derived.signs,
    )
    for path in content.rglob("*"):
        if path.is_file() and not path.is_symlink():
            text = path.read_bytes()
            assert CLUSTER_KEY.hex().encode() not in text
            assert CLUSTER_KEY not in text


@pytest.mark.slow
def test_the_image_has_this_nodes_key_and_never_the_clusters(tmp_path: Path) -> None:
    content, said = made(tmp_path, _WITH_KEY)
    assert "signed" not in said  # of the network there may be something to say
    check_key(content)
    resolved = (content / layouts.RESOLVED[1:]).read_text()
    assert f'THIS_NODE="--node=node7 --key-file={layouts.NODE_KEY}"\n' in resolved
    for program in (f"{HOME}/tell-end", "usr/bin/sleep"):
        assert (content / program).stat().st_mode & 0o111


@pytest.mark.slow
def test_an_image_that_cannot_sign_is_made_and_there_is_a_loud_word(tmp_path: Path) -> None:
    content, said = made(tmp_path, f"{_WITH_KEY}; rm {layouts.NODE_KEY[1:]}")
    assert f"no {layouts.NODE_KEY}: messages will not be signed" in said
    assert not (content / layouts.NODE_KEY[1:]).exists()
    assert "--node=node7" in (content / layouts.RESOLVED[1:]).read_text()


@pytest.mark.slow
def test_an_older_installation_makes_an_image_too(tmp_path: Path) -> None:
    content, said = made(tmp_path, f"rm {layouts.THIS_NODE[1:]} {HOME}/tell-end")
    assert "No such file" not in said
    assert (content / HOME / "fence_kdump_send").exists()


# ------------------------------------------------------------------ beside kdump-utils

#: What this module meets of kdumpbase of kdump-utils 1.0.61.
KDUMPBASE = """
check() { return 0; }
depends() { echo base; }
install() {
    inst_simple /etc/kdump.conf
    inst_simple /usr/libexec/fence_kdump_send
}
"""
THEIRS = "#!/bin/sh\n# the sender of kdump-utils\n"


def made_beside_kdump_utils(folder: Path, conf: str, trouble: str = ":") -> tuple[Path, str, str]:
    """The same with kdumpbase, and what there is at the end in the place of its sender."""
    files = {
        f"{MODULES}/99kdumpbase/module-setup.sh": KDUMPBASE,
        "usr/libexec/fence_kdump_send": THEIRS,
        "etc/kdump.conf": f"path /\n{conf}\n",
    }
    content, said = made(folder, trouble, "--no-hostonly", files, "--add kdumpbase")
    return content, said, (content / "usr/libexec/fence_kdump_send").read_text()


@pytest.mark.parametrize(
    ("conf", "args"),
    [
        ("fence_kdump_nodes survivor.cluster", ""),
        ("fence_kdump_nodes  survivor.cluster\nfence_kdump_args -c 0 -i 5", "-c 0 -i 5"),
        # As versions before November 2025 leave it, and of several lines the last.
        ('fence_kdump_nodes x\nfence_kdump_nodes "survivor.cluster"\nfence_kdump_args "-v"', "-v"),
    ],
)
@pytest.mark.slow
def test_nodes_of_kdump_utils_are_told_by_one_sender(tmp_path: Path, conf: str, args: str) -> None:
    content, said, other = made_beside_kdump_utils(tmp_path, conf)
    assert said == ""
    resolved = (content / layouts.RESOLVED[1:]).read_text().splitlines()
    assert [line for line in resolved if not line.startswith("#")] == [
        'NODES="survivor.cluster"',
        f'ADDRESSES="{images.SURVIVOR}"',
        f'ARGS="{args}"',
        'THIS_NODE=""',
    ]
    assert not (content / NODES).exists()
    assert other == Path(layouts.data_path("dracut/unless-it-runs")).read_text()
    assert (content / "usr/libexec/fence_kdump_send").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("conf", ["fence_kdump_nodes survivor.cluster", "fence_kdump_nodes ;"])
@pytest.mark.slow
def test_the_key_is_there_for_every_sender_in_the_image(tmp_path: Path, conf: str) -> None:
    content, _, _ = made_beside_kdump_utils(tmp_path, conf, _WITH_KEY)
    check_key(content)


@pytest.mark.slow
def test_if_kdump_utils_names_no_nodes_ours_are_told(tmp_path: Path) -> None:
    content, said, _ = made_beside_kdump_utils(tmp_path, "fence_kdump_nodes")
    assert said == ""
    assert 'ARGS="-v"' in (content / layouts.RESOLVED[1:]).read_text()


@pytest.mark.parametrize(
    ("conf", "trouble"),
    [
        ("fence_kdump_nodes node3; node4", ":"),
        ("fence_kdump_nodes node3", f"rm {HOME}/resolve-nodes"),
        ("fence_kdump_nodes node3", f"rm {HOME}/fence_kdump_send"),
        ("", f"rm {NODES}"),
    ],
)
@pytest.mark.slow
def test_what_this_module_cannot_do_is_left_to_kdump_utils(
    tmp_path: Path, conf: str, trouble: str
) -> None:
    content, said, other = made_beside_kdump_utils(tmp_path, conf, trouble)
    assert "this module starts no sender" in said
    assert other == THEIRS
    assert not (content / layouts.RESOLVED[1:]).exists()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Where each distribution's kdump looks for the sender, and what else it takes there.

The files are in distributions/, beside this module.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

HOME = "/usr/lib/kdumpfence"
NODES = "/etc/kdumpfence/nodes"
RESOLVED = "/etc/kdumpfence/resolved"
SENDER = "the native sender"  # instead of the name of a file

_FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "distributions")


@dataclass(frozen=True)
class Item:
    """One file to be put somewhere."""

    path: str
    source: str  #: SENDER, a file in distributions/, or what a link points to
    mode: int = 0o644
    is_link: bool = False
    only_if_missing: bool = False  #: the administrator's from then on
    content: bytes | None = None  #: instead of a source


@dataclass(frozen=True)
class Layout:
    """What is put where, and what is left to be done by hand."""

    name: str
    title: str
    items: tuple[Item, ...]
    kdump: str  #: a file by which one knows that kdump is installed at all; "" if it need not be
    afterwards: str
    after_removal: str = ""
    resolves: bool = False  #: whether the addresses are looked up now (else with the image)


_SYSTEMD = "/etc/systemd/system"
_UNIT = "kdumpfence-send.service"
_OWN_SENDER = Item(f"{HOME}/fence_kdump_send", SENDER, 0o755)
_NODES = Item(NODES, "common/nodes", only_if_missing=True)
_FOR_IMAGES = (
    _OWN_SENDER,
    Item(f"{HOME}/resolve-nodes", "common/resolve-nodes", 0o755),
    Item(f"{HOME}/start-sender", "common/start-sender", 0o755),
    _NODES,
)
_DRACUT = "/usr/lib/dracut/modules.d/99kdumpfence"
_INITRAMFS_TOOLS = "/etc/initramfs-tools"

LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            "rhel",
            "RHEL, Fedora and their kin (kdump-utils)",
            (Item("/usr/libexec/fence_kdump_send", SENDER, 0o755),),
            "/usr/bin/kdumpctl",
            "now make the crash kernel's image again and load it, on each node: "
            "kdumpctl rebuild && kdumpctl reload",
            "now make the crash kernel's image again and load it, on each node: "
            "kdumpctl rebuild && kdumpctl reload",
        ),
        Layout(
            "suse",
            "SLES and openSUSE (kdump)",
            (Item("/usr/lib/fence_kdump_send", SENDER, 0o755),),
            "/etc/sysconfig/kdump",
            "now name it in /etc/sysconfig/kdump, see SUSE in kdumpfence(8), and make the crash "
            "kernel's image again: mkdumprd -f && systemctl restart kdump",
            "now make the crash kernel's image again: mkdumprd -f && systemctl restart kdump",
        ),
        Layout(
            "debian",
            "Debian and Ubuntu (kdump-tools)",
            (
                _OWN_SENDER,
                _NODES,
                Item(f"{_SYSTEMD}/{_UNIT}", f"debian/{_UNIT}"),
                # As `systemctl enable` does it, which cannot be called for all roots.
                Item(
                    f"{_SYSTEMD}/kdump-tools-dump.service.wants/{_UNIT}",
                    f"{_SYSTEMD}/{_UNIT}",
                    is_link=True,
                ),
                Item(
                    f"{_SYSTEMD}/kdump-tools.service.wants/{_UNIT}",
                    f"{_SYSTEMD}/{_UNIT}",
                    is_link=True,
                ),
            ),
            "/usr/sbin/kdump-config",
            f"the nodes are those in {NODES}; after each change there, run this again",
            resolves=True,
        ),
        Layout(
            "initramfs-tools",
            "a crash image of your own, made by initramfs-tools",
            (
                *_FOR_IMAGES,
                Item(f"{_INITRAMFS_TOOLS}/hooks/kdumpfence", "initramfs-tools/hook", 0o755),
                Item(
                    f"{_INITRAMFS_TOOLS}/scripts/init-top/kdumpfence",
                    "initramfs-tools/init-top",
                    0o755,
                ),
            ),
            "/usr/share/initramfs-tools/hook-functions",
            f"the nodes are those in {NODES}; after each change there, and now, make the crash "
            "kernel's image again with mkinitramfs",
            "now make the crash kernel's image again with mkinitramfs",
        ),
        Layout(
            "dracut",
            "a crash image of your own, made by dracut without kdump-utils",
            (
                *_FOR_IMAGES,
                Item(f"{_DRACUT}/module-setup.sh", "dracut/module-setup.sh", 0o755),
                Item(f"{_DRACUT}/kdumpfence.sh", "dracut/kdumpfence.sh", 0o755),
            ),
            "/usr/lib/dracut/dracut-init.sh",
            f"the nodes are those in {NODES}; after each change there, and now, make the crash "
            "kernel's image again with dracut --add kdumpfence",
            "now make the crash kernel's image again with dracut",
        ),
    )
}

#: What os-release calls itself or its kin, and the layout of these.
_KIN = {
    "rhel": "rhel",
    "fedora": "rhel",
    "centos": "rhel",
    "rocky": "rhel",
    "almalinux": "rhel",
    "ol": "rhel",
    "suse": "suse",
    "opensuse": "suse",
    "sles": "suse",
    "debian": "debian",
    "ubuntu": "debian",
}


def data(source: str) -> bytes:
    """The content of a file in distributions/."""
    with open(os.path.join(_FILES, source), "rb") as opened:
        return opened.read()


def data_path(source: str) -> str:
    """The path of a file in distributions/, to run it."""
    return os.path.join(_FILES, source)


def named_in(os_release: bytes) -> list[str]:
    """The distribution's ID and those that it is like, nearest first, from /etc/os-release."""
    names: dict[str, list[str]] = {"ID": [], "ID_LIKE": []}
    for line in os_release.decode(errors="replace").splitlines():
        match = re.fullmatch(r"""\s*(ID|ID_LIKE)=(["']?)([A-Za-z0-9._ -]*)\2\s*""", line)
        if match:
            names[match[1]] = match[3].lower().split()
    return names["ID"] + names["ID_LIKE"]


def recognise(os_release: bytes) -> Layout | None:
    """The layout of the distribution that has this /etc/os-release, None if none is known."""
    for name in named_in(os_release):
        if name in _KIN:
            return LAYOUTS[_KIN[name]]
    return None

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where each distribution's kdump looks for the sender, and what else it takes there.

The files are in distributions/, beside this module.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from kdumpfence.install import sysroot

HOME = "/usr/lib/kdumpfence"
NODES = "/etc/kdumpfence/nodes"
RESOLVED = "/etc/kdumpfence/resolved"
#: What the sender is told of its own node, and the key that it signs with.
THIS_NODE = "/etc/kdumpfence/this-node"
NODE_KEY = "/etc/kdumpfence/node-key"
SENDER = "the native sender"  # instead of the name of a file

_FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "distributions")


@dataclass(frozen=True)
class Item:
    """One file to be put somewhere."""

    path: str
    source: str = ""  #: SENDER, or a file in distributions/
    mode: int = 0o644
    only_if_missing: bool = False  #: the administrator's from then on
    content: bytes = b""  #: of what has no source
    target: str = ""  #: of a symbolic link

    def filled(self, sender: bytes) -> Item:
        """The same with its content."""
        if not self.source:
            return self
        return replace(self, content=sender if self.source == SENDER else data(self.source))

    @property
    def found(self) -> sysroot.Found:
        """How it is found when it is in its place."""
        return sysroot.link(self.target) if self.target else sysroot.file(self.content, self.mode)


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
    #: A file of others, and what it has to call so that the end of a dump is told; "" if it is.
    ends: tuple[str, str] = ("", "")


_SYSTEMD = "/etc/systemd/system"
_UNIT = "kdumpfence-send.service"
_OWN_SENDER = Item(f"{HOME}/fence_kdump_send", SENDER, 0o755)
_NODES = Item(NODES, "common/nodes", only_if_missing=True)
_TELL_END = Item(f"{HOME}/tell-end", "common/tell-end", 0o755)
_KDUMP_CONFIG = Item(f"{HOME}/kdump-config", "debian/kdump-config", 0o755)
_FOR_IMAGES = (
    _OWN_SENDER,
    _TELL_END,
    Item(f"{HOME}/resolve-nodes", "common/resolve-nodes", 0o755),
    Item(f"{HOME}/start-sender", "common/start-sender", 0o755),
)
_DRACUT = "/usr/lib/dracut/modules.d/99kdumpfence"
DRACUT_MODULE = f"{_DRACUT}/module-setup.sh"  # by which dracut finds it
_FOR_DRACUT = (
    *_FOR_IMAGES,
    Item(f"{_DRACUT}/kdumpfence.sh", "dracut/kdumpfence.sh", 0o755),
    Item(f"{_DRACUT}/unless-it-runs", "dracut/unless-it-runs", 0o755),
    Item(DRACUT_MODULE, "dracut/module-setup.sh", 0o755),
)
_AGAIN = f"the nodes are those in {NODES}; run this again after each change"
_KDUMPCTL = (
    "now rebuild the crash kernel's image and load it, on each node: "
    "kdumpctl rebuild && kdumpctl reload"
)
_MKDUMPRD = "rebuild the crash kernel's image: mkdumprd -f && systemctl restart kdump"
_REBUILD = (
    f"the nodes are those in {NODES}; now, and after each change, rebuild the crash kernel's image "
    "with"
)
_REBUILD_NOW = "now rebuild the crash kernel's image with"
_INITRAMFS_TOOLS = "/etc/initramfs-tools"

LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            "rhel",
            "RHEL, Fedora and derivatives (kdump-utils)",
            (
                Item("/usr/libexec/fence_kdump_send", SENDER, 0o755),
                # kdump-utils runs what is in these, from 2020 on and from 2026 on.
                *(
                    Item(f"/etc/kdump/{folder}/kdumpfence", "rhel/tell-end", 0o755)
                    for folder in ("post.d", "emergency.d")
                ),
                *_FOR_DRACUT,
            ),
            "/usr/bin/kdumpctl",
            _KDUMPCTL,
            _KDUMPCTL,
        ),
        Layout(
            "suse",
            "SLES and openSUSE (kdump)",
            # kdump's image takes in the module by itself; the sender is for scripts that name it.
            (Item("/usr/lib/fence_kdump_send", SENDER, 0o755), *_FOR_DRACUT, _NODES),
            "/etc/sysconfig/kdump",
            f"the nodes are those in {NODES}; now, and after each change, {_MKDUMPRD}",
            f"now {_MKDUMPRD}",
            ends=("/etc/sysconfig/kdump", _TELL_END.path),
        ),
        Layout(
            "debian",
            "Debian and Ubuntu (kdump-tools)",
            (
                _OWN_SENDER,
                _TELL_END,
                _KDUMP_CONFIG,
                _NODES,
                Item(f"{_SYSTEMD}/{_UNIT}", f"debian/{_UNIT}"),
                # As `systemctl enable` does it, which cannot be called for all roots.
                *(
                    Item(f"{_SYSTEMD}/{service}.wants/{_UNIT}", target=f"{_SYSTEMD}/{_UNIT}")
                    for service in ("kdump-tools-dump.service", "kdump-tools.service")
                ),
            ),
            "/usr/sbin/kdump-config",
            _AGAIN,
            resolves=True,
            ends=("/etc/default/kdump-tools", _KDUMP_CONFIG.path),
        ),
        Layout(
            "initramfs-tools",
            "a crash image of your own, made by initramfs-tools",
            (
                *_FOR_IMAGES,
                _NODES,
                Item(f"{_INITRAMFS_TOOLS}/hooks/kdumpfence", "initramfs-tools/hook", 0o755),
                Item(
                    f"{_INITRAMFS_TOOLS}/scripts/init-top/kdumpfence",
                    "initramfs-tools/init-top",
                    0o755,
                ),
            ),
            "/usr/share/initramfs-tools/hook-functions",
            f"{_REBUILD} mkinitramfs",
            f"{_REBUILD_NOW} mkinitramfs",
        ),
        Layout(
            "dracut",
            "a crash image of your own, made by dracut without kdump-utils",
            (*_FOR_DRACUT, _NODES),
            "/usr/lib/dracut/dracut-functions.sh",
            f"{_REBUILD} dracut --add kdumpfence",
            "now take kdumpfence out of dracut's options and configuration, since dracut makes no "
            "image without a module that it is asked for, and rebuild the crash kernel's image",
        ),
    )
}

#: Layouts, and what the distributions that they are for call themselves in os-release.
_NAMES = {
    "rhel": ("rhel", "fedora", "centos", "rocky", "almalinux", "ol"),
    "suse": ("suse", "opensuse", "sles"),
    "debian": ("debian", "ubuntu"),
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
        for layout, names in _NAMES.items():
            if name in names:
                return LAYOUTS[layout]
    return None
